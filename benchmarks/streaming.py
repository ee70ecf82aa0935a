"""CPU a streamed token: 32 streams at once, 100 tokens a second each, 2,000 tokens long, one event a token.

Read in turn from the same source by a raw socket reader that only parses each line (the floor), by our whole server
(32 calls of kimi_think over stdio: request, HTTP, events, fold, result), and by the plain tool (32 calls likewise).
Each figure is all CPU of that process, divided by the tokens. A first small call has been made, so no import counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks import processes, tokens
from benchmarks.report import Row, row

STREAMS = 32
RATE = 100


def measure(*, quick: bool) -> Iterator[Row]:
    rounds, length = (1, 500) if quick else (2, 2000)
    raw: list[float] = []
    ours: list[float] = []
    plain: list[float] = []
    with processes.token_source() as url:
        servers = processes.ours(url, at_once=STREAMS), processes.plain(url)
        with processes.closing(servers):
            for server in servers:
                server.connect()
                server.calls(tokens.prompt(2, 0), 1, in_flight=1)
            for _ in range(rounds):
                raw.append(_raw(url, length))
                for server, figures in zip(servers, (ours, plain), strict=True):
                    figures.append(_through(server, length))
    yield row("CPU a streamed token, µs", ours, "raw socket reader", raw, most=1.5)
    yield row("CPU a streamed token, µs", ours, "plain tool, both SDKs", plain, most=1 / 6)


def _raw(url: str, length: int) -> float:
    reader = processes.Process("-m", "benchmarks.raw_reader", url, str(STREAMS), tokens.prompt(length, RATE))
    with processes.closing([reader]):
        said = json.loads(reader.output.readline())
        assert said["events"] >= STREAMS * length
        return said["cpu_s"] * 1e6 / (STREAMS * length)


def _through(server: processes.Server, length: int) -> float:
    before = server.cpu_s()
    server.calls(tokens.prompt(length, RATE), STREAMS, in_flight=STREAMS)
    return (server.cpu_s() - before) * 1e6 / (STREAMS * length)
