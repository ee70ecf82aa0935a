"""``SpendingLimits``: what one call and one day may cost. I/O: the store's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from kimi_mcp import policy
from kimi_mcp.core.errors import BudgetExceeded, KimiError
from kimi_mcp.core.profiles import Price, counted_usd, dollars

if TYPE_CHECKING:
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.runs.run import Run
    from kimi_mcp.runs.store.store import RunStore

SPENT_WITHIN_S = 0.5
"""Seconds that a complete answer waits for what was spent today."""


class SpendingLimits:
    """The spending limits of an operator, in US dollars; None where there is none."""

    def __init__(
        self,
        *,
        call_usd: float | None = None,
        day_usd: float | None = None,
        highest_price: Callable[[], Price] | None = None,
    ) -> None:
        self.day_usd = day_usd
        """What all runs of a day (UTC) may cost together, on every server of the same data folder."""
        self._call_usd, self._highest_price = call_usd, highest_price

    def counted_usd(self, run: Run) -> float:
        """What is counted for a run so far."""
        return run.counted_usd(self.fallback_price())

    def fallback_price(self) -> Price | None:
        """What is counted where the price is unknown."""
        return self._highest_price() if self._highest_price is not None else None

    def _call_limit(self, run: Run) -> float | None:
        return self._call_usd if run.progress is None else None  # a swarm has a budget of its own

    def check(self, run: Run) -> None:
        """Raise ``BudgetExceeded`` where one call costs more than it may."""
        limit, counted = self._call_limit(run), self.counted_usd(run)
        if limit is not None and counted > limit:
            sent = run.progress is not None or run.request_state.attempts
            verb = "costs" if sent else "would cost" if run.attempts else "would start at"
            raise BudgetExceeded(
                f"The call {verb} {dollars(counted, estimated=True)}; a call may cost {dollars(limit)}.",
                fix="Raise KIMI_BUDGET_USD_PER_CALL, or ask for less at once.",
            )

    async def with_warnings(self, run: Run, outcome: Outcome, store: RunStore) -> Outcome:
        """The outcome of a call, with a warning for each limit that it exceeds though nothing stopped it."""
        if isinstance(outcome.error, BudgetExceeded) or not run.attempts:
            return outcome
        spent = self.counted_usd(run) if outcome.cost_usd is None else outcome.cost_usd
        exceeded: list[tuple[str, float, float]] = []
        limit = self._call_limit(run)
        if limit is not None and spent > limit:
            exceeded.append(("KIMI_BUDGET_USD_PER_CALL", limit, spent))
        if self.day_usd is not None:
            today = 0.0  # where the store does not answer in time
            with anyio.move_on_after(SPENT_WITHIN_S, shield=True), suppress(KimiError):
                today = await store.spent_today_usd(run.id, spent)  # a cancellation by now would lose the answer
            if today > self.day_usd:
                exceeded.append(("KIMI_BUDGET_USD_PER_DAY", self.day_usd, today))
        warnings = (
            policy.reported(
                "budget-overrun",
                field=field,
                asked=limit,
                sent=round(usd, 6),
                cost=dollars(usd, estimated=True),
                limit=dollars(limit),
            )
            for field, limit, usd in exceeded
        )
        return replace(outcome, policy=(*outcome.policy, *warnings)) if exceeded else outcome

    def watch(self, run: Run) -> None:
        """Stop a call at the chunk with which it costs more than it may, instead of at the next check."""
        limit, plan = self._call_limit(run), run.plan
        price = None if plan is None else plan.price or self.fallback_price()
        if limit is None or price is None or not price.output:
            return
        accumulator, remaining = run.request_state.accumulator, limit - self.counted_usd(run)
        accumulator.watch(accumulator.tokens + int(remaining / counted_usd(0, 1, price)), partial(self._stop, run))

    def _stop(self, run: Run) -> None:
        try:
            self.check(run)
        except BudgetExceeded as error:
            run.stop(error)

    async def enforce(self, live: Iterable[Run], store: RunStore) -> None:
        """Stop what costs more than it may by now; what has arrived is its answer."""
        runs = list(live)
        for run in runs:
            self._stop(run)
        if self.day_usd is None:
            return
        try:
            spent = await store.spent_today_usd()
        except KimiError:
            return
        for run in runs if spent > self.day_usd else ():
            run.stop(
                BudgetExceeded(
                    f"Today's spending limit is reached: {dollars(spent, estimated=True)} of {dollars(self.day_usd)}.",
                    fix="Raise KIMI_BUDGET_USD_PER_DAY, or call again tomorrow (UTC).",
                )
            )
