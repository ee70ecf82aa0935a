"""Reads and writes descriptors beside the event loop. I/O.

The event loop polls pipes, sockets and terminals; what can't be polled (regular files, the null device, everything on
Windows) is read and written in threads, which ``leave`` leaves behind. No descriptor is made non-blocking: that would
change it for every process that shares it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")

_CHUNK_BYTES: Final = 64 * 1024
"""Bytes of one read: what a pipe holds."""

_WRITE_BYTES: Final = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe which polls as writable takes without blocking."""

_POLLS: Final = hasattr(select, "poll")
"""Whether descriptors can be polled: everywhere but on Windows."""


async def read_chunk(fd: int | None) -> bytes:
    """The next bytes, as many as are there; none at the end of the stream, or where it was never open."""
    if fd is None:
        return b""
    while True:
        try:
            if not _POLLS:
                return await _in_thread(os.read, fd, _CHUNK_BYTES)
            try:
                await anyio.wait_readable(fd)
            except OSError:  # a regular file, the null device
                return await _in_thread(os.read, fd, _CHUNK_BYTES)
            return os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:  # another process made it non-blocking, and took what was there
            await anyio.lowlevel.checkpoint()
        except OSError:  # a terminal that hung up, a socket that was reset
            return b""


async def write_all(fd: int | None, line: bytes) -> None:
    """Write all of ``line``, waiting while the peer does not read; ``OSError`` where nobody can read any more."""
    if fd is None:
        raise BrokenPipeError
    rest = memoryview(line)
    while rest:
        if not _POLLS:
            rest = rest[await _in_thread(os.write, fd, rest) :]
            continue
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(0):
            await anyio.wait_writable(fd)
        with suppress(BlockingIOError):
            rest = rest[os.write(fd, rest[:_WRITE_BYTES]) :]


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call it in a thread beside those that other work shares; a cancelled caller leaves it running."""
    limiter = anyio.CapacityLimiter(1)
    return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=limiter)
