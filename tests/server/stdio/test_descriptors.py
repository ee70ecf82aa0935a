"""The two ends of the wire, polled and by thread."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kimi_mcp.server.stdio.descriptors import SideThread, StdinReader, StdoutWriter


@pytest.mark.parametrize("polled", [True, False])
async def test_a_long_line_arrives_whole_while_the_loop_goes_on(polled: bool) -> None:
    reading, writing = os.pipe()
    source, sink = StdinReader(reading), StdoutWriter(writing, polled=polled)
    line = os.urandom(1_000_000)
    written = anyio.Event()
    heard = b""

    async def write() -> None:
        await sink.write(line)
        written.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            assert not written.is_set()  # nobody reads, and here we are all the same
            while len(heard) < len(line):
                heard += await source.chunk()
    assert heard == line
    sink.close()
    if not polled:
        os.close(writing)  # left to its thread
    assert await source.chunk() == b""
    source.close()


@pytest.mark.parametrize("polled", [True, False])
async def test_writing_to_nobody_is_an_os_error(polled: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    sink = StdoutWriter(writing, polled=polled)
    with anyio.fail_after(5), pytest.raises(OSError, match="Broken pipe"):
        await sink.write(b"anyone?")
    sink.close()
    if not polled:
        os.close(writing)
    with pytest.raises(BrokenPipeError):
        await StdoutWriter(None).write(b"anyone?")


async def test_a_regular_file_is_read_to_its_end(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "in").write_bytes(content)
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    source, heard = StdinReader(fd), b""
    with anyio.fail_after(5):
        while chunk := await source.chunk():
            heard += chunk
    assert heard == content
    source.close()
    os.close(fd)


async def test_a_pipe_that_somebody_made_non_blocking_works_too() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    source, sink = StdinReader(reading), StdoutWriter(writing)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sink.write, b"x" * 500_000)
            heard = 0
            while heard < 500_000:
                heard += len(await source.chunk())
    source.close()
    sink.close()


async def test_a_caller_can_leave_a_blocking_call_behind() -> None:
    blocked = threading.Event()
    thread = SideThread("test")
    with anyio.move_on_after(0.01) as scope:
        await thread.call(blocked.wait)
    assert scope.cancelled_caught
    blocked.set()
    with anyio.fail_after(5):
        assert await thread.call(int, "5") == 5
        with pytest.raises(ValueError, match="invalid literal"):
            await thread.call(int, "five")
    thread.close()
