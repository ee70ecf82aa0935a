"""``BudgetRaise``: lets a swarm whose budget does not suffice ask the user of its host for more. I/O: the store's.

The question lies in the store, and whoever waits for the swarm and can ask shows it: a call, a ``kimi_run`` or a task,
at whichever server. Until it is answered, or its time is over, what needs more money waits; all else goes on.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from kimi_mcp.core.callers import LOCAL
from kimi_mcp.core.profiles import dollars
from kimi_mcp.runs.store.retries import with_retries
from kimi_mcp.swarm.limits import SwarmLimits

if TYPE_CHECKING:
    from kimi_mcp.core.settings import Settings
    from kimi_mcp.runs.store.questions import BudgetQuestion
    from kimi_mcp.runs.store.store import RunStore
    from kimi_mcp.swarm.call import SwarmCall

ANSWER_S = 300.0
"""Seconds for which a question is open; then it is unanswered, and the swarm concludes with what it has."""

LOOK_EVERY_S = 2.0
"""Seconds between two looks for an answer, where no notification comes; where there are none, it looks more often."""

MOST_QUESTIONS = 10
"""How often a swarm asks."""

CENTS = 100


class BudgetRaise:
    """The raises of one swarm's budget, as one server sees them."""

    def __init__(
        self,
        store: RunStore,
        run_id: str,
        *,
        base_usd: float,
        most_usd: float | None,
        doing: Callable[[], Awaitable[str]],
        on_ask: Callable[[bool], None] = lambda is_open: None,
    ) -> None:
        """``base_usd``: the budget that it began with; ``most_usd``: the largest that its user may give, None: any.

        ``doing`` says what is done by now; ``on_ask`` is called as a question is opened, and as it is over.
        """
        from kimi_mcp.runs.store.questions import BudgetQuestions

        self._store, self._run_id = store, run_id
        self._questions = BudgetQuestions(store, run_id)
        self._base_usd, self._most_usd = base_usd, most_usd
        self._doing, self._on_ask = doing, on_ask
        self._question_lock = anyio.Lock()
        self._is_over = False

    async def known(self, limits: SwarmLimits) -> SwarmLimits:
        """The limits with all that was given so far."""
        return self._raised(limits, await with_retries(self._questions.all))

    async def is_declined(self) -> bool:
        """Whether the user declined to give more, or accepted without an amount."""
        return any(each.action == "decline" for each in await with_retries(self._questions.all))

    async def more(self, limits: SwarmLimits, used_usd: float, need_usd: float) -> SwarmLimits | None:
        """The limits with a larger budget than these, once the user gives one; None: there is no more.

        ``used_usd``: by all agents so far; ``need_usd``: what an agent needs to go on. One agent asks for all.
        """
        if self._is_over or limits.usd is None:
            return None
        async with self._question_lock:
            while not self._is_over:
                questions = await with_retries(self._questions.all)
                raised = self._raised(limits, questions)
                if raised.usd is not None and raised.usd > limits.usd:
                    return raised
                last = questions[-1] if questions else None
                if last is not None and last.action is None and self._store.now() < last.until:
                    await self._wait(last)
                elif last is not None and last.action is None:
                    await with_retries(partial(self._questions.answer, last.number, "unanswered"))
                elif (
                    (last is not None and last.action != "accept")
                    or len(questions) >= MOST_QUESTIONS
                    or (question := await self._question(len(questions) + 1, limits.usd, used_usd, need_usd)) is None
                ):
                    self._is_over = True
                else:
                    await with_retries(partial(self._questions.ask, question))
            return None

    def _raised(self, limits: SwarmLimits, questions: tuple[BudgetQuestion, ...]) -> SwarmLimits:
        given = math.fsum(each.given_usd for each in questions)
        return replace(limits, usd=self._base_usd + given) if given > 0 else limits

    async def _question(self, number: int, limit: float, used: float, need: float) -> BudgetQuestion | None:
        """The question for more; None: nobody may give more."""
        from kimi_mcp.runs.store.questions import BudgetQuestion

        most = None if self._most_usd is None else self._most_usd - limit
        if most is not None and most <= 0:
            return None
        left = max(0.0, limit - used)
        suggested = math.ceil(max(self._base_usd, used + need - limit) * CENTS) / CENTS
        suggested = suggested if most is None else min(suggested, most)
        message = (
            f"The swarm's next request, and the conclusion after it, may cost up to {dollars(need)}; {dollars(left)} "
            f"is left of its budget of {dollars(limit)}, of which it has used {dollars(used)}. So far: "
            f"{await self._doing()}. How many US dollars more may it use? It suggests {dollars(suggested)} more. "
            "Declined, or accepted without an amount, it concludes with what it has."
        )
        return BudgetQuestion(
            number=number,
            until=self._store.now() + ANSWER_S,
            message=message,
            suggested_usd=suggested,
            most_usd=most,
        )

    async def _wait(self, question: BudgetQuestion) -> None:
        """Wait until something may have changed, at the latest until the time of a question is over."""
        self._on_ask(True)
        try:
            async with self._store.notifications.waiting("steps", self._run_id) as waiter:
                known = await with_retries(self._questions.open)
                while known is not None and known.number == question.number:
                    await waiter.next(LOOK_EVERY_S)
                    known = await with_retries(self._questions.open)
        finally:
            self._on_ask(False)


def budget_raise(
    call: SwarmCall,
    store: RunStore,
    run_id: str,
    *,
    caller: str,
    limits: SwarmLimits,
    settings: Settings,
    doing: Callable[[], Awaitable[str]],
    on_ask: Callable[[bool], None] = lambda is_open: None,
) -> BudgetRaise | None:
    """How a swarm asks for more; None: nobody can be asked. ``limits``: those that it began with.

    The user of a host on this machine is its operator; a principal of the HTTP server gives back at most what its own
    call has taken off the operator's limit.
    """
    if not call.asks or limits.usd is None:
        return None
    most = None if caller == LOCAL else settings.budget_usd_per_swarm
    if most is not None and most <= limits.usd:
        return None
    return BudgetRaise(store, run_id, base_usd=limits.usd, most_usd=most, doing=doing, on_ask=on_ask)
