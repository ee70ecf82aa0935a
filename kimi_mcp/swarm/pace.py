"""``Pace``: how many of a swarm's requests are under way at once, and how fast its agents are launched. Waits; no I/O.

Launches are staged as Kimi Code stages them: a few at once, then one at a time. A rate limit halves what is allowed at
once, each request that succeeds gives a little of it back. One place of the server's is left for others' calls.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

AGAIN_AFTER_S = (3.0, 10.0)
"""Seconds that an agent waits before it makes a request once more that was refused for its rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How agents are launched."""

    at_once: int = 5
    """How many begin at once (MoonshotAI/kimi-code, features/swarm)."""
    every_s: float = 0.7
    """Seconds between two that follow (the same); 0: all begin at once."""


class Pace:
    """One swarm's share of the places for requests."""

    def __init__(
        self, places: int, launch: Launch = Launch(), sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        self.sleep = sleep
        """How to wait; tests put something quicker in its place."""
        self.capacity = float(max(1, places - 1))
        """Requests that may be under way at once; what is below a whole one is on its way to it."""
        self._most = self.capacity
        self._limiter = anyio.CapacityLimiter(int(self.capacity))
        self._launch = launch
        self._due = float("-inf")
        self._wave = 0

    async def launched(self) -> None:
        """Return once the next agent may begin."""
        now, every = anyio.current_time(), self._launch.every_s
        self._due = max(now, self._due) + every
        wait = self._due - self._launch.at_once * every - now
        if wait > 0.001:
            await self.sleep(wait)

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[int]:
        """A place for one request; who waits is served in order. Yields what ``limited`` wants to know."""
        async with self._limiter:
            yield self._wave

    def limited(self, wave: int) -> None:
        """A request of that wave was refused for its rate: half as many from now on, once for all that went with it."""
        if wave == self._wave:
            self._wave += 1
            self._allow(max(1.0, self.capacity / 2))

    def fine(self) -> None:
        """A request succeeded: one more at once, after as many as are allowed now."""
        self._allow(min(self._most, self.capacity + 1 / self.capacity))

    def _allow(self, capacity: float) -> None:
        self.capacity = capacity
        self._limiter.total_tokens = int(capacity)
