"""``LocalJobs``: the jobs that this replica does. I/O: what their handlers do, and looks at the engine's table."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from kimi_mcp.cluster import statements
from kimi_mcp.cluster.database import JobDatabase
from kimi_mcp.cluster.limits import EngineLimits
from kimi_mcp.cluster.types import Finished
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.jobs import MOST_ATTEMPTS, Interruption, Job, JobHandler, JobKind
from kimi_mcp.runs.store.retries import with_retries

log = logging.getLogger(__name__)

MOST_ATTEMPTS_AMONG_DEATHS = 10
"""The same where other replicas die as well, without having the job, or where one of its own jobs may be at fault."""

Tasks = list[asyncio.Task[Any]]


def is_given_up(attempt: int, deaths: int, *, is_by_child: bool = False) -> bool:
    """Whether a job kills whoever takes it, of which ``deaths`` replicas died lately, others counted.

    Where more died than had the job, it may just have been there, and gets more attempts; so it does where as many
    died at one of its children, ``is_by_child``: that one is given up, and this one goes on without it.
    """
    return attempt > (MOST_ATTEMPTS_AMONG_DEATHS if is_by_child or deaths >= attempt else MOST_ATTEMPTS)


class LocalJobs:
    """Does jobs, and interrupts them.

    ``is_there``: whether the database answers. ``cancelled``: called with the id of a job that was.
    """

    def __init__(
        self,
        database: JobDatabase,
        *,
        handlers: Mapping[JobKind, JobHandler],
        finished: Finished,
        given_up: JobHandler | None,
        is_there: Callable[[], bool],
        cancelled: Callable[[str], None],
        limits: EngineLimits,
    ) -> None:
        self._database, self._limits = database, limits
        self._handlers, self._finished, self._given_up = handlers, finished, given_up
        self._is_there, self._cancelled = is_there, cancelled
        self._running: dict[tuple[str, str], tuple[Job, asyncio.Task[Any]]] = {}

    @property
    def running(self) -> tuple[Job, ...]:
        """Those that are being done; may be read by other threads."""
        return tuple(job for job, _ in tuple(self._running.values()))

    async def perform(self, kind: JobKind, job_id: str, payload: Any, owner: str) -> Mapping[str, Any]:
        """Do a job that was taken as ``owner``; what it returns is its result, as ``Results`` reads it."""
        job = Job(id=job_id, kind=kind, payload=payload, attempt=1, fence=statements.fence(job_id, owner))
        # In a context without DBOS's: what a job starts is no part of a workflow.
        task = asyncio.create_task(self._performed(job, owner), context=contextvars.Context())
        self._running[job_id, owner] = job, task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await self._ended(job, task)
            raise
        finally:
            del self._running[job_id, owner]

    async def _performed(self, job: Job, owner: str) -> Mapping[str, Any]:
        job.attempt = await self._attempt(job.id, owner)
        result = await self._done(job)
        await self._answering()  # or DBOS would wait for it ever longer
        return result

    async def _ended(self, job: Job, task: asyncio.Task[Any]) -> None:
        """End a job that is interrupted: here, by DBOS, or because the event loop ends."""
        try:
            if job.interruption is None:
                is_cancelled = await self._database.run(lambda: self._is_cancelled(job.id))
                job.interruption = "cancelled" if is_cancelled else "lost"
        finally:
            if not task.cancelling():  # a second time would interrupt how it ends
                task.cancel()
            await asyncio.wait({task})
        if job.interruption == "cancelled":
            self._cancelled(job.id)

    def _is_cancelled(self, job_id: str) -> bool:
        try:
            return bool(self._database.rows(statements.cancelled(job_id)))
        except SQLAlchemyError:
            return False

    def interrupt(self, why: Interruption, which: Callable[[Job], bool] = lambda _: True) -> Tasks:
        """Interrupt jobs; the tasks that are about to end."""
        found = [(job, task) for job, task in self._running.values() if which(job)]
        for job, task in found:
            if job.interruption is None:
                job.interruption = why
                task.cancel()
        return [task for _, task in found]

    async def end(self, why: Interruption, within_s: float) -> None:
        """Interrupt all of them, and wait for their ends, but not for long."""
        if tasks := self.interrupt(why):
            await asyncio.wait(tasks, timeout=within_s)

    async def _done(self, job: Job) -> Mapping[str, Any]:
        if job.attempt == 0:
            return {"lost": "unknown"}  # nobody reads it: another one has the job, or nobody
        if job.attempt > MOST_ATTEMPTS and await self._is_given_up(job):
            log.error("a job is given up: %d replicas died at it", job.attempt - 1)
            return await self._lost(job, "given up")
        for _ in range(MOST_ATTEMPTS):
            try:
                return {"result": dict(await self._through_outage(self._handlers[job.kind], job))}
            except Exception:
                log.exception("a job failed")
            await self._answering()
            await asyncio.sleep(self._limits.retry_s)
        return await self._lost(job, "failed")

    async def _lost(self, job: Job, why: str) -> Mapping[str, Any]:
        if self._given_up is not None:
            try:
                await self._through_outage(self._given_up, job, inf)
            except Exception:
                log.exception("a job was given up, and its record could not be ended")
        return {"lost": why}

    async def _through_outage(self, do: JobHandler, job: Job, within_s: float | None = None) -> Mapping[str, Any]:
        """Do a job; again where the store does not answer, which is no fault of the job."""
        within_s = self._limits.outage_s if within_s is None else within_s
        return await with_retries(
            lambda: do(job), faults=NotConfigured, within_s=within_s, every_s=self._limits.retry_s
        )

    async def _answering(self) -> None:
        """Return once the database answers."""
        while not self._is_there():  # noqa: ASYNC110 - a thread looks
            await asyncio.sleep(self._limits.watch_s)

    async def _attempt(self, job_id: str, owner: str) -> int:
        """1, and one more for each replica that died at a job since it last got on; 0: it is not had any more."""

        def read() -> tuple[int, int]:
            rows = self._database.rows(statements.attempts(job_id, owner))
            if not rows:
                return 0, 0
            attributes: Mapping[str, int] = rows[0].attributes or {}
            return rows[0].recovery_attempts or 1, attributes.get("finished", 0)

        taken, before = await self._database.run_through_outage(read, inf)
        if taken <= 1 or (finished := await self._finished_of(job_id)) <= before:
            return taken
        write = statements.set_attempts(job_id, owner, 2, finished)  # it got on, and then its replica died
        await self._database.run_through_outage(lambda: self._database.execute(write), inf)
        return 2

    async def _is_given_up(self, job: Job) -> bool:
        wanted = statements.deaths_at(job.id, MOST_ATTEMPTS, within_s=self._limits.lately_s)
        found = (await self._database.run_through_outage(lambda: self._database.rows(wanted), inf))[0]
        return is_given_up(job.attempt, found.deaths, is_by_child=found.is_by_child)

    async def _finished_of(self, job_id: str) -> int:
        try:
            return await self._finished(job_id)
        except Exception:
            log.exception("it is not known whether a job got on")
            return 0
