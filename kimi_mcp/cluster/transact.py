"""DBOS in this process: the one place with its names, private ones among them (``tests/cluster`` holds each). I/O.

DBOS is a singleton of the process, with threads of its own, and a loop for whoever has none. What is set up here:

- Its threads for delayed jobs and schedules have nothing to do; its notifications are off: they poll, or take a
  connection, whether there are jobs or not.
- Its queues are kept in memory, so that each poll is one transaction, and takes no more than ``JobsAllowed`` allows.
- Jobs run in our event loop, and what they need of threads is the loop's own again once DBOS has left.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dbos
import sqlalchemy as sa
from dbos import _core, _queue, _scheduler
from dbos._context import current_owner_xid
from dbos._error import DBOSAwaitedWorkflowCancelledError
from dbos._utils import INTERNAL_QUEUE_NAME

from kimi_mcp.cluster.limits import SCHEMA, EngineLimits
from kimi_mcp.runs.jobs import JOB_KINDS, JobKind

APPLICATION = "kimi-mcp"
"""Whose jobs they are, where others use DBOS in the same schema."""

QUEUES: Mapping[JobKind, str] = {"swarm": "kimi-swarms", "agent": "kimi-agents"}
"""One a kind: otherwise swarms that wait for their agents would fill every place."""

_SAME_FAULT_EVERY_S = 60.0
_RARELY_S = 3_600.0

log = logging.getLogger("kimi_mcp.cluster")

JobsAllowed = Callable[[JobKind], int]
"""How many jobs of a kind this replica may have now; called from other threads."""

Perform = Callable[[JobKind, str, Any, str], Awaitable[Mapping[str, Any]]]
"""Does a job, from its kind, id and payload, and by what its row says who had it."""


class JsonSerializer(dbos.Serializer):
    """JSON instead of pickle. Nothing of ours raises in a job: an exception is DBOS's own, and its class is kept."""

    def name(self) -> str:
        """How the rows name it."""
        return "json"

    def serialize(self, data: Any) -> str:
        """JSON of a payload or a result."""
        return json.dumps(data, default=lambda value: {"fault": type(value).__name__})

    def deserialize(self, serialized_data: str) -> Any:
        """What was serialized."""
        return json.loads(serialized_data)


class Queue(_queue.Queue):
    """A queue that is kept in memory, and of which a poll takes as many as are allowed at that moment."""

    def __init__(self, kind: JobKind, allowed: JobsAllowed, limits: EngineLimits) -> None:
        super().__init__(
            QUEUES[kind],
            polling_interval_sec=limits.poll_s,
            token=_queue._INTERNAL_QUEUE_CONSTRUCTION,
        )
        self._kind: JobKind = kind
        self._allowed = allowed

    @property
    def _worker_concurrency(self) -> int | None:
        return self._allowed(self._kind)

    @_worker_concurrency.setter
    def _worker_concurrency(self, value: int | None) -> None:
        """The constructor of DBOS sets it."""


def open_client(engine: sa.Engine) -> dbos.DBOSClient:
    """A client that enqueues, cancels and lists; where the database is away it raises at once."""
    silence()
    return dbos.DBOSClient(
        system_database_engine=engine,
        dbos_system_schema=SCHEMA,
        serializer=JsonSerializer(),
        application_name=APPLICATION,
        lazy=True,
        retry_connection_errors=False,
    )


def migrate(client: dbos.DBOSClient) -> None:
    """Make the engine's tables, or bring them to this version, under a lock. Blocking."""
    client._sys_db.run_migrations()


def requeue(client: dbos.DBOSClient, executor: str, version: str, *, but: Collection[str] = ()) -> list[str]:
    """Let anybody take the jobs that a replica has, but for those: it died, or leaves. Their ids. Blocking."""
    system = client._sys_db
    ids = [each.workflow_id for each in system.get_pending_workflows(executor, version) if each.workflow_id not in but]
    return [each for each in ids if system.reenqueue_for_recovery(each, [executor], INTERNAL_QUEUE_NAME)]


class Worker:
    """What takes jobs of the queues and does them in this process; at most one at a time."""

    def __init__(
        self,
        engine: sa.Engine,
        *,
        executor: str,
        version: str,
        allowed: JobsAllowed,
        perform: Perform,
        limits: EngineLimits,
    ) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        dbos.DBOS.destroy(destroy_registry=True)  # of an earlier start in this process
        self._dbos = dbos.DBOS(
            config={
                "name": APPLICATION,
                "system_database_engine": engine,
                "dbos_system_schema": SCHEMA,
                "serializer": JsonSerializer(),
                "executor_id": executor,
                "application_version": version,
                "run_migrations": False,  # ``migrate`` did
                "use_listen_notify": False,
                "notification_listener_polling_interval_sec": limits.idle_s,
                "scheduler_polling_interval_sec": _RARELY_S,
                "log_level": "WARNING",
            }
        )
        registry = self._dbos._registry
        registry._register_internal_queue(INTERNAL_QUEUE_NAME, polling_interval_sec=_RARELY_S)
        for kind in JOB_KINDS:
            registry.internal_queue_map[QUEUES[kind]] = Queue(kind, allowed, limits)
            _register(kind, perform)
        self._dbos._background_jobs_stop_event.set()  # no job has a delay or a deadline
        _core._PREEMPTIBLE_POLL_INTERVAL_SEC = limits.cancel_poll_s
        _scheduler._STARTUP_FAST_POLL_DURATION_SEC = 0.0  # nothing is scheduled

    async def launch(self) -> None:
        """Start its threads. None may be allowed until this is over: a job would run in the wrong loop."""
        await asyncio.to_thread(dbos.DBOS.launch)
        self._dbos._sys_db.list_queues = _no_queues  # of its table: it reads that every second
        self._dbos._background_event_loop.set_main_loop()

    def stop_taking(self) -> None:
        """Take no more jobs; once it returns, what was taken is in the table. Blocking."""
        for event in self._dbos.background_thread_stop_events:
            event.set()
        until = time.monotonic() + self._limits.leave_s
        names = {f"queue-worker-{name}" for name in QUEUES.values()}
        for thread in [each for each in threading.enumerate() if each.name in names]:
            thread.join(timeout=max(0.0, until - time.monotonic()))

    async def destroy(self) -> None:
        """End its threads. The loop gets an executor of its own again: DBOS takes its own one along."""
        self._loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        await asyncio.to_thread(dbos.DBOS.destroy, destroy_registry=True)


def _no_queues(**which: Any) -> list[_queue.Queue]:
    del which
    return []


def _register(kind: JobKind, perform: Perform) -> None:
    async def do(job_id: str, payload: Any, owner: str) -> Mapping[str, Any]:
        return await perform(kind, job_id, payload, owner)

    async def workflow(payload: Any) -> Mapping[str, Any]:
        job_id = str(dbos.DBOS.workflow_id)
        owner = current_owner_xid(job_id)
        options: dbos.StepOptions = {"name": kind, "preemptible": True}  # or no cancellation would reach it
        return await dbos.DBOS.run_step_async(options, do, job_id, payload, str(owner))

    dbos.DBOS.workflow(name=kind, max_recovery_attempts=None)(workflow)


class _Faults(logging.Handler):
    """What DBOS logs, as lines of ours: its texts may hold foreign ones; each place in its code once a minute."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next: dict[tuple[str, int], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log where it was logged, and the class of what was raised."""
        fault = record.exc_info[0] if record.exc_info else None
        place, now = (record.filename, record.lineno), time.monotonic()
        if self._next.get(place, now) > now or fault is DBOSAwaitedWorkflowCancelledError:
            return
        self._next[place] = now + _SAME_FAULT_EVERY_S
        level = logging.WARNING if record.levelno >= logging.ERROR else logging.DEBUG  # it warns of a cancellation, too
        name = fault.__name__ if fault else "no exception"
        log.log(level, "the engine reports a fault (%s:%d, %s)", *place, name)


def silence() -> None:
    """Keep DBOS from writing to stderr by itself."""
    logger = logging.getLogger("dbos")
    if not any(isinstance(handler, _Faults) for handler in logger.handlers):
        logger.handlers[:] = [_Faults()]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
