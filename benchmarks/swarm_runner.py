"""Swarms in a process of their own, measured from within: the pipeline, real sockets, a tool that answers at once.

``python -m benchmarks.swarm_runner URL FOLDER`` reads one JSON object a line (``prompt``, and ``recorded``: whether
each step is recorded in FOLDER) and prints what each swarm took: wall seconds, CPU seconds of this process, and the
megabytes by which its memory was larger at its peak than before. Launches are not staged: what is measured is what we
add.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread

from benchmarks.agents import TOOL
from kimi_mcp.core.settings import read_settings
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.runs import Run, Runs
from kimi_mcp.runs.store.records import JSON
from kimi_mcp.runs.store.steps import Steps
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.server.entry_point import tune_collector
from kimi_mcp.swarm import SwarmCall, run_swarm
from kimi_mcp.swarm.limits import SwarmLimits
from kimi_mcp.swarm.tools import CallResult, SwarmTools

PLACES = 129
"""Requests at once: more than any of these swarms has agents, and the one that is left for others."""


class MemorySteps(Steps):
    """Steps that are not written to disk."""

    def __init__(self) -> None:
        self._results: dict[str, JSON] = {}

    async def begin(self, key: str, description: JSON) -> JSON | None:
        return self._results.get(key)

    async def finish(self, key: str, result: JSON) -> None:
        self._results[key] = result


class _Tools(SwarmTools):
    """One tool, which answers at once."""

    def __init__(self) -> None:
        super().__init__()
        schema = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
        self.definitions = [{"name": TOOL, "description": "Looks.", "parameters": schema}]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ended: object) -> None:
        pass

    async def call(self, name: str, arguments: str) -> CallResult:
        return CallResult(text="Nothing to see here.")


def _memory_mb() -> float:
    text = Path("/proc/self/status").read_text("utf-8")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:")) * 1024 / 1e6


class _Peak:
    """The most memory that this process holds while it is looked at, from a thread."""

    def __init__(self) -> None:
        self.mb = self.before = _memory_mb()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.mb = max(self.mb, _memory_mb())

    def more_mb(self) -> float:
        self._over.set()
        self._thread.join()
        return max(self.mb, _memory_mb()) - self.before


async def _one(request: Mapping[str, Any], pipeline: Pipeline, runs: Runs) -> dict[str, Any]:
    run = Run(caller="a benchmark", tool="kimi_swarm", prompt=request["prompt"])
    peak, cpu, start = _Peak(), time.process_time(), time.perf_counter()
    call = SwarmCall(prompt=request["prompt"])
    limits = SwarmLimits(launch_interval_s=0)
    steps = None if request["recorded"] else MemorySteps()
    runs.start(run, lambda run: run_swarm(call, run, pipeline, steps=steps, limits=limits, tools=_Tools))
    await run.done.wait()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    outcome = run.outcome
    assert outcome is not None
    assert outcome.status == "completed", outcome.error
    assert outcome.swarm is not None
    return {"wall_s": wall, "cpu_s": cpu, "more_mb": peak.more_mb(), "steps": outcome.swarm["critical_steps"],
            "attempts": outcome.timing.attempts}  # fmt: skip


async def _serve(url: str, folder: str) -> None:
    settings = {"KIMI_PROVIDER": "simulator", "KIMI_BASE_URL": url, "KIMI_MAX_CONCURRENCY": str(PLACES)}
    pipeline = Pipeline(read_settings({**settings, "KIMI_BUDGET_USD_PER_SWARM": "1000"}))
    store = RunStore(Path(folder))
    async with anyio.create_task_group() as tasks:
        runs = Runs(tasks, store)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(await _one(json.loads(line), pipeline, runs)), flush=True)
    await pipeline.aclose()
    await store.aclose()


if __name__ == "__main__":
    tune_collector()
    anyio.run(_serve, sys.argv[1], sys.argv[2])
