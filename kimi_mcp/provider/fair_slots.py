"""``FairSlots``: slots for requests, which callers share fairly. Waits; no I/O."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from kimi_mcp.core import callers


class FairSlots:
    """Slots that callers share: each next one is for whoever waits and holds the fewest; among equals, in turn.

    Within one caller, the first to come is the first to go; a caller who is alone gets all. So many agents of a swarm
    take nothing from another caller beside what they hold already, and nobody waits for ever: who holds least is next.
    """

    def __init__(self, total: float) -> None:
        self._total = total
        self._used = 0
        self._held = Counter[str]()
        self._waiting: dict[str, deque[anyio.Event]] = {}  # in the order of their turns

    @property
    def total(self) -> float:
        """How many there are. Fewer than are held: as many are given back before anybody gets one."""
        return self._total

    @total.setter
    def total(self, total: float) -> None:
        self._total = total
        self._give()

    @property
    def free(self) -> float:
        """How many nobody holds."""
        return self._total - self._used

    @property
    def held(self) -> int:
        """How many are held."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many requests wait for one."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[None]:
        """Wait for a slot, and hold it on behalf of the current task's caller."""
        caller = callers.CURRENT.get()
        await self._wait(caller)
        try:
            yield
        finally:
            self._give_back(caller)

    async def _wait(self, caller: str) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._used < self._total:  # then nobody waits
            self._take(caller)
            return
        given = anyio.Event()
        self._waiting.setdefault(caller, deque()).append(given)
        try:
            await given.wait()
        except BaseException:  # cancelled
            if given.is_set():
                self._give_back(caller)
            else:
                self._waiting[caller].remove(given)
                if not self._waiting[caller]:
                    del self._waiting[caller]
            raise

    def _take(self, caller: str) -> None:
        self._used += 1
        self._held[caller] += 1

    def _give_back(self, caller: str) -> None:
        self._used -= 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        self._give()

    def _give(self) -> None:
        while self._waiting and self._used < self._total:
            caller = min(self._waiting, key=self._held.__getitem__)  # of equals the first
            queue = self._waiting.pop(caller)
            given = queue.popleft()
            if queue:
                self._waiting[caller] = queue  # behind the others
            self._take(caller)
            given.set()
