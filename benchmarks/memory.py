"""Memory that calls leave behind: resident megabytes of our server after 100, 1,000 and 2,000 calls, and at rest.

The calls are small ones (20 tokens), 16 at once. What counts is the growth from 100 to 1,000: whatever is built once is
there by then, and finished runs are kept up to a fixed number, so anything that goes on growing is a leak.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import processes, tokens
from benchmarks.report import Row, row

SETTLED_S = 5.0
"""Seconds after which a server has imported and opened all that its calls need."""


def measure(*, quick: bool) -> Iterator[Row]:
    marks = (100, 500, 1000) if quick else (100, 1000, 2000)
    held: dict[int, float] = {}
    with processes.token_source() as source:
        server = processes.ours(source)
        bare = processes.bare()
        with processes.closing([server, bare]):
            server.connect()
            bare.connect()
            time.sleep(SETTLED_S)
            at_rest = [server.memory_mb()]
            yield row("memory at rest, MB", at_rest, "bare SDK server", [bare.memory_mb()], 1.7)
            done = 0
            for mark in marks:
                server.calls(tokens.prompt(20, 0), mark - done, in_flight=16)
                done, held[mark] = mark, server.memory_mb()
    first, second, third = marks
    yield Row(what=f"memory after {first} calls, MB", ours=held[first])
    yield Row(what=f"growth from call {first} to {second:,}, MB", ours=held[second] - held[first], most=5.0)
    yield Row(what=f"growth from call {second:,} to {third:,}, MB", ours=held[third] - held[second])
