"""``SharedLedger``: the ledger of a swarm on several replicas, in the database that they share. I/O: the store's."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio

from kimi_mcp.core.errors import KimiError
from kimi_mcp.runs.store.records import Used
from kimi_mcp.runs.store.retries import with_retries
from kimi_mcp.swarm.ledger import Permission, Wanted, decide, lacks_usd, left_usd, reached
from kimi_mcp.swarm.limits import Limit, SwarmConcurrency, SwarmLimits

if TYPE_CHECKING:
    from kimi_mcp.runs.store.notifications import Notifications
    from kimi_mcp.runs.store.swarm_totals import SwarmTotals
    from kimi_mcp.swarm.budget_raise import BudgetRaise

LOOK_EVERY_S = 2.0
"""Seconds between two looks at what others hold, where no notification comes."""

RELEASE_WITHIN_S = 2.0
"""Seconds for releasing what a step held that ended by a fault or a cancellation."""


class SharedLedger:
    """The ledger of one swarm, as one replica has it; its steps are recorded, and so counted, by ``CountedSteps``.

    ``used``: what is counted when it begins; ``elapsed_s``: the seconds before; ``concurrency`` has clock and sleep;
    ``raises``: how it asks for a larger budget, None: it asks nobody.
    """

    def __init__(
        self,
        limits: SwarmLimits,
        totals: SwarmTotals,
        notifications: Notifications,
        run_id: str,
        used: Used,
        *,
        concurrency: SwarmConcurrency,
        elapsed_s: float = 0.0,
        raises: BudgetRaise | None = None,
    ) -> None:
        self._raises = raises
        self.limits = limits
        """What may be used."""
        self._totals, self._notifications, self._run_id = totals, notifications, run_id
        self._seen = used  # running tool calls included: it only grows, so a limit that it has reached is reached
        self._clock, self._sleep = concurrency.clock, concurrency.sleep
        self._deadline = self._clock() + limits.seconds - elapsed_s
        self._held: set[str] = set()

    async def request_permission(self, key: str, wanted: Wanted) -> Permission:
        """See ``Ledger``."""
        while True:
            permission = await self._permission(key, wanted)
            if permission is not None:
                return permission
            async with self._notifications.waiting("steps", self._run_id) as waiter:
                # Once more: what was released before it listened is not notified again.
                permission = await self._permission(key, wanted)
                if permission is not None:
                    return permission
                await waiter.next(min(LOOK_EVERY_S, max(0.0, self._deadline - self._clock())))

    async def _permission(self, key: str, wanted: Wanted) -> Permission | None:
        """A permission, by a larger budget where its user gives one; None: not while so much is held."""
        while True:
            limits, found, lacking = self.limits, *await self._decide(key, wanted)
            if self._raises is None or lacking is None:
                return found
            raised, need_usd = None, wanted.usd + wanted.then + wanted.reserved
            with anyio.move_on_after(max(0.0, self._deadline - self._clock())):
                raised = await self._raises.more(limits, lacking.usd, need_usd)
            if raised is None:
                self._raises = None
            else:
                self.limits = raised

    async def _decide(self, key: str, wanted: Wanted) -> tuple[Permission | None, Used | None]:
        """A permission, whose cost is held unless its swarm may ask for more; then, too, what is used so far."""
        found: Permission | None = None
        lacking: Used | None = None
        limits, may_ask = self.limits, self._raises is not None
        is_over = self._is_over()  # the clock is the event loop's, and the store has threads

        def hold(used: Used, held: Used) -> Used | None:
            nonlocal found, lacking
            self._saw(used, held)
            limit = reached(limits, self._seen, time_is_over=is_over)
            found = decide(limits, used, held.usd, wanted, limit)
            if found is None and is_over:
                found = False, "seconds"
            lacks = may_ask and found is not None and lacks_usd(limits, used, wanted, found)
            lacking = used if lacks else None
            return Used(usd=wanted.usd) if found is not None and found[0] and not lacks else None

        await with_retries(partial(self._totals.hold, key, hold), sleep=self._sleep)
        if found is not None and found[0] and lacking is None:
            self._held.add(key)
        return found, lacking

    async def request_tool_call(self, key: str) -> bool:
        """See ``Ledger``."""
        may_run = False

        def hold(used: Used, held: Used) -> Used | None:
            nonlocal may_run
            self._saw(used, held)
            may_run = used.tool_calls + held.tool_calls < self.limits.tool_calls
            return Used(tool_calls=1) if may_run else None

        await with_retries(partial(self._totals.hold, key, hold), sleep=self._sleep)
        if may_run:
            self._held.add(key)
        return may_run

    def count(self, key: str, used: Used) -> None:
        """It was counted as it was recorded, or will be where the store did not take it yet."""
        del used
        self._held.discard(key)

    async def release(self, key: str) -> None:
        """See ``Ledger``."""
        if key in self._held:
            self._held.discard(key)
            with suppress(KimiError), anyio.move_on_after(RELEASE_WITHIN_S, shield=True):
                await self._totals.release(key)

    def used_up(self, usd: float, *, reserved: float) -> Limit | None:
        """See ``Ledger``; by what was seen last."""
        limit = reached(self.limits, self._seen, time_is_over=self._is_over())
        return limit or ("usd" if usd > left_usd(self.limits, self._seen, reserved) else None)

    async def total_usd(self) -> float:
        """See ``Ledger``."""
        return (await with_retries(self._totals.open, sleep=self._sleep)).usd

    def _saw(self, used: Used, held: Used) -> None:
        self._seen = used + Used(tool_calls=held.tool_calls)

    def _is_over(self) -> bool:
        return self._clock() >= self._deadline
