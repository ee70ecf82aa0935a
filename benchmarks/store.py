"""What the store costs a streamed token and a small call, beside the very same server without any.

32 streams at once, 100 tokens a second each, one event a token, as in ``streaming``; then the small calls of ``calls``.
Both servers take them in turn, round by round: ours on a data folder of its own, and ``without_store``, whose runs are
never recorded. Each figure is all CPU of that process, the threads of its store included, divided by the tokens. Last
the seconds of such streams while another program holds the file's lock for a third of them: no token waits for it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks import processes, tokens
from benchmarks.report import Row, row

STREAMS = 32
RATE = 100
SMALL = tokens.prompt(20, 0)
BESIDE = "the same, without a store"


def measure(*, quick: bool) -> Iterator[Row]:
    rounds, length, number = (2, 300, 320) if quick else (3, 1000, 640)
    with processes.token_source() as source:
        ours = processes.ours(source, at_once=2 * STREAMS)
        without = processes.ours(source, at_once=2 * STREAMS, module="benchmarks.without_store")
        with processes.closing([ours, without]):
            for server in (ours, without):
                server.connect()
                server.calls(SMALL, 4 * STREAMS, in_flight=2 * STREAMS)
            streamed, small = ([], []), ([], [])
            for turn in range(rounds):
                sides = [(ours, 0), (without, 1)]
                for server, side in sides if turn % 2 else sides[::-1]:
                    streamed[side].append(_cpu(server, tokens.prompt(length, RATE), STREAMS) * 1e6 / length)
                    small[side].append(_cpu(server, SMALL, number) * 1e3)
            free, locked = _seconds(ours, length), _locked(ours, length)
    yield row("CPU a streamed token with a store, µs", streamed[0], BESIDE, streamed[1], most=1.1)
    yield row("CPU a small call with a store, ms", small[0], BESIDE, small[1])
    yield row(f"seconds for {length:,} tokens, the file locked", [locked], "the same, not locked", [free], most=1.1)


def _cpu(server: processes.Server, prompt: str, number: int) -> float:
    """Seconds of CPU for each of so many calls."""
    before = server.cpu_s()
    server.calls(prompt, number, in_flight=2 * STREAMS)
    return (server.cpu_s() - before) / number


def _seconds(server: processes.Server, length: int) -> float:
    start = time.perf_counter()
    server.calls(tokens.prompt(length, RATE), STREAMS, in_flight=STREAMS)
    return time.perf_counter() - start


def _locked(server: processes.Server, length: int) -> float:
    """Seconds of such streams, for the middle third of which the file is locked."""
    assert server.folder is not None
    file = Path(server.folder.name) / "journal.sqlite3"

    def lock() -> None:
        with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as other:
            time.sleep(length / RATE / 3)
            other.execute("BEGIN IMMEDIATE")
            time.sleep(length / RATE / 3)
            other.execute("ROLLBACK")

    holds = threading.Thread(target=lock)
    holds.start()
    try:
        return _seconds(server, length)
    finally:
        holds.join()
