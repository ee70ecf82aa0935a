"""However it ends, the process leaves soon, with status 0 and after its clean-up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import anyio
import pytest

from tests.server.stdio.conftest import SERVER, Start
from tests.server.stdio.peer import Peer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send")

ENDINGS = ["eof", "SIGINT", "SIGTERM"]


async def end(peer: Peer, how: str) -> None:
    if how == "eof":
        await peer.close_stdin()
    else:
        peer.signal(signal.Signals[how])


def logged(events: list[dict[str, object]]) -> list[object]:
    return [event["message"] for event in events if event["logger"] == "tiny"]


@pytest.mark.soak
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("how", ENDINGS)
async def test_every_ending_cleans_up_and_leaves_with_status_0(start: Start, how: str, busy: bool) -> None:
    async with start(stderr=subprocess.PIPE) as peer:
        await peer.initialize()
        if busy:
            await peer.call("wait", 3)
            await peer.still_serves()
        await end(peer, how)
        rest = await peer.remaining()
        events = await peer.log_lines()
        assert await peer.exit_status() == 0
        assert logged(events)[-2:] == ["shutting down", "lifespan cleaned up"]
        assert [message["id"] for message in rest] == ([3] if busy else [])


async def test_a_process_that_was_never_spoken_to_leaves_as_well(start: Start) -> None:
    async with start(stderr=subprocess.PIPE) as peer:
        await peer.request(b"{")  # it is up
        await end(peer, "SIGINT")
        assert logged(await peer.log_lines()) == ["shutting down", "lifespan cleaned up"]
        assert await peer.exit_status() == 0


@pytest.mark.soak
async def test_a_clean_up_that_hangs_is_left_behind(start: Start) -> None:
    async def ends(how: str, *again: str) -> None:
        async with start(stderr=subprocess.PIPE, TINY_ENDING="hangs") as peer:
            await peer.initialize()
            await end(peer, how)
            assert peer.process.stderr is not None
            assert b"shutting down" in await peer.process.stderr.receive()
            for number in again:
                await end(peer, number)  # changes nothing
            assert await peer.exit_status() == 0
            assert "could not end in time" in (await peer.log_lines())[-1]["message"]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ends, "eof", "SIGTERM")
        tasks.start_soon(ends, "SIGTERM", "SIGTERM", "SIGINT")


@pytest.mark.soak
@pytest.mark.parametrize("how", ["eof", "SIGTERM"])
async def test_a_peer_that_does_not_read_cannot_keep_it_alive(start: Start, how: str) -> None:
    async with start() as peer:
        await peer.initialize()
        for number in range(3):
            await peer.call("big", number, size=2_000_000)
        await end(peer, how)
        assert await peer.exit_status() == 0


def test_a_peer_that_is_gone_ends_it() -> None:
    command = [sys.executable, str(SERVER)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(b"{\n")
        assert process.wait(60) == 0


@pytest.mark.soak
@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_standard_stream_that_was_never_open_is_no_crash(closed: int) -> None:
    shot = b'{"jsonrpc":"2.0","id":1,"method":"server/discover"}\n'
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {closed}>&-', "sh", sys.executable, str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    heard, _ = process.communicate(shot, timeout=30)
    assert process.returncode == 0
    assert heard.count(b"\n") == (1 if closed == 2 else 0)


def test_it_leaves_when_its_stdin_is_the_null_device() -> None:
    command = [sys.executable, str(SERVER)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True)
    assert done.stdout == b""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_it_can_be_spoken_to_in_a_terminal() -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, str(SERVER)]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    os.close(theirs)
    with process:
        os.write(ours, b"{\n")
        assert process.stdout is not None
        assert b"-32700" in process.stdout.readline()
        os.close(ours)  # the terminal hangs up
        assert process.wait(5) == 0
