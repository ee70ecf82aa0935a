"""``SpendingLimits``: what one call and one day may cost. I/O: the store's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio

from kimi_mcp import policy
from kimi_mcp.core.callers import LOCAL
from kimi_mcp.core.errors import BudgetExceeded, KimiError
from kimi_mcp.core.profiles import Price, counted_usd, dollars
from kimi_mcp.runs.store.day_limits import DayLimit

if TYPE_CHECKING:
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.runs.run import Run
    from kimi_mcp.runs.store.store import RunStore

PRINCIPAL_DAY = "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY"
"""The variable of what a principal of the HTTP server may spend a day."""

HOLD_TOKENS = 2_000
"""Tokens of an answer that are held against limits of the day ahead of what has arrived: more than come until the next
write to the store, by which more is held."""

EQUAL = 1 + 1e-9
"""Sums of US dollars that differ by less are equal."""

SPENT_WITHIN_S = 0.5
"""Seconds that a complete answer waits for what was spent today."""


class SpendingLimits:
    """The spending limits of an operator, in US dollars; None where there is none."""

    def __init__(
        self,
        *,
        call_usd: float | None = None,
        day_usd: float | None = None,
        principal_day_usd: float | None = None,
        highest_price: Callable[[], Price] | None = None,
    ) -> None:
        self._day_usd, self._principal_day_usd = day_usd, principal_day_usd
        self._call_usd, self._highest_price = call_usd, highest_price
        self.on_used_up: Callable[[], None] = lambda: None
        """Called where a run has used all that is held for it."""

    def of_day(self, caller: str) -> list[DayLimit]:
        """The limits of a day (UTC) that a caller's runs meet."""
        limits: list[DayLimit] = []
        of_principal = caller != LOCAL
        if of_principal and (usd := self._principal_day_usd) is not None:
            limits.append(DayLimit(usd=usd, variable=PRINCIPAL_DAY, caller=caller, of_principal=True))
        if (usd := self._day_usd) is not None:
            limits.append(DayLimit(usd=usd, variable="KIMI_BUDGET_USD_PER_DAY", of_principal=of_principal))
        return limits

    def counted_usd(self, run: Run) -> float:
        """What is counted for a run so far."""
        return run.counted_usd(self.fallback_price())

    def hold_usd(self, run: Run) -> float:
        """What is held for a run against limits of the day, beside what is counted for it."""
        plan = run.plan
        price = None if plan is None else plan.price
        price = price or self.fallback_price()
        return counted_usd(0, HOLD_TOKENS, price) if price is not None else 0.0

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
        for day in self.of_day(run.caller):
            today = 0.0  # where the store does not answer in time
            with anyio.move_on_after(SPENT_WITHIN_S, shield=True), suppress(KimiError):  # else the answer may be lost
                today = await store.spent_today_usd(run.id, spent, caller=day.caller)
            if today > day.usd * EQUAL and day.shows_amounts:
                exceeded.append((day.variable, day.usd, today))
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
        limit = self._call_limit(run)
        most = min(inf if limit is None else limit, run.budget.usd)
        plan = run.plan
        price = None if plan is None else plan.price or self.fallback_price()
        if most == inf or price is None or not price.output:
            return
        accumulator, remaining = run.request_state.accumulator, most - self.counted_usd(run)
        accumulator.watch(accumulator.tokens + int(remaining / counted_usd(0, 1, price)), partial(self._stop, run))

    def _stop(self, run: Run) -> None:
        """Stop a run that costs more than it may; one that may cost more once that is held goes on until then."""
        try:
            self.check(run)
        except BudgetExceeded as error:
            run.stop(error)
            return
        if self.counted_usd(run) > run.budget.usd * EQUAL:
            if run.budget.reached is None:
                self.on_used_up()
            else:
                run.stop(run.budget.reached)

    async def enforce(self, live: Iterable[Run], store: RunStore) -> None:
        """Stop what costs more than it may by now; what has arrived is its answer."""
        runs = list(live)
        for run in runs:
            self._stop(run)
        limits = [(run, day) for run in runs for day in self.of_day(run.caller)]
        principals = {day.caller for _, day in limits if day.caller is not None}
        spent: dict[str | None, float] = {}
        try:
            if principals:
                spent.update(await store.spent_today_by_caller(principals))
            if self._day_usd is not None:
                spent[None] = await store.spent_today_usd()
        except KimiError:
            return
        for run, day in limits:
            if (usd := spent.get(day.caller, 0.0)) > day.usd * EQUAL:
                run.stop(day.error(usd, store.now()))
