"""From spawn to the answer of ``tools/list``: what a host waits before its model can see our tools.

Our server and the SDK's bare server are started in turn, A B A B. The clock runs from just before the process is made
until the line with the tools has been read, with a host's handshake (initialize, initialized, tools/list) between. The
first pair only fills the caches. CPU is what the process used in that time, which a busy machine changes less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

from benchmarks import processes, tokens
from benchmarks.report import Row, row

PROMPT = tokens.prompt(20, 0)


def measure(*, quick: bool) -> Iterator[Row]:
    rounds = 5 if quick else 12
    yield from _first_calls(rounds)
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        pair = _start(processes.ours), _start(processes.bare)
        if number:
            ours.append(pair[0])
            theirs.append(pair[1])
    yield row(
        "spawn to tools/list, ms",
        [wall for wall, _ in ours],
        "bare SDK server",
        [wall for wall, _ in theirs],
        most=0.12,
    )
    yield row("CPU to tools/list, ms", [cpu for _, cpu in ours], "bare SDK server", [cpu for _, cpu in theirs])


def _start(make: Callable[[], processes.Server]) -> tuple[float, float]:
    """Milliseconds of wall clock and of CPU."""
    start = time.perf_counter()
    server = make()
    with processes.closing([server]):
        server.connect()
        return (time.perf_counter() - start) * 1e3, server.cpu_s() * 1e3


def _first_calls(rounds: int) -> Iterator[Row]:
    """A first call, 2 s after the tools were listed, beside 5 of the next twenty and 50 ms."""
    first: list[float] = []
    bounds: list[float] = []
    with processes.token_source() as source:
        for _ in range(rounds):
            server = processes.ours(source)
            with processes.closing([server]):
                server.connect()
                time.sleep(2)
                first.append(_call_ms(server))
                bounds.append(5 * median(_call_ms(server) for _ in range(20)) + 50)
    yield row("a first call, ms", first, "5 later calls + 50 ms", bounds, most=1.0)


def _call_ms(server: processes.Server) -> float:
    start = time.perf_counter()
    server.calls(PROMPT, 1, in_flight=1)
    return (time.perf_counter() - start) * 1e3
