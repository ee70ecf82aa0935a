"""Refusals for an account's rate, of which all servers of one PostgreSQL know. I/O: in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from kimi_mcp.provider.failures import Counted, NamedLimit
from kimi_mcp.runs.store.notifications import notify
from kimi_mcp.runs.store.shared_tables import accounts

KEPT_S = 600.0
"""Seconds for which a limit that a refusal named is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRefusal:
    """The latest refusal of an account."""

    account_id: str
    """A hash of its URL and key."""
    server: str
    """Which server was refused."""
    at: float
    """When, by the database's clock."""
    ago_s: float
    """Seconds since then."""
    wait_s: float
    """Seconds for which nothing is to be sent; 0 or less: they are over."""
    limits: Mapping[Counted, int]
    """Those that refusals have named."""


_RECORD = sa.text(f"""
    INSERT INTO accounts AS known (id, server, refused_at, opens_at, requests, tokens, at_once)
    SELECT :account_id, :server, now, now + :wait_s, :requests, :tokens, :at_once
    FROM (SELECT extract(epoch FROM clock_timestamp())::float8 AS now) AS clock
    ON CONFLICT (id) DO UPDATE SET
        server = excluded.server,
        refused_at = excluded.refused_at,
        opens_at = greatest(known.opens_at, excluded.opens_at),
        requests = coalesce(excluded.requests, CASE WHEN known.refused_at > excluded.refused_at - {KEPT_S}
                                                    THEN known.requests END),
        tokens = coalesce(excluded.tokens, CASE WHEN known.refused_at > excluded.refused_at - {KEPT_S}
                                                THEN known.tokens END),
        at_once = coalesce(excluded.at_once, CASE WHEN known.refused_at > excluded.refused_at - {KEPT_S}
                                                  THEN known.at_once END)
""")  # noqa: S608 - a constant of ours

_NOW = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
_LATEST = sa.select(accounts, _NOW.label("now")).where(accounts.c.refused_at > _NOW - KEPT_S)


_COLUMNS: Mapping[Counted, sa.Column[int | None]] = {
    "requests": accounts.c.requests,
    "tokens": accounts.c.tokens,
    "at-once": accounts.c.at_once,
}


def record(connection: sa.Connection, account_id: str, server: str, limit: NamedLimit | None, wait_s: float) -> None:
    """Record that an account was refused, with the limit that was named, and tell every server."""
    named = {column.name: limit[1] if limit and limit[0] == counted else None for counted, column in _COLUMNS.items()}
    connection.execute(_RECORD, {"account_id": account_id, "server": server, "wait_s": wait_s, **named})
    notify(connection, "limited", account_id)


def latest(connection: sa.Connection) -> list[AccountRefusal]:
    """The latest refusal of each account that is not forgotten yet."""
    return [
        AccountRefusal(
            account_id=row["id"],
            server=row["server"],
            at=row["refused_at"],
            ago_s=row["now"] - row["refused_at"],
            wait_s=row["opens_at"] - row["now"],
            limits={counted: row[column.name] for counted, column in _COLUMNS.items() if row[column.name] is not None},
        )
        for row in connection.execute(_LATEST).mappings()
    ]
