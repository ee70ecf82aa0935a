"""The event loop's clock, which a test can put forward: a deadline then passes when the test says so, however slow the
machine is. What waits for an event, and what arrives on a socket, is not touched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import anyio.lowlevel

LOOK_S = 0.013
"""Seconds between two looks whether others wait."""

TURNS = 20
"""Turns of the event loop in which what has become due, and what it sends, arrives within this process."""


class LoopTime:
    """Puts the running loop's clock forward, for good: what other tests of the loop wait for has its time as well."""

    def __init__(self) -> None:
        self._clock: Callable[[], float] | None = None
        self.passed = 0.0
        """Seconds so far."""

    async def forward(self, seconds: float) -> None:
        """What waits for a time within so many seconds is due now; returns once that has been done."""
        loop = asyncio.get_running_loop()
        if self._clock is None:
            self._clock = clock = loop.time
            vars(loop)["time"] = lambda: clock() + self.passed
        self.passed += seconds
        for _ in range(TURNS):
            await anyio.lowlevel.checkpoint()

    async def until(self, condition: Callable[[], object], step: float = 1) -> None:
        """Let time pass step by step until something holds."""
        while not condition():
            await self.forward(step)


@contextmanager
def fail_after_real(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so many seconds of the machine's own clock.

    anyio's `fail_after` goes by the loop's, which `LoopTime` puts forward by minutes within milliseconds.
    """
    loop = asyncio.get_running_loop()
    with anyio.CancelScope() as scope:
        timer = threading.Timer(seconds, loop.call_soon_threadsafe, [scope.cancel])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
    if scope.cancelled_caught:
        raise TimeoutError(f"not done after {seconds} s")


async def others_wait() -> None:
    """Return once every other task of the loop waits for something.

    anyio's `wait_all_tasks_blocked` looks every 0.1 s, and so does uvicorn's server: where both fall on the same turn
    of the loop it finds that one at work each time, and never returns.
    """
    this = asyncio.current_task()
    while True:
        await anyio.lowlevel.checkpoint()
        waiters = [getattr(task, "_fut_waiter", None) for task in asyncio.all_tasks() if task is not this]
        if all(waiter is not None and not waiter.done() for waiter in waiters):
            return
        await anyio.sleep(LOOK_S)
