"""How many calls principals make over all replicas of one PostgreSQL, counted there. I/O: in the caller's transaction.

A principal's calls may all come in at one replica: a share of a small quota would refuse what is allowed. Of one
principal exactly as many are taken as it may; of all together a few more may be, where they come at the same moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsMade:
    """What has been called by the time of another call."""

    of_minute: int
    """Calls of its principal within the last minute."""
    running: int
    """Calls of its principal that run."""
    all_of_minute: int
    """The same of everybody."""
    all_running: int
    """Likewise."""


# A call is starting until its run is recorded: for a moment, unless it loads or converts something large.
_STARTING = "starting = 1 AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = calls.run_id)"
_COUNT = sa.text(f"""
    WITH recent AS (
        SELECT principal, {_STARTING} AS starts FROM calls
        WHERE at > extract(epoch FROM clock_timestamp()) - {MINUTE_S}
    )
    SELECT
        (SELECT count(*) FROM recent WHERE principal = :principal) AS of_minute,
        (SELECT count(*) FROM recent WHERE principal = :principal AND starts)
            + (SELECT count(*) FROM runs WHERE caller = :principal AND status = 'running') AS running,
        (SELECT count(*) FROM recent) AS all_of_minute,
        (SELECT count(*) FROM recent WHERE starts)
            + (SELECT count(*) FROM runs WHERE status = 'running') AS all_running
""")  # noqa: S608 - constants of ours

_ADD = sa.text("""
    INSERT INTO calls (id, principal, run_id, owner, at, starting)
    VALUES (:id, :principal, :run_id, :owner, extract(epoch FROM clock_timestamp()), 1)
""")
_FORGET = sa.text(f"""
    DELETE FROM calls WHERE principal = :principal AND at <= extract(epoch FROM clock_timestamp()) - {MINUTE_S}
""")  # noqa: S608 - a constant of ours
_STARTED = sa.text("UPDATE calls SET starting = 0 WHERE id = :id")
_WAIT = sa.text(f"""
    SELECT at + {MINUTE_S} - extract(epoch FROM clock_timestamp()) FROM calls
    WHERE :principal IS NULL OR principal = :principal
    ORDER BY at DESC OFFSET :offset LIMIT 1
""").bindparams(sa.bindparam("principal", type_=sa.Text))  # noqa: S608 - a constant of ours


def lock_of(principal: str) -> str:
    """What a transaction holds that counts a principal's calls: of two calls the second one counts the first."""
    return f"calls of {principal}"


def count(connection: sa.Connection, principal: str) -> CallsMade:
    """What has been called."""
    row = connection.execute(_COUNT, {"principal": principal}).one()
    return CallsMade(**row._mapping)  # pyright: ignore[reportPrivateUsage]  # SQLAlchemy's public name for it


def add(connection: sa.Connection, call_id: str, principal: str, run_id: str, owner: str) -> None:
    """Count a call that is about to run."""
    connection.execute(_FORGET, {"principal": principal})
    connection.execute(_ADD, {"id": call_id, "principal": principal, "run_id": run_id, "owner": owner})


def end_start(connection: sa.Connection, call_id: str) -> None:
    """A call has ended without a record of its run, or that is gone."""
    connection.execute(_STARTED, {"id": call_id})


def seconds_until(connection: sa.Connection, most: int, principal: str | None) -> float:
    """Seconds until fewer than ``most`` calls of a principal (None: of all) are within a minute."""
    return float(connection.execute(_WAIT, {"principal": principal, "offset": most - 1}).scalar() or 0.0)
