"""What a list of runs is filtered by, and a page of it. I/O: in the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.runs.store.day_limits import DAY_S
from kimi_mcp.runs.store.queries import IN_LIST
from kimi_mcp.runs.store.tables import runs, steps

NEWEST = 10_000
"""Runs among which words of filters are looked for: the newest."""

MOST_NEIGHBOURS = 50
"""Runs of a conversation before a run, and behind it, at most."""

FILTERS = {"statuses": runs.c.status, "tools": runs.c.tool, "hosts": runs.c.host, "callers": runs.c.caller}
"""What a list is filtered by, and the column that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs are listed; empty: all."""

    caller: str | None = None
    """Whose runs the viewer may see; None: everybody's."""
    statuses: tuple[str, ...] = ()
    """One of these."""
    tools: tuple[str, ...] = ()
    """Of one of these tools."""
    hosts: tuple[str, ...] = ()
    """Called from one of these programs; an empty name: from one that gave none."""
    callers: tuple[str, ...] = ()
    """Of one of these callers."""
    day: float | None = None
    """Begun on the day (UTC) that begins then, in seconds since 1970."""
    words: str = ""
    """What the beginning of the prompt contains, in any case."""

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """The same for a statement."""
        found: list[sa.ColumnElement[bool]] = []
        if self.caller is not None:
            found.append(runs.c.caller == self.caller)
        for name, column in FILTERS.items():
            if wanted := getattr(self, name):
                has = (column + "").in_(wanted)  # an expression: an index of it would need a sort
                found.append(has | column.is_(None) if name == "hosts" and "" in wanted else has)
        if self.day is not None:
            found += [runs.c.started_at >= self.day, runs.c.started_at < self.day + DAY_S]
        if self.words:
            found.append(runs.c.prompt_head.icontains(self.words, autoescape=True))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCursor:
    """The last run of a page: the next one begins behind it."""

    started_at: float
    """When it was created, in seconds since 1970."""
    run_id: str
    """Its id."""

    def __str__(self) -> str:
        return f"{self.started_at!r}~{self.run_id}"

    @classmethod
    def parse(cls, text: str) -> RunCursor:
        """A cursor of its text; raises ``InvalidArguments`` for any other text."""
        started_at, mark, run_id = text.partition("~")
        try:
            if mark:
                return cls(started_at=float(started_at), run_id=run_id)
        except ValueError:
            pass
        raise InvalidArguments("`cursor` is no cursor of a list.", fix="Leave it out for the newest runs.")


def page(connection: sa.Connection, wanted: RunFilter, cursor: RunCursor | None, most: int) -> Sequence[sa.Row[Any]]:
    """The newest runs behind the cursor, without their texts."""
    found = sa.select(*IN_LIST).where(*wanted.conditions())
    if cursor is not None:
        at = runs.c.started_at
        found = found.where(at <= cursor.started_at, (at < cursor.started_at) | (runs.c.id > cursor.run_id))
    return connection.execute(found.order_by(runs.c.started_at.desc(), runs.c.id).limit(most)).all()


def by_ids(connection: sa.Connection, ids: Collection[str], caller: str | None) -> Sequence[sa.Row[Any]]:
    """Runs by their ids, as far as they are there and the caller's (None: anybody's), without their texts."""
    found = sa.select(*IN_LIST).where(runs.c.id.in_(ids))
    return connection.execute(found if caller is None else found.where(runs.c.caller == caller)).all()


def facets(connection: sa.Connection, caller: str | None) -> Mapping[str, list[str]]:
    """What the newest runs can be filtered by, by the names of ``FILTERS``; a run without a host has an empty one."""
    newest = sa.select(*FILTERS.values()).order_by(runs.c.started_at.desc()).limit(NEWEST)
    if caller is not None:
        newest = newest.where(runs.c.caller == caller)
    rows = connection.execute(sa.select(newest.subquery()).distinct()).all()
    return {name: sorted({row[at] or "" for row in rows}) for at, name in enumerate(FILTERS)}


def neighbours(
    connection: sa.Connection, run_id: str, most: int | None = MOST_NEIGHBOURS
) -> tuple[list[str], list[str]]:
    """The runs whose turns come before a run's own, the oldest first, and those that follow it directly.

    The nearest, so many of each at most (None: all).
    """
    before: list[str] = []
    earlier = run_id
    while most is None or len(before) < most:
        found = connection.execute(sa.select(runs.c.follows).where(runs.c.id == earlier)).scalar()
        if not found or found in before:
            break
        earlier = found
        before.append(found)
    after = sa.select(runs.c.id).where(runs.c.follows == run_id).order_by(runs.c.started_at).limit(most)
    return before[::-1], list(connection.execute(after).scalars())


def step(connection: sa.Connection, run_id: str, key: str) -> sa.Row[Any] | None:
    """A step of a run."""
    return connection.execute(sa.select(steps).where(steps.c.run_id == run_id, steps.c.key == key)).first()
