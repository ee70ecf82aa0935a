"""CPU a small call at 64 in flight: an answer of 20 tokens that the source sends at once.

Our server, the plain tool and the bare server (whose tool answers at once without any request) take the same number of
calls in turn, round by round; each figure is all CPU of that server's process, divided by the calls. One round before
has warmed each of them up. Then calls one at a time, one of each server in an order that is drawn each time (the same
ones in each run), since what was called before decides what is left in the caches: the median of a round's times from
request to answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from statistics import median

from benchmarks import processes, tokens
from benchmarks.report import Row, row

IN_FLIGHT = 64
PROMPT = tokens.prompt(20, 0)


def measure(*, quick: bool) -> Iterator[Row]:
    rounds, number = (2, 320) if quick else (5, 640)
    draw = random.Random(1)
    with processes.token_source() as source:
        servers = processes.ours(source, at_once=IN_FLIGHT), processes.plain(source), processes.bare()
        figures: tuple[list[float], ...] = ([], [], [])
        alone: tuple[list[float], ...] = ([], [], [])
        with processes.closing(servers):
            for server in servers:
                server.connect()
                server.calls(PROMPT, 2 * IN_FLIGHT, in_flight=IN_FLIGHT)
            for _ in range(rounds):
                for server, measured in zip(servers, figures, strict=True):
                    before = server.cpu_s()
                    server.calls(PROMPT, number, in_flight=IN_FLIGHT)
                    measured.append((server.cpu_s() - before) * 1e3 / number)
                times: tuple[list[float], ...] = ([], [], [])
                for _ in range(number // 4):
                    for at in draw.sample(range(len(servers)), len(servers)):
                        times[at].append(_call_ms(servers[at]))
                for measured, of_server in zip(alone, times, strict=True):
                    measured.append(median(of_server))
    ours, plain, bare = figures
    yield row("CPU a small call, ms", ours, "plain tool, both SDKs", plain, most=0.8)
    yield row("CPU a small call, ms", ours, "bare SDK server, no-op", bare)
    yield row("a small call by itself, ms", alone[0], "plain tool, both SDKs", alone[1], most=1.0)


def _call_ms(server: processes.Server) -> float:
    began = time.perf_counter()
    server.calls(PROMPT, 1, in_flight=1)
    return (time.perf_counter() - began) * 1e3
