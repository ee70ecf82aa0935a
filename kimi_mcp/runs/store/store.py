"""``RunStore``: runs, conversations and steps, kept on disk as they grow. I/O, in threads of its own.

Everything here raises ``NotConfigured`` where the database can't be read or written; the next call tries again.
Importing this module imports SQLAlchemy, which takes a fifth of a second: do it in a thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Row, bindparam, insert, select, update

from kimi_mcp.core.errors import AnswerCutOff, Cancelled, KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import Status, Turn
from kimi_mcp.runs.store import queries
from kimi_mcp.runs.store.config import StoreLimits, folder_of
from kimi_mcp.runs.store.database import Database
from kimi_mcp.runs.store.locks import ServerLock
from kimi_mcp.runs.store.pending import PendingOutcomes
from kimi_mcp.runs.store.records import JSON, RunEnd, RunEntry, RunRecord, StepRecord, TextDelta, as_text
from kimi_mcp.runs.store.retention import DAY_S, Retention, keep_newest, newest
from kimi_mcp.runs.store.tables import MIGRATIONS, Migration, runs, steps

REJOIN_WITHIN_S = 3_600.0
"""Seconds after its end within which an abandoned run's answer is given to the same call made again."""

TRY_TURN_EVERY_S = 0.1
"""Seconds between two attempts to take a turn in a conversation."""


def open_store(settings: Settings, limits: StoreLimits | None = None) -> RunStore:
    """The store that the settings name; its database is opened by the first who needs it."""
    folder = None if settings.journal == "off" else folder_of(settings)
    return RunStore(
        folder,
        url=settings.database_url if folder else None,
        keep_days=settings.runs_keep_days,
        limits=replace(limits or StoreLimits(), patience_s=settings.reply_within_s),
    )


class RunStore:
    """The runs, conversations and steps of all servers that share a folder; None: everything is kept in memory."""

    def __init__(
        self,
        folder: Path | None,
        *,
        url: str | None = None,
        keep_days: int = 30,
        limits: StoreLimits | None = None,
        migrations: Sequence[Migration] = MIGRATIONS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits or StoreLimits()
        self.is_persistent = folder is not None
        """Whether anything is written to disk."""
        self.is_remote = url is not None
        """Whether it is a database that was named: one that does not answer may still do what it received."""
        self.lock = ServerLock(folder, missing_s=4 * self.limits.write_every_s)
        """This server, among those that share the folder."""
        self.now = wall
        """The time, in seconds since 1970."""
        self._keep_days = keep_days
        self._database = Database(
            folder, url, on_open=lambda _: self.lock.acquire(), limits=self.limits, migrations=migrations
        )
        self.read, self.write = self._database.read, self._database.write
        """The result of a query: on what is committed; once what it wrote is."""
        self.retention = Retention(self._database, self.lock, keep_days=keep_days, wall=wall)
        """Removes old runs in the background."""
        self.pending = PendingOutcomes(folder)
        """Outcomes that the database does not take just now."""

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
        await self.retention.aclose()
        await anyio.to_thread.run_sync(self._database.close, within_s)
        await anyio.to_thread.run_sync(partial(self.lock.release, unfinished=unfinished))

    def steps(self, run_id: str) -> Steps:
        """The steps of a run."""
        return Steps(self, run_id)

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def record(self, entry: RunEntry, *, counted_usd: float, day_limit_usd: float | None) -> None:
        """Record what is known of a run before another request of it is paid for; returns once it is on disk.

        ``counted_usd``: what it will cost at least. Raises ``BudgetExceeded`` where that exceeds what is left of the
        day's limit, all servers of the folder counted.
        """

        def record(connection: Connection) -> None:
            if day_limit_usd is not None:
                since = _midnight(self.now())
                queries.check_budget(connection, entry.id, counted_usd, day_limit_usd, since)
            queries.write(connection, entry, self.lock.id, counted_usd)

        await self.write(record)
        if self.is_persistent:
            self.retention.look_soon()

    async def append(self, deltas: Sequence[TextDelta], changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Record what has arrived; ``changes``: ``counted_usd``, ``outcome`` so far and ``lived_s``, by run."""
        await self.write(queries.append, deltas, changes)

    async def end(self, end: RunEnd) -> bool:
        """Record how a run ended; False where there is no record of it any more, or of another end."""
        found = await self.write(queries.end, end)
        if not self.is_persistent:
            await self.write(keep_newest, self.limits.runs_in_memory, self.lock.is_alive)
        return found

    async def find(self, run_id: str, caller: str | None) -> RunRecord | None:
        """A run by its id; None where that caller (None: anyone) has no such run."""

        def read(connection: Connection) -> RunRecord | None:
            row = connection.execute(select(runs).where(runs.c.id == run_id)).first()
            return None if row is None or caller not in (None, row.caller) else self._record(connection, row)

        found = await self.read(read)
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

        def read(connection: Connection) -> list[RunRecord]:
            unfinished = connection.execute(select(runs).where(runs.c.status == "running")).all()
            return [self._record(connection, row) for row in unfinished]

        found = [await self._settled(record) for record in await self.read(read)]
        orphans = [record for record in found if record.orphaned]
        await anyio.to_thread.run_sync(self.lock.remove_files, dead - {record.owner for record in orphans})
        ended = kept - {record.id for record in found if record.running}
        await anyio.to_thread.run_sync(self.pending.remove, *ended)
        return orphans

    async def adopt(self, record: RunRecord) -> bool:
        """Take over a dead server's run; False where another server was faster."""
        found = update(runs).where(runs.c.id == record.id, runs.c.owner == record.owner, runs.c.status == "running")
        return await self.write(lambda connection: connection.execute(found.values(owner=self.lock.id)).rowcount > 0)

    async def reopen(self, record: RunRecord) -> tuple[RunRecord, float] | None:
        """Take over a run that has ended, to continue its answer, and what limits count for it, in US dollars.

        None where another one was faster. One of an earlier day begins anew, so that today's limit counts it.
        """
        started_at = record.started_at if record.started_at >= _midnight(self.now()) else self.now()
        counted = await self.write(queries.reopen, record, self.lock.id, started_at)
        return None if counted is None else (replace(record, started_at=started_at, owner=self.lock.id), counted)

    async def _settle(self, record: RunRecord, outcome: Outcome) -> RunRecord:
        """Record how an orphaned run ended; where its server has just done so, as it did.

        What limits count for it stays: that was spent.
        """
        end = RunEnd(run_id=record.id, outcome=outcome, ended_at=self.now(), conversation_id=record.conversation_id)
        if not await self.write(queries.end, end):
            return await self.find(record.id, None) or record
        return replace(record, outcome=outcome, orphaned=False, ended_at=end.ended_at)

    async def cancel_orphan(
        self, record: RunRecord, recovered: Callable[[RunRecord, Sequence[StepRecord]], Outcome]
    ) -> RunRecord:
        """End a dead server's run; as it is by now where another server continues it.

        ``recovered`` makes the outcome of a run with steps: cancelled, or partial with what had finished.
        """
        if not await self.adopt(record):
            return await self.find(record.id, None) or record
        error = Cancelled("The run was cancelled.", fix="Call again if you still want the answer.")
        record = replace(record, outcome=replace(record.outcome, status="cancelled", error=error))
        steps = await self.steps(record.id).recorded()
        return await self._settle(record, recovered(record, steps) if steps else record.outcome)

    async def find_abandoned(self, *, caller: str, host: str | None, key: str) -> RunRecord | None:
        """The newest run of the same call that its host gave up on, where it can still be joined."""
        known = {"caller": caller, "host": host, "key": key, "since": self.now() - REJOIN_WITHIN_S}

        def read(connection: Connection) -> RunRecord | None:
            row = connection.execute(queries.NEWEST_ABANDONED, known).first()
            return None if row is None else self._record(connection, row)

        found = await self.read(read)
        if found is not None and found.orphaned and await self._write_pending(found.id):
            found = await self.read(read)
        return None if found is None or (found.orphaned and not found.resumable) else found

    async def abandon(self, run_id: str, abandoned: bool) -> None:
        """Record that its host gave up on a run, or waits for it again."""
        await self.write(queries.change, run_id, {"abandoned": int(abandoned)})

    async def request_cancel(self, run_id: str) -> None:
        """Request a run's cancellation by its server."""
        await self.write(queries.change, run_id, {"cancel_requested": 1})

    async def cancel_requests(self) -> list[str]:
        """The runs of this server whose cancellation another server requested."""
        requested = select(runs.c.id).where(
            runs.c.status == "running", runs.c.owner == self.lock.id, runs.c.cancel_requested == 1
        )
        return list(await self.read(lambda connection: connection.execute(requested).scalars().all()))

    async def spent_today_usd(self, run_id: str | None = None, counted_usd: float = 0.0) -> float:
        """US dollars that limits count for today's runs (UTC); ``run_id``, if among them, counts ``counted_usd``."""
        return await self.read(queries.spent_since, _midnight(self.now()), run_id, counted_usd)

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

        What a server added that died before it could write that is written first.
        """
        unwritten: list[str] = []

        def adds(writer: str, owner: str) -> bool:
            is_alive = is_live(writer) if owner == self.lock.id else self.lock.is_alive(owner)
            if not is_alive and self.pending.has(writer):
                unwritten.append(writer)
            return is_alive or bool(unwritten)

        while not await self.write(queries.take_turn, conversation_id, run_id, self.lock.id, adds):
            if unwritten:
                await self._write_pending(unwritten.pop())
            else:
                await anyio.sleep(TRY_TURN_EVERY_S)  # the other one may be in another process

    def _record(self, connection: Connection, row: Row[Any], *, texts: bool = True) -> RunRecord:
        record = queries.record(connection, row, texts=texts)
        if not record.running:
            return record
        if not self.lock.is_alive(record.owner):
            return replace(record, orphaned=True)
        timing = replace(record.outcome.timing, total_s=max(0.0, self.now() - record.started_at))
        return replace(record, outcome=replace(record.outcome, timing=timing))

    async def _write_pending(self, run_id: str) -> bool:
        """Write the outcome of a dead server's run that is kept in a file; whether there is one."""
        end = await anyio.to_thread.run_sync(self.pending.load, run_id)
        if end is None:
            return False
        await self.write(queries.end, end)
        await anyio.to_thread.run_sync(self.pending.remove, run_id)
        return True

    async def _settled(self, record: RunRecord) -> RunRecord:
        """A run of a dead server that can't be continued, with its end recorded."""
        if record.orphaned and await self._write_pending(record.id):
            return await self.find(record.id, None) or record
        if not record.orphaned or record.resumable:
            return record
        error: KimiError = AnswerCutOff(
            "The server that ran this call was stopped before the answer was complete; what had arrived is kept.",
            fix="Call again if you still need the rest.",
        )
        return await self._settle(record, replace(record.outcome, status="failed", error=error))


def _midnight(now: float) -> float:
    return now - now % DAY_S


# Executed hundreds of times a swarm: built once, which takes longer than to execute them.
_THE_STEP = (steps.c.run_id == bindparam("run"), steps.c.key == bindparam("step"))
_RESULT = select(steps.c.result).where(*_THE_STEP)
_BEGIN = insert(steps)
_FINISH = update(steps).where(*_THE_STEP)


class Steps:
    """The steps of one run: each request and each tool call of a swarm.

    A step is begun before it is made, finished before its result is used, and never made again once it is finished.
    Beginning it anew, in this process or another, returns the recorded result.
    """

    def __init__(self, store: RunStore, run_id: str) -> None:
        self._store, self._run_id = store, run_id

    async def begin(self, key: str, description: JSON) -> JSON | None:
        """Begin a step; its result, where it was finished before.

        ``key`` is unique within the run and independent of the clock, such as ``agent-3/step-2/tool-1``;
        ``description`` is for people who look at the run: who makes it and what it requests.
        """
        row = {"run_id": self._run_id, "key": key, "description": as_text(description), "began_at": self._store.now()}

        def begin(connection: Connection) -> str | None:
            found = connection.execute(_RESULT, {"run": self._run_id, "step": key}).first()
            if found is None:
                connection.execute(_BEGIN, row)
            return None if found is None else found.result

        result = await self._store.write(begin)
        return None if result is None else json.loads(result)

    async def finish(self, key: str, result: JSON) -> None:
        """Record the result of a step; returns once it can't be lost any more."""
        row = {"run": self._run_id, "step": key, "result": as_text(result), "ended_at": self._store.now()}
        await self._store.write(lambda connection: connection.execute(_FINISH, row).rowcount)

    async def recorded(self) -> list[StepRecord]:
        """All of them, in the order in which they began."""
        ordered = select(steps).where(steps.c.run_id == self._run_id).order_by(steps.c.began_at, steps.c.key)
        return [
            StepRecord(
                key=row.key,
                description=json.loads(row.description),
                result=None if row.result is None else json.loads(row.result),
                began_at=row.began_at,
                ended_at=row.ended_at,
            )
            for row in await self._store.read(lambda connection: connection.execute(ordered).all())
        ]
