"""``SwarmConcurrency``: how many of a swarm's requests run at once, and how fast its agents are launched. No I/O.

Launches are staged as Kimi Code stages them: a few at once, then one at a time. A rate limit halves what is allowed at
once, each request that succeeds gives a little of it back. One of the server's slots is left for others' calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from kimi_mcp.core.limiter import ResizableLimiter


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSchedule:
    """How agents are launched."""

    burst: int = 5
    """How many begin at once (MoonshotAI/kimi-code, features/swarm)."""
    interval_s: float = 0.7
    """Seconds between two that follow (the same); 0: all begin at once."""


class SwarmConcurrency:
    """One swarm's share of the slots for requests, and its clock."""

    def __init__(
        self,
        slots: int,
        launch: LaunchSchedule = LaunchSchedule(),
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.sleep, self.clock = sleep, clock
        """How to wait, and the time in seconds."""
        self.capacity = float(max(1, slots - 1))
        """Requests that may run at once; a fraction is what successes have given back of the next one."""
        self._most = self.capacity
        self.slots = ResizableLimiter(int(self.capacity))
        """Slots for requests."""
        self._launch = launch
        self._due = float("-inf")
        self.generation = 0
        """How often the rate was limited so far, which a request that is limited gives to ``rate_limited``."""

    async def wait_for_launch(self) -> None:
        """Return once the next agent may begin."""
        now, interval = self.clock(), self._launch.interval_s
        self._due = max(now, self._due) + interval
        wait = self._due - self._launch.burst * interval - now
        if wait > 0.001:
            await self.sleep(wait)

    def rate_limited(self, generation: int) -> None:
        """Halve the capacity after a rate limit, once for all requests that began in the same generation."""
        if generation == self.generation:
            self.generation += 1
            self._resize(max(1.0, self.capacity / 2))

    def succeeded(self) -> None:
        """A request succeeded: one more at once, after as many as are allowed now."""
        self._resize(min(self._most, self.capacity + 1 / self.capacity))

    def _resize(self, capacity: float) -> None:
        self.capacity = capacity
        self.slots.most = int(capacity)
