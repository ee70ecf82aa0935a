"""``SpendingLimits``: what one call and one day may cost, and whose price counts where none is known.

I/O: the journal's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from kimi_mcp import policy
from kimi_mcp.core.errors import BudgetExceeded, KimiError
from kimi_mcp.core.pricing import counted_usd, dollars
from kimi_mcp.core.profiles import Price

if TYPE_CHECKING:
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.runs.run import Run
    from kimi_mcp.runs.store.store import RunStore


LOOK_WITHIN_S = 0.5
"""Seconds for which an answer that is whole waits for the store to say what was spent today."""


class SpendingLimits:
    """The spending limits of an operator, in US dollars; None where there is none."""

    def __init__(
        self,
        *,
        call_usd: float | None = None,
        day_usd: float | None = None,
        dearest: Callable[[], Price] | None = None,
    ) -> None:
        self.day_usd = day_usd
        """What all runs of a day (UTC) may cost together, those of every server on the same data folder."""
        self._call_usd, self._dearest = call_usd, dearest

    def counted_usd(self, run: Run) -> float:
        """What a run counts so far."""
        return run.counted_usd(self.fallback_price())

    def fallback_price(self) -> Price | None:
        """What limits count where the price is unknown."""
        return self._dearest() if self._dearest is not None else None

    def check(self, run: Run) -> None:
        """Raise ``BudgetExceeded`` where one call costs more than it may; a swarm has a budget of its own."""
        if run.progress is not None or self._call_usd is None:
            return
        counted = self.counted_usd(run)
        if counted > self._call_usd:
            begun = "costs" if run.attempts else "would start at"
            raise BudgetExceeded(
                f"The call {begun} about {dollars(counted)}; a call may cost {dollars(self._call_usd)}.",
                fix="Raise KIMI_BUDGET_USD_PER_CALL, or ask for less at once.",
            )

    async def overrun(self, run: Run, outcome: Outcome, store: RunStore) -> Outcome:
        """The outcome of a call, with a warning for each limit that it exceeds though nothing stopped it."""
        if isinstance(outcome.error, BudgetExceeded) or not run.attempts:
            return outcome
        spent = self.counted_usd(run) if outcome.cost_usd is None else outcome.cost_usd
        exceeded: list[tuple[str, float, float]] = []
        if run.progress is None and self._call_usd is not None and spent > self._call_usd:
            exceeded.append(("KIMI_BUDGET_USD_PER_CALL", self._call_usd, spent))
        if self.day_usd is not None:
            today = await self._spent_today_usd(store, run, spent)
            if today > self.day_usd:
                exceeded.append(("KIMI_BUDGET_USD_PER_DAY", self.day_usd, today))
        warned = (
            policy.reported("budget-overrun", field=field, asked=limit, sent=round(usd, 6))
            for field, limit, usd in exceeded
        )
        return replace(outcome, policy=(*outcome.policy, *warned)) if exceeded else outcome

    async def _spent_today_usd(self, store: RunStore, run: Run, spent: float) -> float:
        """What the day's runs count once this one has cost ``spent``; 0 if the store does not say so in time."""
        with anyio.move_on_after(LOOK_WITHIN_S, shield=True):  # a cancellation by now would lose the answer
            try:
                return await store.spent_today_usd(run.id, spent)
            except KimiError:
                pass
        return 0.0

    def watch(self, run: Run) -> None:
        """Have a call stopped by the chunk that makes it cost more than it may, not by the next look at it."""
        plan = run.plan
        price = None if plan is None else plan.profile.price or self.fallback_price()
        if run.progress is not None or self._call_usd is None or price is None or not price.output:
            return
        accumulator, left = run.request_state.accumulator, self._call_usd - self.counted_usd(run)
        accumulator.watch(accumulator.tokens + int(left / counted_usd(0, 1, price)), partial(self._stop_beyond, run))

    def _stop_beyond(self, run: Run) -> None:
        try:
            self.check(run)
        except BudgetExceeded as reached:
            run.stop(reached)

    async def hold(self, live: Iterable[Run], store: RunStore) -> None:
        """Stop what costs more than it may by now; what has arrived is its answer."""
        runs = list(live)
        for run in runs:
            self._stop_beyond(run)
        if self.day_usd is None:
            return
        try:
            spent = await store.spent_today_usd()
        except KimiError:
            return
        if spent > self.day_usd:
            for run in runs:
                run.stop(
                    BudgetExceeded(
                        f"Today's spending limit is reached: about {dollars(spent)} of {dollars(self.day_usd)}.",
                        fix="Raise KIMI_BUDGET_USD_PER_DAY, or call again tomorrow (UTC).",
                    )
                )
