"""HTTP: a small call beside stdio and beside a plain server, a thousand streams at once, from start to ready.

Small calls are those of ``calls``, in both eras: the same number of them in turn by our server over HTTP, by our server
over stdio and by the plain tool over HTTP, round by round. Each figure is all CPU of that server's process, divided by
the calls. A thousand calls are then streamed at once, 20 tokens a second each, whose client asked for progress; the
source tells when it ended its last stream. Ready is a server that has answered ``tools/list``; ours has reported before
that it is ready (``/readyz``), with its store open.
"""

from __future__ import annotations

import json
import resource
import time
import urllib.request
from collections.abc import Callable, Iterator

from benchmarks import http_client, processes, tokens
from benchmarks.http_client import Client, HttpServer
from benchmarks.processes import NEWEST, OLDER
from benchmarks.report import Row, row

IN_FLIGHT = 64
PROMPT = tokens.prompt(20, 0)

STREAMS = 1000
RATE = 20


def measure(*, quick: bool) -> Iterator[Row]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for era in (NEWEST, OLDER):
        yield from _small_calls(era, *((2, 320) if quick else (5, 640)))
    for era in (NEWEST, OLDER):
        yield from _streams(era, 200 if quick else 600)
    yield from _starts(5 if quick else 12)


def _small_calls(era: str, rounds: int, number: int) -> Iterator[Row]:
    with processes.token_source() as source:
        stdio = processes.ours(source, at_once=IN_FLIGHT, newest=era == NEWEST)
        servers = http_client.ours(source, at_once=IN_FLIGHT), http_client.plain(source)
        with processes.closing([stdio, *servers]):
            for server in servers:
                server.get("/")
            sides = stdio, *(Client(server, era, IN_FLIGHT) for server in servers)
            figures: tuple[list[float], ...] = ([], [], [])
            for side in sides:
                side.connect()
                side.calls(PROMPT, 2 * IN_FLIGHT, in_flight=IN_FLIGHT)
            for _ in range(rounds):
                for side, measured in zip(sides, figures, strict=True):
                    before = side.cpu_s()
                    side.calls(PROMPT, number, in_flight=IN_FLIGHT)
                    measured.append((side.cpu_s() - before) * 1e3 / number)
    by_stdio, ours, plain = figures
    yield row(f"CPU a small call over HTTP, {era}, ms", ours, "the same over stdio", by_stdio, most=1.3)
    yield row(f"CPU a small call over HTTP, {era}, ms", ours, "plain tool over HTTP", plain, most=1.0)


def _streams(era: str, length: int) -> Iterator[Row]:
    with processes.token_source() as source:
        server = http_client.ours(source, at_once=STREAMS)
        with processes.closing([server]):
            server.get("/readyz")
            client = Client(server, era, STREAMS)
            client.connect()
            client.calls(PROMPT, 256, in_flight=IN_FLIGHT)
            before, cpu, began = server.memory_mb(), server.cpu_s(), time.monotonic()
            prompt = tokens.prompt(length, RATE)
            results = list(client.results(prompt, STREAMS, in_flight=STREAMS, progress=True))
            last = max(when for when, _ in results)
            cpu, more_mb = server.cpu_s() - cpu, server.peak_mb() - before
            with urllib.request.urlopen(f"{source.base_url}/ended") as response:
                behind = last - json.load(response)["ended"]
    what = f"{STREAMS:,} streams at once, {era}"
    yield Row(what=f"{what}: failed", ours=sum(not http_client.succeeded(each) for _, each in results), most=0)
    yield Row(what=f"{what}: cores", ours=cpu / (last - began), most=1.0)
    yield Row(what=f"{what}: memory a call, MB", ours=more_mb / STREAMS, most=0.5)
    yield Row(what=f"{what}: s behind the source", ours=behind, most=1.0)


def _starts(rounds: int) -> Iterator[Row]:
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    source = processes.Source()
    for number in range(rounds + 1):
        pair = _start(lambda: http_client.ours(source), "/readyz"), _start(lambda: http_client.plain(source))
        if number:  # the first pair only fills the caches
            ours.append(pair[0])
            theirs.append(pair[1])
    for at, what in enumerate(("start to ready over HTTP, ms", "CPU from start to ready over HTTP, ms")):
        most = None if at else 1.0
        yield row(what, [each[at] for each in ours], "plain tool over HTTP", [each[at] for each in theirs], most)


def _start(make: Callable[[], HttpServer], ready: str | None = None) -> tuple[float, float]:
    """Milliseconds of wall clock and of CPU."""
    start = time.perf_counter()
    server = make()
    with processes.closing([server]):
        if ready is not None:
            assert server.get(ready) == 200
        server.get("/")
        Client(server, NEWEST, 1).connect()
        return (time.perf_counter() - start) * 1e3, server.cpu_s() * 1e3
