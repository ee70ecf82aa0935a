"""What a tool server's child leaves by, it does not escape by: with the server ends what has left its session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from kimi_mcp.swarm.tools import open_tools
from kimi_mcp.swarm.tools.stdio_client import ProcessMark
from tests.swarm.tools.conftest import SHORT, ServersFile, odd
from tests.swarm.tools.test_stdio_client import echo, ended, framed_text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process group is all that can be found")


async def all_ended(pids: Sequence[int]) -> None:
    """Once they have: they were killed, and how soon the kernel is done with that is its own affair."""
    with anyio.fail_after(60):
        while not all(map(ended, pids)):
            await anyio.sleep(0.01)


@pytest.mark.parametrize("how", ["closed", "cancelled", "died"])
async def test_closing_the_tools_ends_a_child_that_left_its_servers_session(
    servers_file: ServersFile, tmp_path: Path, how: str
) -> None:
    stray, pids = tmp_path / "stray", list[int]()
    with anyio.fail_after(60), anyio.CancelScope() as scope:
        async with open_tools(servers_file(odd=odd("stray", f"stray-pid={stray}")), limits=SHORT) as tools:
            assert framed_text(await echo(tools, "x")) == "x"
            pids.append(int(stray.read_text()))
            assert not ended(pids[0])
            assert os.getsid(pids[0]) != os.getsid(0)
            if how == "cancelled":
                scope.cancel()
                await anyio.sleep_forever()
            if how == "died":
                stray.unlink()  # the next life of the server has one of its own
                assert (await echo(tools, "die")).is_error
                assert framed_text(await echo(tools, "x")) == "x"
                await all_ended(pids)  # with the life of its server, not with the tools
                pids.append(int(stray.read_text()))
    await all_ended(pids)


async def test_a_swarms_end_leaves_the_servers_of_another_one_alone(servers_file: ServersFile, tmp_path: Path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    async with open_tools(servers_file(odd=odd("stray", f"stray-pid={first}")), limits=SHORT) as kept:
        async with open_tools(servers_file(odd=odd("stray", f"stray-pid={other}")), limits=SHORT) as tools:
            assert framed_text(await echo(tools, "x")) == "x"
        await all_ended([int(other.read_text())])
        assert not ended(int(first.read_text()))
        assert framed_text(await echo(kept, "y")) == "y"


def test_a_mark_is_on_what_was_started_with_it_alone() -> None:
    one, other = ProcessMark(), ProcessMark()
    sleeping = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    environment = {**os.environ, **one.environment}
    with subprocess.Popen(sleeping, env=environment, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            assert one.is_on(child.pid)
            assert not other.is_on(child.pid)
            assert not one.is_on(os.getpid())
            assert other.signal(signal.SIGTERM) == []
            assert child.poll() is None
            assert one.signal(signal.SIGTERM) == [child.pid]
            assert child.wait(10) == -signal.SIGTERM
            assert one.signal(signal.SIGTERM) == []
        finally:
            child.kill()
