"""``Run``: one call while it lives, and what it tells whoever waits for it. No I/O of its own.

It grows as its answer does. It is written down before anything is paid for, and when somebody is told its id.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from kimi_mcp.core.errors import AnswerCutOff, Cancelled, KimiError, fault_of_ours
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.pricing import counted_usd
from kimi_mcp.core.profiles import Price
from kimi_mcp.core.redaction import printable
from kimi_mcp.core.types import Completion, Mode, Status, Timing, Turn
from kimi_mcp.provider.request_state import RequestState

if TYPE_CHECKING:
    from kimi_mcp.runs.store.records import RunRecord
    from kimi_mcp.runs.store.store import RunStore

log = logging.getLogger(__name__)


LOOK_WITHIN_S = 1.0
"""Seconds that a look at a run waits for the journal."""


class RunView(Protocol):
    """A run as whoever waits for it sees it, wherever it lives."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    async def wait(self) -> None:
        """Until it has ended."""
        ...

    async def current_outcome(self) -> Outcome:
        """How it stands, with exactly what has arrived."""
        ...

    async def cancel(self) -> None:
        """End it; returns once it has ended."""
        ...

    def phase(self) -> str:
        """What it is at, in a line."""
        ...


RunFunction = Callable[["Run"], Awaitable[Outcome]]
"""What a run does: it gets the run, and returns how that ended."""


class RunProgress(Protocol):
    """What a run of many requests is at, as a swarm is."""

    @property
    def attempts(self) -> int:
        """Upstream requests sent so far."""
        ...

    def phase(self) -> str:
        """What it is at, in a line for whoever waits."""
        ...

    def so_far(self, outcome: Outcome) -> Outcome:
        """The run's outcome, with what the requests have brought."""
        ...

    def stopped(self, outcome: Outcome) -> Outcome:
        """The outcome of a run that did not come to its own end, with what its requests had finished by then."""
        ...

    def counted_usd(self, dearest: Price | None) -> float:
        """What spending limits count for it so far; ``dearest`` counts where a price is unknown."""
        ...


class RunKeeper(Protocol):
    """Who lets a run live, and writes it down (``Runs``)."""

    store: RunStore
    """Where it is written down."""

    def is_live(self, run_id: str) -> bool:
        """Whether a run of this process is under way, or its end still to be written."""
        ...

    def fallback_price(self) -> Price | None:
        """What limits count where the price is unknown."""
        ...

    async def judged(self, run: Run, outcome: Outcome) -> Outcome:
        """Its outcome, with what is to be said of its cost."""
        ...

    async def write(self, run: Run) -> None:
        """Write down what is known of it."""
        ...

    async def write_end(self, run: Run) -> None:
        """Write down how it ended."""
        ...

    def leave(self, run: Run) -> None:
        """Leave it to another server: this one ends."""
        ...


class Run:
    """One call while it lives. Mutable: it grows as its answer does."""

    def __init__(
        self, *, caller: str, tool: str, prompt: str, host: str | None = None, call_key: str | None = None
    ) -> None:
        self.id = f"run_{secrets.token_hex(12)}"
        """Random, not to be guessed."""
        self.caller = caller
        """Who may read it."""
        self.host = host
        """The program that asked, by its own name; None: not said."""
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
        """What it asks, as its conversation will remember it; the answer comes behind them."""
        self.request_state = RequestState(self.first_token_came)
        """The request that is under way."""
        self.requests = 0
        """How many requests came before that one."""
        self.kept: Completion | None = None
        """What an earlier request of this run brought: it stands until the next one has brought something better."""
        self.progress: RunProgress | None = None
        """What it is at, where it has many requests; None: it has the one in ``request_state``."""
        self.task: Mapping[str, Any] | None = None
        """What another server needs to go on with it, as JSON; None: nobody can."""
        self.model_asked: str | None = None
        """What the caller or the setting said."""
        self.provider: str | None = None
        """Who answers."""
        self.mode: Mode | None = None
        """The mode it is asked in."""
        self.holds_turn = False
        """Whether it is the one that adds to its conversation just now."""
        self.abandoned = False
        """Whether its host gave up on it."""
        self.done = anyio.Event()
        """Set when it has ended."""
        self.concluded: Outcome | None = None
        """How it ends, once that is decided: it stays so, whoever stops it while it closes what it has opened."""
        self.outcome: Outcome | None = None
        """How it ended; None as long as it runs."""
        self.started_at = time.time()
        """Seconds since 1970."""
        self.recorded = False
        """Whether the journal has it."""
        self.may_be_recorded = False
        """Whether the journal was asked to take it: it may have it though nobody waited for that."""
        self.counted_at_end: float | None = None
        """What spending limits count for it, once it has ended."""
        self._keeper: RunKeeper | None = None
        self._recording = anyio.Lock()
        self._scope = anyio.CancelScope()
        self._started = self._born = time.monotonic()
        self._lived_before = 0.0
        self._attempts_before = 0
        self._first: float | None = None
        self._told = False
        self._stopped: KimiError | None = None
        self._counted_before = 0.0

    @classmethod
    def resumed(cls, record: RunRecord, task: Mapping[str, Any]) -> Run:
        """The run of a record, to be gone on with."""
        run = cls(caller=record.caller, tool=record.tool, prompt=record.prompt_head, host=record.host)
        run.id, run.started_at, run.task = record.id, record.started_at, task
        run.recorded = run.may_be_recorded = True
        run.conversation_id, run.follows = record.conversation_id, record.follows
        run._started -= max(0.0, time.time() - record.started_at)
        run._lived_before = record.lived_s
        run._told = True
        return run

    @property
    def store(self) -> RunStore:
        """Where it is written down, once it lives."""
        assert self._keeper is not None, "a run is started before it works"
        return self._keeper.store

    def is_live(self, run_id: str) -> bool:
        """Whether another run of this process is under way, or its end still to be written."""
        return self._keeper is not None and self._keeper.is_live(run_id)

    @property
    def attempts(self) -> int:
        """Upstream requests sent so far."""
        return self._attempts_before + (self.progress or self.request_state).attempts

    @property
    def is_known(self) -> bool:
        """Whether anybody may ask for it: something was sent, or its id was told. A refused call is no run."""
        return bool(self.attempts or self._told)

    @property
    def plan(self) -> Plan | None:
        """What was sent; None as long as nothing was decided."""
        return self.request_state.plan

    async def begin(self, plan: Plan) -> None:
        """The policy has decided: from here on something may be paid for, so it is written down first.

        Raises ``NotConfigured`` where it can't be, and ``BudgetExceeded``.
        """
        self.request_state.begin(plan)
        self.mode, self.provider = plan.mode, plan.profile.provider.id
        await self.record()

    async def record(self) -> None:
        """Write down what is known of it: before anything is paid for, and when somebody is told its id.

        Raises ``NotConfigured`` where that can't be done, and ``BudgetExceeded``.
        """
        if self._keeper is not None:
            async with self._recording:
                await self._keeper.write(self)

    async def begin_again(self, plan: Plan) -> None:
        """Another request for the same answer goes out; what the one before brought is kept."""
        self._counted_before = self.counted_usd(None if self._keeper is None else self._keeper.fallback_price())
        self.kept, self._attempts_before = self.request_state.accumulator.completion(), self.attempts
        self.request_state, self.requests = RequestState(self.first_token_came), self.requests + 1
        await self.begin(plan)

    async def cancel(self) -> None:
        """End it; the upstream request is closed at once. Returns once it has ended."""
        self._scope.cancel()
        await self.done.wait()

    def cancel_soon(self) -> None:
        """End it without waiting for that."""
        self._scope.cancel()

    def stop(self, error: KimiError) -> None:
        """End it for a reason of our own: what has arrived is its answer, and the error says why it is not whole.

        One whose answer is whole is paid for, and about to end: it stays so.
        """
        if not self.request_state.accumulator.finished:
            self._stopped = error
            self._scope.cancel()

    async def wait(self) -> None:
        """Until it has ended."""
        await self.done.wait()

    async def current_outcome(self) -> Outcome:
        """How it stands; from here on somebody may ask for it by its id, so it is written down.

        Whoever looks has waited already: a journal that takes long is not waited for, it can still be found here.
        """
        if self.outcome is None:
            self._told = True
            if not self.recorded:
                with anyio.move_on_after(LOOK_WITHIN_S):
                    await self.record()
        return self.snapshot()

    def seconds(self) -> float:
        """Since it was asked for."""
        return time.monotonic() - self._started

    def active_s(self) -> float:
        """Seconds that it has lived, here and in its servers before: the time for which it lay dead does not count."""
        return self._lived_before + time.monotonic() - self._born

    def phase(self) -> str:
        """What it is at, in a line for whoever waits: doing what, tokens, seconds, and which attempt."""
        if self.progress is not None:
            return printable(f"{self.progress.phase()} · {self.seconds():.0f} s")
        request_state = self.request_state
        tokens = f" · about {request_state.accumulator.tokens:,} tokens" if request_state.accumulator.pieces else ""
        again = f" · attempt {self.attempts}" if self.attempts > 1 else ""
        return f"{request_state.doing()}{tokens} · {self.seconds():.0f} s{again}"

    def timing(self) -> Timing:
        """How long it has taken so far."""
        return Timing(first_token_s=self._first, total_s=self.seconds(), attempts=self.attempts)

    def counted_usd(self, dearest: Price | None) -> float:
        """What spending limits count for it so far; ``dearest`` counts where the price is unknown."""
        if self.progress is not None:
            return self.progress.counted_usd(dearest)
        plan = self.plan
        price = None if plan is None else plan.profile.price or dearest
        if plan is None or price is None:
            return self._counted_before
        return self._counted_before + counted_usd(
            self.request_state.prompt_tokens, self.request_state.accumulator.tokens, price
        )

    def snapshot(self, status: Status = "running", error: KimiError | None = None) -> Outcome:
        """The run with exactly what has arrived; its outcome once it has one."""
        if self.outcome is not None:
            return self.outcome
        completion = self.kept or self.request_state.accumulator.completion()
        sent = self.plan.profile.serving.wire_id if self.plan else None
        kept = self.is_known
        outcome = Outcome(
            status=status,
            run_id=self.id if kept else None,
            conversation_id=self.conversation_id if kept else None,
            answer=completion.answer,
            reasoning=completion.reasoning,
            model_asked=self.model_asked,
            model_sent=sent if self.attempts else None,
            model_answered=completion.model,
            provider=self.provider,
            mode=self.mode,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            policy=self.plan.adjustments if self.plan else (),
            timing=self.timing(),
            error=error,
        )
        return outcome if self.progress is None else self.progress.so_far(outcome)

    async def live(self, work: RunFunction, keeper: RunKeeper) -> None:
        """Run to the end, whatever end that is; it is written down and set before ``done`` is."""
        self._keeper = keeper
        try:
            await self._live(work, keeper)
        finally:
            if self.outcome is None:  # a fault of ours kept it from its end: whoever waits is told so
                self.outcome = Outcome(
                    status="failed", run_id=self.id if self.is_known else None, error=fault_of_ours()
                )
            self._attempts_before = self.attempts
            self.request_state, self.kept, self.progress = RequestState(), None, None  # the outcome has it all
            self.done.set()

    async def _live(self, work: RunFunction, keeper: RunKeeper) -> None:
        try:
            with self._scope:
                outcome = await work(self)
                self.outcome = await keeper.judged(self, replace(outcome, timing=self.timing()))
        except Exception:
            log.exception("a run failed by a fault of our own")
            self.outcome = self.cut_off("failed", fault_of_ours())
        finally:
            if self.outcome is None and self.concluded is not None:
                self.outcome = replace(self.concluded, timing=self.timing())
            left = self.outcome is None and self._stopped is None and not self._scope.cancel_called
            if self.outcome is None:
                self.outcome = self._cut_off()
            if left and self.task is not None and keeper.store.is_persistent:
                keeper.leave(self)  # another server goes on with it
            else:
                with anyio.CancelScope(shield=True):
                    await keeper.write_end(self)

    def _cut_off(self) -> Outcome:
        """The outcome of a run that did not come to its own end."""
        if self._stopped is not None:
            arrived = self.cut_off("failed", self._stopped)
            return replace(arrived, status="partial") if arrived.answer.strip() else arrived
        if self._scope.cancel_called:
            return self.cut_off(
                "cancelled", Cancelled("The run was cancelled.", fix="Call again if you still want the answer.")
            )
        return self.cut_off(
            "failed",
            AnswerCutOff(
                "The server was stopped before the answer was whole; what had arrived is kept.",
                fix="Call again if you still need the rest.",
            ),
        )

    def cut_off(self, status: Status, error: KimiError) -> Outcome:
        """The outcome of a run that an error ends: of many requests those that had finished are not lost."""
        outcome = self.snapshot(status, error)
        return outcome if self.progress is None else self.progress.stopped(outcome)

    def first_token_came(self) -> None:
        """The first token of any of its requests is there."""
        if self._first is None:
            self._first = self.seconds()
