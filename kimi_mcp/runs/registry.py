"""``Runs``: the runs of a process, and through the store those of every other one on its store. I/O: the store's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kimi_mcp.core import observing
from kimi_mcp.core.background import carried_out, contained, start_contained
from kimi_mcp.core.errors import KimiError, RunNotFound, server_stopped
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.runs.budgets import SpendingLimits
from kimi_mcp.runs.recorded import RecordedRun, RunFollower
from kimi_mcp.runs.recorder import RunRecorder, run_entry
from kimi_mcp.runs.run import Run, RunFunction

if TYPE_CHECKING:
    from kimi_mcp.runs.store.config import StoreLimits
    from kimi_mcp.runs.store.records import RunEntry, RunRecord, StepRecord
    from kimi_mcp.runs.store.store import RunStore

CLOSE_WITHIN_S = 0.25
"""Seconds that the store gets at the end for what still waits; each run's outcome had its time before."""

log = logging.getLogger(__name__)

_UNREAD = "cancellations by other servers could not be read"

Resume = Callable[[Mapping[str, Any]], RunFunction]
"""Makes a function of what a run recorded as its task; may block."""

Recover = Callable[["RunRecord", "Sequence[StepRecord]"], Outcome]
"""Makes the outcome of a run that is not continued, from its steps."""


class RunQueue(Protocol):
    """Where runs that can be continued wait for a replica that is free."""

    async def enqueue(self, run_id: str) -> None:
        """Let some replica run it; one that waits or runs already goes on, and one whose job has ended begins anew."""
        ...

    async def cancel(self, run_id: str) -> bool:
        """Let whoever runs it cancel it; True where it still waited, and nobody will run it."""
        ...


class Runs:
    """The runs of this process, and through the store those of every other one on the same store."""

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
        self.left = set[str]()
        """The runs that were left for another server to continue."""
        self._tasks, self._resume, self._recover = tasks, resume, recover
        self._is_ending = False
        self.recorder = RunRecorder(store, self.limits, lambda: self._is_ending or tasks.cancel_scope.cancel_called)
        """Records them."""
        self.limits.on_used_up = self._write_soon
        self.queue: RunQueue | None = None
        """Where runs of several replicas wait for one; None: each server continues those of dead ones itself."""
        self.awaits_queue = False
        """Whether it is a replica, which continues none itself before it has joined the others."""
        self.live: dict[str, Run] = {}
        """The running runs of this process, by their ids."""
        self.followers: dict[str, RunFollower] = {}
        """Followers of the runs of other servers that somebody waits for here, by the ids of those."""
        self._abandoning = anyio.Lock(fast_acquire=True)
        self._is_watching = False
        self._idle = anyio.Event()

    def start(self, run: Run, work: RunFunction, *, began_by: str | None = None) -> Run:
        """Let a run execute in the server's task group; ``began_by``: of one that goes on, its ``traceparent``."""
        if not run.recorded:
            run.started_at = self.store.now()  # by the one clock of all who share the store
        self.live[run.id] = run
        start_contained(self._tasks, "a run ended by a fault of our own", self._execute, run, work, began_by)
        if not self._is_watching:  # what ends before there is anything to look at costs no task
            self._is_watching = True
            asyncio.get_running_loop().call_later(self.store.limits.write_every_s, self._watch_soon)
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
        if self.queue is not None:
            await self.queue.enqueue(record.id)
            return None
        if self.awaits_queue:
            return None
        task = cast("Mapping[str, Any]", task)
        return await self.adopt(record, task, await anyio.to_thread.run_sync(self._resume, task))

    async def adopt(self, record: RunRecord, task: Mapping[str, Any], work: RunFunction) -> Run | None:
        """Run another server's run here; None where it has another owner by now, or has ended."""
        return await carried_out(self._adopt(record, task, work))  # else it would be ours, and nobody would run it

    async def _adopt(self, record: RunRecord, task: Mapping[str, Any], work: RunFunction) -> Run | None:
        if not await self.store.adopt(record):
            return None
        log.info("%s is continued where its server left it", record.id)
        return self.start(Run.resumed(record, task, now=self.store.now()), work, began_by=record.traceparent)

    async def reopen(self, record: RunRecord, work: RunFunction) -> RunView:
        """Let a run that has ended continue its answer; where another call was faster, the run as that continues it."""
        return await carried_out(self._reopen(record, work)) or await self.find(record.id, record.caller)

    async def _reopen(self, record: RunRecord, work: RunFunction) -> Run | None:
        reopened = await self.store.reopen(record)
        if reopened is None:
            return None
        return self.start(Run.reopened(*reopened), work, began_by=record.traceparent)

    async def resume_all(self) -> None:
        """Continue every run that dead servers of this folder left, and settle what can't be continued."""
        for record in await self.store.orphans():
            try:
                await self.resume(record)
            except KimiError as fault:
                log.warning("%s is left for another server: %s %s", record.id, fault.message, fault.fix)
            except Exception:  # another version may have written it: no reason to keep this server from its work
                log.exception("%s is left for another server", record.id)

    async def cancel_orphan(self, record: RunRecord, error: KimiError | None = None) -> RunRecord:
        """End a dead server's run; as it is by now where another one continues it.

        ``error``: why, where it was not cancelled but has failed, its job with it.
        """
        if self.queue is not None and error is None:
            await self.queue.cancel(record.id)
        return await carried_out(self.store.cancel_orphan(record, self._recover, error))

    def elsewhere(self, run: Run) -> RunView:
        """A run of this process that another replica has from here on."""
        from kimi_mcp.runs.store.records import RunRecord

        self.recorder.forget(run)
        run.announce()
        known = run_entry(run)
        entry = {field.name: getattr(known, field.name) for field in fields(known)}
        return RecordedRun(self, RunRecord(**entry, owner=self.store.lock.id, ended_at=None))

    async def request_cancel(self, record: RunRecord) -> RunRecord:
        """Request the cancellation of a run elsewhere; one that nobody runs yet ends here."""
        await self.store.request_cancel(record.id)
        if self.queue is not None and record.resumable and await self.queue.cancel(record.id):
            return await self.cancel_orphan(record)
        return record

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
        if record is None:
            return None
        return self.live.get(record.id) or RecordedRun(self, record)

    async def keep(self, run: RunView) -> None:
        """Somebody wants a run: a server whose caller left it does not cancel it for that."""
        if isinstance(run, RecordedRun):
            may_be_left = run.record.running and run.record.abandoned == 1
        else:  # its caller may have been at another server
            may_be_left = run.recorded and self.store.notifications.can_be_heard
        if may_be_left:
            await self.store.keep(run.id)

    @contextmanager
    def following(self, run: RecordedRun) -> Generator[RunFollower]:
        """Keep a run of another server up to date."""
        if run.id not in self.followers:
            self.followers[run.id] = RunFollower(self, run.record)
            with observing.without_ids():
                start_contained(self._tasks, "a run was not followed", self.followers[run.id].follow)
        with self.followers[run.id].joined(run) as follower:
            yield follower

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

    def can_go_on(self, run: Run) -> bool:
        """Whether another server can continue a run of this one."""
        return run.task is not None and self.store.is_persistent

    def stop_ending(self) -> bool:
        """This server ends: stop what ends with it, with what has arrived. Whether any of that is still to end."""
        self._is_ending = True
        ending = [run for run in self.live.values() if not self.can_go_on(run)]
        for run in ending:
            run.stop(server_stopped())
        return bool(ending)

    async def aclose(self) -> None:
        """Close the store, once no run is left."""
        self.recorder.close()
        unfinished = bool(self.left or self.recorder.unwritten)
        await self.store.aclose(unfinished=unfinished, within_s=CLOSE_WITHIN_S)

    # ── while they run ────────────────────────────────────────────────────────────────────────────────────────────

    async def _execute(self, run: Run, work: RunFunction, began_by: str | None) -> None:
        observing.add_ids(run_id=run.id, tool=run.tool, principal=run.caller, conversation_id=run.conversation_id)
        try:
            continued = began_by and observing.ContinuedWork(tool=run.tool, traceparent=began_by)
            with observing.within(continued or None):
                await run.execute(work, self)
            if run.id not in self.left and (outcome := run.outcome) is not None:
                error = None if outcome.error is None else outcome.error.code
                observing.emit(
                    observing.CallEnded(tool=run.tool, status=outcome.status, error=error, took_s=run.seconds())
                )
        finally:
            if self.live.get(run.id) is run:  # another replica's run may have come back meanwhile
                del self.live[run.id]
            if not self.live:
                self._idle.set()

    def _watch_soon(self) -> None:
        # In a task: outside of one anyio knows of no event loop, where the context is not of its making (DBOS).
        self._starting = asyncio.get_running_loop().create_task(self._start_watching())

    async def _start_watching(self) -> None:
        self._is_watching = bool(self.live)
        if self.live:
            self._idle = anyio.Event()
            with observing.without_ids():
                start_contained(self._tasks, "the runs are not looked at any more", self._watch)

    async def _watch(self) -> None:
        """While any run is live: record what arrives, enforce limits, look after the lock, read others' requests."""
        async with anyio.create_task_group() as hearing:
            if self.store.notifications.can_be_heard:
                start_contained(hearing, _UNREAD, self._hear_cancellations)
            await self._look()
            hearing.cancel_scope.cancel()

    async def _look(self) -> None:
        failed = set[str]()
        while self.live:
            start_contained(self._tasks, "what arrives was not recorded", self.recorder.write_new_text, self.live)
            enforce = partial(self.limits.enforce, self.live.values(), self.store)
            work: dict[str, Callable[[], Awaitable[Any]]] = {}
            is_shared = self.store.is_persistent and any(run.recorded for run in self.live.values())
            if is_shared:  # the lock first: its file may have been removed, and others miss it for a short while only
                acquire = partial(anyio.to_thread.run_sync, self.store.lock.acquire)
                work["others may take this server for dead"] = acquire
            work["spending could not be held against its limits"] = enforce
            if is_shared and not self.store.notifications.can_be_heard:
                work[_UNREAD] = self._read_cancel_requests
            for failure, each in work.items():  # one that fails keeps no other from its work
                if await contained(failure, each, again=failure in failed):
                    failed.discard(failure)
                else:
                    failed.add(failure)
            with anyio.move_on_after(self.store.limits.write_every_s):
                await self._idle.wait()
                self._idle = anyio.Event()  # nothing was live for a moment: this ends, unless another run began
        self._is_watching = False

    def _write_soon(self) -> None:
        """Write what has arrived, so that more is held for a run that has used what is held for it."""
        start_contained(self._tasks, "what arrives was not recorded", self.recorder.write_new_text, self.live)

    async def _hear_cancellations(self) -> None:
        limits, again = self.store.limits, False
        async with self.store.notifications.waiting("cancel") as waiter:
            while True:
                if any(run.recorded for run in self.live.values()):
                    again = not await contained(_UNREAD, self._read_cancel_requests, again=again)
                while (ids := await waiter.next(limits.look_every_s, deaf_s=limits.write_every_s)) and not (
                    ids & self.live.keys()
                ):
                    pass

    async def _read_cancel_requests(self) -> None:
        for run_id in await self.store.cancel_requests():
            if run := self.live.get(run_id):
                run.cancel_soon()


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
        principal_day_usd=settings.budget_usd_per_principal_day,
        highest_price=lambda: catalogue.load_for(settings).highest_price,
    )
    runs = Runs(tasks, open_store(settings, store_limits), limits=limits, resume=resume, recover=recover)
    runs.awaits_queue = settings.cluster == "on"
    return runs
