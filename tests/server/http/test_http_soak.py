"""An HTTP server under what nobody should send it: thousands of malformed requests, closed streams, silent connections.

10,000 malformed requests unless ``SOAK_ROUNDS`` says how many. ``SOAK_SEED`` repeats a run's choices. Linux alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import httpx2
import pytest

from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, wait_until
from tests.server.http.served import OLDER, Wire, message, newest, newest_headers, served
from tests.server.processes import process_environment
from tests.server.requests import HELD_STEP

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc"),
]

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "10000"))
SEED = int(os.environ.get("SOAK_SEED", "11"))

WORKERS = 8

MORE_MB = 12
"""What a server may hold more after all of them than after the first fifth."""

LEFT = 1000
"""Calls whose streams close."""

SILENT = 300
"""Connections that send nothing, or half a request."""


@asynccontextmanager
async def server() -> AsyncIterator[tuple[str, int]]:
    """A server process: its URL and its id."""
    command = [sys.executable, "-m", "kimi_mcp", "serve", "--transport", "http", "--port", "0"]
    async with await anyio.open_process(command, env=process_environment(None), stdin=None) as process:
        assert process.stderr is not None
        said = (await process.stderr.receive()).decode()
        yield next(word for word in said.split() if word.startswith("http://")), process.pid
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


def megabytes(pid: int) -> float:
    """What a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def malformed(chance: random.Random) -> tuple[bytes, dict[str, str]]:
    """A request with something wrong in it."""
    whole = bytearray(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"kimi_think","arguments":{}}}')
    headers = dict(chance.choice([OLDER, newest_headers("tools/call", "kimi_think")]))
    match chance.randrange(6):
        case 0:
            del whole[chance.randrange(len(whole)) :]
        case 1:
            whole[chance.randrange(len(whole))] = chance.randrange(256)
        case 2:
            whole = bytearray(chance.choice([b"[", b'{"a":']) * chance.randrange(1, 5_000))
        case 3:
            whole = bytearray(chance.randbytes(chance.randrange(1, 5_000)))
        case 4:
            headers[chance.choice(sorted(headers))] = chance.choice(["", "text/html", "null", "1" * 4000, "é"])
        case _:
            headers |= chance.choice([{"Origin": "null"}, {"Host": "x"}, {"Mcp-Session-Id": "\x7f" * 9}])
    return bytes(whole), headers


async def test_thousands_of_malformed_requests_are_refused_and_leave_no_memory() -> None:
    chance, statuses, before = random.Random(SEED), Counter[int](), list[float]()
    async with server() as (url, pid), httpx2.AsyncClient(timeout=60, trust_env=False) as client:

        async def send(rounds: int) -> None:
            for _ in range(rounds):
                body, headers = malformed(chance)
                encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
                answer = await client.post(url, content=body, headers=encoded)
                statuses[answer.status_code] += 1
                assert answer.status_code < 500, (body[:200], headers, answer.text)
                assert answer.text or answer.status_code in (202, 204), (body[:200], headers)

        for part in (0.2, 0.8):
            async with anyio.create_task_group() as tasks:
                for _ in range(WORKERS):
                    tasks.start_soon(send, round(ROUNDS * part / WORKERS))
            before.append(megabytes(pid))
        print(before, statuses)
    assert before[1] - before[0] < MORE_MB
    assert len(statuses) > 4, statuses


async def test_a_thousand_closed_streams_leak_nothing(sim: Simulator) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    options = ServerOptions(timings=Timings(warm_up_after_s=3600, stream_grace_s=0))
    async with served(sim, options=options, KIMI_MAX_CONCURRENCY="100") as http:
        session = await http.session()
        tasks_before = 0
        for batch in range(LEFT // 20):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    call = {"name": "kimi_think", "arguments": {"prompt": f"{batch} {number}"}}
                    older, headers = (
                        message("tools/call", call, batch * 100 + number),
                        newest_headers("tools/call", "kimi_think"),
                    )
                    of_era = (older, session) if number % 2 else (newest("tools/call", call), headers)
                    tasks.start_soon(http.post, *of_era)
                await wait_until(lambda: len(http.state.calls) == 20)
                tasks.cancel_scope.cancel()
            await wait_until(lambda: not http.runs.live and len(http.state.calls) == 0)
            if batch == 1:
                tasks_before = len(asyncio.all_tasks())
        await wait_until(lambda: len(asyncio.all_tasks()) <= tasks_before + 5)
        assert http.state.waiting == {}
        assert not http.state.waits


async def test_silent_connections_are_closed_and_keep_nobody_out(sim: Simulator) -> None:
    limits = HttpLimits(headers_s=1, body_grace_s=1)
    head = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: */*\r\n"
    beginnings = (b"", head, head + b"Content-Length: 9\r\n\r\n{")
    async with served(sim, limits=limits) as http, anyio.create_task_group() as tasks:

        async def silent(beginning: bytes) -> None:
            async with Wire(http.port) as wire:
                if beginning:
                    await wire.send(beginning)
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while True:
                        await wire.receive()

        for number in range(SILENT):
            tasks.start_soon(silent, beginnings[number % len(beginnings)])
        async with http.client() as kimi:
            assert (await kimi.think()).status == "completed"
