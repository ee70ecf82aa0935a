"""``RunStore``: what was asked and what it brought, kept on disk as it grows. Does I/O, in threads of its own.

Several servers share one. A run is written down before anything is paid for, and what arrives of it within a second; a
server that dies takes nothing with it but that second. Everything here raises ``NotConfigured`` where the file can't be
read or written, before anything is paid for; the next call tries anew.

Whoever imports this room imports SQLAlchemy, which takes a fifth of a second: do it in a thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection

from kimi_mcp.core.errors import AnswerCutOff, Cancelled, KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import Status, Turn
from kimi_mcp.runs.steps import JSON
from kimi_mcp.runs.store import queries as sql
from kimi_mcp.runs.store import retention, run_queries
from kimi_mcp.runs.store.database import LOCKED_S, Database
from kimi_mcp.runs.store.locks import ServerLock
from kimi_mcp.runs.store.paths import folder_of
from kimi_mcp.runs.store.pending import PendingOutcome, PendingOutcomes
from kimi_mcp.runs.store.records import Conversation, RunEntry, RunRecord, StepRecord, TextDelta, turns_as_json
from kimi_mcp.runs.store.remote import ANSWERS_WITHIN_S
from kimi_mcp.runs.store.retention import DAY_S, Retention
from kimi_mcp.runs.store.totals import Totals, totals

P = ParamSpec("P")
T = TypeVar("T")

REJOIN_WITHIN_S = 3_600.0
"""Seconds after its end within which an abandoned run's answer is handed to the same call made again."""

KEEP_PASSING = 64
"""Finished runs that stay readable where nothing is written down."""

TURN_EVERY_S = 0.1
"""Seconds between two looks at whether a conversation is free."""


def open_store(settings: Settings) -> RunStore:
    """The journal that the settings name; its file is opened by the first who needs it."""
    folder = None if settings.journal == "off" else folder_of(settings)
    return RunStore(
        folder,
        url=settings.database_url if folder else None,
        keep_days=settings.runs_keep_days,
        answers_within_s=min(ANSWERS_WITHIN_S, settings.reply_within_s),
    )


class RunStore:
    """The runs, conversations and steps of all servers that share a folder.

    ``folder`` None keeps everything in memory, for as long as the process lives. ``answers_within_s``: seconds for
    which a database server is waited for.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        url: str | None = None,
        keep_days: int = 30,
        answers_within_s: float = ANSWERS_WITHIN_S,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.is_persistent = folder is not None
        """Whether anything is written down."""
        self.is_remote = url is not None
        """Whether it is a database that was named: one that is silent may still do what it was asked."""
        self.lock = ServerLock(folder)
        """This server, among those that share the folder."""
        self._keep_days, self._wall = keep_days, wall
        self._database = Database(folder, url, on_open=self._opened, answers_within_s=answers_within_s)
        self.retention = Retention(
            self._database, server=self.lock.id, alive=self.lock.is_alive, keep_days=keep_days, wall=wall
        )
        """Removes old runs, behind the calls."""
        self.pending = PendingOutcomes(folder, self._database)
        """Ends that the database does not take just now."""

    @property
    def retention_note(self) -> str:
        """A sentence for whoever asks for what is kept no longer."""
        if self.is_persistent:
            return f"Runs are kept for {self._keep_days} days (KIMI_RUNS_KEEP_DAYS)."
        return f"KIMI_JOURNAL is off: of what has ended the latest {KEEP_PASSING} runs are kept, and what they follow."

    async def aclose(self, *, unfinished: bool = False, within_s: float = LOCKED_S) -> None:
        """Write what is still to be written, as far as that takes no longer than that, and let go of the file.

        ``unfinished``: runs are left that another server is to go on with, or to say the end of.
        """
        await self.retention.aclose()
        await anyio.to_thread.run_sync(self._database.close, within_s)
        await anyio.to_thread.run_sync(partial(self.lock.release, unfinished=unfinished))

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self, entry: RunEntry, *, counted_usd: float, day_limit_usd: float | None) -> None:
        """Write down a run before anything is paid for; returns once it is on disk.

        ``counted_usd``: what its prompt will cost at least. Raises ``BudgetExceeded`` where that is more than what is
        left of the day's limit, all servers of the folder counted.
        """
        begin = partial(run_queries.begin, entry=entry, owner=self.lock.id, counted_usd=counted_usd)
        await self._within_budget(begin, entry, counted_usd, day_limit_usd)
        if self.is_persistent:
            self.retention.look_soon()

    def append(
        self,
        grown: Sequence[TextDelta],
        counted: Mapping[str, float],
        sent: Mapping[str, Outcome],
        done: Callable[[BaseException | None], None],
        *,
        lived: Mapping[str, float] | None = None,
    ) -> None:
        """Write down what has arrived, some time soon; nobody waits. ``done`` hears of it, or why it can't be done.

        ``counted``: what the runs cost so far, in US dollars; ``sent``: how those stand that sent another request;
        ``lived``: for how many seconds those have lived that another server may go on with.
        """
        rows = [
            {"run_id": one.run_id, "request": one.request, "of": one.of, "start": one.start, "text": one.text}
            for one in grown
        ]
        grow = partial(run_queries.grow, grown=rows, counted=dict(counted), sent=dict(sent), lived=dict(lived or {}))
        self._database.post(grow, done)

    async def renew(self, entry: RunEntry, *, counted_usd: float, day_limit_usd: float | None) -> None:
        """What is known of a run has grown: a conversation's turn was given, media were sent, it is asked once more.

        Raises ``BudgetExceeded`` as ``begin`` does: what is asked once more is paid for once more.
        """
        renew = partial(run_queries.renew, entry=entry, counted_usd=counted_usd)
        await self._within_budget(renew, entry, counted_usd, day_limit_usd)

    async def end(self, run_id: str, outcome: Outcome, *, turns: Sequence[Turn] | None, counted_usd: float) -> bool:
        """Write down how a run ended; ``turns`` are what it adds to its conversation, None where nothing.

        False where there is no record of it any more that could say so.
        """
        told = None if turns is None else turns_as_json(turns)
        written = await self._write(run_queries.end, run_id, outcome, self._wall(), turns=told, counted_usd=counted_usd)
        if not self.is_persistent:
            await self._write(_keep_newest, self.lock.is_alive)
        return written

    async def save_outcome(
        self, run_id: str, outcome: Outcome, *, turns: Sequence[Turn] | None, counted_usd: float
    ) -> bool:
        """Keep beside the database how a run ended, until that can be written; False where this can't be done either.

        Whoever finds the run unfinished after this server has died writes it.
        """
        told = None if turns is None else turns_as_json(turns)
        end = PendingOutcome(run_id=run_id, outcome=outcome, ended_at=self._wall(), turns=told, counted_usd=counted_usd)
        return await self.pending.keep(end)

    async def forget(self, run_id: str) -> None:
        """Remove a run that was none: it was refused before anything was sent."""
        await self._write(run_queries.forget, run_id)

    async def find(self, run_id: str, caller: str | None) -> RunRecord | None:
        """A run by its id; None where there is none of that caller's (None: whoever's)."""

        def read(connection: Connection) -> RunRecord | None:
            row = sql.find(connection, run_id)
            return None if row is None or caller not in (None, row.caller) else self._record(connection, row)

        found = await self._database.read(read)
        return None if found is None else await self._settled(found)

    async def latest(self, caller: str | None, most: int = 100) -> list[RunRecord]:
        """The newest runs first, of one caller or of all."""

        def read(connection: Connection) -> list[RunRecord]:
            return [self._record(connection, row) for row in sql.latest(connection, caller, most)]

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
        """The newest runs first, for a list: without what was sent, the answer and the reasoning.

        ``status``, ``since`` and ``ended_before`` (seconds since 1970) leave others out; what died is settled first.
        """
        await self.orphans()

        def read(connection: Connection) -> list[RunRecord]:
            rows = sql.overview(connection, caller, status=status, since=since, ended_before=ended_before, most=most)
            return [self._record(connection, row, texts=False) for row in rows]

        return await self._database.read(read)

    async def totals(self, *, status: Status | None = None, since: float | None = None) -> Totals:
        """The totals of all runs, or of those with a status or that began since then (seconds since 1970)."""
        return await self._database.read(partial(totals, now=self._wall(), status=status, since=since))

    async def ids(self, caller: str | None, most: int) -> list[str]:
        """The ids of the newest runs, of one caller or of all."""
        return await self._database.read(partial(sql.ids, caller=caller, most=most))

    async def ids_with_prefix(self, beginning: str, most: int) -> list[str]:
        """The ids that begin so, at most so many."""
        return await self._database.read(partial(sql.ids_with_prefix, beginning=beginning, most=most))

    async def unique_prefix_length(self, ids: Sequence[str]) -> int:
        """How many characters of any of these ids tell it apart from those of all runs."""
        return await self._database.read(partial(sql.unique_prefix_length, ids=ids))

    async def neighbours(self, run_id: str) -> tuple[list[str], list[str]]:
        """The runs whose turns come before a run's own, the oldest first, and those that follow it at once."""
        return await self._database.read(
            lambda connection: (sql.before(connection, run_id), sql.after(connection, run_id))
        )

    async def orphans(self) -> list[RunRecord]:
        """Runs of dead servers that may be gone on with; all others of theirs are settled, and their locks removed."""
        dead = await anyio.to_thread.run_sync(self.lock.dead_servers)  # before it is looked at what they left
        kept = await self.pending.ids()

        def read(connection: Connection) -> list[RunRecord]:
            return [self._record(connection, row) for row in sql.unfinished(connection)]

        found = [await self._settled(record) for record in await self._database.read(read)]
        left = {one.owner for one in found if one.orphaned}
        await anyio.to_thread.run_sync(self.lock.remove_files, dead - left)
        await self.pending.forget(*(kept - {one.id for one in found if one.running}))
        return [record for record in found if record.orphaned]

    async def adopt(self, record: RunRecord) -> bool:
        """Take over a dead server's run; False where somebody else was faster."""
        return await self._database.write(
            lambda connection: sql.adopt(connection, record.id, record.owner, self.lock.id)
        )

    async def settle(self, record: RunRecord, error: KimiError, *, status: Status = "failed") -> RunRecord:
        """Say how an orphaned run ended, with what there is of it; where it has just said so itself, as it did.

        What limits count for it stays as its server left it: that was spent.
        """
        return await self._end_left(record, replace(record.outcome, status=status, error=error))

    async def _end_left(self, record: RunRecord, outcome: Outcome) -> RunRecord:
        if not await self._write(run_queries.end, record.id, outcome, self._wall()):
            return await self.find(record.id, None) or record
        return replace(record, outcome=outcome, orphaned=False, ended_at=self._wall())

    async def cancel_orphan(
        self, record: RunRecord, tallied: Callable[[RunRecord, Sequence[StepRecord]], Outcome]
    ) -> RunRecord:
        """End a run that a dead server left; how it stands by now where somebody goes on with it.

        ``tallied`` tells what its steps had brought, where it has any: cancelled, or partial with what had finished.
        """
        if not await self.adopt(record):
            return await self.find(record.id, None) or record
        error = Cancelled("The run was cancelled.", fix="Call again if you still want the answer.")
        record = replace(record, outcome=replace(record.outcome, status="cancelled", error=error))
        steps = await self.steps_of(record.id)
        return await self._end_left(record, tallied(record, steps) if steps else record.outcome)

    async def find_abandoned(self, *, caller: str, host: str | None, key: str) -> RunRecord | None:
        """The newest run of the very same call that its host gave up on, where it can still be joined."""
        since = self._wall() - REJOIN_WITHIN_S

        def read(connection: Connection) -> RunRecord | None:
            row = sql.find_abandoned(connection, caller, host, key, since)
            return None if row is None else self._record(connection, row)

        found = await self._database.read(read)
        if found is not None and found.orphaned and await self.pending.write(found.id):
            found = await self._database.read(read)
        return None if found is None or (found.orphaned and not found.resumable) else found

    async def abandon(self, run_id: str, abandoned: bool) -> None:
        """Its host gave up on it, or has it again."""
        await self._write(run_queries.change, run_id, {"abandoned": int(abandoned)})

    async def request_cancel(self, run_id: str) -> None:
        """Let the server that a run lives in cancel it."""
        await self._write(run_queries.change, run_id, {"cancel_asked": 1})

    async def cancel_requests(self) -> list[str]:
        """Which of this server's runs another one was told to cancel."""
        return await self._database.read(partial(sql.cancel_requests, owner=self.lock.id))

    async def spent_today_usd(self, run_id: str | None = None, counted_usd: float = 0.0) -> float:
        """US dollars that limits count for today's runs (UTC), of all servers of the folder.

        The run ``run_id``, if it is one of them, is taken to count ``counted_usd`` by now.
        """
        spent = partial(sql.spent_since, since=_midnight(self._wall()), run_id=run_id, counted_usd=counted_usd)
        return await self._database.read(spent)

    async def prune(self, keep_days: float | None = None) -> list[str]:
        """Remove runs that ended longer ago; returns their ids. What a kept conversation needs stays."""
        days = self._keep_days if keep_days is None else keep_days
        removed = await self.retention.remove(self._wall() - days * DAY_S)
        await self.retention.shrink()
        return sorted(removed)

    # ── conversations ─────────────────────────────────────────────────────────────────────────────────────────────

    async def conversation(self, conversation_id: str) -> Conversation | None:
        """A conversation by its id."""
        row = await self._database.read(partial(sql.conversation, conversation_id=conversation_id))
        return None if row is None else Conversation(id=row.id, caller=row.caller, head=row.head)

    async def history(self, run_id: str | None) -> tuple[Turn, ...]:
        """The turns of a run and of all that it follows, the oldest first."""
        return await self._database.read(partial(sql.history, run_id=run_id))

    async def take_turn(self, conversation_id: str, run_id: str, still_writes: Callable[[str], bool]) -> None:
        """Wait until nobody else adds to a conversation; ``still_writes`` knows this server's own runs.

        What a server added that died before it could write that is written first.
        """
        ends: list[str] = []

        def adds(writer: str, owner: str) -> bool:
            alive = still_writes(writer) if owner == self.lock.id else self.lock.is_alive(owner)
            if not alive and self.pending.has(writer):
                ends.append(writer)
            return alive or bool(ends)

        def take(connection: Connection) -> bool:
            return sql.take_turn(connection, conversation_id, run_id, self.lock.id, adds)

        while not await self._database.write(take):  # the other one may live in another process
            if ends:
                await self.pending.write(ends.pop())
            else:
                await anyio.sleep(TURN_EVERY_S)

    async def leave_turn(self, conversation_id: str, run_id: str) -> None:
        """Let the next one add to it."""
        await self._write(run_queries.leave_turn, conversation_id, run_id)

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def steps(self, run_id: str) -> RecordedSteps:
        """The steps of a run."""
        return RecordedSteps(self, run_id)

    async def begin_step(self, run_id: str, key: str, told: JSON) -> JSON | None:
        """Begin a step; what it brought where it was finished before."""
        found = await self._write(sql.begin_step, run_id, key, told, self._wall())
        return None if found is None else json.loads(found)

    async def finish_step(self, run_id: str, key: str, result: JSON) -> None:
        """Write down what a step brought; returns once it is on disk."""
        await self._write(sql.finish_step, run_id, key, result, self._wall())

    async def steps_of(self, run_id: str) -> list[StepRecord]:
        """A run's steps, in the order in which they were begun."""
        return [_step(row) for row in await self._database.read(partial(sql.steps_of, run_id=run_id))]

    # ── within ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _write(self, statement: Callable[Concatenate[Connection, P], T], *said: P.args, **named: P.kwargs) -> T:
        return await self._database.write(lambda connection: statement(connection, *said, **named))

    async def _within_budget(
        self, write: Callable[[Connection], None], entry: RunEntry, counted_usd: float, day_limit_usd: float | None
    ) -> None:
        since = _midnight(self._wall())

        def checked(connection: Connection) -> None:
            if day_limit_usd is not None:
                sql.within_budget(connection, entry.id, counted_usd, day_limit_usd, since)
            write(connection)

        await self._database.write(checked)

    def _record(self, connection: Connection, row: sql.Found, *, texts: bool = True) -> RunRecord:
        record = sql.record(connection, row, texts=texts)
        if not record.running:
            return record
        if not self.lock.is_alive(record.owner):
            return replace(record, orphaned=True)
        timing = replace(record.outcome.timing, total_s=max(0.0, self._wall() - record.started_at))
        return replace(record, outcome=replace(record.outcome, timing=timing))

    async def _settled(self, record: RunRecord) -> RunRecord:
        if record.orphaned and await self.pending.write(record.id):
            return await self.find(record.id, None) or record
        if not record.orphaned or record.resumable:
            return record
        stopped = AnswerCutOff(
            "The server that ran this call was stopped before the answer was whole; what had arrived is kept.",
            fix="Call again if you still need the rest.",
        )
        return await self.settle(record, stopped)

    def _opened(self, connection: Connection) -> None:
        """In the writer's thread, as the file is opened: be seen by the others."""
        del connection
        self.lock.acquire()


class RecordedSteps:
    """The steps of one run, in the journal."""

    def __init__(self, store: RunStore, run_id: str) -> None:
        self._store, self._run_id = store, run_id

    async def begin(self, key: str, told: JSON) -> JSON | None:
        """What the step brought, where it was finished before."""
        return await self._store.begin_step(self._run_id, key, told)

    async def finish(self, key: str, result: JSON) -> None:
        """Write down what it brought; returns once it is on disk."""
        await self._store.finish_step(self._run_id, key, result)


def _keep_newest(connection: Connection, alive: Callable[[str], bool]) -> None:
    """Of what has ended only the newest runs stay: those of a journal in memory."""
    position = retention.beyond(connection, KEEP_PASSING)
    while position is not None:
        _, position = retention.remove_some(connection, position, alive)


def _midnight(now: float) -> float:
    return now - now % DAY_S


def _step(row: sql.Found) -> StepRecord:
    return StepRecord(
        key=row.key,
        told=json.loads(row.told),
        result=None if row.result is None else json.loads(row.result),
        began_at=row.began_at,
        ended_at=row.ended_at,
    )
