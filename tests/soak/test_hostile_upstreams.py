"""A server before every upstream of ``tests/provider/hostile.py``: a right code, in bounded time, memory and pause.

One server process, as a host starts it, its store on; the upstreams are another process. While each answers, a ping a
tenth of a second is sent to the server, as by another caller. It prints, for each: seconds, seconds of the processor,
megabytes at the peak above idle, and for how long the event loop was at something else while a ping waited, in seconds
of the processor. About two minutes; ``SOAK_ROUNDS`` repeats it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.provider.hostile import TABLE
from tests.server.processes import raw_server_process
from tests.server.results import ERROR_CODES
from tests.server.stdio.peer import Peer

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory and pauses are read from /proc"),
]

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "1"))
TIMEOUTS = {"KIMI_FIRST_TOKEN_TIMEOUT_S": "3", "KIMI_IDLE_TIMEOUT_S": "3", "KIMI_TOTAL_TIMEOUT_S": "20"}
MOST_S = 30.0
"""Seconds that any of them may take: the total deadline, and half of it for a machine that is busy."""
MOST_MB = 100.0
"""Megabytes above idle, by the issue."""
MOST_PAUSE_S = 1.0
"""Seconds of the processor that the event loop may be at something else while another caller waits. Not of the clock:
on a busy machine those would say more about the others. Interim answers without end (100, 103) take the most, 0.55."""
KEY = "sk-Vt4Rw8Yq2Lk6Nz0Xb5Gd9Hf3Jm7Pc1Sa"


class Host:
    """The one client of the server: calls, and pings beside them."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._waiting: dict[str, anyio.Event] = {}
        self._replies: dict[str, Any] = {}
        self._number = 0

    async def listen(self) -> None:
        while True:
            reply = await self._peer.receive()
            if (name := reply.get("id")) in self._waiting:
                self._replies[name] = reply
                self._waiting.pop(name).set()

    async def ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        name = f"{method}-{self._number}"
        event = self._waiting[name] = anyio.Event()
        await self._peer.send({"jsonrpc": "2.0", "id": name, "method": method, "params": params})
        await event.wait()
        return self._replies.pop(name)["result"]

    async def call(self, name: str) -> Any:
        result = await self.ask("tools/call", name="kimi_instant", arguments={"prompt": f"Greet me, <{name}>."})
        return result["structuredContent"]

    async def ping_on(self, clock: Callable[[], float], pauses: list[float]) -> None:
        while True:
            began = clock()
            pauses.append(0.0)
            try:
                await self.ask("ping")
            finally:
                pauses[-1] = clock() - began
            await anyio.sleep(0.1)


class Process:
    """What the system says of the server."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def megabytes(self, field: str) -> float:
        """``VmRSS``, or ``VmHWM``: the peak since ``forget_peak``."""
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def loop_s(self) -> float:
        """Seconds that its main thread, that of the event loop, was on a processor."""
        return int((self._folder / "schedstat").read_text().split()[0]) / 1e9

    def cpu_s(self) -> float:
        """The same of all its threads."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def upstreams() -> AsyncIterator[int]:
    """The port of a process that serves them all."""
    process = await anyio.open_process([sys.executable, "-m", "tests.provider.hostile"], stderr=None)
    try:
        assert process.stdout is not None
        yield int((await process.stdout.receive()).decode())
    finally:
        process.kill()
        await process.aclose()


async def test_every_hostile_upstream_gets_a_right_code_in_bounded_time_and_memory(tmp_path: Path) -> None:
    assert len(TABLE) >= 68
    faults: list[str] = []
    with (tmp_path / "stderr").open("wb") as log:
        async with (
            upstreams() as port,
            raw_server_process(
                None,
                provider="moonshot",
                stderr=log,
                KIMI_BASE_URL=f"http://127.0.0.1:{port}/v1",
                KIMI_API_KEY=KEY,
                KIMI_MODEL="kimi-k2.6",
                KIMI_REPLY_WITHIN_S="600",
                **TIMEOUTS,
            ) as peer,
            anyio.create_task_group() as tasks,
        ):
            await peer.initialize()
            host, process = Host(peer), Process(peer.process.pid)
            tasks.start_soon(host.listen)
            for _ in range(3):
                assert (await host.call("no-type"))["status"] == "completed"
            idle = process.megabytes("VmRSS")
            for name in [name for _ in range(ROUNDS) for name in TABLE]:
                faults += [f"{name}: {fault}" for fault in await look(name, host, process, idle)]
            print(
                f"{len(TABLE)} upstreams; idle {idle:.0f} MB, {process.megabytes('VmRSS') - idle:.0f} MB more after all"
            )
            tasks.cancel_scope.cancel()
    assert faults == []
    assert b"Traceback" not in (tmp_path / "stderr").read_bytes()


async def look(name: str, host: Host, process: Process, idle: float) -> list[str]:
    """One call before that upstream; what is wrong with it."""
    expected, pauses, result = TABLE[name], list[float](), None
    process.forget_peak()
    began, cpu = anyio.current_time(), process.cpu_s()
    async with anyio.create_task_group() as beside:
        beside.start_soon(host.ping_on, process.loop_s, pauses)
        with anyio.move_on_after(4 * MOST_S):
            result = await host.call(name)
        beside.cancel_scope.cancel()
    took, cpu = anyio.current_time() - began, process.cpu_s() - cpu
    megabytes, pause = process.megabytes("VmHWM") - idle, max(pauses)
    code = result and result["error"] and result["error"]["code"]
    print(f"{name:45} {code or 'fine':20} {took:6.2f} s {cpu:6.2f} cpu {megabytes:6.1f} MB {pause:6.3f} pause")
    if result is None:
        return ["no reply at all"]
    return [
        *([f"the code {code}, not one of {expected.codes}: {result['error']}"] if code not in expected.codes else []),
        *([] if code is None or code in ERROR_CODES else ["a code that the contract does not have"]),
        *([f"the answer {result['answer'][:60]!r}"] if expected.answer not in (None, result["answer"]) else []),
        *([f"{took:.1f} s"] if took > MOST_S else []),
        *([f"{megabytes:.0f} MB"] if megabytes > MOST_MB else []),
        *([f"a pause of {pause:.2f} s"] if pause > MOST_PAUSE_S else []),
    ]
