"""``Runs``: the runs of a process, and through the journal those of every other one on its data folder. I/O: its."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kimi_mcp.core.background import contained, start_contained
from kimi_mcp.core.errors import KimiError, RunNotFound
from kimi_mcp.core.profiles import Price
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import Status
from kimi_mcp.runs.budgets import SpendingLimits
from kimi_mcp.runs.recorder import RunRecorder
from kimi_mcp.runs.run import Run, RunFunction, RunView
from kimi_mcp.runs.stored_run import RecordedRun

if TYPE_CHECKING:
    from kimi_mcp.core.outcome import Outcome
    from kimi_mcp.runs.store.records import RunRecord, StepRecord
    from kimi_mcp.runs.store.store import RunStore

WRITE_EVERY_S = 0.5
"""Seconds between two looks at what has arrived: what a server that is killed may lose at most, with the commit."""

HEAR_EVERY = 2
"""After how many of those looks it is asked whether another server was told to cancel a run."""

CLOSE_WITHIN_S = 0.25
"""Seconds that the journal gets at the end for what it is still to take; each run's end had its time before."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun:
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


def _as_it_stands(record: RunRecord, steps: Sequence[StepRecord]) -> Outcome:
    """What a run had done that is of no longer work."""
    del steps
    return record.outcome


class Runs:
    """The runs of this process, and through the journal those of every other one on the same data folder.

    ``take_up`` makes work again of what a run wrote down as its task; it may block. ``tallied`` tells from its steps
    what a run had done that is not gone on with.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        store: RunStore,
        *,
        limits: SpendingLimits | None = None,
        take_up: Callable[[Mapping[str, Any]], RunFunction] | None = None,
        tallied: Callable[[RunRecord, Sequence[StepRecord]], Outcome] = _as_it_stands,
    ) -> None:
        self.store = store
        """Where they are kept."""
        self._tasks = tasks
        self.limits = limits or SpendingLimits()
        """What they may cost."""
        self._writer = RunRecorder(store, self.limits)
        self._take_up, self._tallied = take_up, tallied
        self._live: dict[str, Run] = {}
        self._watching = self._left = False
        self._idle = anyio.Event()

    def start(self, run: Run, work: RunFunction) -> Run:
        """Let a run live in the server's task group."""
        self._live[run.id] = run
        start_contained(self._tasks, "a run ended by a fault of our own", self._let_live, run, work)
        if not self._watching:
            self._watching, self._idle = True, anyio.Event()
            start_contained(self._tasks, "the runs are not looked at any more", self._watch)
        return run

    @property
    def is_busy(self) -> bool:
        """Whether any run of this process is under way."""
        return bool(self._live)

    def is_live(self, run_id: str) -> bool:
        """Whether a run of this process is under way, or its end still to be written."""
        return run_id in self._live or self._writer.ends.is_pending(run_id)

    async def find(self, run_id: str, caller: str | None, *, go_on: bool = True) -> RunView:
        """A run by its id, for the caller it belongs to (None: for the operator); ``RunNotFound`` otherwise.

        One whose server is dead is gone on with here, unless ``go_on`` is False: it is to be ended.
        """
        for run in (self._live.get(run_id), *self._writer.ends.readable):
            if run is not None and run.id == run_id and caller in (None, run.caller):
                return run
        record = await self.store.find(run_id, caller)
        if record is None:
            raise RunNotFound(
                "No run of that id is known to this server.",
                fix=f"Call kimi_run without `run_id` to see your latest runs. {self.store.retention_note}",
            )
        run = await self.resume(record) if go_on else None
        return run or RecordedRun(self.store, record, self)

    async def resume(self, record: RunRecord) -> Run | None:
        """Go on with a run whose server is dead; None where there is nothing to go on with, or somebody else does.

        One that was told to cancel, and whose server did not live to hear it, ends here instead.
        """
        if record.orphaned and record.cancel_asked:
            await self.cancel_orphan(record)
            return None
        task = record.request.get("task")
        if not record.orphaned or self._take_up is None or not isinstance(task, Mapping):
            return None
        work = await anyio.to_thread.run_sync(self._take_up, cast("Mapping[str, Any]", task))
        if not await self.store.adopt(record):
            return None
        log.info("%s is taken up where its server left it", record.id)
        return self.start(Run.resumed(record, cast("Mapping[str, Any]", task)), work)

    async def resume_all(self) -> None:
        """Go on with everything that dead servers of this folder left, and settle what can't be gone on with."""
        for record in await self.store.orphans():
            try:
                await self.resume(record)
            except KimiError as fault:
                log.warning("%s is left for another server: %s %s", record.id, fault.message, fault.fix)
            except Exception:  # it may be what another version wrote: no reason to keep this server from its work
                log.exception("%s is left for another server", record.id)

    async def cancel_orphan(self, record: RunRecord) -> RunRecord:
        """End a run whose server is dead; how it stands by now where somebody goes on with it."""
        return await self.store.cancel_orphan(record, self._tallied)

    async def latest(self, caller: str, most: int = 10) -> list[ListedRun]:
        """A caller's newest runs, the newest first, wherever they live."""
        found = {
            record.id: ListedRun(
                id=record.id,
                tool=record.tool,
                status=record.outcome.status,
                prompt_head=record.prompt_head,
                started_at=record.started_at,
            )
            for record in await self.store.overview(caller, most=most)
        }
        for run in (*self._live.values(), *self._writer.ends.readable):
            if run.caller == caller and run.is_known:
                found[run.id] = ListedRun(
                    id=run.id,
                    tool=run.tool,
                    status=run.outcome.status if run.outcome else "running",
                    prompt_head=run.prompt_head,
                    started_at=run.started_at,
                )
        return sorted(found.values(), key=lambda run: run.started_at, reverse=True)[:most]

    async def rejoin(self, *, caller: str, host: str | None, key: str) -> RunView | None:
        """The very same call's run that its host gave up on, running or completed a short while ago."""
        for run in self._live.values():
            if run.abandoned and (run.caller, run.host, run.call_key) == (caller, host, key):
                return run
        record = await self.store.find_abandoned(caller=caller, host=host, key=key)
        return None if record is None else RecordedRun(self.store, record, self)

    async def abandon(self, run_id: str, abandoned: bool = True) -> None:
        """Its host gave up on it, or (False) has got it again."""
        run = self._live.get(run_id)
        if run is not None:
            run.abandoned = abandoned
        if run is None or run.recorded:
            await self._writer.attempt(self.store.abandon(run_id, abandoned))

    def fallback_price(self) -> Price | None:
        """What limits count where the price is unknown."""
        return self.limits.fallback_price()

    async def judged(self, run: Run, outcome: Outcome) -> Outcome:
        """A run's outcome, with a warning where it costs more than it may."""
        return await self.limits.overrun(run, outcome, self.store)

    def leave(self, run: Run) -> None:
        """The server ends before a run does that another one can go on with."""
        log.info("%s is left for the next server", run.id)
        self._left = True

    @property
    def left_unfinished(self) -> bool:
        """Whether a run was left that another server can go on with."""
        return self._left

    async def aclose(self) -> None:
        """Let go of the journal, once no run lives any more; tell whose end it has not taken until then."""
        ends = self._writer.ends
        ends.close()
        unwritten, lost = ends.unwritten, ends.lost
        if lost and self.store.is_persistent:
            log.warning(
                "the end of %s is not in the journal (is it locked, or its disk full?): what came last may be lost",
                ", ".join(lost),
            )
        if kept := [run_id for run_id in unwritten if run_id not in lost]:
            log.warning(
                "the end of %s is not in the journal yet (is it locked?): it is kept beside it for the next server",
                ", ".join(kept),
            )
        await self.store.aclose(unfinished=self._left or bool(unwritten), within_s=CLOSE_WITHIN_S)

    async def write(self, run: Run) -> None:
        """Write down what is known of a run; raises ``NotConfigured`` where that can't be, and ``BudgetExceeded``."""
        await self._writer.write(run)

    async def write_end(self, run: Run) -> None:
        """Write down how a run ended; an answer is not held up, nor lost, by a journal that fails."""
        await self._writer.write_end(run)

    # ── while they live ───────────────────────────────────────────────────────────────────────────────────────────

    async def _let_live(self, run: Run, work: RunFunction) -> None:
        try:
            await run.live(work, self)
        finally:
            del self._live[run.id]
            self._writer.forget(run)
            if not self._live:
                self._idle.set()

    async def _watch(self) -> None:
        """As long as any run lives: write down what arrives, hold spending against its limits, hear other servers."""
        looks, failed = 0, set[str]()
        while self._live:
            with anyio.move_on_after(WRITE_EVERY_S):
                await self._idle.wait()
                self._idle = anyio.Event()
                continue  # nothing lived for a moment: it ends, unless another run began meanwhile
            looks += 1
            for failure, look in self._looks(looks):
                if await contained(failure, look, again=failure in failed):
                    failed.discard(failure)
                else:
                    failed.add(failure)
        self._watching = False

    def _looks(self, number: int) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """What a look at the runs consists of, and what the log says where that fails: one part spoils no other."""
        looks: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("what arrives could not be written down", self._write_grown),
            ("spending could not be held against its limits", self._hold),
        ]
        if number % HEAR_EVERY == 0 and self.store.is_persistent and any(run.recorded for run in self._live.values()):
            looks.append(("cancellations by other servers could not be heard", self._hear_cancellations))
        return looks

    async def _write_grown(self) -> None:
        self._writer.write_grown(self._live)

    async def _hold(self) -> None:
        await self.limits.hold(self._live.values(), self.store)

    async def _hear_cancellations(self) -> None:
        for run_id in await self.store.cancel_requests():
            if run := self._live.get(run_id):
                run.cancel_soon()


def open_runs(
    tasks: TaskGroup,
    settings: Settings,
    take_up: Callable[[Mapping[str, Any]], RunFunction] | None = None,
    tallied: Callable[[RunRecord, Sequence[StepRecord]], Outcome] = _as_it_stands,
) -> Runs:
    """Runs with the journal and the limits that the settings name. Imports SQLAlchemy, which takes a while."""
    from kimi_mcp import catalogue
    from kimi_mcp.runs.store.store import open_store

    return Runs(
        tasks,
        open_store(settings),
        limits=SpendingLimits(
            call_usd=settings.budget_usd_per_call,
            day_usd=settings.budget_usd_per_day,
            dearest=lambda: catalogue.load().dearest,
        ),
        take_up=take_up,
        tallied=tallied,
    )
