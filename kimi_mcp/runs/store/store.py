"""``RunStore``: runs, conversations and steps, kept on disk as they grow. I/O, in threads of its own.

Everything here raises ``NotConfigured`` where the database can't be read or written; the next call tries again.
Importing this module imports SQLAlchemy, which takes a fifth of a second: do it in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from sqlalchemy import ColumnElement, Connection, Row, select

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import Status, Turn
from kimi_mcp.runs.store import changes, errors, looks, queries
from kimi_mcp.runs.store.config import StoreLimits, folder_of, is_postgresql
from kimi_mcp.runs.store.database import Database
from kimi_mcp.runs.store.day_limits import DAY_S, DayLimit, Held, WantedBudget, midnight
from kimi_mcp.runs.store.locks import ServerLock
from kimi_mcp.runs.store.notifications import Notifications
from kimi_mcp.runs.store.pending import PendingOutcomes
from kimi_mcp.runs.store.records import RunEnd, RunEntry, RunRecord, StepRecord, TextDelta
from kimi_mcp.runs.store.retention import Retention, keep_newest, newest
from kimi_mcp.runs.store.running_steps import RunningSteps
from kimi_mcp.runs.store.steps import Steps
from kimi_mcp.runs.store.tables import MIGRATIONS, Migration, runs
from kimi_mcp.runs.store.turns import take_turn

if TYPE_CHECKING:
    from kimi_mcp.runs.store.leases import ServerLease

REJOIN_WITHIN_S = 3_600.0
"""Seconds after its end within which an abandoned run's answer is given to the same call made again."""


def open_store(settings: Settings, limits: StoreLimits | None = None) -> RunStore:
    """The store that the settings name; its database is opened by the first who needs it."""
    folder = None if settings.journal == "off" else folder_of(settings)
    return RunStore(
        folder,
        url=settings.database_url if folder else None,
        keep_days=settings.runs_keep_days,
        limits=replace(limits or StoreLimits(), patience_s=settings.reply_within_s),
        of_replica=settings.cluster == "on",
    )


class RunStore:
    """The runs, conversations and steps of all servers that share a folder or a database; without: kept in memory."""

    def __init__(
        self,
        folder: Path | None,
        *,
        url: str | None = None,
        keep_days: int = 30,
        limits: StoreLimits | None = None,
        migrations: Sequence[Migration] = MIGRATIONS,
        wall: Callable[[], float] = time.time,
        of_replica: bool = False,
    ) -> None:
        self.limits = limits or StoreLimits()
        self.is_persistent = folder is not None
        """Whether anything is written to disk."""
        self.is_remote = url is not None
        """Whether it is a database that was named: one that does not answer may still do what it received."""
        self.lease: ServerLease | None = None
        """This server's lease among those on one PostgreSQL; None: the store is another database."""
        if url is not None and is_postgresql(url):
            from kimi_mcp.runs.store.leases import ServerLease  # with SQLAlchemy's dialect, which takes a while

            self.lease = ServerLease(url, folder, limits=self.limits, loop=lambda: self._database.loop)
        self.lock = self.lease or ServerLock(folder, missing_s=4 * self.limits.write_every_s)
        """This server, among those that share the folder, or that PostgreSQL."""
        lease = self.lease
        self.now = wall if lease is None else lambda: wall() + lease.ahead_s
        """The time, in seconds since 1970; in PostgreSQL the database's, so that all machines have the same."""
        self.notifications = Notifications(url if folder else None, self.limits)
        """What other servers tell this one."""
        self._keep_days = keep_days
        self._database = Database(
            folder,
            url,
            on_open=self.lease.register if self.lease else lambda _: self.lock.acquire(),
            check=self.lease and self.lease.check,
            limits=self.limits,
            migrations=migrations,
            of_replica=of_replica,
        )
        self.read, self.write = self._database.read, self._database.write
        """The result of a query: on what is committed; once what it wrote is."""
        self.write_locked = self._database.write_locked
        """The same as ``write``, in a transaction that no other server has at the same time with one of its locks."""
        self.retention = Retention(self._database, self.lock, keep_days=keep_days, wall=self.now)
        """Removes old runs in the background."""
        self.running_steps = RunningSteps(self)
        """What arrives here, for those who look at it."""
        self.pending = PendingOutcomes(folder)
        """Outcomes that the database does not take just now."""

    @property
    def wrote_at(self) -> float:
        """When it last went on to write, by the event loop's clock: not while it waits for a lock or a disk."""
        return self._database.wrote_at

    @property
    def retention_note(self) -> str:
        """How long runs are kept, in a sentence about one that is gone."""
        if self.is_persistent:
            return f"Runs are kept for {self._keep_days} days (KIMI_RUNS_KEEP_DAYS)."
        return (
            f"KIMI_JOURNAL is off: of what has ended the latest {self.limits.runs_in_memory} runs are kept, "
            "and what they follow."
        )

    async def aclose(self, *, unfinished: bool = False, within_s: float | None = None) -> None:
        """Write what still waits, and close the database.

        ``within_s``: how long that may take; None: as long as a locked file is waited for. ``unfinished``: runs are
        left that another server is to continue or to conclude.
        """
        await self.running_steps.aclose()
        await self.retention.aclose()
        await anyio.to_thread.run_sync(self._database.close, within_s)
        await anyio.to_thread.run_sync(partial(self.lock.release, unfinished=unfinished))
        await anyio.to_thread.run_sync(self.notifications.close)

    def steps(self, run_id: str, fence: ColumnElement[bool] | None = None) -> Steps:
        """The steps of a run; ``fence``: what must hold in PostgreSQL for this server to work on them."""
        return Steps(self, run_id, fence)

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def record(
        self,
        entry: RunEntry,
        *,
        counted_usd: float,
        limits: Sequence[DayLimit] = (),
        hold_usd: float = 0.0,
        is_new: bool = False,
    ) -> Held | None:
        """Record what is known of a run before another request of it is paid for; returns once it is on disk.

        ``counted_usd``: what it will cost at least. ``is_new``: nothing of it is recorded yet. Raises
        ``BudgetExceeded`` where that exceeds what is left of a limit of the day, all servers of the folder counted.
        In PostgreSQL up to ``hold_usd`` more is held until it is counted: returns how much.
        """

        def record(connection: Connection) -> Held | None:
            owner, now = self.lock.id, self.now()
            held = changes.take_budget(connection, entry, owner, counted_usd, limits, hold_usd=hold_usd, now=now)
            counted = counted_usd if held is None else counted_usd + held.usd
            changes.write(connection, entry, owner, counted, is_new=is_new)
            return held

        held = await self.write(record)
        if self.is_persistent:
            self.retention.look_soon()
        return held

    async def append(
        self,
        deltas: Sequence[TextDelta],
        columns: Mapping[str, Mapping[str, Any]],
        wanted: Mapping[str, WantedBudget] | None = None,
    ) -> Mapping[str, Held]:
        """Record what has arrived; ``columns``: ``counted_usd``, ``outcome`` so far and ``lived_s``, by run.

        Returns what is held of what is ``wanted``, by run.
        """
        return await self.write(changes.append, deltas, columns, self.lock.id, wanted)

    async def end(self, end: RunEnd) -> bool:
        """Record how a run ended; False where there is no record of it any more, or of another end."""
        found = await self.write(changes.end, end, self.lock.id)
        if not self.is_persistent:
            await self.write(keep_newest, self.limits.runs_in_memory, self.lock.is_alive)
        return found

    async def find(self, run_id: str, caller: str | None) -> RunRecord | None:
        """A run by its id; None where that caller (None: anyone) has no such run."""
        wanted = select(runs).where(runs.c.id == run_id)
        if caller is not None:  # by the database: of another caller's run nothing is read, however long its texts are
            wanted = wanted.where(runs.c.caller == caller)

        found = await self.read(lambda connection: self._found(connection, connection.execute(wanted).first()))
        return None if found is None else await self._settled(found)

    async def overview(
        self,
        caller: str | None,
        *,
        status: Status | None = None,
        since: float | None = None,
        ended_before: float | None = None,
        most: int | None = None,
    ) -> list[RunRecord]:
        """The newest runs first, for a list: without request, answer and reasoning; times in seconds since 1970."""
        while True:  # until no look was in doubt: those that are far apart may all miss a file that comes and goes
            doubts = self.lock.doubts
            await self.orphans()
            if self.lock.doubts == doubts:
                break
            await anyio.sleep(self.lock.missing_s / 20)

        def read(connection: Connection) -> list[RunRecord]:
            rows = queries.overview(
                connection, caller, status=status, since=since, ended_before=ended_before, most=most
            )
            return [self._record(connection, row, texts=False) for row in rows]

        return await self.read(read)

    async def orphans(self) -> list[RunRecord]:
        """Runs of dead servers that can be continued; all others of theirs are settled, and their locks removed."""
        dead = await anyio.to_thread.run_sync(self.lock.dead_servers)  # before their runs are read
        kept = await anyio.to_thread.run_sync(self.pending.ids)

        def read(connection: Connection) -> tuple[set[str], list[RunRecord]]:
            unfinished = connection.execute(select(runs.c.id, runs.c.owner).where(runs.c.status == "running")).all()
            left = [row.id for row in unfinished if not self.lock.is_alive(row.owner)]
            rows = connection.execute(select(runs).where(runs.c.id.in_(left))).all() if left else ()
            return {row.id for row in unfinished}.difference(left), [self._record(connection, row) for row in rows]

        running, left = await self.read(read)
        found = [await self._settled(record) for record in left]
        orphans = [record for record in found if record.orphaned]
        await anyio.to_thread.run_sync(self.lock.remove_files, dead - {record.owner for record in orphans})
        ended = kept - running - {record.id for record in found if record.running}
        await anyio.to_thread.run_sync(self.pending.remove, *ended)
        return orphans

    async def adopt(self, record: RunRecord) -> bool:
        """Take over a dead server's run; False where another server was faster."""
        return await self.write(changes.adopt, record, self.lock.id)

    async def reopen(self, record: RunRecord) -> tuple[RunRecord, float] | None:
        """Take over a run that has ended, to continue its answer, and what limits count for it, in US dollars.

        None where another one was faster. One of an earlier day begins anew, so that today's limit counts it.
        """
        started_at = record.started_at if record.started_at >= midnight(self.now()) else self.now()
        counted = await self.write(changes.reopen, record, self.lock.id, started_at)
        return None if counted is None else (replace(record, started_at=started_at, owner=self.lock.id), counted)

    async def _settle(self, record: RunRecord, outcome: Outcome) -> RunRecord:
        """Record how an orphaned run ended; where its server has just done so, as it did.

        What limits count for it stays: that was spent.
        """
        end = RunEnd(run_id=record.id, outcome=outcome, ended_at=self.now(), conversation_id=record.conversation_id)
        if not await self.write(changes.end, end, record.owner):
            return await self.find(record.id, None) or record
        return replace(record, outcome=outcome, orphaned=False, ended_at=end.ended_at)

    async def cancel_orphan(
        self,
        record: RunRecord,
        recovered: Callable[[RunRecord, Sequence[StepRecord]], Outcome],
        error: KimiError | None = None,
    ) -> RunRecord:
        """End a dead server's run; as it is by now where another server continues it.

        ``recovered`` makes the outcome of a run with steps: cancelled, or partial with what had finished. ``error``:
        why it has failed; None: it was cancelled.
        """
        if not await self.adopt(record):
            return await self.find(record.id, None) or record
        status = "cancelled" if error is None else "failed"
        error = error or errors.cancelled()
        outcome = replace(record.outcome, status=status, error=error)
        record = replace(record, outcome=outcome, owner=self.lock.id)
        steps = await self.steps(record.id).recorded()
        return await self._settle(record, recovered(record, steps) if steps else record.outcome)

    async def find_abandoned(self, *, caller: str, host: str | None, key: str) -> RunRecord | None:
        """The newest run of the same call that its host gave up on, where it can still be joined."""
        since = self.now() - REJOIN_WITHIN_S

        def read(connection: Connection) -> RunRecord | None:
            row = queries.newest_abandoned(connection, caller=caller, host=host, key=key, since=since)
            return self._found(connection, row)

        found = await self.read(read)
        if found is not None and found.orphaned and await self.write_pending(found.id, found.owner):
            found = await self.read(read)
        return None if found is None or (found.orphaned and not found.resumable) else found

    async def abandon(self, run_id: str, abandoned: bool) -> None:
        """Record that its host gave up on a run, or waits for it again."""
        await self.write(changes.change, run_id, {"abandoned": int(abandoned)})

    async def keep(self, run_id: str) -> None:
        """Record that somebody wants a run that its host gave up on: nobody cancels it for that."""
        await self.write(changes.keep, run_id)

    async def is_wanted(self, run_id: str) -> bool:
        """Whether somebody wants a run that its host gave up on."""
        abandoned = select(runs.c.abandoned).where(runs.c.id == run_id)
        return await self.read(lambda connection: connection.execute(abandoned).scalar() == 2)

    async def request_cancel(self, run_id: str) -> None:
        """Request a run's cancellation by its server."""
        await self.write(changes.request_cancel, run_id)

    async def cancel_requests(self) -> list[str]:
        """The runs of this server whose cancellation another server requested; looks at steps here come with them."""
        cancelled, looked_at = await self.read(looks.requests, self.lock.id, self.now())
        self.running_steps.heard(looked_at)
        return cancelled

    async def look_at(self, run_id: str, agent: str) -> None:
        """Look at an agent of a running run for some seconds: meanwhile what arrives of its step is written."""
        await self.write_locked((looks.lock_of(run_id),), looks.look, run_id, agent, self.now())

    async def spent_today_usd(
        self, run_id: str | None = None, counted_usd: float = 0.0, *, caller: str | None = None
    ) -> float:
        """US dollars that limits count for today's runs (UTC) of a caller (None: of all).

        ``run_id``, if it is among them, counts ``counted_usd``.
        """
        since = midnight(self.now())
        return await self.read(queries.spent_since, since, run_id, counted_usd, caller)

    async def spent_today_by_caller(self, callers: Collection[str]) -> Mapping[str, float]:
        """The same for several callers, without those who have no run today."""
        return await self.read(queries.spent_by_caller, midnight(self.now()), callers)

    async def old_before(self, keep_days: float | None = None) -> float:
        """The time before which runs are too old, in seconds since 1970; counted from the newest run at the latest."""
        keep_s = (self._keep_days if keep_days is None else keep_days) * DAY_S
        now = self.now()
        return (now if keep_s <= 0 else min(now, await self.read(newest))) - keep_s

    async def prune(self, keep_days: float | None = None) -> list[str]:
        """Remove runs that ended longer ago; returns their ids. What a kept conversation needs stays."""
        removed = await self.retention.remove(await self.old_before(keep_days))
        await self.retention.shrink()
        return sorted(removed)

    # ── conversations ─────────────────────────────────────────────────────────────────────────────────────────────

    async def conversation(self, conversation_id: str) -> Row[Any] | None:
        """A conversation by its id: its ``caller`` and its ``head``, the run with its latest turns."""
        return await self.read(queries.conversation, conversation_id)

    async def history(self, run_id: str | None) -> tuple[Turn, ...]:
        """The turns of a run and of all that it follows, the oldest first."""
        return await self.read(queries.history, run_id)

    async def take_turn(self, conversation_id: str, run_id: str, is_live: Callable[[str], bool]) -> None:
        """Wait until no other run adds to a conversation; ``is_live`` knows this server's own runs.

        What a server added that died before it could write that is written first. Raises ``AnswerCutOff`` where the
        database goes away meanwhile and stays away.
        """
        await take_turn(self, conversation_id, run_id, is_live)

    def _found(self, connection: Connection, row: Row[Any] | None) -> RunRecord | None:
        return None if row is None else self._record(connection, row)

    def _record(self, connection: Connection, row: Row[Any], *, texts: bool = True) -> RunRecord:
        record = queries.record(connection, row, texts=texts)
        if not record.running:
            return record
        if not self.lock.is_alive(record.owner):
            return replace(record, orphaned=True)
        timing = replace(record.outcome.timing, total_s=max(0.0, self.now() - record.started_at))
        return replace(record, outcome=replace(record.outcome, timing=timing))

    async def write_pending(self, run_id: str, owner: str) -> bool:
        """Write the outcome of a dead server's run that is kept in a file; whether there is one."""
        end = await anyio.to_thread.run_sync(self.pending.load, run_id)
        if end is None:
            return False
        await self.write(changes.end, end, owner)
        await anyio.to_thread.run_sync(self.pending.remove, run_id)
        return True

    async def _settled(self, record: RunRecord) -> RunRecord:
        """A run of a dead server that can't be continued, with its end recorded."""
        if record.orphaned and await self.write_pending(record.id, record.owner):
            return await self.find(record.id, None) or record
        if not record.orphaned or record.resumable:
            return record
        if record.cancel_requested:
            return await self._settle(record, replace(record.outcome, status="cancelled", error=errors.cancelled()))
        error = errors.server_died(record.id, has_answer=bool(record.outcome.answer.strip()))
        return await self._settle(record, replace(record.outcome, status="failed", error=error))
