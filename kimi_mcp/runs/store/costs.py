"""Who has runs, and what those have cost. I/O: in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from kimi_mcp.runs.store.day_limits import DAY_S
from kimi_mcp.runs.store.tables import runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What the runs of a caller in a stretch of time have cost."""

    caller: str
    """Whose they are."""
    since: float
    """When that time begins."""
    calls: int
    """How many they are."""
    running: int
    """How many of them have not ended."""
    tokens: int | None
    """Tokens; None where they are known of none."""
    cost_usd: float | None
    """US dollars; None where they are known of none."""
    cost_unknown: int
    """How many have ended whose cost is not known."""
    counted_usd: float
    """US dollars that spending limits count for all of them."""


_NEXT_CALLER = sa.select(sa.func.min(runs.c.caller)).where(runs.c.caller > sa.bindparam("last"))


def callers(connection: sa.Connection) -> list[str]:
    """Everyone who has a run, sorted; a step in an index for each, however many runs there are."""
    found: list[str] = []
    while (following := connection.execute(_NEXT_CALLER, {"last": found[-1] if found else ""}).scalar()) is not None:
        found.append(following)
    return found


_COSTS = (
    sa.select(
        runs.c.caller,
        sa.func.count(),
        sa.func.count(sa.case((runs.c.status == "running", 1))),
        sa.func.count(runs.c.cost_usd),
        sa.func.sum(runs.c.tokens),
        sa.func.sum(runs.c.cost_usd),
        sa.func.sum(runs.c.counted_usd),
    )
    .where(runs.c.started_at >= sa.bindparam("begin"), runs.c.started_at < sa.bindparam("end"))
    .group_by(runs.c.caller)
)


def costs_by_day(connection: sa.Connection, since: float, until: float, caller: str | None = None) -> list[Costs]:
    """What the runs of each caller, or of one, have cost on each day (UTC) on which they began, the newest day first.

    ``since`` is a midnight. A statement a day, since no function of dates is the same in every database.
    """
    oldest = connection.execute(sa.select(sa.func.min(runs.c.started_at))).scalar()
    wanted = _COSTS if caller is None else _COSTS.where(runs.c.caller == caller)
    begin, found = until - until % DAY_S, list[Costs]()
    while oldest is not None and begin + DAY_S > oldest and begin >= since:
        rows = connection.execute(wanted, {"begin": begin, "end": begin + DAY_S})
        found += [
            Costs(
                caller=whose,
                since=begin,
                calls=calls,
                running=running,
                tokens=tokens,
                cost_usd=cost_usd,
                cost_unknown=calls - running - known,
                counted_usd=counted_usd,
            )
            for whose, calls, running, known, tokens, cost_usd, counted_usd in sorted(rows, key=lambda row: row.caller)
        ]
        begin -= DAY_S
    return found
