"""``with_retries``: work that waits for a database which is away for a while. I/O: what it is given to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from kimi_mcp.core.errors import KimiError

T = TypeVar("T")

WITHIN_S = 60.0
"""Seconds for which work is done again: within a minute a database is restarted."""

EVERY_S = 1.0
"""Seconds between two attempts: few enough to meet one that is back for a moment only."""


async def with_retries(
    work: Callable[[], Awaitable[T]],
    *,
    faults: type[Exception] | tuple[type[Exception], ...] = KimiError,
    within_s: float = WITHIN_S,
    every_s: float = EVERY_S,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    clock: Callable[[], float] = anyio.current_time,
) -> T:
    """The result of some work, which is done again where it raises one of these; raises it once the time is over.

    ``sleep`` and ``clock``: how to wait, and the time in seconds.
    """
    until, waited_s = clock() + within_s, 0.0
    while True:
        try:
            return await work()
        except faults:
            if clock() >= until or waited_s >= within_s:
                raise
        await sleep(every_s)
        waited_s += every_s
