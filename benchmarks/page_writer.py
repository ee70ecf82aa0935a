"""``python -m benchmarks.page_writer FOLDER``: records a swarm of 100 agents that goes on until its stdin ends.

Each agent ends a step and begins the next one every 3 s; the main agent's text grows four times a second.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anyio
import anyio.to_thread

from kimi_mcp.runs.store.records import Phase
from scripts.view.recording import Clock, RecordedRun, open_recording

AGENTS = 100
LIVE = f"run_{'c' * 24}"
STEP_S = 3.0
TEXT_EVERY_S = 0.25


async def main(folder: Path) -> None:
    clock = Clock()
    store = open_recording(folder, clock)
    store.lock.acquire()
    began = time.time()
    run = RecordedRun(store=store, clock=clock, id=LIVE, tool="kimi_swarm", prompt="Go on.", started_at=began)
    names = [f"agent-{number}" for number in range(1, AGENTS + 1)]
    run.add_agents({agent: f"reader {agent}" for agent in names})
    await run.begin()
    await run.request("main", 0, 0.1, tool_calls=[{"name": "assign_task"}])
    for agent in names:
        await run.request(agent, time.time() - began, name=agent)
    print("began", flush=True)
    async with anyio.create_task_group() as tasks:
        for number, agent in enumerate(names):
            tasks.start_soon(_work, run, agent, number * STEP_S / AGENTS)
        tasks.start_soon(_talk, run)
        await anyio.to_thread.run_sync(sys.stdin.buffer.read)
        tasks.cancel_scope.cancel()
    await store.aclose(unfinished=True)


async def _work(run: RecordedRun, agent: str, first_s: float) -> None:
    await anyio.sleep(first_s)
    step = 1
    while True:
        run.clock.at = time.time()
        key = f"{agent}/step-{step}"
        await run.store.steps(run.id).finish(key, {"answer": "", "usage": {"total_tokens": 800}, "took_s": STEP_S})
        step += 1
        await run.request(agent, time.time() - run.started_at, name=agent)
        await anyio.sleep(STEP_S)


async def _talk(run: RecordedRun) -> None:
    while True:
        await run.write("answer", "Some more words of it. ", phase=Phase(doing="100 agents work"))
        await anyio.sleep(TEXT_EVERY_S)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
