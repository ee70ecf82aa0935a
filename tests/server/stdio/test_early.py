"""A host is answered before the SDK is imported, and notices nothing when the SDK takes over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from kimi_mcp.server.tools import TOOLS
from tests.server.clients import wait_until
from tests.server.processes import process_environment, raw_server_process
from tests.server.stdio.peer import INITIALIZE, Peer
from tests.server.stdio.test_early_replies import envelope, initialize, request

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a pipe can't be polled there")

LIST = request(2, "tools/list")


class Gate:
    """Holds the import of the SDK until it is opened; ``broken`` makes it fail then."""

    def __init__(self, folder: Path, *, broken: bool) -> None:
        self.fifo = folder / "gate"
        os.mkfifo(self.fifo)
        package = folder / "modules" / "anyio"
        package.mkdir(parents=True)
        after = (
            "raise ImportError('its own text')"
            if broken
            else f"import sys\nsys.path.remove({str(package.parent)!r})\ndel sys.modules['anyio']\nimport anyio"
        )
        (package / "__init__.py").write_text(f"open({str(self.fifo)!r}).close()\n{after}\n")
        self.path = str(package.parent)

    async def open(self) -> None:
        await anyio.to_thread.run_sync(lambda: self.fifo.write_text(""))


@asynccontextmanager
async def held_server(folder: Path, *, broken: bool = False, **more: Any) -> AsyncIterator[tuple[Peer, Gate]]:
    gate = Gate(folder, broken=broken)
    with anyio.fail_after(60):
        async with raw_server_process(None, PYTHONPATH=gate.path, **more) as peer:
            yield peer, gate


async def test_a_host_has_the_tools_before_the_sdk_is_imported(tmp_path: Path) -> None:
    async with held_server(tmp_path) as (peer, gate):
        await peer.initialize()
        tools = (await peer.request(LIST))["result"]["tools"]
        assert [tool["name"] for tool in tools] == list(TOOLS)
        await peer.still_serves()
        await peer.send(request(3, "prompts/list"), request(4, "ping"))
        assert await peer.receive() == {"jsonrpc": "2.0", "id": 4, "result": {}}
        await gate.open()
        prompts = await peer.receive()
        assert prompts["id"] == 3
        assert prompts["result"]["prompts"]
        assert (await peer.request(request(5, "tools/list")))["result"]["tools"] == tools
        await peer.close_stdin()
        assert await peer.remaining() == [], "no answer comes twice"
        assert await peer.exit_status() == 0


async def test_an_id_may_come_again_once_it_was_answered(tmp_path: Path) -> None:
    async with held_server(tmp_path) as (peer, gate):
        assert "result" in await peer.request(initialize("2025-11-25", id=1))
        await peer.send(request(1, "tools/list"), request(2, "ping"))
        await gate.open()
        answers = [await peer.receive(), await peer.receive()]
        assert {answer["id"] for answer in answers} == {1, 2}
        assert all("result" in answer for answer in answers)


async def test_half_a_message_waits_for_its_other_half(tmp_path: Path) -> None:
    async with held_server(tmp_path) as (peer, gate):
        line = json.dumps(INITIALIZE).encode() + b"\n"
        await peer.send_raw(line[:40])
        await gate.open()
        await peer.send_raw(line[40:] + b'{"jsonrpc":"2.0",')
        assert (await peer.receive())["id"] == INITIALIZE["id"]
        await peer.send_raw(b'"id":2,"method":"tools/list"}\n')
        assert (await peer.receive())["result"]["tools"]


async def test_a_host_that_reads_late_gets_every_reply_whole(tmp_path: Path) -> None:
    async with held_server(tmp_path) as (peer, gate):
        await peer.send(INITIALIZE, *(request(number, "tools/list") for number in range(60)))
        await gate.open()
        assert (await peer.receive())["id"] == INITIALIZE["id"]
        assert [(await peer.receive())["id"] for _ in range(60)] == list(range(60))
        await peer.still_serves()


async def test_a_host_that_leaves_at_once_has_its_answer(tmp_path: Path) -> None:
    async with held_server(tmp_path) as (peer, gate):
        await peer.send(INITIALIZE)
        await peer.close_stdin()
        await gate.open()
        assert [message["id"] for message in await peer.remaining()] == [INITIALIZE["id"]]
        assert await peer.exit_status() == 0


@pytest.mark.parametrize("more", [[], [request(90, "prompts/list"), request(91, "tools/list")]], ids=["lists", "more"])
async def test_a_host_that_reads_nothing_and_leaves_holds_no_server_up(
    tmp_path: Path, more: list[dict[str, Any]]
) -> None:
    async with held_server(tmp_path) as (peer, gate):
        await peer.send(INITIALIZE, *more, *(request(number, "tools/list") for number in range(60)))
        await peer.close_stdin()
        await gate.open()
        await wait_until(lambda: peer.process.returncode is not None)
        assert peer.process.returncode == 0


@pytest.mark.parametrize("broken", [False, True])
async def test_a_terminal_that_ends_before_the_sdk_is_imported_ends_the_server(tmp_path: Path, broken: bool) -> None:
    gate, (terminal, program) = Gate(tmp_path, broken=broken), os.openpty()
    environment = process_environment(None, PYTHONPATH=gate.path)
    command = [sys.executable, "-m", "kimi_mcp"]
    with anyio.fail_after(60):
        async with await anyio.open_process(command, stdin=program, stderr=None, env=environment) as process:
            os.close(program)
            os.write(terminal, json.dumps(INITIALIZE).encode() + b"\n")
            assert process.stdout is not None
            assert await process.stdout.receive()
            os.write(terminal, b"\x04")  # Ctrl-D
            await gate.open()
            assert await process.wait() == broken
    os.close(terminal)


@pytest.mark.parametrize("held", [True, False])
async def test_a_host_that_probes_may_still_choose_the_older_era(tmp_path: Path, held: bool) -> None:
    async with held_server(tmp_path) as (peer, gate):
        if not held:
            await gate.open()
            assert "error" in await peer.request(b"no JSON")  # the SDK has taken over
        probe = await peer.request(request(1, "server/discover", envelope()))
        assert probe["result"]["supportedVersions"] == ["2026-07-28"]
        assert (await peer.request(initialize("2025-06-18", id=2)))["result"]["protocolVersion"] == "2025-06-18"
        await peer.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        if held:
            await gate.open()
        assert (await peer.request(request(3, "tools/list")))["result"]["tools"]
        assert (await peer.request(request(4, "prompts/list")))["result"]["prompts"]


async def test_a_host_that_probes_may_go_on_in_the_newest_era(tmp_path: Path) -> None:
    async with held_server(tmp_path) as (peer, gate):
        assert "result" in await peer.request(request(1, "server/discover", envelope()))
        await peer.send(request(2, "prompts/list", envelope()))
        await gate.open()
        assert (await peer.receive())["result"]["prompts"]
        refused = await peer.request(initialize("2025-06-18", id=3))
        assert refused["error"]["code"] == -32022


async def test_a_broken_installation_is_an_error_that_the_host_gets(tmp_path: Path) -> None:
    log = tmp_path / "stderr"
    with log.open("wb") as stderr:
        async with held_server(tmp_path, broken=True, stderr=stderr) as (peer, gate):
            await peer.initialize()
            await peer.call("kimi_think", 2, prompt="hi")
            await peer.call("kimi_think", 4, prompt="if (x) { a[i] = 1; }" * 100)
            await gate.open()
            refused = await peer.receive()
            assert (refused["id"], refused["error"]["code"]) == (2, -32603)
            assert (await peer.receive())["id"] == 4
            assert "installation is broken" in refused["error"]["message"]
            assert "its own text" not in refused["error"]["message"]
            assert (await peer.request(request(3, "ping")))["error"]["code"] == -32603
            await peer.close_stdin()
            assert await peer.exit_status() == 1
    assert "its own text" in log.read_text()


async def test_early_replies_that_are_damaged_are_an_error_that_the_host_gets(tmp_path: Path) -> None:
    damage = "import pathlib; pathlib.Path.read_text = lambda *_: '{'"
    (tmp_path / "sitecustomize.py").write_text(damage)
    async with raw_server_process(None, stderr=subprocess.DEVNULL, PYTHONPATH=str(tmp_path)) as peer:
        assert "installation is broken" in (await peer.request(INITIALIZE))["error"]["message"]
        await peer.close_stdin()
        assert await peer.exit_status() == 1
