"""What ends a command before its work is done: Ctrl-C, or a signal to its process. Signals, exit.

SIGTERM and SIGHUP end a command as Ctrl-C does: what it has started is ended first, such as tool servers in sessions of
their own, and what has arrived is written down. But nobody has cancelled anything: what can be gone on with stays so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

LAST_RESORT_S = 5.0
"""Seconds after which a command that was told to end leaves, whatever hangs."""


class ExitSignals:
    """What the process was told to end by. Mutable: signals come when they come."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The first signal that was none of Ctrl-C; None: there was none."""
        self.ends = False
        """Whether the end has begun."""

    @property
    def status(self) -> int:
        """The exit status of a command that was told to end, as shells have it."""
        return 128 + (signal.SIGINT if self.signal is None else self.signal)

    @contextmanager
    def may_cut_off(self) -> Generator[None]:
        """What is cut off by the first signal; the end that follows is by none, and takes ``LAST_RESORT_S`` at most."""
        import anyio

        try:
            yield
        except anyio.get_cancelled_exc_class():
            self.ends = True
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # who presses twice would leave half of it alive
            watchdog = threading.Timer(LAST_RESORT_S, os._exit, [self.status])
            watchdog.daemon = True
            watchdog.start()
            raise

    def hear(self, number: int, frame: FrameType | None) -> None:
        """A signal has come: the first one ends what runs, as Ctrl-C does."""
        del frame
        if self.signal is None:
            self.signal = number
            signal.raise_signal(signal.SIGINT)


@contextmanager
def heard() -> Generator[ExitSignals]:
    """Within it the signals that end a process end what runs as Ctrl-C does; one that is ignored stays so."""
    told = ExitSignals()
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []  # no other thread hears of signals
    for number in ours:
        signal.signal(number, told.hear)
    try:
        yield told
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def leave_at_once(status: int) -> NoReturn:
    """Leave, all being said: the loop's own end waits for every thread, and a resolver's may hang."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
