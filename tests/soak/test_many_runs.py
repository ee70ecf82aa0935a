"""A folder of very many runs, half of which are old: nobody waits for them, and nobody waits while they are removed.

One server's first call begins to remove what is old. Until that is done another one is called without a pause, new ones
make their first call, and `kimi-mcp runs` is asked for. The same is done at the same time in a folder of ten runs: what
the machine is slow at for reasons of its own shows in both.

20,000 runs unless ``SOAK_ROUNDS`` says how many: 100,000 take some minutes and half a gigabyte.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import anyio.to_thread
import pytest

from kimi_mcp.core.types import Usage, user
from kimi_mcp.runs.store.retention import DAY_S
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import begin, ended, opened, run_end, run_store
from tests.server.processes import process_environment, server_process
from tests.server.results import checked

pytestmark = [pytest.mark.soak, pytest.mark.skipif(os.name != "posix", reason="it asks for a child's processor time")]

RUNS = int(os.environ.get("SOAK_ROUNDS", "20000"))
KEPT_DAYS = 30
FIRST_CALLS = 3

FIRST_CALL, FIRST_CALL_S = 1.5, 0.05
"""What a first call may take in the large folder, as a factor of that in the small one and in seconds on top."""
LATER_S = 0.5
"""Seconds by which the latest of all calls may be later than the latest in the small folder."""
LIST_CPU_S = 2.0
"""Seconds of a processor that a list may take."""


async def fill(folder: Path, runs: int, days: float) -> None:
    """So many runs in a folder, evenly over so many days, the latest one now; each is a conversation of its own."""
    now = time.time()
    texts = {"answer": "An answer of some length. " * 40, "reasoning": "Hm, let me see. " * 60}
    outcome = ended("run_0", conversation_id="conv_0", usage=Usage(total_tokens=300), cost_usd=0.001, **texts)
    async with run_store(folder) as kept:
        await begin(kept, "run_0", started_at=now, conversation_id="conv_0", request={"turns": ["a word " * 100]})
        await kept.end(run_end(kept, outcome, turns=[user("a word " * 100)], counted_usd=0.001))
    with opened(folder) as file:
        columns = [row[1] for row in file.execute("PRAGMA table_info(runs)")]
        scattered = f"n * 7919 % {runs}"  # ids are random, and do not follow the time
        new = {
            "id": f"printf('run_%012x%012x', {scattered} * 1000003, n)",
            "conversation_id": "'conv_' || n",
            "started_at": f"started_at - n * {days * DAY_S / runs}",
            "ended_at": f"started_at + 1 - n * {days * DAY_S / runs}",
        }
        copied = ", ".join(new.get(name) or f'"{name}"' for name in columns)
        numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {runs - 1})"
        file.execute("BEGIN")
        file.execute(f"{numbers} INSERT INTO runs SELECT {copied} FROM runs, numbers WHERE id = 'run_0'")
        others = "SELECT conversation_id, caller, id FROM runs WHERE id != 'run_0'"
        file.execute(f"INSERT INTO conversations (id, caller, head) {others}")
        file.execute("COMMIT")


def old_runs(folder: Path) -> int:
    """How many runs are left that ought to be removed."""
    with opened(folder) as file:
        before = time.time() - KEPT_DAYS * DAY_S
        return int(file.execute("SELECT count(*) FROM runs WHERE ended_at < ?", [before]).fetchone()[0])


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    """How long something takes, in seconds."""
    start = time.monotonic()
    await work()
    return time.monotonic() - start


async def call(client: Any) -> None:
    """A small call, which must succeed."""
    result = checked(await client.call_tool("kimi_instant", {"prompt": "What is 17 * 23?"}))
    assert result.status == "completed", result.structured["error"]


async def first_call(sim: Simulator, folder: Path) -> float:
    """How long the first call of a new server takes."""
    async with server_process(sim, KIMI_DATA_DIR=str(folder)) as client:
        return await timed(lambda: call(client))


async def listed(sim: Simulator, folder: Path) -> float:
    """How long a processor works on a list of the runs, in seconds."""
    before = os.times()
    environment = process_environment(sim, KIMI_DATA_DIR=str(folder))
    run = [sys.executable, "-m", "kimi_mcp", "runs"]
    await anyio.run_process(run, env=environment, stderr=subprocess.PIPE)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


async def keep_calling(sim: Simulator, folder: Path, took: list[float], done: anyio.Event) -> None:
    """Call a server of a folder again and again until something is done."""
    async with server_process(sim, KIMI_DATA_DIR=str(folder)) as client:
        await call(client)
        while not done.is_set():
            took.append(await timed(lambda: call(client)))
            await anyio.sleep(0.02)


async def test_very_many_runs_are_nobodys_burden_nor_is_their_removal(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    await fill(large, RUNS, 2.0 * KEPT_DAYS)
    await fill(small, 10, 1.0)
    old = old_runs(large)
    full = sum(file.stat().st_size for file in large.glob("journal.*"))
    assert old >= RUNS // 2 - 1
    calls: dict[Path, list[float]] = {large: [], small: []}
    firsts: dict[Path, list[float]] = {large: [], small: []}
    lists: list[float] = []
    while_removing = 0
    began, removed_after, done = 0.0, 0.0, anyio.Event()

    async def removed() -> None:
        nonlocal removed_after
        while await anyio.to_thread.run_sync(old_runs, large):
            await anyio.sleep(0.5)
        removed_after = time.monotonic() - began

    with anyio.fail_after(300 + RUNS / 100):
        async with Simulator(provider="simulator") as sim, server_process(sim, KIMI_DATA_DIR=str(large)) as remover:
            began = time.monotonic()
            firsts[large].append(await timed(lambda: call(remover)))
            async with anyio.create_task_group() as tasks:
                for folder in (large, small):
                    tasks.start_soon(keep_calling, sim, folder, calls[folder], done)
                tasks.start_soon(removed)
                while not removed_after or len(lists) < FIRST_CALLS:
                    while_removing += not removed_after
                    firsts[large].append(await first_call(sim, large))
                    firsts[small].append(await first_call(sim, small))
                    lists.append(await listed(sim, large))
                done.set()
    latest = {folder: max(took) for folder, took in calls.items()}
    print(
        f"{RUNS} runs, {full >> 20} MB; {old} removed within {removed_after:.0f} s; "
        f"{len(firsts[large])} first calls, {while_removing} of them meanwhile; "
        f"median {median(firsts[large]):.3f} s, with ten runs {median(firsts[small]):.3f} s; "
        f"{len(calls[large])} calls meanwhile: median {median(calls[large]):.3f} s, latest {latest[large]:.3f} s; "
        f"{len(calls[small])} in the small folder: median {median(calls[small]):.3f} s, latest {latest[small]:.3f} s; "
        f"list {median(lists):.2f} s of a processor"
    )
    assert while_removing > 0
    assert median(firsts[large]) <= FIRST_CALL * median(firsts[small]) + FIRST_CALL_S
    assert latest[large] <= latest[small] + LATER_S
    assert median(lists) < LIST_CPU_S
    with opened(large) as file:
        assert file.execute("SELECT count(*) FROM runs WHERE id LIKE 'run_0%'").fetchone()[0] >= RUNS - old - 1
