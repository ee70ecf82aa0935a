"""Four servers on one data folder under load, one killed every few seconds: callers received what is stored.

``SOAK_MINUTES`` is how long that goes on (1 unless it is set), ``TEST_SEED`` repeats the choice of who is killed.
"""

from __future__ import annotations

import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.server.callers import LOCAL
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import connect
from tests.server.processes import raw_server_process
from tests.server.requests import body_of, chats

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL"),
]

MINUTES = float(os.environ.get("SOAK_MINUTES", "1"))
SEED = int(os.environ.get("TEST_SEED", random.randrange(1_000_000)))

SERVERS = 4
CALLS = 16
"""Calls under way in each server."""

KILL_EVERY_S = 15.0
"""Seconds between two kills."""

ANSWER = "The harbour master counts the ships, and writes down each of them."


@dataclass(eq=False)
class Conversation:
    """A conversation as its caller knows it."""

    id: str | None = None
    prompts: list[str] = field(default_factory=list)
    """The prompts whose answers its caller was given, in order."""


@dataclass
class Seen:
    """What callers received."""

    completed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By prompt, the result."""
    refused: list[str] = field(default_factory=list)
    before: dict[str, list[str]] = field(default_factory=dict)
    """By prompt, the earlier prompts of its conversation."""
    cut: int = 0
    """Calls whose server was killed."""
    kills: int = 0
    requested: int = 0
    free: list[Conversation] = field(default_factory=list)


async def one_life(sim: Simulator, seen: Seen, over: anyio.Event, living: dict[int, Any], slot: int) -> None:
    """A server from its start to its death, always with as many calls under way."""
    under_way: dict[int, tuple[str, Conversation]] = {}
    async with raw_server_process(sim, KIMI_MAX_CONCURRENCY=str(CALLS)) as peer:
        await peer.initialize()
        living[slot] = peer.process

        async def ask() -> None:
            seen.requested += 1
            number, prompt = seen.requested, f"call {seen.requested:06}"
            conversation = seen.free.pop(0) if len(seen.free) > 8 else Conversation()
            seen.before[prompt] = list(conversation.prompts)
            under_way[number] = prompt, conversation
            more = {} if conversation.id is None else {"conversation_id": conversation.id}
            await peer.call("kimi_instant", number, prompt=prompt, **more)

        try:
            for _ in range(CALLS):
                await ask()
            while under_way:
                reply = await peer.receive()
                if reply.get("id") not in under_way:
                    continue
                prompt, conversation = under_way.pop(reply["id"])
                result = reply["result"]["structuredContent"]
                if result["status"] == "completed":
                    seen.completed[prompt] = result
                    conversation.id = result["conversation_id"]
                    conversation.prompts.append(prompt)
                    seen.free.append(conversation)
                else:
                    seen.refused.append(f"{prompt}: {result['status']} {result['error']}")
                if not over.is_set():
                    await ask()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.IncompleteRead):
            seen.cut += len(under_way)
            seen.free += [conversation for _, conversation in under_way.values() if conversation.id is not None]
        finally:
            living.pop(slot, None)


async def test_what_callers_received_is_what_is_stored(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw, seen, over, living = random.Random(SEED), Seen(), anyio.Event(), dict[int, Any]()

    async def serve(sim: Simulator, slot: int) -> None:
        while not over.is_set():
            await one_life(sim, seen, over, living, slot)

    async def kill() -> None:
        while not over.is_set():
            with anyio.move_on_after(KILL_EVERY_S):
                await over.wait()
                return
            if living:
                seen.kills += 1
                living[draw.choice(sorted(living))].kill()

    with anyio.fail_after(120 + 90 * MINUTES):
        async with Simulator(provider="simulator") as sim:
            sim.play({"content": ANSWER, "event_tokens": 2, "tokens_per_second": 20, "times": "always"})
            async with anyio.create_task_group() as tasks:
                for slot in range(SERVERS):
                    tasks.start_soon(serve, sim, slot)
                tasks.start_soon(kill)
                await anyio.sleep(60 * MINUTES)
                over.set()
            paid: dict[str, int] = {}
            missing: list[str] = []
            for request in chats(sim):
                contents = [message["content"] for message in body_of(request)["messages"] if message["role"] == "user"]
                paid[contents[-1]] = paid.get(contents[-1], 0) + 1
                missing += [f"{contents[-1]}: {each}" for each in seen.before[contents[-1]] if each not in contents]
        async with connect(None) as kimi:
            await kimi.run()
            run_ids = [result["run_id"] for result in seen.completed.values()]
            records = {run_id: await kimi.runs.store.find(run_id, LOCAL) for run_id in run_ids}
    wrong = [
        f"{prompt}: {result['answer'][:20]!r}, in the store {record and (record.outcome.status, record.outcome.answer)}"
        for prompt, result in seen.completed.items()
        if (record := records.get(result["run_id"])) is None
        or (record.outcome.status, record.outcome.answer) != ("completed", result["answer"])
        or result["answer"] != ANSWER
    ]
    twice = [prompt for prompt, times in paid.items() if times > 1]
    with capsys.disabled():
        print(
            f"\n{seen.requested} calls, {len(seen.completed)} completed, {seen.kills} kills, {seen.cut} cut by one, "
            f"{len(seen.refused)} refused, {len(wrong)} not as received, {len(twice)} paid twice, "
            f"{len(missing)} turns missing (seed {SEED})"
        )
    assert seen.refused == []
    assert wrong == []
    assert twice == []
    assert missing == []
    assert seen.kills
    assert len(seen.completed) > SERVERS * CALLS
    with opened(data_dir) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("SELECT count(*) FROM runs WHERE status = 'running'").fetchone() == (0,)
