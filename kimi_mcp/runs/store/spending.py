"""What limits of a day are held against in PostgreSQL, where writers overlap. I/O: in the caller's transaction.

``spending`` has a row a day for all, and one for each principal who has a limit: the sum of what its runs count, which
includes what running calls hold. One statement takes from them what is left, or nothing; rows are locked in one order,
that of all first. A sum is read from the runs anew where nobody has done so for a minute, and before anybody is
refused: other programs write runs, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import sqlalchemy as sa

from kimi_mcp.runs.store.day_limits import DAY_S, DayLimit, Held, WantedBudget
from kimi_mcp.runs.store.shared_tables import spending

TRUSTED_S = 60.0
"""Seconds for which a sum is taken as it is."""

FRESH_S = 1.0
"""Seconds for which nobody reads a sum anew, however many are refused."""

KEPT_DAYS = 2
"""Days that are over whose sums are kept, for servers whose clocks differ."""

ALL = ""
"""The row of everybody."""


_NOW = "extract(epoch FROM clock_timestamp())::float8"
_OWN = "SELECT counted_usd, caller, started_at FROM runs WHERE id = :run_id AND owner = :owner AND status = 'running'"

# What is held at the start is at most half of what is left, so that other calls can begin beside.
_TAKE = sa.text(f"""
    WITH own AS ({_OWN}), sums AS (
        SELECT whose, CASE whose WHEN '' THEN CAST(:most_of_all AS float8) ELSE CAST(:most AS float8) END - usd AS rest
        FROM spending
        WHERE day = :day AND whose = ANY(:whose) AND (:at_any_age OR summed_at > {_NOW} - {TRUSTED_S})
        ORDER BY whose FOR UPDATE
    ), least_rest AS (
        SELECT min(rest) AS usd, (array_agg(whose ORDER BY rest))[1] AS whose, count(*) AS sums,
               CAST(:counted_usd AS float8) - coalesce((SELECT counted_usd FROM own), 0) AS needed
        FROM sums
    ), taken AS (
        SELECT whose, needed, greatest(0, least(
            CAST(:hold_usd AS float8), (usd - needed) / CASE WHEN :begins THEN 2 ELSE 1 END
        )) AS held
        FROM least_rest
        WHERE sums = cardinality(:whose) AND CASE WHEN :begins THEN needed <= usd ELSE EXISTS (SELECT FROM own) END
    )
    UPDATE spending SET usd = spending.usd + taken.needed + taken.held FROM taken
    WHERE spending.day = :day AND spending.whose = ANY(:whose)
    RETURNING taken.held, taken.whose
""").bindparams(sa.bindparam("whose", type_=sa.ARRAY(sa.Text)))  # noqa: S608 - constants of ours

_SETTLE = sa.text(f"""
    WITH own AS ({_OWN}), sums AS (
        SELECT spending.day, spending.whose, own.counted_usd FROM spending JOIN own
        ON spending.day = floor(own.started_at / {DAY_S}) * {DAY_S} AND spending.whose IN ('', own.caller)
        ORDER BY spending.whose FOR UPDATE OF spending
    )
    UPDATE spending SET usd = spending.usd + CAST(:counted_usd AS float8) - sums.counted_usd FROM sums
    WHERE spending.day = sums.day AND spending.whose = sums.whose
""")  # noqa: S608 - constants of ours

_WHOSE = sa.bindparam("whose", type_=sa.ARRAY(sa.Text))
_SUM_UP = (
    sa.text(f"DELETE FROM spending WHERE day < :day - {KEPT_DAYS * DAY_S}"),  # noqa: S608 - a constant of ours
    sa.text("""
        INSERT INTO spending (day, whose, usd, summed_at)
        SELECT :day, whose, 0, 0 FROM unnest(:whose) AS whose ORDER BY whose
        ON CONFLICT DO NOTHING
    """).bindparams(_WHOSE),
    # Whoever changes a sum holds its row until that is committed: then nothing is missed, or counted twice.
    sa.text("""
        SELECT usd FROM spending WHERE day = :day AND whose = ANY(:whose) ORDER BY whose FOR UPDATE
    """).bindparams(_WHOSE),
    sa.text(f"""
        UPDATE spending SET summed_at = {_NOW}, usd = (
            SELECT coalesce(sum(counted_usd), 0) FROM runs
            WHERE started_at >= :day AND (spending.whose = '' OR caller = spending.whose)
        )
        WHERE day = :day AND whose = ANY(:whose) AND summed_at <= {_NOW} - {FRESH_S}
    """).bindparams(_WHOSE),  # noqa: S608 - constants of ours
)

_DISTRUST = sa.update(spending).where(spending.c.whose == ALL).values(summed_at=0.0)


def take(
    connection: sa.Connection,
    run_id: str,
    owner: str,
    counted_usd: float,
    limits: Sequence[DayLimit],
    *,
    day: float,
    hold_usd: float,
    begins: bool,
) -> Held | None:
    """Count ``counted_usd`` for a run that began on that day, and hold up to ``hold_usd`` more, as far as it is left.

    Where a request of it ``begins``, None: not even that is left, and nothing was taken. Otherwise it is counted in any
    case, since it was spent, and None: that server has no such run. The run's row gets both in the same transaction.
    """
    most = {limit.caller or ALL: limit.usd for limit in limits}
    own = [whose for whose in most if whose != ALL]
    sums = {"day": day, "whose": [ALL, *own]}
    known = sums | {"most_of_all": most.get(ALL, inf), "most": most[own[0]] if own else inf}
    known |= {"run_id": run_id, "owner": owner, "counted_usd": counted_usd, "hold_usd": hold_usd, "begins": begins}
    taken = connection.execute(_TAKE, known | {"at_any_age": False}).first()
    if taken is None:
        for statement in _SUM_UP:
            connection.execute(statement, sums)
        taken = connection.execute(_TAKE, known | {"at_any_age": True}).first()
    if taken is None:
        return None
    return Held(usd=taken.held, limit=next((one for one in limits if (one.caller or ALL) == taken.whose), limits[-1]))


def extend(connection: sa.Connection, run_id: str, owner: str, counted_usd: float, wanted: WantedBudget) -> Held | None:
    """Count what a run has spent, and hold more for it, as far as it is left. None: that server has no such run."""
    limits, day = wanted.limits, wanted.day
    return take(connection, run_id, owner, counted_usd, limits, day=day, hold_usd=wanted.usd, begins=False)


def settle(connection: sa.Connection, run_id: str, owner: str, counted_usd: float) -> None:
    """Count ``counted_usd`` for a run that is about to be recorded as ended, and hold nothing for it any more."""
    connection.execute(_SETTLE, {"run_id": run_id, "owner": owner, "counted_usd": counted_usd})


def distrust(connection: sa.Connection) -> None:
    """Let every sum be read from the runs anew: these have changed in another way."""
    connection.execute(_DISTRUST)
