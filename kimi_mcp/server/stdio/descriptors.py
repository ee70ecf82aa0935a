"""The two ends of the wire: claims descriptors 0 and 1, reads and writes them beside the event loop. I/O.

Pipes, sockets and terminals are polled by the event loop itself; what can't be polled (regular files, the null
device, everything on Windows) is read and written by a daemon thread, which can't keep the process from leaving.
No descriptor is made non-blocking: that would change it for every process that shares it.
"""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TextIO, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")

_CHUNK: Final = 64 * 1024
"""Bytes a read; what a pipe holds."""

_SAFE_WRITE: Final = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe which polls as writable takes without blocking."""


def claim() -> tuple[int | None, int | None]:
    """Take stdin and stdout for the wire: private duplicates of both, or None for one that was never open.

    Afterwards descriptor 0 is the null device and descriptor 1 is stderr, for this process and its children and
    for good: a stray print, or a child that reads, can't touch the wire, not even while the process is leaving.
    """
    source = _move(0, sys.__stdin__, lambda: os.open(os.devnull, os.O_RDONLY))
    sink = _move(1, sys.__stdout__, _stderr_or_nowhere)
    with suppress(OSError, ValueError, AttributeError):  # it is None where it was never open
        sys.stdout.flush()  # what was printed before goes to stderr too
    return source, sink


def _move(fd: int, stream: TextIO | None, diversion: Callable[[], int]) -> int | None:
    if stream is None:
        return None  # closed from the start: the number may be somebody else's by now
    try:
        private = _duplicate(fd)
    except OSError:
        return None
    with suppress(OSError):
        elsewhere = diversion()
        try:
            os.dup2(elsewhere, fd)
        finally:
            os.close(elsewhere)
        if sys.platform == "win32":
            # Children inherit the standard handle, which dup2 does not touch.
            from mcp.os.win32.utilities import rebind_std_handle_to_fd

            rebind_std_handle_to_fd(fd)
    return private


def _duplicate(fd: int) -> int:
    """A duplicate above the standard range that children don't inherit."""
    if sys.platform == "win32":
        return os.dup(fd)
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _stderr_or_nowhere() -> int:
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


class SideThread:
    """A daemon thread that makes blocking calls for the event loop, one at a time."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._token = anyio.lowlevel.current_token()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """What ``function(*args)`` returns or raises; a cancelled caller leaves the call to itself."""
        done = anyio.Event()
        results: list[T] = []
        failures: list[Exception] = []

        def job() -> None:
            try:
                results.append(function(*args))
            except Exception as failure:  # noqa: BLE001 - raised again where the call was awaited
                failures.append(failure)
            anyio.from_thread.run_sync(done.set, token=self._token)

        self._jobs.put(job)
        await done.wait()
        if failures:
            raise failures[0]
        return results[0]

    def close(self) -> None:
        """Let the thread end after the call it is in."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except RuntimeError:
                return  # the event loop is gone


class StdinReader:
    """The reading end."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._thread: SideThread | None = None
        self._polled = sys.platform != "win32"

    async def chunk(self) -> bytes:
        """The next bytes, as many as are there; none at the end of the stream."""
        if self._fd is None:
            return b""
        while True:
            try:
                if self._polled:
                    await anyio.wait_readable(self._fd)
            except (OSError, NotImplementedError):
                self._polled = False  # a regular file or the null device: never polled, never long in coming
            try:
                if self._polled:
                    return os.read(self._fd, _CHUNK)
                self._thread = self._thread or SideThread("stdin")
                return await self._thread.call(os.read, self._fd, _CHUNK)
            except BlockingIOError:
                if not self._polled:
                    os.set_blocking(self._fd, True)
            except OSError:
                return b""  # a terminal that hung up, a socket that was reset

    def close(self) -> None:
        """Give the descriptor back, unless a thread is still reading it."""
        if self._thread is not None:
            self._thread.close()
        elif self._fd is not None:
            os.close(self._fd)
        self._fd = None


class StdoutWriter:
    """The writing end."""

    def __init__(self, fd: int | None, *, polled: bool = hasattr(select, "poll")) -> None:
        self._fd = fd
        self._poll: Any = None
        self._thread: SideThread | None = None
        if fd is not None and polled:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)

    async def write(self, line: bytes) -> None:
        """Write all of ``line``, waiting while the peer does not read; OSError where nobody can any more."""
        if self._fd is None:
            raise BrokenPipeError
        if self._poll is None:
            self._thread = self._thread or SideThread("stdout")
            await self._thread.call(_write_all, self._fd, line)
            return
        rest = memoryview(line)
        while rest:
            if not self._poll.poll(0):
                await anyio.wait_writable(self._fd)
            try:
                rest = rest[os.write(self._fd, rest[:_SAFE_WRITE]) :]
            except BlockingIOError:
                await anyio.wait_writable(self._fd)

    def close(self) -> None:
        """Give the descriptor back, unless a thread is still writing to it."""
        if self._thread is not None:
            self._thread.close()
        elif self._fd is not None:
            os.close(self._fd)
        self._fd = None


def _write_all(fd: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(fd, rest) :]
