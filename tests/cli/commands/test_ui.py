"""`kimi-mcp ui`: prints a link that opens the page, and ends cleanly."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.abc import Process

from kimi_mcp.simulator import Simulator
from tests.cli.commands.shell import kimi, started, to
from tests.server.clients import connect


async def link_of(process: Process) -> str:
    """What it prints on stdout: nothing else may be there."""
    assert process.stdout is not None
    printed = b""
    while b"\n" not in printed:
        printed += await process.stdout.receive()
    return printed.decode().strip()


async def test_help_says_what_the_page_shows_and_how_it_ends() -> None:
    shown = await kimi("ui", "--help")
    assert shown.status == 0
    for word in ("--port", "--no-open", "Ctrl-C", "works once"):
        assert word in shown.out


async def test_a_port_that_is_in_use_is_refused_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = await kimi("ui", "--no-open", "--port", str(other.getsockname()[1]))
    assert (ended.status, ended.out) == (1, "")
    assert "in use" in ended.err
    assert "--port" in ended.err


async def test_without_a_store_to_look_at_it_says_so() -> None:
    ended = await kimi("ui", "--no-open", settings={"KIMI_JOURNAL": "off"})
    assert ended.status == 1
    assert "KIMI_JOURNAL" in ended.err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
async def test_it_shows_what_a_running_server_does_and_ends_by_a_signal(
    sim: Simulator, number: signal.Signals, tmp_path: Path
) -> None:
    settings = to(sim, KIMI_DATA_DIR=os.environ["KIMI_DATA_DIR"], DISPLAY="", WAYLAND_DISPLAY="", BROWSER="")
    async with started("ui", settings=settings) as process, httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        link = await link_of(process)
        assert link.startswith("http://127.0.0.1:")
        assert len(link) < 80, "it is one line of a terminal"
        page = await http.get(link, follow_redirects=True)
        assert page.status_code == 200, page.text
        data = link.partition("/start")[0] + "/api/runs"
        assert (await http.get(data)).json()["runs"] == [], "the store is empty"
        async with connect(sim) as client:
            run_id = (await client.instant("Say hello.")).run_id
            assert [run["run_id"] for run in (await http.get(data)).json()["runs"]] == [run_id]
        process.send_signal(number)
        with anyio.fail_after(30):
            assert await process.wait() == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")
async def test_enter_in_its_terminal_prints_another_link() -> None:
    import pty

    ours, theirs = pty.openpty()
    shown = b""
    try:
        settings = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": ""}
        terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
        async with started("ui", settings=settings, **terminal) as process, httpx2.AsyncClient(trust_env=False) as http:

            async def until(links: int) -> list[str]:
                nonlocal shown
                while len(found := re.findall(rb"http://\S+\r", shown)) < links or b"Ctrl-C" not in shown:
                    await anyio.wait_readable(ours)
                    shown += os.read(ours, 4096)
                return [each.decode().strip() for each in found]

            (first,) = await until(1)
            os.write(ours, b"\n")
            _, second = await until(2)
            assert (await http.get(first)).status_code == 401
            assert (await http.get(second)).status_code == 303
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    finally:
        os.close(ours)
        os.close(theirs)
