"""Swarms whose servers are killed at random points and right around commits: the next server repeats no finished step.

``TEST_SWARM_KILLS=50`` (any number) kills that many servers of swarms of 50 agents at random points, and as many again
around commits; a start then counts against its five seconds. ``TEST_SEED`` repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.runs.store.inspection import FILE
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import wait_until
from tests.server.processes import raw_server_process
from tests.server.requests import chats
from tests.server.stdio.peer import Peer
from tests.swarm.scenarios import calling, messages, reply, task_of

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")]

KILLS = os.environ.get("TEST_SWARM_KILLS")
AGENTS = 50 if KILLS else 8
SEARCHES = 2
"""Turns of each agent that call a tool; one more brings its answer."""

STEPS = AGENTS * (2 * SEARCHES + 1) + 1
"""Of a whole swarm, tool calls included; the last puts the results together."""

PAID = ("/fibers", "/chat/completions")
"""How the paths of a swarm's steps end."""

AT_ONCE = 1 if KILLS else 3
"""Swarms that run at once."""

SLOWEST_S = 0.75 if KILLS else 0.3
"""Seconds that a request of an agent takes at most."""

COMMITS = (1, STEPS // 2) if KILLS else (8, 18)
"""Among which commits one is drawn; a few, and they are in the middle of the swarm."""

RESUMED_WITHIN_S = 5.0 if KILLS else 20.0
"""Seconds from a server's first answer to its first request; in a normal run the machine may be busy."""


@dataclass(frozen=True, slots=True)
class Death:
    """When a server dies: once so many requests were sent, or around a commit."""

    requests: int = STEPS
    commit: tuple[str, str] | None = None


def deaths(draw: random.Random) -> Iterator[Death]:
    """At random points, and around commits."""
    for number in range(int(KILLS) if KILLS else 2):
        yield Death(commit=(("before", "after")[number % 2], str(draw.randrange(*COMMITS))))
        if KILLS or number:
            # Beyond the first request of each agent, so that some steps are finished.
            yield Death(requests=draw.randrange(AGENTS + 2, STEPS))


def play(sim: Simulator, draw: random.Random) -> None:
    """Each agent searches twice and answers; each of its requests takes a while of its own."""
    for number in range(AGENTS):
        task = f"Look at item {number:02}."
        for turn in range(SEARCHES + 1):
            query = {"query": f"{number:02} {turn}"}
            calls = {"tool_calls": [calling("moonshot__web_search", query, turn=turn)]} if turn < SEARCHES else {}
            delay = draw.uniform(0.01, SLOWEST_S)
            sim.play(reply({"text": task, "turns": turn}, delay=delay, content=f"Of {number:02}.", **calls))


def server(sim: Simulator, folder: Path, *dies: str) -> AbstractAsyncContextManager[Peer]:
    """A real server on that data folder."""
    variables = {"KIMI_REPLY_WITHIN_S": "0.05", "KIMI_MAX_CONCURRENCY": "64", "KIMI_BUDGET_USD_PER_SWARM": "1000"}
    return raw_server_process(sim, "tests.server.mortal", *dies, KIMI_DATA_DIR=str(folder), **variables)


def received(sim: Simulator) -> Counter[str]:
    """How often each step reached the provider, by its key in the record."""
    found = Counter[str]()
    for request in chats(sim):
        if request.body is None:
            continue  # its sender died in the middle of it
        turns = sum(message["role"] == "assistant" for message in messages(request))
        task = task_of(request)
        agent = f"agent-{int(task[13:15]) + 1}" if task.startswith("Look at item") else "main"
        found[f"{agent}/step-{turns + 1}"] += 1
    for request in sim.requests:
        if request.path.endswith("/fibers") and request.body is not None:
            number, turn = json.loads(str(request.body["arguments"]))["query"].split()
            found[f"agent-{int(number) + 1}/step-{int(turn) + 1}/tool-1"] += 1
    return found


def steps(folder: Path) -> dict[str, bool]:
    """Every step that was begun, and whether it was finished."""
    with opened(folder) as file:
        return dict(file.execute("SELECT key, result IS NOT NULL FROM steps").fetchall())


def runs(folder: Path) -> Sequence[tuple[str, dict[str, Any]]]:
    """Every run that was written down: its state and its outcome."""
    with opened(folder) as file:
        if not file.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
            return []  # it was killed before there were any tables
        return [(how, json.loads(end)) for how, end in file.execute("SELECT status, outcome FROM runs")]


async def killed(sim: Simulator, folder: Path, death: Death) -> bool:
    """Let a server begin a swarm and die; whether it killed itself."""
    async with server(sim, folder, *(death.commit or ())) as peer:
        await peer.initialize()
        items = [f"item {number:02}" for number in range(AGENTS)]
        await peer.call("kimi_swarm", prompt="Look at {{item}}.", items=items)
        # What is written at the same time shares a commit: there may be fewer of them.
        await wait_until(lambda: len(sim.requests) >= death.requests or peer.process.returncode is not None)
        died = peer.process.returncode is not None
        if not died:
            peer.process.kill()
        await peer.process.wait()
    return died


async def resumed_to_the_end(sim: Simulator, folder: Path) -> float:
    """Start a server without a request until the swarm has ended; the seconds until it sent its first one."""
    before, first = len(sim.requests), 0.0
    async with server(sim, folder) as peer:
        await peer.initialize()
        began = time.monotonic()
        while any(status == "running" for status, _ in runs(folder)):
            if not first and any(request.path.endswith(PAID) for request in sim.requests[before:]):
                first = time.monotonic() - began
            await anyio.sleep(0.05)
    return first


async def test_a_swarm_that_is_killed_anywhere_is_resumed_and_repeats_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("TEST_SEED", random.randrange(1_000_000)))
    draw, slots = random.Random(seed), anyio.Semaphore(AT_ONCE)
    died, seen = list[bool](), list[tuple[int, int, float]]()

    async def one(number: int, death: Death, own: random.Random) -> None:
        folder, why = tmp_path / str(number), f"{death} (seed {seed})"
        async with slots, Simulator(provider="simulator") as sim:
            play(sim, own)
            died.append(await killed(sim, folder, death))
            before = received(sim)
            if not (folder / FILE).exists() or not runs(folder):
                assert not before, f"nothing is requested before it is recorded: {why}"
                return
            left = steps(folder)
            first = await resumed_to_the_end(sim, folder)
            after = received(sim)
            ((status, outcome),) = runs(folder)
        finished = {key for key, done in left.items() if done}
        running = Counter(key.partition("/")[0] for key in left if key not in finished)
        again = {key: times for key, times in after.items() if times > 1}
        assert not finished & again.keys(), f"what is finished is not requested again: {why}"
        assert all(times == 2 for times in again.values()), why
        assert set(running.values()) <= {1}, f"an agent has one step under way: {why}"
        assert again.keys() <= left.keys() - finished, f"at most one repeated request a running agent: {why}"
        assert status == "completed", (outcome["error"], why)
        assert [agent["status"] for agent in outcome["swarm"]["agents"]] == ["completed"] * AGENTS
        assert len(after) == STEPS
        seen.append((len(finished), len(again), first))

    with anyio.fail_after(60 + 30 * len(list(deaths(random.Random(seed))))):
        async with anyio.create_task_group() as tasks:
            for number, death in enumerate(deaths(draw)):
                tasks.start_soon(one, number, death, random.Random(f"{seed} {number}"))
    assert any(died), f"some died around a commit (seed {seed})"
    assert any(finished for finished, _, _ in seen), f"some were killed in the middle (seed {seed})"
    resumed = max(first for _, _, first in seen)
    with capsys.disabled():
        if KILLS:
            print(f"\n{len(seen)} swarms of {AGENTS} killed, with {min(seen)[0]} to {max(seen)[0]} of {STEPS} steps "
                  f"finished; {sum(again for _, again, _ in seen)} requests repeated, resumed within {resumed:.1f} s "
                  f"(seed {seed})")  # fmt: skip
    assert resumed < RESUMED_WITHIN_S
