"""Standard input and output as descriptors: takes 0 and 1 for the transport, reads and writes beside the loop. I/O.

The event loop polls pipes, sockets and terminals; what can't be polled (regular files, the null device, everything on
Windows) is read and written in threads, which ``leave`` leaves behind. No descriptor is made non-blocking: that would
change it for every process that shares it.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TextIO, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")

_CHUNK_BYTES: Final = 64 * 1024
"""Bytes of one read: what a pipe holds."""

_WRITE_BYTES: Final = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe which polls as writable takes without blocking."""

_POLLS: Final = hasattr(select, "poll")
"""Whether descriptors can be polled: everywhere but on Windows."""


def claim() -> tuple[int | None, int | None]:
    """Take stdin and stdout for the transport: private duplicates of both, or None for one that was never open.

    Afterwards descriptor 0 is the null device and descriptor 1 is stderr, for this process and its children and
    for good: neither a stray print nor a child that reads can disturb the transport, even while the process ends.
    """
    source = _move(0, sys.__stdin__, lambda: os.open(os.devnull, os.O_RDONLY))
    sink = _move(1, sys.__stdout__, _stderr_or_null)
    with suppress(OSError, ValueError, AttributeError):  # it is None where it was never open
        sys.stdout.flush()  # what was printed before goes to stderr too
    return source, sink


def _move(fd: int, stream: TextIO | None, open_replacement: Callable[[], int]) -> int | None:
    if stream is None:
        return None  # closed from the start: the number may be somebody else's by now
    try:
        # Above the standard descriptors, and not inherited by children.
        private = os.dup(fd) if sys.platform == "win32" else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return None
    with suppress(OSError):
        replacement = open_replacement()
        try:
            os.dup2(replacement, fd)
        finally:
            os.close(replacement)
        if sys.platform == "win32":
            # Children inherit the standard handle, which dup2 does not touch.
            from mcp.os.win32.utilities import rebind_std_handle_to_fd

            rebind_std_handle_to_fd(fd)
    return private


def _stderr_or_null() -> int:
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


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
