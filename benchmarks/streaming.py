"""CPU a streamed token: 32 streams at once, 100 tokens a second each, 2,000 tokens long, one event a token.

Read in turn from the same source by a raw socket reader that only parses each line (the floor), by our whole server
(32 calls of kimi_think over stdio: request, HTTP, events, result), and by the plain tool (32 calls likewise).
Each figure is all CPU of that process, divided by the tokens. Small calls have been made before, as many at once, so no
import and no connection counts. The same streams, half as long, then come by HTTPS, as a provider's do. The seconds
show whether a reader keeps up: by its clock the source needs tokens divided by rate, whoever reads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from benchmarks import processes, tokens
from benchmarks.report import Row, row

STREAMS = 32
RATE = 100

Figures = tuple[list[float], list[float]]
"""Microseconds of CPU a token, and seconds of wall clock, by round."""


def measure(*, quick: bool) -> Iterator[Row]:
    rounds, length = (1, 500) if quick else (2, 2000)
    raw, (ours, seconds), (plain, plain_seconds) = _rounds(rounds, length, secure=False)
    yield row("CPU a streamed token, µs", ours, "raw socket reader", raw, most=1.5)
    yield row("CPU a streamed token, µs", ours, "plain tool, both SDKs", plain, most=1 / 6)
    yield row(f"seconds for {length:,} tokens at {RATE} a second", seconds, "plain tool, both SDKs", plain_seconds)
    _, (ours, seconds), (plain, plain_seconds) = _rounds(1, length // 2, secure=True)
    yield row("CPU a token by HTTPS, µs", ours, "plain tool, both SDKs", plain)
    yield row(f"seconds for {length // 2:,} by HTTPS", seconds, "plain tool, both SDKs", plain_seconds)


def _rounds(rounds: int, length: int, *, secure: bool) -> tuple[list[float], Figures, Figures]:
    """The raw reader's CPU (by HTTP alone), ours, the plain tool's."""
    raw: list[float] = []
    figures: tuple[Figures, Figures] = ([], []), ([], [])
    with processes.token_source(secure=secure) as source:
        servers = processes.ours(source, at_once=STREAMS), processes.plain(source)
        with processes.closing(servers):
            for server in servers:
                server.connect()
                server.calls(tokens.prompt(2, 0), STREAMS, in_flight=STREAMS)
            for _ in range(rounds):
                if not secure:
                    raw.append(_raw(source, length))
                for server, (cpu, seconds) in zip(servers, figures, strict=True):
                    before, start = server.cpu_s(), time.perf_counter()
                    server.calls(tokens.prompt(length, RATE), STREAMS, in_flight=STREAMS)
                    cpu.append((server.cpu_s() - before) * 1e6 / (STREAMS * length))
                    seconds.append(time.perf_counter() - start)
    return raw, *figures


def _raw(source: processes.Source, length: int) -> float:
    prompt = tokens.prompt(length, RATE)
    reader = processes.Process("-m", "benchmarks.raw_reader", source.base_url, str(STREAMS), prompt)
    with processes.closing([reader]):
        report = json.loads(reader.output.readline())
        assert report["events"] >= STREAMS * length
        return report["cpu_s"] * 1e6 / (STREAMS * length)
