"""Takes stdin and stdout for the transport. Imports nothing heavy: it is the first thing that a server does. I/O."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

if sys.platform != "win32":
    import fcntl


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
