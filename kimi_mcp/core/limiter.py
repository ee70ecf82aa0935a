"""``ResizableLimiter``: so many at once, a number that may change. Waits; no I/O.

Who finds a free place takes it without giving way: a hundred that did would all go on in the same turn of the event
loop, and what each of them does next would be as late as the last.
"""

from __future__ import annotations

from types import TracebackType

import anyio


class ResizableLimiter:
    """Places that are taken with ``async with``, one a task; who waits is served in order."""

    def __init__(self, most: float) -> None:
        self._limiter = anyio.CapacityLimiter(most)

    @property
    def most(self) -> float:
        """How many there are; ``math.inf`` where nothing bounds them. Those that are taken beyond it stay taken."""
        return self._limiter.total_tokens

    @most.setter
    def most(self, most: float) -> None:
        self._limiter.total_tokens = most

    async def __aenter__(self) -> None:
        try:
            self._limiter.acquire_nowait()
        except anyio.WouldBlock:
            await self._limiter.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limiter.release()
