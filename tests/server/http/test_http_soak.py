"""An HTTP server under what nobody should send it: malformed requests, endless bodies, closed streams, silence.

10,000 malformed requests unless ``SOAK_ROUNDS`` says how many. ``SOAK_SEED`` repeats a run's choices. Linux alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest

from kimi_mcp.server.http.auth.scopes import USE
from kimi_mcp.server.http.auth.token_file import TokenFile, utc_now
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, wait_until
from tests.server.http.malformed import check, malformed
from tests.server.http.served import (
    OLDER,
    Connection,
    connection,
    encoded,
    message,
    newest,
    newest_headers,
    served,
)
from tests.server.processes import http_server_process
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

GIGABYTE = 10**9


def megabytes(pid: int, what: str = "VmRSS") -> float:
    """What a process holds, or held at most (``VmHWM``)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


async def rested(pid: int) -> None:
    """Return once what a server imports after its start is there: its memory does not change for a second."""
    held, looks = 0.0, 0
    with anyio.fail_after(60):
        while looks < 20:
            now = megabytes(pid)
            held, looks = now, looks + 1 if abs(now - held) < 0.1 else 0
            await anyio.sleep(0.05)


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_thousands_of_malformed_requests_are_refused_and_leave_no_memory() -> None:
    chance, statuses, held = random.Random(SEED), Counter[int](), list[float]()
    async with http_server_process(None) as (url, process):
        port = urlsplit(url).port or 0

        async def send(rounds: int) -> None:
            for _ in range(rounds):
                request = malformed(chance)
                async with connection(port) as wire:
                    with anyio.fail_after(60):
                        answer = await wire.ask(request)
                check(request, answer)
                statuses[answer.status if answer else 0] += 1

        for part in (0.2, 0.8):
            async with anyio.create_task_group() as tasks:
                for _ in range(WORKERS):
                    tasks.start_soon(send, round(ROUNDS * part / WORKERS))
            held.append(megabytes(process.pid))
        async with httpx2.AsyncClient(trust_env=False) as client:
            answer = await client.post(url, json=newest("tools/list"), headers=newest_headers("tools/list"))
            assert answer.status_code == 200
        print(held, statuses)
    assert held[1] - held[0] < MORE_MB
    assert len(statuses) > 9, statuses


async def test_a_gigabyte_is_refused_in_little_memory() -> None:
    async with http_server_process(None) as (url, process):
        port = urlsplit(url).port or 0
        async with connection(port) as wire:
            answer = await wire.ask(encoded("POST /mcp HTTP/1.1", OLDER, length=GIGABYTE))
            assert answer is not None
            assert answer.status == 413
        async with httpx2.AsyncClient(trust_env=False) as client:
            assert (await client.get(url.replace("/mcp", "/readyz"))).status_code == 200
        await rested(process.pid)
        held = list[float]()
        head = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in OLDER.items())
        chunk = b"%x\r\n%b\r\n" % (1_000_000, b" " * 1_000_000)
        for _ in range(8):
            async with connection(port) as wire, anyio.create_task_group() as tasks:

                async def stream(wire: Connection) -> None:
                    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                        for _ in range(GIGABYTE // len(chunk)):
                            await wire.stream.send(chunk)

                await wire.stream.send(head + lines + b"\r\n")
                tasks.start_soon(stream, wire)
                answer = await wire.answer()
                assert answer is not None
                assert answer.status == 413
                tasks.cancel_scope.cancel()
            held.append(megabytes(process.pid))
        assert held[-1] - held[1] < MORE_MB, held
        assert megabytes(process.pid, "VmHWM") - held[-1] < 3 * HttpLimits().message.max_message_bytes / 1e6


async def test_nothing_is_held_of_what_strangers_send(tmp_path: Path) -> None:
    TokenFile(tmp_path / "tokens.json").add("alice", USE, now=utc_now())
    async with http_server_process(None, KIMI_HTTP_TOKENS=str(tmp_path / "tokens.json")) as (url, process):
        port, held = urlsplit(url).port or 0, list[float]()
        async with httpx2.AsyncClient(trust_env=False) as client:
            assert (await client.get(url.replace("/mcp", "/readyz"))).status_code == 200
        await rested(process.pid)

        async def send(token: dict[str, str]) -> None:
            async with connection(port) as wire:
                answer = await wire.ask(encoded("POST /mcp HTTP/1.1", OLDER | token, b" " * 10**6, length=3 * 10**7))
                assert answer is not None
                assert answer.status == 401

        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(send, {"Authorization": f"Bearer kimi_{number}"} if number % 2 else {})
            held.append(megabytes(process.pid))
        assert held[-1] - held[0] < MORE_MB, held
        assert megabytes(process.pid, "VmHWM") - held[0] < 3 * MORE_MB


async def test_a_thousand_closed_streams_leak_nothing(sim: Simulator) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    options = ServerOptions(timings=Timings(warm_up_after_s=3600, stream_grace_s=0))
    async with served(sim, options=options, KIMI_MAX_CONCURRENCY="100") as http:
        session = await http.session()
        before: tuple[int, int, float] | None = None
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
            if batch == LEFT // 100:
                before = len(asyncio.all_tasks()), descriptors(), megabytes(os.getpid())
        assert before is not None
        await wait_until(lambda: len(asyncio.all_tasks()) <= before[0] + 5)
        await wait_until(lambda: descriptors() <= before[1] + 5)
        print(before, megabytes(os.getpid()))
        assert megabytes(os.getpid()) - before[2] < MORE_MB
        assert http.state.waiting == {}
        assert not http.state.waits


async def test_silent_connections_are_closed_and_keep_nobody_out(sim: Simulator) -> None:
    limits = HttpLimits(headers_s=1, body_grace_s=1)
    beginnings = (b"", b"POST /mcp HT", encoded("POST /mcp HTTP/1.1", OLDER, b"{", length=9))
    ends = Counter[int]()
    async with served(sim, limits=limits) as http, anyio.create_task_group() as tasks:

        async def silent(beginning: bytes) -> None:
            async with connection(http.port) as wire:
                answer = await wire.ask(beginning)
                ends[answer.status if answer else 0] += 1

        for number in range(SILENT):
            tasks.start_soon(silent, beginnings[number % len(beginnings)])
        async with http.client() as kimi:
            assert (await kimi.think()).status == "completed"
    assert ends == {0: SILENT * 2 // 3, 408: SILENT // 3}
