"""``JobDatabase``: the engine's connections, and the errors of a database that can't be used. I/O: PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread
import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from kimi_mcp.cluster import statements
from kimi_mcp.cluster.limits import SCHEMA, EngineLimits
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.engine import connect_arguments
from kimi_mcp.runs.store.retries import with_retries

T = TypeVar("T")

log = logging.getLogger(__name__)


def open_engine(url: str, limits: EngineLimits, store_limits: StoreLimits) -> sa.Engine:
    """The engine's connections; raises ``NotConfigured`` for anything but PostgreSQL by psycopg."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise NotConfigured(
            "Several replicas need PostgreSQL: KIMI_CLUSTER is on, and KIMI_DATABASE_URL names another database.",
            fix="Set KIMI_DATABASE_URL to postgresql+psycopg://…, or unset KIMI_CLUSTER.",
        )
    parsed = parsed.set(drivername="postgresql+psycopg")
    engine = sa.create_engine(
        parsed,
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=store_limits.answers_within_s,
        pool_use_lifo=True,
        connect_args=connect_arguments(parsed, store_limits),
    )
    event.listen(engine, "do_connect", _connect)
    return engine


def _connect(dialect: sa.Dialect, record: object, arguments: list[Any], named: dict[str, Any]) -> Any:
    """Connect; where that is refused, say so in the words by which DBOS knows that it may try again."""
    del record
    try:
        return dialect.connect(*arguments, **named)
    except psycopg.OperationalError as fault:
        log.debug("the database can't be reached: %s", type(fault).__name__)
        raise psycopg.OperationalError("connection failed") from None


class JobDatabase:
    """The engine's own statements; those of DBOS go over the same connections."""

    def __init__(self, engine: sa.Engine, limits: EngineLimits) -> None:
        self.engine, self._limits = engine, limits
        self._threads = anyio.CapacityLimiter(limits.connections)  # more would only wait for a connection

    def rows(self, statement: sa.Select[*tuple[Any, ...]]) -> Sequence[sa.Row[*tuple[Any, ...]]]:
        """What is read. Blocking. Raises ``SQLAlchemyError``."""
        with self.engine.begin() as connection:
            return connection.execute(statement).all()

    def execute(self, *written: sa.Executable) -> None:
        """Write, in one transaction. Blocking. Raises ``SQLAlchemyError``."""
        with self.engine.begin() as connection:
            for statement in written:
                connection.execute(statement)

    def forget(self, *which: sa.ColumnElement[bool]) -> list[str]:
        """Remove jobs, and more of them where the condition before removed some; their ids.

        In one transaction, so that none is removed that was enqueued anew meanwhile. Blocking. Raises
        ``SQLAlchemyError``.
        """
        removed: list[str] = []
        with self.engine.begin() as connection:
            for condition in which:
                rows = sa.delete(statements.jobs).where(condition).returning(statements.jobs.c.workflow_uuid)
                if not (ids := connection.execute(rows).scalars().all()):
                    break
                for table in statements.details:
                    connection.execute(sa.delete(table).where(table.c.workflow_uuid.in_(ids)))
                removed += ids
        return removed

    async def run(self, work: Callable[[], T]) -> T:
        """The result of some blocking work, in a thread; a caller that is cancelled does not wait for it."""
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)

    async def run_through_outage(self, work: Callable[[], T], within_s: float | None = None) -> T:
        """The same; again while the database is away. Raises ``NotConfigured`` where that takes too long."""
        within_s = self._limits.outage_s if within_s is None else within_s
        attempt = partial(self.run, work)
        try:
            return await with_retries(attempt, faults=SQLAlchemyError, within_s=within_s, every_s=self._limits.retry_s)
        except SQLAlchemyError as fault:
            raise unreachable(fault) from None


def unprepared(fault: SQLAlchemyError) -> NotConfigured:
    """The error where the engine's tables can't be made."""
    state = cast(str | None, getattr(getattr(fault, "orig", None), "sqlstate", None))
    if state == "42501":
        return NotConfigured(
            "The role of KIMI_DATABASE_URL may not make the schema that several replicas need.",
            fix=f"Run `GRANT CREATE ON DATABASE …` for that role, or make the schema {SCHEMA} its own.",
        )
    return unreachable(fault)


def unreachable(fault: SQLAlchemyError) -> NotConfigured:
    """The error where the database is away."""
    log.debug("the engine's database does not answer: %s", type(fault).__name__)
    return NotConfigured(
        "The database that KIMI_DATABASE_URL names does not answer.",
        fix="Start it, or correct KIMI_DATABASE_URL; then call again.",
    )
