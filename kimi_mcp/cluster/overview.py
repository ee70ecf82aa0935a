"""What operators see of the servers on one PostgreSQL, and how they ask one to drain. Blocking I/O: reads the database.

Looking joins nothing and makes nothing; it needs the extra ``postgres``, not ``cluster``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from kimi_mcp.cluster import statements
from kimi_mcp.cluster.types import JobState
from kimi_mcp.core.errors import InvalidArguments, NotConfigured
from kimi_mcp.runs.jobs import JOB_KINDS
from kimi_mcp.runs.store import engine, leases
from kimi_mcp.runs.store.config import StoreLimits, is_postgresql
from kimi_mcp.runs.store.leases import ServerRecord
from kimi_mcp.runs.store.shared_tables import servers
from kimi_mcp.runs.store.tables import runs

T = TypeVar("T")

_CALLS = (
    sa.select(runs.c.owner, sa.func.count())
    .where(runs.c.status == "running", runs.c.tool != "kimi_swarm")
    .group_by(runs.c.owner)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """A server and what it does."""

    record: ServerRecord
    jobs: tuple[JobState, ...]
    """The jobs that it runs."""
    calls: int
    """Other calls that it runs."""
    lease_s: float
    """For how long it may not be heard of."""

    @property
    def role(self) -> str | None:
        """A replica's; None: it is a server of another kind, such as one over stdio."""
        role = self.record.facts.get("role")
        return role if isinstance(role, str) else None

    @property
    def status(self) -> str:
        """``ready``, ``draining``, ``drained``, or ``silent``: not heard of for so long that it counts as dead."""
        if self.record.heard_of_s > self.lease_s:
            return "silent"
        if self.record.drain or self.record.facts.get("draining"):
            return "draining" if self.jobs or self.calls else "drained"
        return "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """The jobs of a kind that have not ended."""

    kind: str
    queued: int
    running: int
    waits_s: float
    """For how long the oldest of those that wait is there, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Everything at a moment."""

    servers: tuple[ServerView, ...]
    """The oldest first."""
    jobs: tuple[JobState, ...]
    """The oldest first."""
    connections: tuple[int, int]
    """To PostgreSQL: how many are open, and how many there may be."""

    @property
    def replicas(self) -> tuple[ServerView, ...]:
        """The servers that are replicas of a cluster."""
        return tuple(server for server in self.servers if server.role is not None)

    @property
    def queues(self) -> tuple[QueueDepth, ...]:
        """One for each kind of jobs."""
        found: list[QueueDepth] = []
        for kind in JOB_KINDS:
            jobs = [job for job in self.jobs if job.kind == kind]
            waits = [job.age_s for job in jobs if job.status == "queued"]
            running = len(jobs) - len(waits)
            found.append(QueueDepth(kind=kind, queued=len(waits), running=running, waits_s=max(waits, default=0.0)))
        return tuple(found)

    def agents_of(self, run_id: str, status: str) -> int:
        """How many sub-agents of a swarm are ``queued`` or ``running``."""
        return sum(job.status == status for job in self.jobs if job.id.startswith(f"{run_id}/"))


def look(url: str | None, limits: StoreLimits | None = None) -> Overview:
    """What there is now. Raises ``NotConfigured`` where the database is none of PostgreSQL, or does not answer."""
    limits = limits or StoreLimits()

    def read(connection: sa.Connection) -> Overview:
        jobs = _jobs(connection)
        calls = {row[0]: row[1] for row in connection.execute(_CALLS)} if _has(connection, runs) else {}
        records = leases.living_servers(connection) if _has(connection, servers) else []
        states = (
            ServerView(
                record=record,
                jobs=tuple(job for job in jobs if job.status == "running" and job.server == record.id),
                calls=calls.get(record.id, 0),
                lease_s=limits.lease_s,
            )
            for record in records
        )
        in_use = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL"
        ).scalar_one()
        most = connection.exec_driver_sql("SELECT current_setting('max_connections')::int").scalar_one()
        return Overview(servers=tuple(states), jobs=tuple(jobs), connections=(in_use, most))

    return _within(url, limits, read)


def request_drain(url: str | None, name: str, limits: StoreLimits | None = None) -> ServerView:
    """Ask a replica to drain, by its id or the beginning of that, or by its host's name; returns it as it was.

    Raises ``NotConfigured`` and ``InvalidArguments``.
    """
    replicas = look(url, limits).replicas
    wanted = name.strip()
    found = [each for each in replicas if each.record.id == wanted]
    found = found or [each for each in replicas if wanted and each.record.facts.get("host") == wanted]
    found = found or [each for each in replicas if wanted and _is_short_for(wanted, each.record.id)]
    if len(found) != 1:
        message = f"{len(found)} replicas are meant by that." if found else "No replica of that id is there."
        known = ", ".join(each.record.id for each in found or replicas) or "there is none"
        raise InvalidArguments(message, fix=f"Give the id of one: {known}.")
    if not _within(url, limits or StoreLimits(), lambda each: leases.request_drain(each, found[0].record.id)):
        raise InvalidArguments("That replica has left meanwhile.", fix="`kimi-mcp cluster` shows those that are there.")
    return found[0]


def _is_short_for(name: str, server: str) -> bool:
    return any(server.removeprefix(prefix).startswith(name) for prefix in ("", "srv_", leases.PREFIX))


def _jobs(connection: sa.Connection) -> Sequence[JobState]:
    if not _has(connection, statements.jobs):
        return []
    return [JobState.of(row) for row in connection.execute(statements.unfinished())]


def _has(connection: sa.Connection, table: Any) -> bool:
    return sa.inspect(connection).has_table(table.name, schema=table.schema)


def _within(url: str | None, limits: StoreLimits, work: Callable[[sa.Connection], T]) -> T:
    if url is None or not is_postgresql(url):
        raise NotConfigured(
            "Replicas share a PostgreSQL, and KIMI_DATABASE_URL names none here.",
            fix="Set KIMI_DATABASE_URL to the URL that the replicas have.",
        )
    opened = engine.engine_of(url, limits)
    watchdog = engine.ConnectionWatchdog()
    watchdog.watch(opened)
    try:
        with watchdog.limit(limits.answers_within_s), closing(opened.connect()) as connection:
            return work(connection)
    except SQLAlchemyError:
        raise NotConfigured(
            "The database that KIMI_DATABASE_URL names does not answer, or not as it should.",
            fix="Start it, or correct KIMI_DATABASE_URL.",
        ) from None
