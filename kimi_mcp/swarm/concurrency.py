"""``SwarmConcurrency``: how many of a swarm's requests are under way at once, and how fast its agents are launched.

Waits; no I/O.

Launches are staged as Kimi Code stages them: a few at once, then one at a time. A rate limit halves what is allowed at
once, each request that succeeds gives a little of it back. One place of the server's is left for others' calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from kimi_mcp.core.limiter import ResizableLimiter

RETRY_DELAYS_S = (3.0, 10.0)
"""Seconds that an agent waits before it makes a request once more that was refused for its rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSchedule:
    """How agents are launched."""

    burst: int = 5
    """How many begin at once (MoonshotAI/kimi-code, features/swarm)."""
    interval_s: float = 0.7
    """Seconds between two that follow (the same); 0: all begin at once."""


class SwarmConcurrency:
    """One swarm's share of the places for requests."""

    def __init__(
        self,
        places: int,
        launch: LaunchSchedule = LaunchSchedule(),
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.sleep = sleep
        """How to wait; tests put something quicker in its place."""
        self.capacity = float(max(1, places - 1))
        """Requests that may be under way at once; what is below a whole one is on its way to it."""
        self._most = self.capacity
        self.places = ResizableLimiter(int(self.capacity))
        """Places for requests."""
        self._launch = launch
        self._due = float("-inf")
        self.generation = 0
        """How often the rate was reached so far: what a request tells ``limited`` that began with it."""

    async def wait_for_launch(self) -> None:
        """Return once the next agent may begin."""
        now, every = anyio.current_time(), self._launch.interval_s
        self._due = max(now, self._due) + every
        wait = self._due - self._launch.burst * every - now
        if wait > 0.001:
            await self.sleep(wait)

    def rate_limited(self, generation: int) -> None:
        """Halve the capacity after a rate limit, once for all requests of the same generation."""
        if generation == self.generation:
            self.generation += 1
            self._allow(max(1.0, self.capacity / 2))

    def succeeded(self) -> None:
        """A request succeeded: one more at once, after as many as are allowed now."""
        self._allow(min(self._most, self.capacity + 1 / self.capacity))

    def _allow(self, capacity: float) -> None:
        self.capacity = capacity
        self.places.most = int(capacity)
