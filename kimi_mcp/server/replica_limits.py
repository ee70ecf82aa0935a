"""``ReplicaLimits``: a replica's share of what providers take, and how it slows down with the others. I/O: the store's.

Replicas send with the same keys. Each takes its part of ``KIMI_MAX_CONCURRENCY`` and of what an account may send, as
many parts as replicas live; and where one is refused for its rate, all of them wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from kimi_mcp.core.background import contained, start_contained
from kimi_mcp.runs.store import account_refusals

if TYPE_CHECKING:
    from kimi_mcp.provider import Upstream
    from kimi_mcp.provider.failures import NamedLimit
    from kimi_mcp.runs.store.store import RunStore

LOOK_EVERY_S = 1.0
"""Seconds between two looks at how many replicas live."""

READ_EVERY_S = 5.0
"""Seconds between two reads of refusals, where no notification comes: one may be lost."""


class ReplicaLimits:
    """The limits of one replica among others."""

    def __init__(
        self,
        upstream: Upstream,
        store: RunStore,
        tasks: TaskGroup,
        living: Callable[[], int],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """``living``: how many replicas live, this one included."""
        self._look_every_s = look_every_s
        self._upstream, self._store, self._tasks, self._living = upstream, store, tasks, living
        self.replicas = 1
        """Among how many limits are divided."""
        self._known: dict[str, float] = {}
        self._sent: dict[str, tuple[NamedLimit | None, float]] = {}

    async def keep(self) -> None:
        """Keep to them until it is cancelled."""
        self._upstream.on_refused = self._refused
        failed, read_at = False, 0.0
        async with self._store.notifications.waiting("limited") as waiter:
            while True:
                self.replicas = max(1, self._living())
                self._upstream.share_among(self.replicas)
                if anyio.current_time() >= read_at:
                    failed = not await contained("refusals of replicas could not be read", self._read, again=failed)
                    read_at = anyio.current_time() + READ_EVERY_S
                if await waiter.next(self._look_every_s, deaf_s=self._look_every_s):
                    read_at = 0.0

    def _refused(self, account_id: str, limit: NamedLimit | None, wait_s: float) -> None:
        """Notify the others; of many equal refusals once."""
        limit_sent, opens_sent = self._sent.get(account_id, (None, 0.0))
        opens_at = anyio.current_time() + wait_s
        if limit in (None, limit_sent) and opens_at < opens_sent + LOOK_EVERY_S:
            return
        self._sent[account_id] = limit, opens_at
        start_contained(self._tasks, "replicas were not notified of a refusal", self._record, account_id, limit, wait_s)

    async def _record(self, account_id: str, limit: NamedLimit | None, wait_s: float) -> None:
        await self._store.write(account_refusals.record, account_id, self._store.lock.id, limit, wait_s)

    async def _read(self) -> None:
        for refusal in await self._store.read(account_refusals.latest):
            if self._known.get(refusal.account_id) != refusal.at:
                self._known[refusal.account_id] = refusal.at
                if refusal.server != self._store.lock.id:
                    account = self._upstream.account(refusal.account_id)
                    account.refused_elsewhere(refusal.limits, max(0.0, refusal.wait_s), refusal.ago_s)
