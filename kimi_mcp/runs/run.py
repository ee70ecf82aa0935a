"""``Run``: the life of one call, from its beginning to its end. No I/O of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import anyio

from kimi_mcp.core import callers
from kimi_mcp.core.errors import Cancelled, KimiError, internal_error, server_stopped
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.types import Completion
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs.rounds import Rounds
from kimi_mcp.runs.run_state import RunState
from kimi_mcp.runs.store.day_limits import RunBudget

if TYPE_CHECKING:
    from kimi_mcp.runs.registry import Runs, RunView
    from kimi_mcp.runs.store.records import RunRecord
    from kimi_mcp.runs.store.store import RunStore

log = logging.getLogger(__name__)

STORE_WITHIN_S = 1.0
"""Seconds that a report on a run waits for the store."""

RunFunction = Callable[["Run"], Awaitable[Outcome]]
"""What a run does: it gets the run, and returns how that ended."""


class Run(RunState):
    """One call while it runs."""

    def __init__(
        self, *, caller: str, tool: str, prompt: str, host: str | None = None, call_key: str | None = None
    ) -> None:
        super().__init__(caller=caller, tool=tool, prompt=prompt, host=host, call_key=call_key)
        self.task: Mapping[str, Any] | None = None
        """What another server needs to continue it, as JSON; None: none can."""
        self.budget = RunBudget()
        """What it may cost until more is held for it."""
        self.holds_turn = False
        """Whether it has its turn in its conversation."""
        self.abandoned = False
        """Whether its host gave up on it."""
        self.done = anyio.Event()
        """Set when it has ended."""
        self.concluded: Outcome | None = None
        """How it ends, once that is decided: stopping it while it closes what it has opened changes nothing."""
        self.recorded = False
        """Whether the store has it."""
        self.recorded_or_done = anyio.Event()
        """Set once it is recorded, or has ended without that."""
        self.may_be_recorded = False
        """Whether a write of it was begun: the store may have it though nobody waited for that."""
        self._runs: Runs | None = None
        self._recording, self._scope = anyio.Lock(fast_acquire=True), anyio.CancelScope()
        self._leaving = anyio.CancelScope()
        self.elsewhere: RunView | None = None
        """It as the store has it, where another replica runs it from here on: nothing more of it is written here."""
        self._stopped: KimiError | None = None

    @classmethod
    def resumed(cls, record: RunRecord, task: Mapping[str, Any], *, now: float) -> Run:
        """The run of a record, to be continued; ``now``: the store's time."""
        run = cls(caller=record.caller, tool=record.tool, prompt=record.prompt_head, host=record.host)
        run.id, run.started_at, run.task = record.id, record.started_at, task
        run.recorded = run.may_be_recorded = run._is_announced = True
        run.recorded_or_done.set()
        run.conversation_id, run.follows = record.conversation_id, record.follows
        run._created_at -= max(0.0, now - record.started_at)
        run._active_before_s = record.lived_s
        return run

    @classmethod
    def reopened(cls, record: RunRecord, counted_usd: float) -> Run:
        """The run of a record that has ended, to continue its answer; ``counted_usd``: what limits count for it."""
        outcome = record.outcome
        run = cls.resumed(record, {}, now=record.started_at)
        run.task = None
        run.kept = replace(outcome, error=None)
        run.model_asked, run.provider, run.mode = outcome.model_asked, outcome.provider, outcome.mode
        run._attempts_before, run._counted_before = outcome.timing.attempts, counted_usd
        run._first_token_s = outcome.timing.first_token_s
        run._created_at = time.monotonic() - outcome.timing.total_s
        return run

    @property
    def store(self) -> RunStore:
        """Where it is recorded, once it runs."""
        assert self._runs is not None, "a run is started before it works"
        return self._runs.store

    def is_live(self, run_id: str) -> bool:
        """Whether another run of this process is running, or its outcome still to be written."""
        return self._runs is not None and self._runs.is_live(run_id)

    async def begin(self, plan: Plan) -> None:
        """Begin a request, recorded first. Raises ``NotConfigured`` where that fails, and ``BudgetExceeded``."""
        self.request_state.begin(plan)
        self.mode, self.provider = plan.mode, plan.profile.provider.id
        await self.record()

    async def record(self) -> None:
        """Record what is known of it. Raises ``NotConfigured`` where that can't be done, and ``BudgetExceeded``."""
        if self._runs is not None:
            async with self._recording:
                await self._runs.recorder.write(self)

    async def begin_again(self, plan: Plan, kept: Outcome, *, continues: bool = False) -> None:
        """Begin another request for the same answer; ``kept``: the outcome of the one before.

        ``continues``: what it brings comes behind that answer, not in its place.
        """
        self._counted_before = self.counted_usd(None if self._runs is None else self._runs.limits.fallback_price())
        self.kept, self._attempts_before = kept, self.attempts
        self._rounds, self.tools_usd = None, 0.0  # ``kept`` has them
        begun: dict[str, Any] = {"answer": kept.answer, "reasoning": kept.reasoning} if continues else {}
        self.request_state, self.requests = RequestState(self.first_token_came, **begun), self.requests + 1
        await self.begin(plan)

    def round_over(self, completion: Completion, cost_usd: float | None) -> None:
        """One of several requests for an answer has ended, and another will follow: what it brought counts on."""
        if cost_usd is None:
            self._counted_before = self.counted_usd(None if self._runs is None else self._runs.limits.fallback_price())
        else:
            self._counted_before += cost_usd
        if self._rounds is None:
            self._rounds = Rounds(reasoning=completion.reasoning, usage=completion.usage, cost_usd=cost_usd)
        else:
            self._rounds = self._rounds.and_then(completion, cost_usd)
        plan, self._attempts_before = self.plan, self.attempts
        self.request_state, self.requests = RequestState(self.first_token_came), self.requests + 1
        self.request_state.plan = plan

    async def cancel(self) -> None:
        """Cancel it; the upstream request is closed at once. Returns once it has ended."""
        self._scope.cancel()
        await self.done.wait()
        if self.elsewhere is not None:
            await self.elsewhere.cancel()

    @property
    def is_stopped(self) -> bool:
        """Whether it was cancelled, or stopped by a limit; not whether it ended otherwise, or was left."""
        return self._stopped is not None or self._scope.cancel_called

    async def leave(self) -> None:
        """Leave it to another replica as it is recorded; returns once nothing more is done here."""
        self._leaving.cancel()
        await self.done.wait()

    async def leave_to_others(self) -> NoReturn:
        """The same from within: it does not return."""
        self._leaving.cancel()
        await anyio.sleep_forever()
        raise AssertionError("it was cancelled")

    def cancel_soon(self) -> None:
        """Cancel it without waiting for its end."""
        self._scope.cancel()

    def stop(self, error: KimiError) -> None:
        """End it with an error; what has arrived is its answer. One whose answer is complete is about to end anyway."""
        if not self.request_state.accumulator.finished:
            self._stopped = error
            self._scope.cancel()

    async def begun(self) -> None:
        """Wait until it is recorded, or has ended before that: it was refused."""
        await self.recorded_or_done.wait()

    async def wait(self) -> None:
        """Wait until it has ended, wherever that is."""
        await self.done.wait()
        if self.elsewhere is not None:
            await self.elsewhere.wait()

    async def current_outcome(self) -> Outcome:
        """Its outcome so far; recorded, as a caller may find it by its id from here on, unless the store is slow."""
        self.announce()
        if self.elsewhere is not None:
            return await self.elsewhere.current_outcome()
        if self.outcome is None and not self.recorded:
            with anyio.move_on_after(STORE_WITHIN_S):
                await self.record()
        return self.snapshot()

    def phase(self) -> str:
        """What it is doing, in a line, wherever it runs."""
        return super().phase() if self.elsewhere is None else self.elsewhere.phase()

    async def execute(self, work: RunFunction, runs: Runs) -> None:
        """Run to the end, whatever end that is; it is recorded and set before ``done`` is."""
        self._runs = runs
        callers.CURRENT.set(self.caller)
        try:
            await self._execute(work, runs)
        finally:
            if self.outcome is None and self.elsewhere is None:
                run_id = self.id if self.is_known else None
                self.outcome = Outcome(status="failed", run_id=run_id, error=internal_error())
            self._attempts_before = self.attempts
            self.request_state, self.kept, self.progress = RequestState(), None, None  # the outcome has it all
            self.recorded_or_done.set()
            self.done.set()

    async def _execute(self, work: RunFunction, runs: Runs) -> None:
        try:
            with self._leaving, self._scope:
                outcome = await work(self)
                outcome = replace(outcome, timing=self.timing())
                self.outcome = await runs.limits.with_warnings(self, outcome, runs.store)
        except Exception as fault:
            log.exception("a run failed by a fault of our own")
            self.outcome = self.cut_off("failed", internal_error(fault))
        finally:
            if self.outcome is None and self.concluded is not None:
                self.outcome = replace(self.concluded, timing=self.timing())
            if self.outcome is None and self._leaving.cancel_called:
                self.elsewhere = runs.elsewhere(self)
            server_ends = self.outcome is None and self._stopped is None and not self._scope.cancel_called
            if self.outcome is None and self.elsewhere is None:
                self.outcome = self._cut_off()
            if self.elsewhere is not None:
                log.debug("%s is another replica's", self.id)
            elif server_ends and runs.can_go_on(self):
                log.info("%s is left for the next server", self.id)
                runs.left.add(self.id)
            else:
                with anyio.CancelScope(shield=True):
                    await runs.recorder.write_end(self)

    def _cut_off(self) -> Outcome:
        """The outcome of a run that was stopped or cancelled, or whose server ends."""
        if self._stopped is not None:
            arrived = self.cut_off("failed", self._stopped)
            return replace(arrived, status="partial") if arrived.answer.strip() else arrived
        if self._scope.cancel_called:
            error = Cancelled("The run was cancelled.", fix="Call again if you still want the answer.")
            return self.cut_off("cancelled", error)
        return self.cut_off("failed", server_stopped())
