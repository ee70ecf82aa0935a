"""Reading and writing descriptors of every kind, while the event loop goes on."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kimi_mcp.server.stdio.connection import read_chunk, write_all


async def test_a_long_line_arrives_whole_while_the_loop_goes_on() -> None:
    reading, writing = os.pipe()
    line = os.urandom(1_000_000)
    written = anyio.Event()
    received = b""

    async def write() -> None:
        await write_all(writing, line)
        written.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            assert not written.is_set()  # nobody reads, and here we are all the same
            while len(received) < len(line):
                received += await read_chunk(reading)
    assert received == line
    os.close(writing)
    assert await read_chunk(reading) == b""
    os.close(reading)


async def test_writing_to_nobody_is_an_os_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with anyio.fail_after(60), pytest.raises(OSError, match="Broken pipe"):
        await write_all(writing, b"anyone?")
    os.close(writing)
    with pytest.raises(BrokenPipeError):
        await write_all(None, b"anyone?")


async def test_a_regular_file_is_read_to_its_end(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "in").write_bytes(content)
    fd, received = os.open(tmp_path / "in", os.O_RDONLY), b""
    with anyio.fail_after(60):
        while chunk := await read_chunk(fd):
            received += chunk
    assert received == content
    os.close(fd)


async def test_a_pipe_that_somebody_made_non_blocking_works_too() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_all, writing, b"x" * 500_000)
            received = 0
            while received < 500_000:
                received += len(await read_chunk(reading))
    os.close(reading)
    os.close(writing)


async def test_a_caller_can_leave_a_read_that_blocks() -> None:
    reading, writing = os.pipe()
    with anyio.move_on_after(0.01) as scope:
        await read_chunk(reading)
    assert scope.cancelled_caught
    os.write(writing, b"for the thread that was left")
    os.close(writing)
