"""``Quotas``: how many calls each principal of the HTTP server may make, and all of them together.

I/O: the store's, where replicas share one.

They count calls that send something to a provider: a swarm is one, and one that joins the run of an earlier call is
none. A server counts its own, in memory; replicas count in their database. A refused call counts nowhere.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from math import ceil
from secrets import token_hex
from typing import TYPE_CHECKING

from kimi_mcp.core.errors import RateLimited
from kimi_mcp.core.settings import Settings
from kimi_mcp.provider.retry import WINDOW_S, LastMinute

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from kimi_mcp.runs.store.call_quotas import CallsMade
    from kimi_mcp.runs.store.store import RunStore

SOON_S = 5
"""Seconds after which to call again, where the end of another call must come first."""


class Quotas:
    """The calls of the last minute, by principal, and what may come beside those that run."""

    def __init__(
        self,
        settings: Settings,
        running: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``running``: the principal of each call that runs now; ``clock``: monotonic seconds."""
        self._settings, self._running, self._clock = settings, running, clock
        self._calls: dict[str, LastMinute] = {}  # whose latest call is the oldest comes first
        self._all_calls = LastMinute(clock)
        self._starting = Counter[str]()

    @contextmanager
    def taken(self, principal: str) -> Generator[None]:
        """Count a call, which is ``running`` by the end of the block. Raises ``RateLimited``, which names the limit."""
        self._forget()
        own = self._calls.get(principal) or LastMinute(self._clock)
        self._check_minute(own)
        self._check_at_once(principal)
        own.add()
        self._calls.pop(principal, None)
        self._calls[principal] = own
        if self._settings.quota_all_calls_per_minute is not None:
            self._all_calls.add()
        self._starting[principal] += 1
        try:
            yield
        finally:
            self._starting[principal] -= 1
            if not self._starting[principal]:
                del self._starting[principal]

    def __len__(self) -> int:
        """How many principals are remembered."""
        return len(self._calls)

    def _forget(self) -> None:
        """Forget principals that made no call within the last minute."""
        while self._calls:
            longest = next(iter(self._calls))
            if self._calls[longest].count()[0]:
                return
            del self._calls[longest]

    def _check_minute(self, own: LastMinute) -> None:
        most, most_of_all = self._settings.quota_calls_per_minute, self._settings.quota_all_calls_per_minute
        if own.count()[0] >= most:
            raise _made(most, self._wait_s(own, most))
        if most_of_all is not None and self._all_calls.count()[0] >= most_of_all:
            raise _all_made(self._wait_s(self._all_calls, most_of_all))

    def _check_at_once(self, principal: str) -> None:
        most, running = self._settings.quota_calls_at_once, self._running()
        if running.count(principal) + self._starting[principal] >= most:
            raise _running(most)
        if len(running) + self._starting.total() >= self._settings.quota_all_calls_at_once:
            raise _all_running()

    def _wait_s(self, calls: LastMinute, most: int) -> float:
        """Seconds until one more is allowed."""
        at, _ = calls.events[-most]
        return at + WINDOW_S - self._clock()


class SharedQuotas:
    """The same quotas over all replicas of one PostgreSQL."""

    def __init__(self, settings: Settings, store: RunStore) -> None:
        self._settings, self._store = settings, store

    async def take(self, principal: str, run_id: str) -> str:
        """Count a call whose run is about to start; returns its id. Raises ``RateLimited``, which names the limit."""
        from kimi_mcp.runs.store import call_quotas

        call_id, owner = f"call_{token_hex(12)}", self._store.lock.id

        def take(connection: Connection) -> RateLimited | None:
            made = call_quotas.count(connection, principal)
            refusal = self._refusal(made, partial(call_quotas.seconds_until, connection), principal)
            if refusal is None:
                call_quotas.add(connection, call_id, principal, run_id, owner)
            return refusal  # not raised there, where it would undo what shares the transaction

        if refusal := await self._store.write_locked((call_quotas.lock_of(principal),), take):
            raise refusal
        return call_id

    async def ended(self, call_id: str) -> None:
        """A call has ended, and no run of it is recorded."""
        from kimi_mcp.runs.store import call_quotas

        await self._store.write(call_quotas.end_start, call_id)

    def _refusal(
        self, made: CallsMade, seconds_until: Callable[[int, str | None], float], principal: str
    ) -> RateLimited | None:
        settings = self._settings
        if made.of_minute >= (most := settings.quota_calls_per_minute):
            return _made(most, seconds_until(most, principal))
        if (most := settings.quota_all_calls_per_minute) is not None and made.all_of_minute >= most:
            return _all_made(seconds_until(most, None))
        if made.running >= (most := settings.quota_calls_at_once):
            return _running(most)
        return _all_running() if made.all_running >= settings.quota_all_calls_at_once else None


def _made(most: int, wait_s: float) -> RateLimited:
    made = f"You have made {most} call{'s' if most > 1 else ''} within a minute, as many as you may."
    return _refused(made, "KIMI_QUOTA_CALLS_PER_MINUTE", wait_s)


def _all_made(wait_s: float) -> RateLimited:
    made = "The server has taken as many calls within a minute as it may."
    return _refused(made, "KIMI_QUOTA_ALL_CALLS_PER_MINUTE", wait_s)


def _running(most: int) -> RateLimited:
    runs = f"You have {most} call{'s' if most > 1 else ''} running, as many as you may."
    return _refused(runs, "KIMI_QUOTA_CALLS_AT_ONCE", SOON_S, "; kimi_run lists, awaits and cancels them")


def _all_running() -> RateLimited:
    return _refused("The server has as many calls running as it may.", "KIMI_QUOTA_ALL_CALLS_AT_ONCE", SOON_S)


def _refused(message: str, variable: str, wait_s: float, how: str = "") -> RateLimited:
    whole_s = max(1, ceil(wait_s))
    fix = f"Call again in {whole_s} s{how}. The operator can raise {variable}."
    return RateLimited(message, fix=fix, retry_after_s=whole_s)
