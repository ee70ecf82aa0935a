"""How long runs are kept: which are old by the time that was seen to pass, and their removal in small steps. Does I/O.

Nothing here waits for anybody and nobody waits for it: each step is a short transaction of its own, with a pause behind
it in which other servers write. The clock of a machine may jump, so that a run's age is not the difference of two
times: of a stretch in which nobody looked at the clock, one day counts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import anyio
from sqlalchemy import Connection, bindparam, delete, func, insert, select, tuple_, update

from kimi_mcp.core.background import contained
from kimi_mcp.runs.store.database import Database
from kimi_mcp.runs.store.tables import about, conversations, pieces, runs, steps

DAY_S = 86_400.0
"""Seconds of a day; UTC days begin at its multiples."""

LOOK_EVERY_S = 3_600.0
"""Seconds between two looks at what is old, where calls come in."""

PAUSE_S = 0.1
"""Seconds between two steps in the background, in which other servers write."""

SHORT_PAUSE_S = 0.02
"""The same while somebody waits."""

PAGE = 64
"""Runs that one step looks at."""

SLICE = 8
"""Runs that are removed between two looks at how long the step has taken."""

STEPS_AT_ONCE = 128
"""Steps of one run that are removed at once: a swarm has hundreds, and their texts are long."""

STEP_S = 0.02
"""Seconds after which a step ends, whatever is left of its page."""

SPARE_PAGES = 256
"""Free pages of a file that are left in it, to be used again."""

PAGES_AT_ONCE = 128
"""Free pages of a file that are given back to the disk at once."""

_FACT = "retention"

_PAGE = (
    select(runs.c.id, runs.c.ended_at, runs.c.follows, runs.c.conversation_id, runs.c.status)
    .where(tuple_(runs.c.ended_at, runs.c.id) < tuple_(bindparam("ended_at"), bindparam("id")))
    .order_by(runs.c.ended_at.desc(), runs.c.id.desc())
    .limit(PAGE)
)
_FOLLOWERS = select(runs.c.id, runs.c.follows).where(runs.c.follows.in_(bindparam("ids", expanding=True)))
_ADDED_TO = select(conversations.c.head, conversations.c.writer_owner).where(
    conversations.c.id.in_(bindparam("ids", expanding=True)), conversations.c.writer.is_not(None)
)
_NO_PIECES = delete(pieces).where(pieces.c.run_id == bindparam("here"))
_SOME_STEPS = delete(steps).where(
    steps.c.run_id == bindparam("here"),
    steps.c.key.in_(select(steps.c.key).where(steps.c.run_id == bindparam("here")).limit(STEPS_AT_ONCE)),
)
_HAVE_STEPS = select(steps.c.run_id).where(steps.c.run_id.in_(bindparam("ids", expanding=True))).distinct()
_NO_RUN = delete(runs).where(runs.c.id == bindparam("here"))
_FREE = (
    update(conversations)
    .where(conversations.c.writer.in_(bindparam("ids", expanding=True)))
    .values(writer=None, writer_owner=None)
)
_EMPTY = select(conversations.c.id, conversations.c.writer, conversations.c.writer_owner).where(
    conversations.c.id.in_(bindparam("ids", expanding=True)),
    ~select(runs.c.id).where(runs.c.conversation_id == conversations.c.id).exists(),
)
_NO_CONVERSATION = delete(conversations).where(conversations.c.id.in_(bindparam("ids", expanding=True)))


class Position(NamedTuple):
    """A place among the runs that have ended, which are gone through from the latest to the oldest."""

    ended_at: float
    """Seconds since 1970."""
    id: str = ""
    """The run's id: many may end at one time."""


# ── the time that was seen to pass ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTime:
    """What the servers of a store have seen of the clock. Pure."""

    seen: float
    """When it was looked at last, in seconds since 1970."""
    gaps: tuple[tuple[float, float], ...] = ()
    """Stretches longer than a day in which nobody looked: from and to, the oldest first."""
    remover: str | None = None
    """The server that removes old runs just now."""

    def at(self, now: float) -> SeenTime:
        """What has been seen once somebody has looked now. A clock that was put back takes the times after it along."""
        gaps = tuple((start, min(end, now)) for start, end in self.gaps if start < now)
        if now - self.seen > DAY_S:
            gaps = (*gaps, (self.seen, now))
        return SeenTime(seen=now, gaps=tuple(gap for gap in gaps if _unseen(gap) > 0), remover=self.remover)

    def before(self, age_s: float) -> float:
        """The time since which so many seconds were seen to pass; of each gap a day counts."""
        found = self.seen - age_s
        for gap in reversed(self.gaps):
            if gap[1] > found:
                found -= _unseen(gap)
        return found


def _unseen(gap: tuple[float, float]) -> float:
    """The seconds of a gap that count for nothing."""
    return gap[1] - gap[0] - DAY_S


def look(connection: Connection, now: float, keep_s: float, server: str, alive: Callable[[str], bool]) -> float | None:
    """Look at the clock; the time before which runs are old. None: another server removes them just now.

    A run is never old that is younger than the newest one by less than ``keep_s``. Where it returns a time, ``server``
    is the one who removes from here on, until ``finished``.
    """
    newest = max(
        connection.execute(select(func.max(each))).scalar() or 0.0 for each in (runs.c.started_at, runs.c.ended_at)
    )
    written = connection.execute(select(about.c.value).where(about.c.name == _FACT)).scalar()
    time_seen = (_from_json(written) or _first_look(connection, now, server)).at(now)
    old = min(time_seen.before(keep_s), newest - keep_s)
    others = time_seen.remover not in (None, server) and alive(time_seen.remover or "")
    gaps = tuple(gap for gap in time_seen.gaps if gap[1] > old)
    remover = time_seen.remover if others else server
    _write(connection, SeenTime(seen=now, gaps=gaps, remover=remover))
    return None if others else old


def _first_look(connection: Connection, now: float, server: str) -> SeenTime:
    """What was seen before anybody looked: others were here when they began their latest run."""
    others = select(runs.c.started_at).where(runs.c.owner != server).order_by(runs.c.started_at.desc()).limit(1)
    return SeenTime(seen=min(now, connection.execute(others).scalar() or now))


def finished(connection: Connection, server: str) -> None:
    """A server has removed what was old."""
    written = connection.execute(select(about.c.value).where(about.c.name == _FACT)).scalar()
    time_seen = _from_json(written)
    if time_seen is not None and time_seen.remover == server:
        _write(connection, SeenTime(seen=time_seen.seen, gaps=time_seen.gaps))


def _from_json(written: str | None) -> SeenTime | None:
    """What was written down; None where nothing was, or nothing that can be read."""
    try:
        told: dict[str, Any] = json.loads(written or "")
        gaps = tuple((float(start), float(end)) for start, end in told["gaps"])
        return SeenTime(seen=float(told["seen"]), gaps=gaps, remover=told["remover"])
    except (ValueError, KeyError, TypeError):
        return None


def _write(connection: Connection, seen: SeenTime) -> None:
    value = json.dumps({"seen": seen.seen, "gaps": seen.gaps, "remover": seen.remover})
    if not connection.execute(update(about).where(about.c.name == _FACT).values(value=value)).rowcount:
        connection.execute(insert(about).values(name=_FACT, value=value))


# ── removal ───────────────────────────────────────────────────────────────────────────────────────────────────────


def beyond(connection: Connection, keep: int) -> Position | None:
    """Where those runs begin that ended before the newest ``keep``; None where there are no more than those."""
    newest = select(runs.c.ended_at, runs.c.id).where(runs.c.ended_at.is_not(None))
    row = connection.execute(
        newest.order_by(runs.c.ended_at.desc(), runs.c.id.desc()).offset(keep - 1).limit(1)
    ).first()
    return None if row is None else Position(row.ended_at, row.id)


def remove_some(
    connection: Connection, position: Position, alive: Callable[[str], bool], within_s: float = STEP_S
) -> tuple[list[str], Position | None]:
    """Remove some of the runs that ended before a position: their ids, and where to go on; None: there are no more.

    Those stay whose turns are still needed: what a kept run follows, and where a conversation stands that a server
    which is ``alive`` adds to just now. Later ones go first, so that what is left of a conversation is its beginning.
    """
    until = time.monotonic() + within_s
    page = list(connection.execute(_PAGE, position._asdict()))
    removed: list[str] = []
    old = _not_needed(connection, page, alive)
    long = set(connection.execute(_HAVE_STEPS, {"ids": [row.id for row in old]}).scalars()) if old else set[str]()
    following = None if len(page) < PAGE else Position(page[-1].ended_at, page[-1].id)
    for at in range(0, len(old), SLICE):
        some = old[at : at + SLICE]
        whole = [row for row in some if row.id not in long or _without_steps(connection, row.id, until)]
        if len(whole) < len(some):  # the others have had their turn, and the rest of them comes with the next step
            some = some[: next(place for place, row in enumerate(some) if row not in whole)]
        if some:
            here = [{"here": row.id} for row in some]
            connection.execute(_NO_PIECES, here)
            connection.execute(_NO_RUN, here)
            removed += [row.id for row in some]
            position = Position(some[-1].ended_at, some[-1].id)
        if len(some) < len(old[at : at + SLICE]) or time.monotonic() > until:
            following = position
            break
    if removed:
        gone = set(removed)
        connection.execute(_FREE, {"ids": removed})  # held by a server that died in its turn
        _remove_empty(connection, {row.conversation_id for row in old if row.id in gone} - {None}, alive)
    return removed, following


def _not_needed(connection: Connection, page: Sequence[Any], alive: Callable[[str], bool]) -> list[Any]:
    """Those of a page that nothing goes back to which stays."""
    if not page:
        return []
    followers: dict[str, set[str]] = {}
    for row in connection.execute(_FOLLOWERS, {"ids": [row.id for row in page]}):
        followers.setdefault(row.follows, set()).add(row.id)
    talks = {row.conversation_id for row in page} - {None}
    added_to = list(connection.execute(_ADDED_TO, {"ids": list(talks)})) if talks else []
    living = {owner for owner in {row.writer_owner for row in added_to} if alive(owner)}
    needed = {row.head for row in added_to if row.writer_owner in living}
    old: list[Any] = []
    gone: set[str] = set()
    for row in page:
        if row.status != "running" and row.id not in needed and followers.get(row.id, set[str]()) <= gone:
            old.append(row)
            gone.add(row.id)
    return old


def _without_steps(connection: Connection, run_id: str, until: float) -> bool:
    """Whether all steps of a run could be removed in time."""
    while connection.execute(_SOME_STEPS, {"here": run_id}).rowcount == STEPS_AT_ONCE:
        if time.monotonic() > until:
            return False
    return True


def _remove_empty(connection: Connection, ids: Collection[str], alive: Callable[[str], bool]) -> None:
    """Remove those conversations of which nothing is left, and to which nobody adds."""
    empty = list(connection.execute(_EMPTY, {"ids": list(ids)})) if ids else []
    gone = [row.id for row in empty if row.writer is None or not alive(row.writer_owner)]
    if gone:
        connection.execute(_NO_CONVERSATION, {"ids": gone})


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def shrink(connection: Connection) -> bool:
    """Give some free pages of the file back to the disk; whether there are more. Other databases do it themselves."""
    if connection.dialect.name != "sqlite" or connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() != 2:
        return False
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0
    if free <= SPARE_PAGES:
        return False
    for _ in range(min(PAGES_AT_ONCE, free - SPARE_PAGES)):
        connection.exec_driver_sql(
            "PRAGMA incremental_vacuum(1)"
        ).close()  # of more, the driver would do one all the same
    return True


# ── in the background ─────────────────────────────────────────────────────────────────────────────────────────────


class Retention:
    """Removes old runs behind the calls of a server, where no other server does so. Mutable: it knows when it looked.

    ``server`` is this one's name, and ``alive`` knows the others.
    """

    def __init__(
        self,
        database: Database,
        *,
        server: str,
        alive: Callable[[str], bool],
        keep_days: int,
        wall: Callable[[], float],
    ) -> None:
        self._database, self._server, self._alive = database, server, alive
        self._keep_s, self._wall = keep_days * DAY_S, wall
        self._looked_at: float | None = None
        self._task: asyncio.Task[bool] | None = None

    def look_soon(self) -> None:
        """Begin to remove what is old, unless that was looked at a short while ago. Returns at once."""
        now = self._wall()
        idle = self._task is None or self._task.done()
        if idle and (self._looked_at is None or abs(now - self._looked_at) >= LOOK_EVERY_S):
            self._looked_at = now
            removal = contained("old runs could not be removed", partial(self._remove_old, now))
            self._task = asyncio.get_running_loop().create_task(removal)

    async def settled(self) -> None:
        """Until nothing is removed in the background any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Leave the rest to the next server."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def remove(self, before: float) -> list[str]:
        """Remove everything that ended before then and is not needed, in small steps; the ids of what went."""
        removed: list[str] = []
        while some := await self._pass(before, SHORT_PAUSE_S):
            removed += some  # where a clock was put back, what follows a run may have ended before it
        return removed

    async def _pass(self, before: float, pause_s: float) -> list[str]:
        removed: list[str] = []
        position: Position | None = Position(before)
        while position is not None:
            some, position = await self._database.write(partial(remove_some, position=position, alive=self._alive))
            removed += some
            await anyio.sleep(pause_s if some and position is not None else 0)
        return removed

    async def shrink(self, pause_s: float = SHORT_PAUSE_S) -> None:
        """Give the space of what was removed back to the disk, in small steps."""
        while await self._database.write(shrink):  # noqa: ASYNC110 - each time a part of it is done
            await anyio.sleep(pause_s)

    async def look(self, now: float) -> float | None:
        """Look at the clock; the time before which runs are old. None: another server removes them just now."""
        return await self._database.write(
            partial(look, now=now, keep_s=self._keep_s, server=self._server, alive=self._alive)
        )

    async def _remove_old(self, now: float) -> None:
        old = await self.look(now)  # what can't be removed is removed another time
        if old is None:
            return
        await self._pass(old, PAUSE_S)
        await self.shrink(PAUSE_S)
        await self._database.write(partial(finished, server=self._server))
