"""Runs that tests record, and ``kimi-mcp runs`` over them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from typer.testing import CliRunner, Result

from kimi_mcp.cli.commands import app
from kimi_mcp.core.errors import AnswerCutOff
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.types import Status, TextPart, Turn, user
from kimi_mcp.runs.store.records import RunEntry
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import run_end
from tests.server.processes import raw_server_process
from tests.server.stdio.peer import Peer
from tests.server.test_swarm_end_to_end import written_down

DAY = 86_400.0
NOON = 1_800_000_000.0 - 1_800_000_000.0 % DAY + DAY / 2
FILE = "journal.sqlite3"


def kimi(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["runs", *arguments])


def run_json(*arguments: str) -> Any:
    """What a command prints as JSON."""
    done = kimi(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def keeping(folder: Path, work: Callable[[RunStore], Awaitable[None]], **more: Any) -> None:
    """Let a server of another process, as it were, write something down."""

    async def within() -> None:
        store = RunStore(folder, keep_days=100_000, **more)
        await work(store)
        await store.aclose(unfinished=True)

    anyio.run(within)


def number(digits: int) -> str:
    """The id of a run, such as no two begin alike."""
    return f"run_{digits:06x}{digits:018x}"


async def begin(store: RunStore, run_id: str, **fields: Any) -> None:
    entry = {
        "id": run_id,
        "caller": "local",
        "host": "a host",
        "tool": "kimi_think",
        "prompt_head": "What is 17 * 23?",
        "call_key": None,
        "started_at": time.time() - 60,
        "conversation_id": f"conv_{run_id}",
        "follows": None,
        "request": {},
        "model_id": "kimi-k2.5",
        "outcome": Outcome(status="running", run_id=run_id, conversation_id=f"conv_{run_id}"),
    }
    await store.record(RunEntry(**entry | fields), counted_usd=0.0)


async def end(store: RunStore, run_id: str, status: Status = "completed", **fields: Any) -> None:
    """Let a run end; a completed one leaves turns in its conversation."""
    outcome = Outcome(status=status, run_id=run_id, **{"conversation_id": f"conv_{run_id}", **fields})
    turns = [user("What is 17 * 23?"), Turn(role="assistant", parts=(TextPart(text=outcome.answer),))]
    await store.end(run_end(store, outcome, turns=turns if status == "completed" else None))


async def one(store: RunStore, run_id: str, status: Status = "completed", **fields: Any) -> None:
    await begin(store, run_id)
    await end(store, run_id, status, **fields)


HELD = {"gate": "end", "gate_at": "finish", "reasoning": "Hm.", "content": "It is"}
CUT = AnswerCutOff("It was cut off.", fix="Raise `max_tokens` to 64000.")


@asynccontextmanager
async def half_done(sim: Simulator) -> AsyncIterator[tuple[Peer, str]]:
    """A server, and its swarm of two of which one is done and the other one is held."""
    sim.play({"match": {"text": "number 2"}, "gate": "held", "gate_at": "start"})
    async with raw_server_process(sim, KIMI_REPLY_WITHIN_S="0.05") as server:
        await server.initialize()
        await server.call("kimi_swarm", prompt="Look at {{item}}.", items=["number 1", "number 2"])
        run_id = (await server.receive())["result"]["structuredContent"]["run_id"]
        await written_down(run_id, 1)
        yield server, run_id
