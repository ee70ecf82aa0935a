"""``RunStore``: runs, conversations and steps, kept on disk as they grow. I/O, in threads of its own.

Several servers share one. A run is recorded before anything is paid for, and what arrives of it within a second; a
server that dies loses that second and nothing else. Everything here raises ``NotConfigured`` where the database can't
be read or written; the next call tries again.

Whoever imports this module imports SQLAlchemy, which takes a fifth of a second: do it in a thread.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection

from kimi_mcp.core.errors import AnswerCutOff, Cancelled, KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import Status, Turn
from kimi_mcp.runs.steps import JSON
from kimi_mcp.runs.store import queries, run_queries
from kimi_mcp.runs.store.database import Database
from kimi_mcp.runs.store.engine import LOCKED_S
from kimi_mcp.runs.store.locks import ServerLock
from kimi_mcp.runs.store.paths import folder_of
from kimi_mcp.runs.store.pending import PendingOutcome, PendingOutcomes
from kimi_mcp.runs.store.records import Conversation, RunEntry, RunRecord, StepRecord, TextDelta, Totals
from kimi_mcp.runs.store.retention import DAY_S, Retention, keep_newest
from kimi_mcp.runs.store.serializers import turns_as_json

P = ParamSpec("P")
T = TypeVar("T")

REJOIN_WITHIN_S = 3_600.0
"""Seconds after its end within which an abandoned run's answer is given to the same call made again."""

KEEP_IN_MEMORY = 64
"""Finished runs that stay readable where nothing is written to disk."""

TRY_TURN_EVERY_S = 0.1
"""Seconds between two attempts to take a turn in a conversation."""


def open_store(settings: Settings) -> RunStore:
    """The store that the settings name; its database is opened by the first who needs it."""
    folder = None if settings.journal == "off" else folder_of(settings)
    return RunStore(
        folder,
        url=settings.database_url if folder else None,
        keep_days=settings.runs_keep_days,
        patience_s=settings.reply_within_s,
    )


class RunStore:
    """The runs, conversations and steps of all servers that share a folder.

    ``folder`` None keeps everything in memory, for as long as the process runs. ``patience_s``: how long who asks may
    be kept waiting.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        url: str | None = None,
        keep_days: int = 30,
        patience_s: float = math.inf,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.is_persistent = folder is not None
        """Whether anything is written to disk."""
        self.is_remote = url is not None
        """Whether it is a database that was named: one that does not answer may still do what it received."""
        self.lock = ServerLock(folder)
        """This server, among those that share the folder."""
        self._keep_days, self._wall = keep_days, wall
        self._database = Database(folder, url, on_open=lambda _: self.lock.acquire(), patience_s=patience_s)
        self.retention = Retention(
            self._database, server=self.lock.id, alive=self.lock.is_alive, keep_days=keep_days, wall=wall
        )
        """Removes old runs in the background."""
        self.pending = PendingOutcomes(folder, self._database)
        """Outcomes that the database does not take just now."""

    @property
    def retention_note(self) -> str:
        """How long runs are kept, in a sentence for whoever asks for one that is gone."""
        if self.is_persistent:
            return f"Runs are kept for {self._keep_days} days (KIMI_RUNS_KEEP_DAYS)."
        return (
            f"KIMI_JOURNAL is off: of what has ended the latest {KEEP_IN_MEMORY} runs are kept, and what they follow."
        )

    async def aclose(self, *, unfinished: bool = False, within_s: float = LOCKED_S) -> None:
        """Write what still waits, as far as that takes no longer than that, and close the database.

        ``unfinished``: runs are left that another server is to continue or to conclude.
        """
        await self.retention.aclose()
        await anyio.to_thread.run_sync(self._database.close, within_s)
        await anyio.to_thread.run_sync(partial(self.lock.release, unfinished=unfinished))

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self, entry: RunEntry, *, counted_usd: float, day_limit_usd: float | None) -> None:
        """Record a run before anything is paid for; returns once it is on disk.

        ``counted_usd``: what its prompt will cost at least. Raises ``BudgetExceeded`` where that exceeds what is left
        of the day's limit, all servers of the folder counted.
        """
        begin = partial(run_queries.begin, entry=entry, owner=self.lock.id, counted_usd=counted_usd)
        await self._within_budget(begin, entry, counted_usd, day_limit_usd)
        if self.is_persistent:
            self.retention.look_soon()

    async def renew(self, entry: RunEntry, *, counted_usd: float, day_limit_usd: float | None) -> None:
        """Record what more is known of a run: its turn in a conversation, its media, another request.

        Raises ``BudgetExceeded`` as ``begin`` does: another request is paid for again.
        """
        renew = partial(run_queries.renew, entry=entry, counted_usd=counted_usd)
        await self._within_budget(renew, entry, counted_usd, day_limit_usd)

    def append(
        self,
        deltas: Sequence[TextDelta],
        changes: Mapping[str, Mapping[str, Any]],
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Record what has arrived, some time soon; ``done`` is then called, with the fault if there was one.

        ``changes``: by run what limits count for it (``counted_usd``), its ``outcome`` so far, ``lived_s``.
        """
        self._database.post(partial(run_queries.append, deltas=deltas, changes=changes), done)

    async def end(self, run_id: str, outcome: Outcome, *, turns: Sequence[Turn] | None, counted_usd: float) -> bool:
        """Record how a run ended; ``turns`` are what it adds to its conversation, None where nothing.

        False where there is no record of it any more.
        """
        text = None if turns is None else turns_as_json(turns)
        found = await self._write(run_queries.end, run_id, outcome, self._wall(), turns=text, counted_usd=counted_usd)
        if not self.is_persistent:
            await self._write(keep_newest, KEEP_IN_MEMORY, self.lock.is_alive)
        return found

    async def save_outcome(
        self, run_id: str, outcome: Outcome, *, turns: Sequence[Turn] | None, counted_usd: float
    ) -> bool:
        """Keep in a file how a run ended, until the database takes that; False where this can't be done either.

        Whoever finds the run unfinished after this server has died writes it.
        """
        text = None if turns is None else turns_as_json(turns)
        return await self.pending.keep(
            PendingOutcome(run_id=run_id, outcome=outcome, ended_at=self._wall(), turns=text, counted_usd=counted_usd)
        )

    async def forget(self, run_id: str) -> None:
        """Remove a run that was refused before anything was sent."""
        await self._write(run_queries.forget, run_id)

    async def find(self, run_id: str, caller: str | None) -> RunRecord | None:
        """A run by its id; None where that caller (None: anyone) has no such run."""

        def read(connection: Connection) -> RunRecord | None:
            row = queries.find(connection, run_id)
            return None if row is None or caller not in (None, row.caller) else self._record(connection, row)

        found = await self._database.read(read)
        return None if found is None else await self._settled(found)

    async def latest(self, caller: str | None, most: int = 100) -> list[RunRecord]:
        """The newest runs first, of one caller or of all."""

        def read(connection: Connection) -> list[RunRecord]:
            return [self._record(connection, row) for row in queries.latest(connection, caller, most)]

        return [await self._settled(record) for record in await self._database.read(read)]

    async def overview(
        self,
        caller: str | None,
        *,
        status: Status | None = None,
        since: float | None = None,
        ended_before: float | None = None,
        most: int | None = None,
    ) -> list[RunRecord]:
        """The newest runs first, for a list: without request, answer and reasoning.

        ``status``, ``since`` and ``ended_before`` (seconds since 1970) leave others out.
        """
        await self.orphans()

        def read(connection: Connection) -> list[RunRecord]:
            rows = queries.overview(
                connection, caller, status=status, since=since, ended_before=ended_before, most=most
            )
            return [self._record(connection, row, texts=False) for row in rows]

        return await self._database.read(read)

    async def totals(self, *, status: Status | None = None, since: float | None = None) -> Totals:
        """The totals of all runs, or of those with a status or that began since then (seconds since 1970)."""
        return await self._read(queries.totals, self._wall(), status=status, since=since)

    async def ids_with_prefix(self, prefix: str, most: int) -> list[str]:
        """Ids that begin so."""
        return await self._read(queries.ids_with_prefix, prefix, most)

    async def unique_prefix_length(self, ids: Sequence[str]) -> int:
        """How many characters tell each of these ids apart from those of all runs."""
        return await self._read(queries.unique_prefix_length, ids)

    async def neighbours(self, run_id: str) -> tuple[list[str], list[str]]:
        """The runs whose turns come before a run's own, the oldest first, and those that follow it directly."""
        return await self._read(queries.neighbours, run_id)

    async def orphans(self) -> list[RunRecord]:
        """Runs of dead servers that can be continued; all others of theirs are settled, and their locks removed."""
        dead = await anyio.to_thread.run_sync(self.lock.dead_servers)  # before their runs are read
        kept = await self.pending.ids()

        def read(connection: Connection) -> list[RunRecord]:
            return [self._record(connection, row) for row in queries.unfinished(connection)]

        found = [await self._settled(record) for record in await self._database.read(read)]
        orphans = [record for record in found if record.orphaned]
        await anyio.to_thread.run_sync(self.lock.remove_files, dead - {record.owner for record in orphans})
        await self.pending.forget(*(kept - {record.id for record in found if record.running}))
        return orphans

    async def adopt(self, record: RunRecord) -> bool:
        """Take over a dead server's run; False where another server was faster."""
        return await self._write(queries.adopt, record.id, record.owner, self.lock.id)

    async def _settle(self, record: RunRecord, outcome: Outcome) -> RunRecord:
        """Record how an orphaned run ended; where its server has just done so, as it did.

        What limits count for it stays: that was spent.
        """
        if not await self._write(run_queries.end, record.id, outcome, self._wall()):
            return await self.find(record.id, None) or record
        return replace(record, outcome=outcome, orphaned=False, ended_at=self._wall())

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
        steps = await self.steps_of(record.id)
        return await self._settle(record, recovered(record, steps) if steps else record.outcome)

    async def find_abandoned(self, *, caller: str, host: str | None, key: str) -> RunRecord | None:
        """The newest run of the same call that its host gave up on, where it can still be joined."""
        since = self._wall() - REJOIN_WITHIN_S

        def read(connection: Connection) -> RunRecord | None:
            row = queries.find_abandoned(connection, caller, host, key, since)
            return None if row is None else self._record(connection, row)

        found = await self._database.read(read)
        if found is not None and found.orphaned and await self.pending.write(found.id):
            found = await self._database.read(read)
        return None if found is None or (found.orphaned and not found.resumable) else found

    async def abandon(self, run_id: str, abandoned: bool) -> None:
        """Record that its host gave up on a run, or waits for it again."""
        await self._write(run_queries.change, run_id, {"abandoned": int(abandoned)})

    async def request_cancel(self, run_id: str) -> None:
        """Ask the server of a run to cancel it."""
        await self._write(run_queries.change, run_id, {"cancel_asked": 1})

    async def cancel_requests(self) -> list[str]:
        """Which of this server's runs another server asked to cancel."""
        return await self._read(queries.cancel_requests, self.lock.id)

    async def spent_today_usd(self, run_id: str | None = None, counted_usd: float = 0.0) -> float:
        """US dollars that limits count for today's runs (UTC), of all servers of the folder.

        The run ``run_id``, if it is one of them, is taken to count ``counted_usd`` by now.
        """
        return await self._read(queries.spent_since, _midnight(self._wall()), run_id, counted_usd)

    async def prune(self, keep_days: float | None = None) -> list[str]:
        """Remove runs that ended longer ago; returns their ids. What a kept conversation needs stays."""
        days = self._keep_days if keep_days is None else keep_days
        removed = await self.retention.remove(self._wall() - days * DAY_S)
        await self.retention.shrink()
        return sorted(removed)

    # ── conversations ─────────────────────────────────────────────────────────────────────────────────────────────

    async def conversation(self, conversation_id: str) -> Conversation | None:
        """A conversation by its id."""
        return await self._read(queries.conversation, conversation_id)

    async def history(self, run_id: str | None) -> tuple[Turn, ...]:
        """The turns of a run and of all that it follows, the oldest first."""
        return await self._read(queries.history, run_id)

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

        while not await self._write(queries.take_turn, conversation_id, run_id, self.lock.id, adds):
            if unwritten:
                await self.pending.write(unwritten.pop())
            else:
                await anyio.sleep(TRY_TURN_EVERY_S)  # the other one may be in another process

    async def leave_turn(self, conversation_id: str, run_id: str) -> None:
        """Let the next one add to it."""
        await self._write(run_queries.leave_turn, conversation_id, run_id)

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def steps(self, run_id: str) -> RecordedSteps:
        """The steps of a run."""
        return RecordedSteps(self, run_id)

    async def begin_step(self, run_id: str, key: str, description: JSON) -> JSON | None:
        """Begin a step; its result where it was finished before."""
        found = await self._write(queries.begin_step, run_id, key, description, self._wall())
        return None if found is None else json.loads(found)

    async def finish_step(self, run_id: str, key: str, result: JSON) -> None:
        """Record the result of a step; returns once it is on disk."""
        await self._write(queries.finish_step, run_id, key, result, self._wall())

    async def steps_of(self, run_id: str) -> list[StepRecord]:
        """A run's steps, in the order in which they began."""
        return await self._read(queries.steps_of, run_id)

    # ── within ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        return await self._database.read(lambda connection: query(connection, *args, **named))

    async def _write(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        return await self._database.write(lambda connection: query(connection, *args, **named))

    async def _within_budget(
        self, write: Callable[[Connection], None], entry: RunEntry, counted_usd: float, day_limit_usd: float | None
    ) -> None:
        since = _midnight(self._wall())

        def checked(connection: Connection) -> None:
            if day_limit_usd is not None:
                queries.check_budget(connection, entry.id, counted_usd, day_limit_usd, since)
            write(connection)

        await self._database.write(checked)

    def _record(self, connection: Connection, row: queries.Found, *, texts: bool = True) -> RunRecord:
        record = queries.record(connection, row, texts=texts)
        if not record.running:
            return record
        if not self.lock.is_alive(record.owner):
            return replace(record, orphaned=True)
        timing = replace(record.outcome.timing, total_s=max(0.0, self._wall() - record.started_at))
        return replace(record, outcome=replace(record.outcome, timing=timing))

    async def _settled(self, record: RunRecord) -> RunRecord:
        """A run of a dead server that can't be continued, with its end recorded."""
        if record.orphaned and await self.pending.write(record.id):
            return await self.find(record.id, None) or record
        if not record.orphaned or record.resumable:
            return record
        error: KimiError = AnswerCutOff(
            "The server that ran this call was stopped before the answer was whole; what had arrived is kept.",
            fix="Call again if you still need the rest.",
        )
        return await self._settle(record, replace(record.outcome, status="failed", error=error))


class RecordedSteps:
    """The steps of one run, in the store."""

    def __init__(self, store: RunStore, run_id: str) -> None:
        self._store, self._run_id = store, run_id

    async def begin(self, key: str, description: JSON) -> JSON | None:
        """The step's result, where it was finished before."""
        return await self._store.begin_step(self._run_id, key, description)

    async def finish(self, key: str, result: JSON) -> None:
        """Record its result; returns once it is on disk."""
        await self._store.finish_step(self._run_id, key, result)


def _midnight(now: float) -> float:
    return now - now % DAY_S
