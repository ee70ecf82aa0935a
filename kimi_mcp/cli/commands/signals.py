"""A command that makes calls, and what ends it early: Ctrl-C, or a signal. Handles signals, opens the store, exits.

SIGTERM and SIGHUP end a command as Ctrl-C does: what it has started is ended first, such as tool servers in sessions of
their own, and what has arrived is recorded. But they cancel nothing: what can be resumed stays so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from kimi_mcp.core.settings import Settings
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import Runs

EXIT_WITHIN_S = 5.0
"""Seconds after which an interrupted command exits, whatever hangs."""


class ExitSignals:
    """The signals that the process has received. Mutable: signals come at any time."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The first signal other than that of Ctrl-C; None: there was none."""
        self.exiting = False
        """Whether the command was interrupted."""

    @property
    def status(self) -> int:
        """The exit status of an interrupted command, as shells have it."""
        return 128 + (signal.SIGINT if self.signal is None else self.signal)

    @contextmanager
    def interruptible(self) -> Generator[None]:
        """The first signal ends the block; from then on no other is heeded, and ``EXIT_WITHIN_S`` counts."""
        import anyio

        try:
            yield
        except anyio.get_cancelled_exc_class():
            self.exiting = True
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave half of it running
            watchdog = threading.Timer(EXIT_WITHIN_S, os._exit, [self.status])
            watchdog.daemon = True
            watchdog.start()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Interrupt what runs as Ctrl-C does, at the first signal."""
        del frame
        if self.signal is None:
            self.signal = number
            signal.raise_signal(signal.SIGINT)


@contextmanager
def handled_signals() -> Generator[ExitSignals]:
    """Within it SIGTERM and SIGHUP interrupt as Ctrl-C does; one of them that is ignored stays so."""
    received = ExitSignals()
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []  # other threads receive no signals
    background = bool(ours) and signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as a script starts what ends in &
    if background:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the event loop takes over no other one
    for number in ours:
        signal.signal(number, received.handle)
    try:
        yield received
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if background:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@asynccontextmanager
async def opened_runs(
    settings: Settings, *, resuming: bool = False
) -> AsyncGenerator[tuple[TaskGroup, Pipeline, Runs]]:
    """What a command needs to make calls, or to resume them; it is closed within a second, whatever hangs."""
    import anyio

    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import open_runs

    pipeline, runs = Pipeline(settings), None
    try:
        async with anyio.create_task_group() as tasks:
            if resuming:
                from kimi_mcp.swarm import prepare_resume, recovered_outcome

                runs = open_runs(tasks, settings, lambda task: prepare_resume(task, pipeline), recovered_outcome)
            else:
                runs = open_runs(tasks, settings)
            yield tasks, pipeline, runs
    finally:
        with anyio.move_on_after(1, shield=True):
            await pipeline.aclose()
            if runs is not None:
                await runs.aclose()


def exit_at_once(status: int) -> NoReturn:
    """Exit when all is printed: the loop's own end waits for every thread, and a resolver's may hang."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
