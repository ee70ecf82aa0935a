"""How these tests keep a store: on the package itself, without a server; the file and its threads are real."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread

from kimi_mcp.core.errors import AnswerCutOff, NotConfigured
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.types import Turn
from kimi_mcp.runs.store.config import FILE
from kimi_mcp.runs.store.records import RunEnd, RunEntry, RunRecord, TextDelta, turns_as_json
from kimi_mcp.runs.store.store import RunStore

CALLER = "local"

Turns = Sequence[Turn] | None


@asynccontextmanager
async def run_store(folder: Path | None, *, killed: bool = False, **more: Any) -> AsyncIterator[RunStore]:
    """A journal, as one server has it; who was ``killed`` leaves the file of its lock."""
    kept = RunStore(folder, **more)
    try:
        yield kept
    finally:
        await kept.aclose(unfinished=killed)


def entry(run_id: str = "run_1", **known: Any) -> RunEntry:
    """What is written down of a call before it is sent."""
    fields: dict[str, Any] = {
        "caller": CALLER,
        "host": "a host",
        "tool": "kimi_think",
        "prompt_head": "What is 17 * 23?",
        "call_key": None,
        "started_at": 1_000_000.0,
        "conversation_id": None,
        "follows": None,
        "request": {},
        "model_id": "kimi-k2.5",
        "outcome": Outcome(status="running", run_id=run_id),
    }
    return RunEntry(id=run_id, **(fields | known))


def ended(run_id: str = "run_1", status: Any = "completed", **known: Any) -> Outcome:
    """How a run ended."""
    fields: dict[str, Any] = {"answer": "It is 391.", **known}
    error = None if status == "completed" else AnswerCutOff("It was cut.", fix="Call again.")
    return Outcome(status=status, run_id=run_id, error=error, **fields)


async def begin(kept: RunStore, run_id: str = "run_1", **known: Any) -> None:
    """Begin a run that costs nothing; old ones are removed behind it."""
    await kept.record(entry(run_id, **known), counted_usd=0.0)
    await kept.retention.settled()


async def end(
    kept: RunStore,
    run_id: str = "run_1",
    status: Any = "completed",
    *,
    turns: Sequence[Turn] | None = None,
    **known: Any,
) -> bool:
    """End it; ``turns`` are what it adds to its conversation."""
    return await kept.end(run_end(kept, ended(run_id, status, **known), turns=turns))


def run_end(
    kept: RunStore, outcome: Outcome, *, turns: Sequence[Turn] | None = None, counted_usd: float = 0.0
) -> RunEnd:
    """How a run ended, as a store is given it."""
    assert outcome.run_id is not None
    return RunEnd(
        run_id=outcome.run_id,
        outcome=outcome,
        ended_at=kept.now(),
        conversation_id=outcome.conversation_id,
        turns=None if turns is None else turns_as_json(turns),
        counted_usd=counted_usd,
    )


async def latest(kept: RunStore, caller: str | None = CALLER) -> list[RunRecord]:
    """The newest runs first, whole."""
    found = [await kept.find(record.id, caller) for record in await kept.overview(caller)]
    return [record for record in found if record is not None]


async def grow(kept: RunStore, run_id: str, *pieces: tuple[str, int, str]) -> list[BaseException]:
    """Let text arrive, each piece as (of, start, text); what went wrong, once all of it is written or lost."""
    deltas = [TextDelta(run_id=run_id, request=0, of=of, start=start, text=text) for of, start, text in pieces]
    try:
        await kept.append(deltas, {})
    except NotConfigured as fault:
        return [fault]
    return []


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The file itself, past the store."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        yield connection


async def in_thread(work: Any, *arguments: Any) -> Any:
    """Something that blocks."""
    return await anyio.to_thread.run_sync(work, *arguments)


def everything(folder: Path) -> bytes:
    """All bytes of all files of a folder."""
    files = sorted(Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return b"\0".join(file.read_bytes() for file in files)


def wrong(error: BaseException) -> str:
    """Its two sentences."""
    assert isinstance(error, NotConfigured)
    return f"{error.message} {error.fix}"
