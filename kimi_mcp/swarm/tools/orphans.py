"""What a tool server started and what has left its process group: found by a mark in its environment. Does I/O.

A child that calls ``setsid``, or that is orphaned by its parent's end, belongs to nobody whom one could ask. But it has
inherited the environment of the server, where each start puts a mark of its own, and Linux shows to a user the
environment of each process of theirs (``/proc/<pid>/environ``).

Limits: a process is not found that was started with a cleared environment (``env -i``), that has overwritten it, or
that runs as another user. On systems without ``/proc``, such as macOS, nothing is found: there a server's process group
is all that ends with it. If this program is killed itself, nobody looks.
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
    """The mark of one start of a server, which everything has that it starts."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {VARIABLE: secrets.token_hex(16)}
        """What goes into the environment of the server's process."""
        self._entry = f"{VARIABLE}={self.environment[VARIABLE]}".encode()

    def signal(self, number: signal.Signals) -> list[int]:
        """Signal every process that has it; their ids, as far as they live. Blocking: it looks at all processes."""
        return [pid for pid in _all_processes() if self.is_on(pid) and self._signal(pid, number)]

    def kill(self, within_s: float) -> None:
        """Kill every process that has it, again until there is none, or the time is over. Blocking."""
        until = time.monotonic() + within_s
        while self.signal(signal.SIGKILL) and time.monotonic() < until:
            time.sleep(0.01)  # one that was being started is seen by the next look

    def is_on(self, pid: int) -> bool:
        """Whether a process lives and has it."""
        try:
            return self._entry in (_PROCESSES / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or it is somebody else's
            return False

    def _signal(self, pid: int, number: signal.Signals) -> bool:
        with _held(pid) as descriptor:
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
def _held(pid: int) -> Generator[int | None]:
    """A descriptor that means this process, and never one that gets its id later; None where the kernel has none."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _all_processes() -> list[int]:
    try:
        return [int(folder.name) for folder in _PROCESSES.iterdir() if folder.name.isdecimal()]
    except OSError:
        return []
