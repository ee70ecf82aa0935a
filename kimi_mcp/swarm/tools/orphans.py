"""What a tool server started and what has left its process group: found by a mark in its environment. Does I/O.

A child that calls ``setsid``, or whose parent has ended, can't be found by its parent. But it has inherited the
environment of the server, which holds a mark of each start, and Linux shows a user the environment of each of their
processes (``/proc/<pid>/environ``).

Limits: a process is not found that was started with a cleared environment (``env -i``), has overwritten it, or runs as
another user. On systems without ``/proc``, such as macOS, nothing is found: there only a server's process group ends
with it. If this program itself is killed, nobody looks.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

VARIABLE: Final = "TOOL_SERVER_OF_KIMI_MCP"
"""The environment variable that holds the mark."""

_PROCESSES = Path("/proc")


class ProcessMark:
    """The mark of one start of a server, which all that it starts inherits."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {VARIABLE: secrets.token_hex(16)}
        """What goes into the environment of the server's process."""
        self._entry = f"{VARIABLE}={self.environment[VARIABLE]}".encode()

    def signal(self, number: signal.Signals) -> list[int]:
        """Signal every process that has it; the ids of those that live. Blocking: it reads all processes."""
        try:
            pids = [int(folder.name) for folder in _PROCESSES.iterdir() if folder.name.isdecimal()]
        except OSError:
            return []
        return [pid for pid in pids if self.is_on(pid) and self._signal(pid, number)]

    def kill(self, within_s: float) -> None:
        """Kill every process that has it, until there is none or the time is over. Blocking."""
        until = time.monotonic() + within_s
        while self.signal(signal.SIGKILL) and time.monotonic() < until:
            time.sleep(0.01)  # one that was being started is found in the next round

    def is_on(self, pid: int) -> bool:
        """Whether a process runs and has it."""
        try:
            return self._entry in (_PROCESSES / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or it is somebody else's
            return False

    def _signal(self, pid: int, number: signal.Signals) -> bool:
        with _process_descriptor(pid) as descriptor:
            if not self.is_on(pid):
                return False  # its id is another process's by now
            try:
                if descriptor is None:
                    os.kill(pid, number)
                else:
                    signal.pidfd_send_signal(descriptor, number)
            except OSError:
                return False
        return True


@contextmanager
def _process_descriptor(pid: int) -> Generator[int | None]:
    """A descriptor of this process, and never of one that gets its id later; None where the kernel has none."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
