"""``Runs``: the runs of a process, and through the store those of every other one on its data folder. I/O: its."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kimi_mcp.core.background import carried_out, contained, start_contained
from kimi_mcp.core.errors import KimiError, RunNotFound
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.runs.budgets import SpendingLimits
from kimi_mcp.runs.recorder import RunRecorder, run_entry
from kimi_mcp.runs.rounds import Reports
from kimi_mcp.runs.run import STORE_WITHIN_S, Run, RunFunction

if TYPE_CHECKING:
    from kimi_mcp.runs.store.config import StoreLimits
    from kimi_mcp.runs.store.records import RunEntry, RunRecord, StepRecord
    from kimi_mcp.runs.store.store import RunStore

CLOSE_WITHIN_S = 0.25
"""Seconds that the store gets at the end for what still waits; each run's outcome had its time before."""

CANCEL_WITHIN_S = 10.0
"""Seconds within which a run in another server must have ended once its cancellation is requested."""

READ_EVERY_S = 0.25
"""Seconds between two reads of a run in another server."""

log = logging.getLogger(__name__)

Resume = Callable[[Mapping[str, Any]], RunFunction]
"""Makes a function of what a run recorded as its task; may block."""

Recover = Callable[["RunRecord", "Sequence[StepRecord]"], Outcome]
"""Makes the outcome of a run that is not continued, from its steps."""


class Runs:
    """The runs of this process, and through the store those of every other one on the same data folder."""

    def __init__(
        self,
        tasks: TaskGroup,
        store: RunStore,
        *,
        limits: SpendingLimits | None = None,
        resume: Resume | None = None,
        recover: Recover = lambda record, steps: record.outcome,
    ) -> None:
        self.store = store
        """Where they are kept."""
        self.limits = limits or SpendingLimits()
        """What they may cost."""
        self.left_unfinished = False
        """Whether a run was left that another server can continue."""
        self._tasks, self._resume, self._recover = tasks, resume, recover
        self.recorder = RunRecorder(store, self.limits)
        """Records them."""
        self.live: dict[str, Run] = {}
        """Those of this process that run, by their id."""
        self._abandoning = anyio.Lock()
        self._is_watching = False
        self._idle = anyio.Event()

    def start(self, run: Run, work: RunFunction) -> Run:
        """Let a run execute in the server's task group."""
        self.live[run.id] = run
        start_contained(self._tasks, "a run ended by a fault of our own", self._execute, run, work)
        if not self._is_watching:
            self._is_watching, self._idle = True, anyio.Event()
            start_contained(self._tasks, "the runs are not looked at any more", self._watch)
        return run

    def is_live(self, run_id: str) -> bool:
        """Whether a run of this process is running, or its outcome still to be written."""
        return run_id in self.live or self.recorder.is_pending(run_id)

    async def find(self, run_id: str, caller: str | None, *, go_on: bool = True) -> RunView:
        """A run by its id, of that caller (None: of any); a dead server's is continued here if it may ``go_on``."""
        for run in (self.live.get(run_id), *self.recorder.unwritten):
            if run is not None and run.id == run_id and caller in (None, run.caller):
                return run
        record = await self.store.find(run_id, caller)
        if record is None:
            raise RunNotFound(
                "No run of that id is known to this server.",
                fix=f"Call kimi_run without `run_id` to see your latest runs. {self.store.retention_note}",
            )
        run = await self.resume(record) if go_on else None
        return run or RecordedRun(self, record)

    async def resume(self, record: RunRecord) -> Run | None:
        """Continue a dead server's run; None where it can't be, or another server does.

        One whose server died before it carried out a cancellation ends here instead.
        """
        if record.orphaned and record.cancel_requested:
            await self.cancel_orphan(record)
            return None
        task = record.request.get("task")
        if not record.orphaned or self._resume is None or not isinstance(task, Mapping):
            return None
        task = cast("Mapping[str, Any]", task)
        work = await anyio.to_thread.run_sync(self._resume, task)
        return await carried_out(self._adopt(record, task, work))  # else it would be ours, and nobody would run it

    async def _adopt(self, record: RunRecord, task: Mapping[str, Any], work: RunFunction) -> Run | None:
        if not await self.store.adopt(record):
            return None
        log.info("%s is continued where its server left it", record.id)
        return self.start(Run.resumed(record, task), work)

    async def reopen(self, record: RunRecord, work: RunFunction) -> RunView:
        """Let a run that has ended continue its answer; where another call was faster, the run as that continues it."""
        return await carried_out(self._reopen(record, work)) or await self.find(record.id, record.caller)

    async def _reopen(self, record: RunRecord, work: RunFunction) -> Run | None:
        reopened = await self.store.reopen(record)
        return None if reopened is None else self.start(Run.reopened(*reopened), work)

    async def resume_all(self) -> None:
        """Continue every run that dead servers of this folder left, and settle what can't be continued."""
        for record in await self.store.orphans():
            try:
                await self.resume(record)
            except KimiError as fault:
                log.warning("%s is left for another server: %s %s", record.id, fault.message, fault.fix)
            except Exception:  # another version may have written it: no reason to keep this server from its work
                log.exception("%s is left for another server", record.id)

    async def cancel_orphan(self, record: RunRecord) -> RunRecord:
        """End a dead server's run; as it is by now where another server continues it."""
        return await carried_out(self.store.cancel_orphan(record, self._recover))

    async def latest(self, caller: str, most: int = 10) -> list[RunEntry]:
        """A caller's newest runs, the newest first, in whichever server; each can be found by its id."""
        found: dict[str, RunEntry] = {record.id: record for record in await self.store.overview(caller, most=most)}
        for run in (*self.live.values(), *self.recorder.unwritten):
            if run.id in found and not run.announce():  # it was refused while the store was read
                del found[run.id]
            elif run.caller == caller and run.is_known:
                found[run.id] = run_entry(run)
        return sorted(found.values(), key=lambda run: run.started_at, reverse=True)[:most]

    async def rejoin(self, *, caller: str, host: str | None, key: str) -> RunView | None:
        """The run of the same call that its host gave up on, running or completed a short while ago."""
        async with self._abandoning:
            pass  # first it is recorded on what a host has just given up
        for run in self.live.values():
            if run.abandoned and (run.caller, run.host, run.call_key) == (caller, host, key):
                return run
        record = await self.store.find_abandoned(caller=caller, host=host, key=key)
        return None if record is None else RecordedRun(self, record)

    async def abandon(self, run_id: str, abandoned: bool = True) -> None:
        """Its host gave up on it, or (False) waits for it again."""
        async with self._abandoning:
            run = self.live.get(run_id)
            if run is not None:
                run.abandoned = abandoned
            if run is None or run.recorded:
                try:
                    await self.store.abandon(run_id, abandoned)
                except KimiError as fault:
                    self.recorder.on_fault(fault)

    async def aclose(self) -> None:
        """Close the store, once no run is left."""
        self.recorder.close()
        unfinished = self.left_unfinished or bool(self.recorder.unwritten)
        await self.store.aclose(unfinished=unfinished, within_s=CLOSE_WITHIN_S)

    # ── while they run ────────────────────────────────────────────────────────────────────────────────────────────

    async def _execute(self, run: Run, work: RunFunction) -> None:
        try:
            await run.execute(work, self)
        finally:
            del self.live[run.id]
            if not self.live:
                self._idle.set()

    async def _watch(self) -> None:
        """While any run is live: record what arrives, enforce limits, look after the lock, read others' requests."""
        failed = set[str]()
        while self.live:
            with anyio.move_on_after(self.store.limits.write_every_s):
                await self._idle.wait()
                self._idle = anyio.Event()
                continue  # nothing was live for a moment: this ends, unless another run began meanwhile
            start_contained(self._tasks, "what arrives was not recorded", self.recorder.write_new_text, self.live)
            enforce = partial(self.limits.enforce, self.live.values(), self.store)
            work: dict[str, Callable[[], Awaitable[Any]]] = {}
            is_shared = self.store.is_persistent and any(run.recorded for run in self.live.values())
            if is_shared:  # the lock first: its file may have been removed, and others miss it for a short while only
                acquire = partial(anyio.to_thread.run_sync, self.store.lock.acquire)
                work["others may take this server for dead"] = acquire
            work["spending could not be held against its limits"] = enforce
            if is_shared:
                work["cancellations by other servers could not be read"] = self._read_cancel_requests
            for failure, each in work.items():  # one that fails keeps no other from its work
                if await contained(failure, each, again=failure in failed):
                    failed.discard(failure)
                else:
                    failed.add(failure)
        self._is_watching = False

    async def _read_cancel_requests(self) -> None:
        for run_id in await self.store.cancel_requests():
            if run := self.live.get(run_id):
                run.cancel_soon()


class RecordedRun:
    """A run in another server, or one that has ended, as the store has it."""

    def __init__(self, runs: Runs, record: RunRecord) -> None:
        self._runs = runs
        self.record = record
        """As it was last read."""
        self.reports = Reports()
        """None reach this process."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def started_at(self) -> float:
        """When it was created, in seconds since 1970."""
        return self.record.started_at

    async def begun(self) -> None:
        """It is recorded."""

    async def wait(self) -> None:
        """Wait until it has ended, in its server or by the death of that."""
        while self.record.running:
            await self._read()
            if self.record.orphaned and (run := await self._runs.resume(self.record)):
                await run.wait()  # its server died meanwhile: it goes on here
            elif self.record.running:
                await anyio.sleep(READ_EVERY_S)

    async def current_outcome(self) -> Outcome:
        """Its outcome, as far as it is recorded; as it was before, where the store is slow."""
        if self.record.running:
            with anyio.move_on_after(STORE_WITHIN_S):
                await self._read()
        return self.record.outcome

    async def cancel(self) -> None:
        """Request its cancellation, or end it where its server is dead; waits for that, at most ``CANCEL_WITHIN_S``."""
        if self.record.orphaned:
            self.record = await self._runs.cancel_orphan(self.record)
        if self.record.running:
            await self._runs.store.request_cancel(self.id)
        with anyio.move_on_after(CANCEL_WITHIN_S):
            await self.wait()

    def phase(self) -> str:
        """What is known of it, in a line."""
        return f"running in another server · {time.time() - self.record.started_at:.0f} s"

    async def _read(self) -> None:
        found = await self._runs.store.find(self.id, None)
        if found is None:  # it was refused before anything was sent, or it was removed
            gone = RunNotFound("That run is kept no longer.", fix="Call again if you still need its answer.")
            found = replace(self.record, outcome=replace(self.record.outcome, status="failed", error=gone))
        self.record = found


RunView = Run | RecordedRun
"""A run in any server."""


def open_runs(
    tasks: TaskGroup,
    settings: Settings,
    resume: Resume | None = None,
    recover: Recover = lambda record, steps: record.outcome,
    store_limits: StoreLimits | None = None,
) -> Runs:
    """Runs with the store and the limits that the settings name. Imports SQLAlchemy, which takes a while."""
    from kimi_mcp import catalogue
    from kimi_mcp.runs.store.store import open_store

    limits = SpendingLimits(
        call_usd=settings.budget_usd_per_call,
        day_usd=settings.budget_usd_per_day,
        highest_price=lambda: catalogue.load_for(settings).highest_price,
    )
    return Runs(tasks, open_store(settings, store_limits), limits=limits, resume=resume, recover=recover)
