"""Tables of what the servers of one PostgreSQL share beside runs; SQLite has none of them. I/O: in a transaction."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

SHARED = sa.MetaData()
"""Every table."""

servers = sa.Table(
    "servers",
    SHARED,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("began_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("beat", sa.DateTime(timezone=True), nullable=False),  # when it was last heard of, by the database's clock
    sa.Column("drain", sa.Integer, nullable=False, server_default="0"),  # 1: a drain was requested
    sa.Column("facts", sa.Text, nullable=False, server_default="{}"),  # JSON: what it says of itself
)
"""One row a living server."""

accounts = sa.Table(
    "accounts",
    SHARED,
    sa.Column("id", sa.Text, primary_key=True),  # a hash of the account's URL and key
    sa.Column("server", sa.Text, nullable=False),  # that was refused last
    sa.Column("refused_at", sa.Double, nullable=False),  # by the database's clock, seconds since 1970
    sa.Column("opens_at", sa.Double, nullable=False),  # until then nothing is to be sent, by that clock
    sa.Column("requests", sa.BigInteger),  # limits that refusals have named
    sa.Column("tokens", sa.BigInteger),
    sa.Column("at_once", sa.BigInteger),
)
"""One row a provider's account that was refused for its rate."""

spending = sa.Table(
    "spending",
    SHARED,
    sa.Column("day", sa.Double, primary_key=True),  # when it began (UTC), seconds since 1970
    sa.Column("whose", sa.Text, primary_key=True),  # a principal; "": all
    sa.Column("usd", sa.Double, nullable=False),  # the sum of what is counted for the runs that began that day
    sa.Column("summed_at", sa.Double, nullable=False),  # when that was last read from the runs, by the database's clock
)
"""What was spent on a day, and what running calls hold: one row for all, and one for each principal."""

calls = sa.Table(
    "calls",
    SHARED,
    sa.Column("id", sa.Text, primary_key=True),  # of the call, not of its run, which may be continued by another call
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),  # the server that took it
    sa.Column("at", sa.Double, nullable=False),  # by the database's clock, seconds since 1970
    sa.Column("starting", sa.Integer, nullable=False),  # 1: its run is about to be recorded
    sa.Index("calls_by_principal", "principal", "at"),
    sa.Index("calls_by_time", "at"),
    prefixes=["UNLOGGED"],  # a crash of the database may forget the last minute
)
"""The calls of the last minute of each principal."""


swarm_totals = sa.Table(
    "swarm_totals",
    SHARED,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("usd", sa.Float, nullable=False),  # at the highest price where the true one is not known
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("tool_calls", sa.Integer, nullable=False),
)
"""One row a swarm that runs on several replicas: what its finished steps have used."""

swarm_holds = sa.Table(
    "swarm_holds",
    SHARED,
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("usd", sa.Float, nullable=False),
    sa.Column("tool_calls", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "key"),
)
"""One row a step of such a swarm that runs: what it may use at most."""


def forget_swarms(connection: sa.Connection, run_ids: Collection[str]) -> None:
    """Remove what swarms have used: they have ended."""
    for table in (swarm_holds, swarm_totals):
        connection.execute(sa.delete(table).where(table.c.run_id.in_(run_ids)))


def create(connection: sa.Connection) -> None:
    """Create what is missing; of several servers one does, by ``tables.TableSchema.migrate``."""
    SHARED.create_all(connection, checkfirst=True)
