"""Runs: every call is one, and it belongs to the server, not to the request that asked for it. I/O: the journal's.

A handler asks for a run and waits for it; the run goes on in the server's own task group when the handler is gone, and
what has arrived can be read at any moment, here and in every other server of the same data folder. A run is written
down before anything is paid for, and what arrives of it every ``WRITE_EVERY_S``.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio
from anyio.abc import TaskGroup

from kimi_mcp.catalogue.profile import Price
from kimi_mcp.costs import counted_usd
from kimi_mcp.errors import AnswerCutOff, BudgetExceeded, Cancelled, KimiError, RunNotFound
from kimi_mcp.exchange import Exchange
from kimi_mcp.journal.records import Entry, Grown, turn_as_json
from kimi_mcp.outcome import Outcome
from kimi_mcp.plan import Plan
from kimi_mcp.settings import Settings
from kimi_mcp.types import Completion, Mode, Status, TextPart, Timing, Turn

if TYPE_CHECKING:
    from kimi_mcp.journal.journal import Journal
    from kimi_mcp.journal.records import Record

KEEP = 64
"""Runs that stay readable although the journal could not take them."""

WRITE_EVERY_S = 0.4
"""Seconds between two looks at what has arrived: what a server that is killed may lose at most, with the commit."""

HEAR_EVERY = 2
"""After how many of those looks it is asked whether another server was told to cancel a run."""

LAST_WORDS_S = 0.5
"""Seconds that a run waits for its end to be written down; then the answer is given all the same."""

LOOK_EVERY_S = 0.25
"""Seconds between two looks at a run that lives in another server."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A run in a list."""

    id: str
    """Its id."""
    tool: str
    """The tool that was called."""
    status: Status
    """How it stands."""
    prompt_head: str
    """The beginning of its prompt, in one line."""
    started_at: float
    """Seconds since 1970."""


class Seen(Protocol):
    """A run as whoever waits for it sees it, wherever it lives."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    async def ended(self) -> None:
        """Until it has ended."""
        ...

    async def look(self) -> Outcome:
        """How it stands, with exactly what has arrived."""
        ...

    async def cancel(self) -> None:
        """End it; returns once it has ended."""
        ...

    def phase(self) -> str:
        """What it is at, in a line."""
        ...


Working = Callable[["Run"], Awaitable[Outcome]]
"""What a run does: it gets the run, and returns how that ended."""


class Work(Protocol):
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

    def counted_usd(self, dearest: Price | None) -> float:
        """What spending limits count for it so far; ``dearest`` counts where a price is unknown."""
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
        self.exchange = Exchange(self.first_token_came)
        """The request that is under way."""
        self.requests = 0
        """How many requests came before that one."""
        self.kept: Completion | None = None
        """What an earlier request of this run brought: it stands until the next one has brought something better."""
        self.work: Work | None = None
        """What it is at, where it has many requests; None: it has the one in ``exchange``."""
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
        self._runs: Runs | None = None
        self._recording = anyio.Lock()
        self._scope = anyio.CancelScope()
        self._started = time.monotonic()
        self._attempts_before = 0
        self._first: float | None = None
        self._told = False
        self._stopped: KimiError | None = None
        self._counted_before = 0.0

    @classmethod
    def taken_up(cls, record: Record, task: Mapping[str, Any]) -> Run:
        """The run of a record, to be gone on with."""
        run = cls(caller=record.caller, tool=record.tool, prompt=record.prompt_head, host=record.host)
        run.id, run.started_at, run.recorded, run.task = record.id, record.started_at, True, task
        run.conversation_id, run.follows = record.conversation_id, record.follows
        run._started -= max(0.0, time.time() - record.started_at)
        run._told = True
        return run

    @property
    def journal(self) -> Journal:
        """Where it is written down, once it lives."""
        assert self._runs is not None, "a run is started before it works"
        return self._runs.journal

    def is_live(self, run_id: str) -> bool:
        """Whether another run of this process is under way."""
        return self._runs is not None and self._runs.is_live(run_id)

    @property
    def attempts(self) -> int:
        """Upstream requests sent so far."""
        return self._attempts_before + (self.work or self.exchange).attempts

    @property
    def is_known(self) -> bool:
        """Whether anybody may ask for it: something was sent, or its id was told. A refused call is no run."""
        return bool(self.attempts or self._told)

    @property
    def plan(self) -> Plan | None:
        """What was sent; None as long as nothing was decided."""
        return self.exchange.plan

    async def begin(self, plan: Plan) -> None:
        """The policy has decided: from here on something may be paid for, so it is written down first.

        Raises ``NotConfigured`` where it can't be, and ``BudgetExceeded``.
        """
        self.exchange.begin(plan)
        self.mode, self.provider = plan.mode, plan.profile.provider.id
        await self.record()

    async def record(self) -> None:
        """Write down what is known of it: before anything is paid for, and when somebody is told its id.

        Raises ``NotConfigured`` where that can't be done, and ``BudgetExceeded``.
        """
        if self._runs is not None:
            async with self._recording:
                await self._runs.write(self)

    async def begin_anew(self, plan: Plan) -> None:
        """Another request for the same answer goes out; what the one before brought is kept."""
        self._counted_before = self.counted_usd(None if self._runs is None else self._runs.dearest_price())
        self.kept, self._attempts_before = self.exchange.fold.completion(), self.attempts
        self.exchange, self.requests = Exchange(self.first_token_came), self.requests + 1
        await self.begin(plan)

    async def cancel(self) -> None:
        """End it; the upstream request is closed at once. Returns once it has ended."""
        self._scope.cancel()
        await self.done.wait()

    def cancel_soon(self) -> None:
        """End it without waiting for that."""
        self._scope.cancel()

    def stop(self, error: KimiError) -> None:
        """End it for a reason of our own: what has arrived is its answer, and the error says why it is not whole."""
        self._stopped = error
        self._scope.cancel()

    async def ended(self) -> None:
        """Until it has ended."""
        await self.done.wait()

    async def look(self) -> Outcome:
        """How it stands; from here on somebody may ask for it by its id, so it is written down."""
        if self.outcome is None:
            self._told = True
            if not self.recorded:
                await self.record()
        return self.snapshot()

    def seconds(self) -> float:
        """Since it was asked for."""
        return time.monotonic() - self._started

    def phase(self) -> str:
        """What it is at, in a line for whoever waits: doing what, tokens, seconds, and which attempt."""
        if self.work is not None:
            return f"{self.work.phase()} · {self.seconds():.0f} s"
        exchange = self.exchange
        tokens = f" · about {exchange.fold.tokens:,} tokens" if exchange.fold.pieces else ""
        again = f" · attempt {self.attempts}" if self.attempts > 1 else ""
        return f"{exchange.doing()}{tokens} · {self.seconds():.0f} s{again}"

    def timing(self) -> Timing:
        """How long it has taken so far."""
        return Timing(first_token_s=self._first, total_s=self.seconds(), attempts=self.attempts)

    def counted_usd(self, dearest: Price | None) -> float:
        """What spending limits count for it so far; ``dearest`` counts where the price is unknown."""
        if self.work is not None:
            return self.work.counted_usd(dearest)
        plan = self.plan
        price = None if plan is None else plan.profile.price or dearest
        if plan is None or price is None:
            return self._counted_before
        return self._counted_before + counted_usd(self.exchange.prompt_tokens, self.exchange.fold.tokens, price)

    def snapshot(self, status: Status = "running", error: KimiError | None = None) -> Outcome:
        """The run with exactly what has arrived; its outcome once it has one."""
        if self.outcome is not None:
            return self.outcome
        completion = self.kept or self.exchange.fold.completion()
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
        return outcome if self.work is None else self.work.so_far(outcome)

    async def live(self, work: Working, runs: Runs) -> None:
        """Run to the end, whatever end that is; it is written down and set before ``done`` is."""
        self._runs = runs
        try:
            with self._scope:
                outcome = await work(self)
                self.outcome = replace(outcome, timing=self.timing())
        finally:
            left = self.outcome is None and self._stopped is None and not self._scope.cancel_called
            if self.outcome is None:
                self.outcome = self._cut_off()
            if not (left and self.task is not None):  # else another server goes on with it
                with anyio.CancelScope(shield=True):
                    await runs.write_end(self)
            self._attempts_before = self.attempts
            self.exchange, self.kept, self.work = Exchange(), None, None  # the outcome has it all
            self.done.set()

    def _cut_off(self) -> Outcome:
        """The outcome of a run that did not come to its own end."""
        if self._stopped is not None:
            arrived = self.snapshot("failed", self._stopped)
            return replace(arrived, status="partial") if arrived.answer.strip() else arrived
        if self._scope.cancel_called:
            return self.snapshot(
                "cancelled", Cancelled("The run was cancelled.", fix="Call again if you still want the answer.")
            )
        return self.snapshot(
            "failed",
            AnswerCutOff(
                "The server was stopped before the answer was whole; what had arrived is kept.",
                fix="Call again if you still need the rest.",
            ),
        )

    def first_token_came(self) -> None:
        """The first token of any of its requests is there."""
        if self._first is None:
            self._first = self.seconds()


class RecordedRun:
    """A run that lives in another server, or that has ended: what the journal has of it."""

    def __init__(self, journal: Journal, record: Record) -> None:
        self._journal, self._record = journal, record

    @property
    def id(self) -> str:
        """Its id."""
        return self._record.id

    async def ended(self) -> None:
        """Until it has ended, there or by the death of its server."""
        while self._record.running:
            await self._renew()
            if self._record.running:
                await anyio.sleep(LOOK_EVERY_S)

    async def look(self) -> Outcome:
        """How it stands, with what had been written down."""
        if self._record.running:
            await self._renew()
        return self._record.outcome

    async def cancel(self) -> None:
        """Let the server it lives in cancel it; returns once it has."""
        if self._record.running:
            await self._journal.ask_to_cancel(self.id)
        await self.ended()

    def phase(self) -> str:
        """What is known of it."""
        return f"running in another server · {time.time() - self._record.started_at:.0f} s"

    async def _renew(self) -> None:
        found = await self._journal.find(self.id, None)
        if found is None:  # it was refused before anything was sent, or it was cleared away
            gone = RunNotFound("That run is kept no longer.", fix="Call again if you still need its answer.")
            found = replace(self._record, outcome=replace(self._record.outcome, status="failed", error=gone))
        self._record = found


class Runs:
    """The runs of this process, and through the journal those of every other one on the same data folder.

    ``call_limit_usd`` and ``day_limit_usd`` are spending limits, None where there is none; ``dearest`` is the price
    that they count where the real one is unknown. ``take_up`` makes work again of what a run wrote down as its task.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        journal: Journal,
        *,
        call_limit_usd: float | None = None,
        day_limit_usd: float | None = None,
        dearest: Callable[[], Price] | None = None,
        take_up: Callable[[Mapping[str, Any]], Working] | None = None,
    ) -> None:
        self.journal = journal
        """Where they are kept."""
        self._tasks = tasks
        self._call_limit, self._day_limit = call_limit_usd, day_limit_usd
        self._dearest = dearest
        self._take_up = take_up
        self._live: dict[str, Run] = {}
        self._written: dict[tuple[str, int, str], int] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._attempts: dict[str, int] = {}
        self._writing = False
        self._unrecorded: deque[Run] = deque(maxlen=KEEP)
        self._watching = False
        self._said_broken = False

    def start(self, run: Run, work: Working) -> Run:
        """Let a run live in the server's task group."""
        self._live[run.id] = run
        self._tasks.start_soon(self._let_live, run, work)
        if not self._watching:
            self._watching = True
            self._tasks.start_soon(self._watch)
        return run

    @property
    def is_busy(self) -> bool:
        """Whether any run of this process is under way."""
        return bool(self._live)

    def is_live(self, run_id: str) -> bool:
        """Whether a run of this process is under way."""
        return run_id in self._live

    async def find(self, run_id: str, caller: str | None) -> Seen:
        """A run by its id, for the caller it belongs to (None: for the operator); ``RunNotFound`` otherwise."""
        for run in (self._live.get(run_id), *self._unrecorded):
            if run is not None and run.id == run_id and caller in (None, run.caller):
                return run
        record = await self.journal.find(run_id, caller)
        if record is None:
            raise RunNotFound(
                "No run of that id is known to this server.",
                fix="Call kimi_run without `run_id` to see your latest runs.",
            )
        return await self.take_up(record) or RecordedRun(self.journal, record)

    async def take_up(self, record: Record) -> Run | None:
        """Go on with a run whose server is dead; None where there is nothing to go on with, or somebody else does."""
        task = record.request.get("task")
        if not record.orphaned or self._take_up is None or not isinstance(task, Mapping):
            return None
        work = self._take_up(cast("Mapping[str, Any]", task))
        if not await self.journal.adopt(record):
            return None
        log.info("%s is taken up where its server left it", record.id)
        return self.start(Run.taken_up(record, cast("Mapping[str, Any]", task)), work)

    async def take_up_all(self) -> None:
        """Go on with everything that dead servers of this folder left, and settle what can't be gone on with."""
        for record in await self.journal.orphans():
            await self.take_up(record)

    async def latest(self, caller: str, most: int = 10) -> list[Listed]:
        """A caller's newest runs, the newest first, wherever they live."""
        found = {
            record.id: Listed(
                id=record.id,
                tool=record.tool,
                status=record.outcome.status,
                prompt_head=record.prompt_head,
                started_at=record.started_at,
            )
            for record in await self.journal.overview(caller, most=most)
        }
        for run in (*self._live.values(), *self._unrecorded):
            if run.caller == caller and run.is_known:
                found[run.id] = Listed(
                    id=run.id,
                    tool=run.tool,
                    status=run.outcome.status if run.outcome else "running",
                    prompt_head=run.prompt_head,
                    started_at=run.started_at,
                )
        return sorted(found.values(), key=lambda run: run.started_at, reverse=True)[:most]

    async def rejoin(self, *, caller: str, host: str | None, key: str) -> Seen | None:
        """The very same call's run that its host gave up on, running or completed a short while ago."""
        for run in self._live.values():
            if run.abandoned and (run.caller, run.host, run.call_key) == (caller, host, key):
                return run
        record = await self.journal.same_call(caller=caller, host=host, key=key)
        return None if record is None else RecordedRun(self.journal, record)

    async def abandon(self, run_id: str, abandoned: bool = True) -> None:
        """Its host gave up on it, or (False) has got it again."""
        run = self._live.get(run_id)
        if run is not None:
            run.abandoned = abandoned
        if run is None or run.recorded:
            await self._attempt(self.journal.abandon(run_id, abandoned))

    async def write(self, run: Run) -> None:
        """Write down what is known of a run that is about to be sent, or that somebody waits for."""
        counted = run.counted_usd(self.dearest_price())
        self._within(run, counted)
        outcome = replace(run.snapshot(), answer="", reasoning=None)
        entry = Entry(
            id=run.id,
            caller=run.caller,
            host=run.host,
            tool=run.tool,
            prompt_head=run.prompt_head,
            call_key=run.call_key,
            started_at=run.started_at,
            conversation_id=run.conversation_id,
            follows=run.follows,
            request=request_as_json(run),
            model_id=run.plan and run.plan.profile.model.id,
            outcome=outcome,
            resumable=run.task is not None,
        )
        if run.recorded:
            await self.journal.renew(entry, counted_usd=counted)
            return
        run.may_be_recorded = True
        await self.journal.begin(entry, counted_usd=counted, day_limit_usd=self._day_limit)
        run.recorded = True
        if run.abandoned:
            await self.journal.abandon(run.id, True)
        if self._unrecorded:
            self._tasks.start_soon(self._catch_up)  # the journal works again

    async def write_end(self, run: Run) -> None:
        """Write down how a run ended; an answer is not held up, nor lost, by a journal that fails."""
        if run.outcome is not None and run.may_be_recorded:
            run.counted_at_end = run.outcome.cost_usd
            if run.counted_at_end is None:
                run.counted_at_end = run.counted_usd(self.dearest_price())
            written = False
            with anyio.move_on_after(LAST_WORDS_S):
                written = await self._ending(run)
            if not written and run.outcome.run_id is not None:
                self._unrecorded.append(run)
        self._leave_turn(run)

    async def _ending(self, run: Run) -> bool:
        """Whether a run's end could be written down."""
        outcome = run.outcome
        assert outcome is not None
        if outcome.run_id is None:
            return await self._attempt(self.journal.forget(run.id))
        answered = outcome.status == "completed" and bool(run.turns)
        turns = (*run.turns, assistant_turn(outcome)) if answered else None
        try:
            return await self.journal.end(run.id, outcome, turns=turns, counted_usd=run.counted_at_end or 0.0)
        except KimiError as fault:
            self._not_written(fault)
            return False

    async def _catch_up(self) -> None:
        """Write down the ends that the journal could not take."""
        for run in list(self._unrecorded):
            if await self._ending(run) and run in self._unrecorded:
                self._unrecorded.remove(run)

    def _leave_turn(self, run: Run) -> None:
        """Behind its end in the writer's order, so that the next one sees what it added."""
        if run.holds_turn and run.conversation_id is not None:
            self.journal.leave_turn(run.conversation_id, run.id, self._not_written)

    # ── while they live ───────────────────────────────────────────────────────────────────────────────────────────

    async def _let_live(self, run: Run, work: Working) -> None:
        try:
            await run.live(work, self)
        finally:
            del self._live[run.id]
            self._seen.pop(run.id, None)
            self._attempts.pop(run.id, None)
            for key in [key for key in self._written if key[0] == run.id]:
                del self._written[key]

    async def _watch(self) -> None:
        """As long as any run lives: write down what arrives, hold spending against its limits, hear other servers."""
        looks = 0
        while self._live:
            await anyio.sleep(WRITE_EVERY_S)
            looks += 1
            self._write_grown()
            await self._hold_limits()
            if looks % HEAR_EVERY == 0 and self.journal.keeps and any(run.recorded for run in self._live.values()):
                await self._attempt(self._hear_cancellations())
        self._watching = False

    def _write_grown(self) -> None:
        """What has arrived since the last time; one writing at a time, so that nothing piles up behind a slow disk."""
        if self._writing:
            return
        grown: list[Grown] = []
        counted: dict[str, float] = {}
        sent: dict[str, Outcome] = {}
        for run in self._live.values():
            if not run.recorded or run.outcome is not None:
                continue  # whose end is on its way to the journal has nothing more to say
            if (new := self._grown(run)) or run.work is not None:
                grown += new
                counted[run.id] = run.counted_usd(self.dearest_price())
            if run.work is None and run.attempts != self._attempts.get(run.id, 0):
                self._attempts[run.id] = run.attempts
                sent[run.id] = replace(run.snapshot(), answer="", reasoning=None)

        def done(fault: BaseException | None) -> None:
            self._writing = False
            if fault is not None:
                self._not_written(fault)
                self._write_again(grown, sent)

        if grown or counted or sent:
            self._writing = True
            self.journal.grew(grown, counted, sent, done)

    def _write_again(self, grown: Sequence[Grown], sent: Iterable[str]) -> None:
        """What could not be written is tried anew with what comes next: a record has no holes."""
        for one in grown:
            if one.run_id in self._live:
                self._written[one.run_id, one.request, one.of] = one.start
                self._seen.pop(one.run_id, None)
        for run_id in sent:
            self._attempts.pop(run_id, None)

    def _grown(self, run: Run) -> list[Grown]:
        fold, grown = run.exchange.fold, list[Grown]()
        if self._seen.get(run.id) == (run.requests, fold.pieces):
            return grown
        self._seen[run.id] = (run.requests, fold.pieces)
        for of, text in (("reasoning", fold.reasoning), ("answer", fold.answer)):
            key = (run.id, run.requests, of)
            start = self._written.get(key, 0)
            end = len(text or "")
            if text and text[-1] == "\ufffd":
                end -= 1  # half a character, perhaps: its other half may follow
            if text and end > start:
                grown.append(Grown(run_id=run.id, request=run.requests, of=of, start=start, text=text[start:end]))
                self._written[key] = end
        return grown

    async def _hold_limits(self) -> None:
        for run in list(self._live.values()) if self._call_limit is not None else ():
            try:
                self._within(run, run.counted_usd(self.dearest_price()))
            except BudgetExceeded as reached:
                run.stop(reached)
        if self._day_limit is None:
            return
        try:
            spent = await self.journal.spent_today_usd()
        except KimiError:
            return
        if spent > self._day_limit:
            for run in list(self._live.values()):
                run.stop(
                    BudgetExceeded(
                        f"Today's spending limit is reached: about {spent:.4f} of {self._day_limit:g} USD.",
                        fix="Raise KIMI_BUDGET_USD_PER_DAY, or call again tomorrow (UTC).",
                    )
                )

    def _within(self, run: Run, counted: float) -> None:
        if run.work is not None:
            return  # it has a budget of its own
        if self._call_limit is not None and counted > self._call_limit:
            begun = "costs" if run.attempts else "would start at"
            raise BudgetExceeded(
                f"The call {begun} about {counted:.4f} USD; a call may cost {self._call_limit:g}.",
                fix="Raise KIMI_BUDGET_USD_PER_CALL, or ask for less at once.",
            )

    async def _hear_cancellations(self) -> None:
        for run_id in await self.journal.asked_to_cancel():
            if run := self._live.get(run_id):
                run.cancel_soon()

    def dearest_price(self) -> Price | None:
        """What limits count where the price is unknown."""
        return self._dearest() if self._dearest is not None else None

    async def _attempt(self, writing: Awaitable[object]) -> bool:
        """Whether something could be written; what can't be is no reason to lose an answer."""
        try:
            await writing
        except KimiError as fault:
            self._not_written(fault)
            return False
        return True

    def _not_written(self, fault: BaseException | None) -> None:
        if fault is not None and not self._said_broken:
            self._said_broken = True
            reason = fault.message if isinstance(fault, KimiError) else type(fault).__name__
            log.warning("the journal does not take what arrives, answers are given all the same: %s", reason)


def open_runs(
    tasks: TaskGroup, settings: Settings, take_up: Callable[[Mapping[str, Any]], Working] | None = None
) -> Runs:
    """Runs with the journal and the limits that the settings name. Imports SQLAlchemy, which takes a while."""
    from kimi_mcp import catalogue
    from kimi_mcp.journal.journal import open_journal

    return Runs(
        tasks,
        open_journal(settings),
        call_limit_usd=settings.budget_usd_per_call,
        day_limit_usd=settings.budget_usd_per_day,
        dearest=lambda: catalogue.load().dearest,
        take_up=take_up,
    )


def assistant_turn(outcome: Outcome) -> Turn:
    """The turn that an answer is in its conversation, with its exact reasoning."""
    return Turn(role="assistant", parts=(TextPart(text=outcome.answer),), reasoning=outcome.reasoning)


def request_as_json(run: Run) -> Mapping[str, Any]:
    """What is sent, for whoever looks at the run later: the call's own turns, and what was said beside them."""
    if run.task is not None:
        return {"task": dict(run.task)}
    plan = run.plan
    if plan is None:
        return {}
    own: Sequence[Turn] = run.turns or plan.turns
    return {
        "turns": [turn_as_json(turn) for turn in own],
        "max_tokens": plan.max_tokens,
        "said": dict(plan.said),
        "effort": plan.effort,
        "response_schema": plan.response_schema,
    }
