"""Statements on the engine's table of jobs that DBOS has no function for. Pure: they are executed elsewhere."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, Insert, insert

from kimi_mcp.cluster.limits import SCHEMA

jobs = sa.table(
    "workflow_status",
    sa.column("workflow_uuid", sa.Text),
    sa.column("status", sa.Text),
    sa.column("name", sa.Text),
    sa.column("executor_id", sa.Text),  # the server id of the replica that took it last
    sa.column("owner_xid", sa.Text),  # new each time it is taken
    sa.column("recovery_attempts", sa.BigInteger),  # how often it was taken
    sa.column("application_version", sa.Text),
    sa.column("priority", sa.Integer),  # those of the lowest are taken first, and of these the oldest
    sa.column("attributes", JSONB),
    sa.column("created_at", sa.BigInteger),  # milliseconds since 1970, by the database's clock
    sa.column("completed_at", sa.BigInteger),
    schema=SCHEMA,
)
"""One row a job, as DBOS 3.4.0 has it."""

details = tuple(
    sa.table(name, sa.column("workflow_uuid", sa.Text), schema=SCHEMA)
    for name in ("workflow_input", "workflow_output", "operation_outputs")
)
"""What else DBOS has of a job, and does not remove with its row."""

deaths = sa.table("deaths", sa.column("server_id", sa.Text), sa.column("at", sa.DateTime(True)), schema=SCHEMA)
"""One row a replica that died and had jobs; ours, beside the tables of DBOS."""

PREPARE_DEATHS = sa.text(
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.deaths (server_id text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
)

LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtext(:name))").bindparams(name=SCHEMA)
"""Until the transaction ends nobody else prepares the schema."""

_IN_FLIGHT = sa.text("status IN ('ENQUEUED', 'PENDING')")
"""In the words of DBOS's index."""

_GOES_ON = jobs.c.status.in_(("ENQUEUED", "DELAYED", "PENDING"))

_NOW_MS = sa.cast(sa.func.extract("epoch", sa.func.now()) * 1000, sa.BigInteger)


def fence(job_id: str, owner: str) -> sa.ColumnElement[bool]:
    """A condition: ``owner`` still has the job. Its row is locked until the transaction ends."""
    found = sa.select(sa.literal(1)).select_from(jobs).where(*_had(job_id, owner))
    return sa.exists(found.with_for_update(read=True))


def attempts(job_id: str, owner: str) -> sa.Select[*tuple[Any, ...]]:
    """How often a job was taken, and how much of it was finished when that was counted anew."""
    return sa.select(jobs.c.recovery_attempts, jobs.c.attributes).where(*_had(job_id, owner))


def set_attempts(job_id: str, owner: str, attempts: int, finished: int) -> sa.Update:
    """Count anew how often a job was taken: it had finished something more."""
    values = {"recovery_attempts": attempts, "attributes": {"finished": finished}}
    return sa.update(jobs).where(*_had(job_id, owner)).values(values)


def died(server_id: str) -> Insert:
    """Record that a replica with jobs died: once, however many others notice it."""
    return insert(deaths).values(server_id=server_id).on_conflict_do_nothing()


def deaths_at(job_id: str, attempts: int, *, within_s: float) -> sa.Select[int, bool]:
    """How many replicas died lately, and whether a child of a job was taken at least so often."""
    is_late = deaths.c.at > sa.func.now() - timedelta(seconds=within_s)
    of_child = _is_child_of(job_id) & (jobs.c.recovery_attempts >= attempts)
    is_by_child = sa.exists().where(of_child).label("is_by_child")
    return sa.select(sa.func.count().label("deaths"), is_by_child).select_from(deaths).where(is_late)


def forget_deaths(seconds: float) -> sa.Delete:
    """Remove those of longer ago."""
    return sa.delete(deaths).where(deaths.c.at < sa.func.now() - timedelta(seconds=seconds))


def uncount(server_id: str) -> sa.Update:
    """Decrement the attempts of the jobs of a replica that leaves: it does not die of them."""
    running = sa.update(jobs).where(jobs.c.status == "PENDING", jobs.c.executor_id == server_id)
    return running.values(recovery_attempts=sa.func.greatest(jobs.c.recovery_attempts - 1, 0))


def put_first(server_id: str, but: Collection[str] = ()) -> sa.Update:
    """The jobs that a replica leaves, all but those, come before all that wait for their first turn."""
    running = sa.update(jobs).where(jobs.c.status == "PENDING", jobs.c.executor_id == server_id)
    return running.where(jobs.c.workflow_uuid.not_in(list(but))).values(priority=0)


def cancelled(job_id: str) -> sa.Select[Any]:
    """A job, if it was cancelled."""
    return sa.select(jobs.c.workflow_uuid).where(jobs.c.workflow_uuid == job_id, jobs.c.status == "CANCELLED")


def in_flight(version: str) -> sa.CompoundSelect[*tuple[Any, ...]]:
    """How many jobs of a version wait or run, by status and kind, and by the replica that took them last.

    Likewise each of the jobs ``ids`` that is cancelled, with its id for a kind.
    """
    by = (jobs.c.status, jobs.c.name, jobs.c.executor_id)
    counted = sa.select(*by, sa.func.count().label("jobs")).where(_IN_FLIGHT, jobs.c.application_version == version)
    own = jobs.c.workflow_uuid == sa.any_(sa.bindparam("ids", type_=ARRAY(sa.Text)))
    cancelled = sa.select(jobs.c.status, jobs.c.workflow_uuid, jobs.c.executor_id, sa.literal(1))
    return counted.group_by(*by).union_all(cancelled.where(own, jobs.c.status == "CANCELLED"))


def not_in_flight(job_ids: Collection[str]) -> sa.Select[Any]:
    """Which of these jobs have ended, or are not known."""
    wanted = sa.func.unnest(sa.bindparam("ids", list(job_ids), type_=ARRAY(sa.Text))).column_valued("id")
    goes_on = sa.select(jobs.c.workflow_uuid).where(jobs.c.workflow_uuid == wanted, _GOES_ON).exists()
    return sa.select(wanted).where(~goes_on)


def children(job_id: str) -> sa.Select[Any]:
    """The jobs that belong to a job, and have not ended."""
    return sa.select(jobs.c.workflow_uuid).where(_is_child_of(job_id), _IN_FLIGHT)


def _is_child_of(job_id: str) -> sa.ColumnElement[bool]:
    return jobs.c.workflow_uuid.startswith(f"{job_id}/", autoescape=True)


def unfinished(job_id: str | None = None) -> sa.Select[*tuple[Any, ...]]:
    """Every job that has not ended (or one), the oldest first, and since when it is there, in seconds."""
    wanted = (jobs.c.workflow_uuid, jobs.c.name, jobs.c.status, jobs.c.executor_id, jobs.c.recovery_attempts)
    age_s = ((_NOW_MS - jobs.c.created_at) / 1000.0).label("age_s")
    which = sa.true() if job_id is None else jobs.c.workflow_uuid == job_id
    return sa.select(*wanted, age_s).where(_IN_FLIGHT, which).order_by(jobs.c.created_at, jobs.c.workflow_uuid)


def stopped(job_id: str, versions: Collection[str]) -> sa.ColumnElement[bool]:
    """Whether a row is a job's that has ended, or that is of none of these versions."""
    return sa.and_(jobs.c.workflow_uuid == job_id, sa.not_(_goes_on(versions)))


def stopped_children(job_id: str, versions: Collection[str]) -> sa.ColumnElement[bool]:
    """The same of the jobs that belong to it, but for those that have a result."""
    begins = _is_child_of(job_id)
    return sa.and_(begins, jobs.c.status != "SUCCESS", sa.not_(_goes_on(versions)))


def ended(keep_s: float, most: int = 500) -> sa.Select[*tuple[Any, ...]]:
    """Jobs that ended longer ago than that, by the database's clock."""
    return sa.select(jobs.c.workflow_uuid).where(jobs.c.completed_at < _NOW_MS - int(keep_s * 1000)).limit(most)


def _had(job_id: str, owner: str) -> tuple[sa.ColumnElement[bool], ...]:
    return jobs.c.workflow_uuid == job_id, jobs.c.owner_xid == owner, jobs.c.status == "PENDING"


def _goes_on(versions: Collection[str]) -> sa.ColumnElement[bool]:
    return sa.and_(_IN_FLIGHT, jobs.c.application_version.in_(versions))
