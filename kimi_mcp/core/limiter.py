"""``ResizableLimiter``: limits how many tasks do something at once. Waits; no I/O.

A free slot is taken without a checkpoint: a hundred tasks that yielded would all resume in one turn of the event loop.
"""

from __future__ import annotations

from types import TracebackType

import anyio


class ResizableLimiter:
    """Slots that tasks take with ``async with``, in the order in which they ask."""

    def __init__(self, most: float) -> None:
        self._limiter = anyio.CapacityLimiter(most)

    @property
    def most(self) -> float:
        """The number of slots; ``math.inf``: no limit. Slots taken beyond a lowered limit stay taken."""
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
