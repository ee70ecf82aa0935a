"""How long runs are kept: which are old by the time that was seen to pass, and their removal in small steps. I/O."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from sqlalchemy import Connection, delete, func, literal, select, tuple_, update

from kimi_mcp.core.background import contained
from kimi_mcp.core.json_values import UNREADABLE, from_json, to_json
from kimi_mcp.runs.store.database import Database
from kimi_mcp.runs.store.day_limits import DAY_S
from kimi_mcp.runs.store.locks import ServerLock
from kimi_mcp.runs.store.looks import forget_looks
from kimi_mcp.runs.store.questions import forget_questions
from kimi_mcp.runs.store.shared_tables import forget_swarms
from kimi_mcp.runs.store.tables import conversations, pieces, read_fact, runs, steps, write_fact

if TYPE_CHECKING:
    from kimi_mcp.runs.store.leases import ServerLease

LOOK_EVERY_S = 3_600.0
"""Seconds between two looks at what is old, where calls come in."""

PAUSE_S = 0.1
"""Seconds between two steps in the background, in which other servers write."""

SHORT_PAUSE_S = 0.02
"""The same while somebody waits."""

PAGE = 32
"""Runs that one step looks at: it removes them within some hundredths of a second."""

STEPS_AT_ONCE = 128
"""Steps of runs that are removed at once: a swarm has hundreds, and their texts are long."""

SPARE_PAGES = 256
"""Free pages of the file that are left in it, to be used again."""

PAGES_AT_ONCE = 128
"""Free pages of the file that are given back to the disk at once."""

LOCKS = ("retention",)
"""What a transaction holds that reads and writes who removes old runs."""

Position = tuple[float, str]
"""A place among the runs that have ended, from the latest to the oldest: when one ended, and its id."""


# ── the time that was seen to pass ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTime:
    """What the servers of a store have seen of the clock. Pure."""

    seen: float
    """The latest look at it, in seconds since 1970."""
    gaps: tuple[tuple[float, float], ...] = ()
    """Stretches longer than a day in which nobody looked: from and to, the oldest first."""
    remover: str | None = None
    """The server that is removing old runs."""

    def at(self, now: float) -> SeenTime:
        """What has been seen after a look now. A clock that was put back takes the times after it along."""
        gaps = tuple((start, min(end, now)) for start, end in self.gaps if start < now)
        if now - self.seen > DAY_S:
            gaps = (*gaps, (self.seen, now))
        return replace(self, seen=now, gaps=tuple(gap for gap in gaps if _unseen(gap) > 0))

    def before(self, age_s: float) -> float:
        """The time since which so many seconds were seen to pass; of each gap a day counts."""
        found = self.seen - age_s
        for gap in reversed(self.gaps):
            if gap[1] > found:
                found -= _unseen(gap)
        return found


def _unseen(gap: tuple[float, float]) -> float:
    """The seconds of a gap that do not count."""
    return gap[1] - gap[0] - DAY_S


def look(connection: Connection, now: float, keep_s: float, server: str, alive: Callable[[str], bool]) -> float | None:
    """Look at the clock; the time before which runs are old. None: another server is removing them.

    A run is never old that is younger than the newest one by less than ``keep_s``. Where it returns a time, ``server``
    is the one that removes from here on, until ``finish``.
    """
    try:
        seen = from_json(SeenTime, json.loads(read_fact(connection, "retention") or ""))
    except UNREADABLE:  # it is the first look: others were here when they began their latest run
        others = select(runs.c.started_at).where(runs.c.owner != server).order_by(runs.c.started_at.desc()).limit(1)
        seen = SeenTime(seen=min(now, connection.execute(others).scalar() or now))
    seen = seen.at(now)
    old = min(seen.before(keep_s), newest(connection) - keep_s)
    is_others = seen.remover not in (None, server) and alive(seen.remover or "")
    gaps = tuple(gap for gap in seen.gaps if gap[1] > old)
    seen = SeenTime(seen=now, gaps=gaps, remover=seen.remover if is_others else server)
    write_fact(connection, "retention", json.dumps(to_json(seen)))
    return None if is_others else old


def newest(connection: Connection) -> float:
    """When the newest run began or ended, in seconds since 1970."""
    times = [connection.execute(select(func.max(each))).scalar() for each in (runs.c.started_at, runs.c.ended_at)]
    return max(each or 0.0 for each in times)


def finish(connection: Connection, server: str) -> None:
    """Record that a server has removed what was old."""
    seen = from_json(SeenTime, json.loads(read_fact(connection, "retention") or ""))
    if seen.remover == server:
        write_fact(connection, "retention", json.dumps(to_json(replace(seen, remover=None))))


# ── removal ───────────────────────────────────────────────────────────────────────────────────────────────────────


def keep_newest(connection: Connection, keep: int, alive: Callable[[str], bool]) -> None:
    """Remove all that ended before the newest so many runs, and is not needed."""
    newest = select(runs.c.ended_at, runs.c.id).where(runs.c.ended_at.is_not(None))
    ordered = newest.order_by(runs.c.ended_at.desc(), runs.c.id.desc())
    row = connection.execute(ordered.offset(keep - 1).limit(1)).first()
    position = None if row is None else (row.ended_at, row.id)
    while position is not None:
        _, position = remove_some(connection, position, alive)


def remove_some(
    connection: Connection, position: Position, alive: Callable[[str], bool]
) -> tuple[list[str], Position | None]:
    """Remove some of the runs that ended before a position: their ids, and where to go on; None: there are no more.

    Those stay whose turns are still needed: what a kept run follows, and the head of a conversation that a server which
    is ``alive`` adds to. Later ones go first, so that what is left of a conversation is its beginning.
    """
    ended = tuple_(runs.c.ended_at, runs.c.id)
    page = connection.execute(
        select(runs.c.id, runs.c.ended_at, runs.c.conversation_id, runs.c.status)
        .where(ended < tuple_(*map(literal, position)))
        .order_by(runs.c.ended_at.desc(), runs.c.id.desc())
        .limit(PAGE)
    ).all()
    following = None if len(page) < PAGE else (page[-1].ended_at, page[-1].id)
    old = _not_needed(connection, page, alive)
    ids = [row.id for row in old]
    some = select(steps.c.run_id, steps.c.key).where(steps.c.run_id.in_(ids)).limit(STEPS_AT_ONCE)
    removed = connection.execute(delete(steps).where(tuple_(steps.c.run_id, steps.c.key).in_(some))).rowcount
    if removed == STEPS_AT_ONCE:
        return [], position  # there may be more of them
    connection.execute(delete(pieces).where(pieces.c.run_id.in_(ids)))
    if connection.dialect.name == "postgresql":  # what a swarm leaves whose last replica died as it ended
        forget_swarms(connection, ids)
    forget_questions(connection, ids)
    forget_looks(connection, ids)
    connection.execute(delete(runs).where(runs.c.id.in_(ids)))
    # A turn is held where a server died in it.
    held = update(conversations).where(conversations.c.writer.in_(ids))
    connection.execute(held.values(writer=None, writer_owner=None))
    empty = connection.execute(
        select(conversations).where(
            conversations.c.id.in_({row.conversation_id for row in old} - {None}),
            ~select(runs.c.id).where(runs.c.conversation_id == conversations.c.id).exists(),
        )
    ).all()
    unused = [row.id for row in empty if row.writer is None or not alive(row.writer_owner)]
    connection.execute(delete(conversations).where(conversations.c.id.in_(unused)))
    return ids, following


def _not_needed(connection: Connection, page: Sequence[Any], alive: Callable[[str], bool]) -> list[Any]:
    """Those of a page that nothing follows which stays."""
    followers: dict[str, set[str]] = {}
    following = select(runs.c.id, runs.c.follows).where(runs.c.follows.in_([row.id for row in page]))
    for row in connection.execute(following):
        followers.setdefault(row.follows, set()).add(row.id)
    # Where transactions overlap, nobody takes a turn in one of them until this one ends.
    theirs = select(conversations).where(conversations.c.id.in_({row.conversation_id for row in page} - {None}))
    in_turn = [row for row in connection.execute(theirs.with_for_update()) if row.writer is not None]
    needed = {row.head for row in in_turn if alive(row.writer_owner)}
    old: list[Any] = []
    gone: set[str] = set()
    for row in page:
        if row.status != "running" and row.id not in needed and followers.get(row.id, set[str]()) <= gone:
            old.append(row)
            gone.add(row.id)
    return old


def shrink(connection: Connection) -> bool:
    """Give some free pages of the file back to the disk; whether there are more. Other databases do it themselves."""
    if connection.dialect.name != "sqlite" or connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() != 2:
        return False
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0
    if free <= SPARE_PAGES:
        return False
    for _ in range(min(PAGES_AT_ONCE, free - SPARE_PAGES)):  # the driver does one at a time, whatever the number
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)").close()
    return True


# ── in the background ─────────────────────────────────────────────────────────────────────────────────────────────


class Retention:
    """Removes old runs behind a server's calls, where no other server does so; ``lock`` is this server's."""

    def __init__(
        self, database: Database, lock: ServerLock | ServerLease, *, keep_days: int, wall: Callable[[], float]
    ) -> None:
        self._database, self._lock = database, lock
        self._keep_s, self._wall = keep_days * DAY_S, wall
        self._looked_at: float | None = None
        self._task: asyncio.Task[bool] | None = None

    def look_soon(self) -> None:
        """Begin to remove what is old, unless that was looked at a short while ago. Returns at once."""
        now = self._wall()
        is_idle = self._task is None or self._task.done()
        if is_idle and (self._looked_at is None or abs(now - self._looked_at) >= LOOK_EVERY_S):
            self._looked_at = now
            removal = contained("old runs could not be removed", partial(self._remove_old, now))
            self._task = asyncio.get_running_loop().create_task(removal)

    async def settled(self) -> None:
        """Wait until nothing is removed in the background any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Leave the rest to the next server."""
        if self._task is not None:
            self._task.cancel()
        await self.settled()

    async def remove(self, before: float, pause_s: float = SHORT_PAUSE_S) -> list[str]:
        """Remove everything that ended before then and is not needed, in small steps; the ids of what was removed."""
        removed: list[str] = []
        known = -1
        while known < len(removed):  # again: where a clock was put back, what follows a run may have ended before it
            known, position = len(removed), (before, "")
            while position is not None:
                some, position = await self._database.write(remove_some, position, self._lock.is_alive)
                removed += some
                await anyio.sleep(pause_s if some and position is not None else 0)
        return removed

    async def shrink(self, pause_s: float = SHORT_PAUSE_S) -> None:
        """Give the space of what was removed back to the disk, in small steps."""
        while await self._database.write(shrink):  # noqa: ASYNC110 - each time a part of it is done
            await anyio.sleep(pause_s)

    async def look(self, now: float) -> float | None:
        """Look at the clock; the time before which runs are old. None: another server is removing them."""
        looked = self._keep_s, self._lock.id, self._lock.holds_lock
        return await self._database.write_locked(LOCKS, look, now, *looked)

    async def _remove_old(self, now: float) -> None:
        old = await self.look(now)  # what can't be removed is removed another time
        if old is not None:
            await self.remove(old, PAUSE_S)
            await self.shrink(PAUSE_S)
            await self._database.write_locked(LOCKS, finish, self._lock.id)
