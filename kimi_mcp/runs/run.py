"""``Run``: one call while it runs, and what it reports to those who wait for it. No I/O of its own."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from kimi_mcp.core.errors import AnswerCutOff, Cancelled, KimiError, internal_error
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Price, counted_usd
from kimi_mcp.core.redaction import clean
from kimi_mcp.core.tokens import with_margin
from kimi_mcp.core.types import Completion, Mode, Source, Status, Timing, Turn, add_usage, joined_reasoning
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs.rounds import Reports, Rounds, RunProgress, with_note

if TYPE_CHECKING:
    from kimi_mcp.runs.registry import Runs
    from kimi_mcp.runs.store.records import RunRecord
    from kimi_mcp.runs.store.store import RunStore

log = logging.getLogger(__name__)

STORE_WITHIN_S = 1.0
"""Seconds that a report on a run waits for the store."""

RunFunction = Callable[["Run"], Awaitable[Outcome]]
"""What a run does: it gets the run, and returns how that ended."""


class Run:
    """One call while it runs."""

    def __init__(
        self, *, caller: str, tool: str, prompt: str, host: str | None = None, call_key: str | None = None
    ) -> None:
        self.id = f"run_{secrets.token_hex(12)}"
        """Random, not to be guessed."""
        self.caller = caller
        """Who may read it."""
        self.host = host
        """The program that called, by its own name; None: it gave none."""
        self.call_key = call_key
        """The hash of tool and arguments; None: it is never joined."""
        self.tool = tool
        """The tool that was called."""
        self.prompt_head = " ".join(prompt[:200].split())[:80]
        """The beginning of its prompt, for lists."""
        self.conversation_id: str | None = None
        """The conversation it adds to."""
        self.follows: str | None = None
        """The run whose turns come before its own."""
        self.turns: tuple[Turn, ...] = ()
        """What it adds to its conversation; the answer comes after them."""
        self.request_state = RequestState(self.first_token_came)
        """The request that is running."""
        self.requests = 0
        """How many requests came before that one."""
        self.sources: tuple[Source, ...] = ()
        """The pages that it has looked at, in order."""
        self.answer_turn: Turn | None = None
        """Its answer as its conversation gets it; None: it is made of the outcome."""
        self.tools_usd = 0.0
        """What the provider's own tools have cost it, beside tokens."""
        self.reports = Reports()
        """What is reported to its waiters at once."""
        self.kept: Outcome | None = None
        """The outcome of an earlier request; it counts until the next one has a better one."""
        self.progress: RunProgress | None = None
        """Its state, where it has many requests; None: it has the one in ``request_state``."""
        self.task: Mapping[str, Any] | None = None
        """What another server needs to continue it, as JSON; None: none can."""
        self.model_asked: str | None = None
        """The model by the name that the caller or the setting gave."""
        self.provider: str | None = None
        """The provider's id."""
        self.mode: Mode | None = None
        """Its mode."""
        self.holds_turn = False
        """Whether it has its turn in its conversation."""
        self.abandoned = False
        """Whether its host gave up on it."""
        self.done = anyio.Event()
        """Set when it has ended."""
        self.concluded: Outcome | None = None
        """How it ends, once that is decided: stopping it while it closes what it has opened changes nothing."""
        self.outcome: Outcome | None = None
        """How it ended; None as long as it runs."""
        self.started_at = time.time()
        """Seconds since 1970."""
        self.recorded = False
        """Whether the store has it."""
        self.recorded_or_done = anyio.Event()
        """Set once it is recorded, or has ended without that."""
        self.may_be_recorded = False
        """Whether a write of it was begun: the store may have it though nobody waited for that."""
        self._runs: Runs | None = None
        self._recording = anyio.Lock()
        self._scope = anyio.CancelScope()
        self._created_at = self._began_at = time.monotonic()
        self._active_before_s = 0.0
        self._attempts_before = 0
        self._first_token_s: float | None = None
        self._is_announced = False
        self._stopped: KimiError | None = None
        self._counted_before = 0.0
        self._rounds: Rounds | None = None

    @classmethod
    def resumed(cls, record: RunRecord, task: Mapping[str, Any]) -> Run:
        """The run of a record, to be continued."""
        run = cls(caller=record.caller, tool=record.tool, prompt=record.prompt_head, host=record.host)
        run.id, run.started_at, run.task = record.id, record.started_at, task
        run.recorded = run.may_be_recorded = run._is_announced = True
        run.recorded_or_done.set()
        run.conversation_id, run.follows = record.conversation_id, record.follows
        run._created_at -= max(0.0, time.time() - record.started_at)
        run._active_before_s = record.lived_s
        return run

    @classmethod
    def reopened(cls, record: RunRecord, counted_usd: float) -> Run:
        """The run of a record that has ended, to continue its answer; ``counted_usd``: what limits count for it."""
        outcome = record.outcome
        run = cls.resumed(record, {})
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

    @property
    def attempts(self) -> int:
        """Upstream requests sent so far."""
        return self._attempts_before + (self.progress or self.request_state).attempts

    @property
    def is_known(self) -> bool:
        """Whether a caller may find it: something was sent, or its id was given out. A refused call is no run."""
        return bool(self.attempts or self._is_announced)

    def announce(self) -> bool:
        """From here on a caller may find it by its id; False where it was refused, and is no run."""
        if self.outcome is None:
            self._is_announced = True
        return self.is_known

    @property
    def plan(self) -> Plan | None:
        """What was sent; None as long as nothing was decided."""
        return self.request_state.plan

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

    def paid(self, usd: float) -> None:
        """Count what a tool of the provider has cost."""
        self.tools_usd += usd
        self._counted_before += usd

    def report(self, doing: str) -> None:
        """Tell those who wait what it does now, at once."""
        self.request_state.waits_for = clean(doing, "host")
        self.reports.add(self.request_state.waits_for)

    @property
    def reasoning(self) -> str | None:
        """All reasoning so far."""
        now = self.request_state.accumulator.reasoning
        return now if self._rounds is None else joined_reasoning(self._rounds.reasoning, now)

    async def cancel(self) -> None:
        """Cancel it; the upstream request is closed at once. Returns once it has ended."""
        self._scope.cancel()
        await self.done.wait()

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
        """Wait until it has ended."""
        await self.done.wait()

    async def current_outcome(self) -> Outcome:
        """Its outcome so far; recorded, as a caller may find it by its id from here on, unless the store is slow."""
        self.announce()
        if self.outcome is None and not self.recorded:
            with anyio.move_on_after(STORE_WITHIN_S):
                await self.record()
        return self.snapshot()

    def seconds(self) -> float:
        """Seconds since it was created."""
        return time.monotonic() - self._created_at

    def active_s(self) -> float:
        """Seconds that it ran, here and in its servers before."""
        return self._active_before_s + time.monotonic() - self._began_at

    def phase(self) -> str:
        """What it is doing, in a line: tokens, seconds, and which attempt."""
        if self.progress is not None:
            return clean(f"{self.progress.phase()} · {self.seconds():.0f} s", "terminal")
        request_state = self.request_state
        tokens = f" · about {request_state.accumulator.tokens:,} tokens" if request_state.accumulator.pieces else ""
        again = f" · attempt {self.attempts}" if self.attempts > 1 else ""
        return f"{request_state.doing()}{tokens} · {self.seconds():.0f} s{again}"

    def timing(self) -> Timing:
        """How long it has taken so far."""
        return Timing(first_token_s=self._first_token_s, total_s=self.seconds(), attempts=self.attempts)

    def counted_usd(self, highest_price: Price | None) -> float:
        """What spending limits count for it so far; ``highest_price`` counts where the price is unknown."""
        if self.progress is not None:
            return self.progress.counted_usd(highest_price)
        plan = self.plan
        price = None if plan is None else plan.price or highest_price
        if plan is None or price is None:
            return self._counted_before
        request = self.request_state
        never_sent = self.outcome is not None and not request.attempts
        prompt_tokens = 0 if never_sent else with_margin(request.prompt_tokens)
        return self._counted_before + counted_usd(prompt_tokens, request.accumulator.tokens, price)

    def snapshot(self, status: Status = "running", error: KimiError | None = None) -> Outcome:
        """Its outcome so far, with exactly what has arrived; the final one once it has ended."""
        if self.outcome is not None:
            return self.outcome
        if self.kept is not None:
            kept = replace(self.kept, status=status, timing=self.timing(), error=error)
            if not self.request_state.attempts or self.plan is None:
                return replace(kept, conversation_id=self.conversation_id)
            return replace(
                kept,
                **self._continued(),
                conversation_id=self.conversation_id,
                cost_usd=None,
                policy=with_note(kept.policy, self.plan.adjustments[-1:]),
            )
        completion = self.request_state.accumulator.completion()
        sent = self.plan.profile.serving.wire_id if self.plan else None
        outcome = Outcome(
            status=status,
            run_id=self.id if self.is_known else None,
            conversation_id=self.conversation_id if self.is_known else None,
            answer=completion.answer,
            reasoning=self.reasoning,
            model_asked=self.model_asked,
            model_sent=sent if self.attempts else None,
            model_answered=completion.model,
            provider=self.provider,
            mode=self.mode,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            sources=self.sources,
            policy=self.plan.adjustments if self.plan else (),
            timing=self.timing(),
            error=error,
        )
        if (rounds := self._rounds) is not None and self.request_state.attempts:
            return replace(outcome, usage=add_usage(rounds.usage, completion.usage))
        if rounds is not None:  # between two requests all is known
            cost = None if rounds.cost_usd is None else rounds.cost_usd + self.tools_usd
            return replace(outcome, usage=rounds.usage, cost_usd=cost)
        return outcome if self.progress is None else self.progress.so_far(outcome)

    def _continued(self) -> dict[str, Any]:
        """What has arrived of an answer that is continued, with what came before; nothing of any other."""
        accumulator = self.request_state.accumulator
        if not (accumulator.continues and accumulator.pieces):
            return {}
        arrived = accumulator.completion()
        return {name: getattr(arrived, name) for name in ("answer", "reasoning", "finish_reason")}

    async def execute(self, work: RunFunction, runs: Runs) -> None:
        """Run to the end, whatever end that is; it is recorded and set before ``done`` is."""
        self._runs = runs
        try:
            await self._execute(work, runs)
        finally:
            if self.outcome is None:
                run_id = self.id if self.is_known else None
                self.outcome = Outcome(status="failed", run_id=run_id, error=internal_error())
            self._attempts_before = self.attempts
            self.request_state, self.kept, self.progress = RequestState(), None, None  # the outcome has it all
            self.recorded_or_done.set()
            self.done.set()

    async def _execute(self, work: RunFunction, runs: Runs) -> None:
        try:
            with self._scope:
                outcome = await work(self)
                outcome = replace(outcome, timing=self.timing())
                self.outcome = await runs.limits.with_warnings(self, outcome, runs.store)
        except Exception as fault:
            log.exception("a run failed by a fault of our own")
            self.outcome = self.cut_off("failed", internal_error(fault))
        finally:
            if self.outcome is None and self.concluded is not None:
                self.outcome = replace(self.concluded, timing=self.timing())
            server_ends = self.outcome is None and self._stopped is None and not self._scope.cancel_called
            if self.outcome is None:
                self.outcome = self._cut_off()
            if server_ends and self.task is not None and runs.store.is_persistent:
                log.info("%s is left for the next server", self.id)
                runs.left_unfinished = True
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
        error = AnswerCutOff(
            "The server was stopped before the answer was complete; what had arrived is kept.",
            fix="Call again if you still need the rest.",
        )
        return self.cut_off("failed", error)

    def cut_off(self, status: Status, error: KimiError) -> Outcome:
        """The outcome of a run that an error ends; of many requests those that had finished count."""
        outcome = self.snapshot(status, error)
        return outcome if self.progress is None else self.progress.stopped(outcome)

    def first_token_came(self) -> None:
        """The first token of any of its requests has arrived."""
        if self._first_token_s is None:
            self._first_token_s = self.seconds()
