"""Swarms of 100 sub-agents: wall time beside the critical path, CPU while they stream, memory, CPU of a step's record.

A provider of the benchmark's own (``agents``) plays main agent and sub-agents with set latencies; the swarm runs in a
process of its own (``swarm_runner``) through the pipeline and real sockets, launches not staged. The critical path
is the critical steps of the result times a step's latency. A first, small swarm opens the connections and imports what
is imported late. Journalled swarms write each step down in a file; the others keep their steps in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import agents, processes
from benchmarks.report import Row, row

AGENTS, STEPS = 100, 5


def measure(*, quick: bool) -> Iterator[Row]:
    rounds = 1 if quick else 3
    with TemporaryDirectory() as folder:
        provider = processes.Process("-m", "benchmarks.agents")
        url = provider.output.readline().decode().strip()
        runner = processes.Process("-m", "benchmarks.swarm_runner", url, folder)
        with processes.closing([runner, provider]):
            for _ in range(2):
                _swarm(runner, agents.prompt(AGENTS, STEPS, 0.05))
            yield from _wall(runner, rounds, 0.2, most=1.3)
            yield from _wall(runner, 1, 3.0, most=1.02)
            yield from _wall(runner, rounds, 0.2, recorded=True)
            yield from _wall(runner, 1, 3.0, recorded=True)
            yield from _streaming(runner, 200 if quick else 1_000)
            yield from _steps(runner, rounds)


def _swarm(runner: processes.Process, prompt: str, *, recorded: bool = False) -> dict[str, Any]:
    runner.input.write(json.dumps({"prompt": prompt, "recorded": recorded}).encode() + b"\n")
    runner.input.flush()
    return json.loads(runner.output.readline())


def _wall(
    runner: processes.Process, rounds: int, seconds: float, *, most: float | None = None, recorded: bool = False
) -> Iterator[Row]:
    found = [_swarm(runner, agents.prompt(AGENTS, STEPS, seconds), recorded=recorded) for _ in range(rounds)]
    walls, paths = [each["wall_s"] for each in found], [each["steps"] * seconds for each in found]
    what = f"wall of 100 × 5 steps of {seconds:g} s" + (", each recorded" if recorded else "")
    yield row(what, walls, "critical path", paths, most)


def _streaming(runner: processes.Process, tokens: int) -> Iterator[Row]:
    found = _swarm(runner, agents.prompt(AGENTS, 1, 0.0, tokens, 100))
    yield Row(what="cores while 100 stream 100 tokens/s each", ours=found["cpu_s"] / found["wall_s"], most=0.5)
    more_mb = _swarm(runner, agents.prompt(AGENTS, STEPS, 0.2))["more_mb"]
    yield Row(what="memory a sub-agent, MB", ours=max(more_mb, found["more_mb"]) / AGENTS, most=1.0)


def _steps(runner: processes.Process, rounds: int) -> Iterator[Row]:
    """CPU that the record of a step costs: the same swarm with and without a file behind it."""
    prompt, costs = agents.prompt(AGENTS, STEPS, 0.2), list[float]()
    for _ in range(rounds):
        kept, passing = (_swarm(runner, prompt, recorded=recorded) for recorded in (True, False))
        costs.append((kept["cpu_s"] - passing["cpu_s"]) * 1e3 / (AGENTS * (2 * STEPS - 1)))
    yield Row(what="CPU a durable step, ms", ours=median(costs), most=1.0)
