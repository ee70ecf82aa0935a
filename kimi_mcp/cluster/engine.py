"""``Engine``: distributes jobs over replicas by DBOS. I/O: PostgreSQL, in threads; tasks of its own in the event loop.

What holds
----------
- A job is there once it is enqueued, and is done by one replica at a time. A replica has it by a name that is new each
  time it is taken (``Job.fence``): whoever lost it writes nothing more.
- Where a replica dies, the others see that its lease is over, and its jobs go back; where it leaves, ``drain`` does it.
- A job at which three replicas died, none of its steps finished meanwhile, is given up.
- While the database is away, jobs go on, and whatever asks for it waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import ceil, inf
from typing import Any

import anyio
import anyio.to_thread
from dbos import DBOSClient, EnqueueOptions
from sqlalchemy.exc import SQLAlchemyError

from kimi_mcp.cluster import statements, transact
from kimi_mcp.cluster.database import JobDatabase, open_engine, unprepared
from kimi_mcp.cluster.limits import JOB_FORMAT, EngineLimits
from kimi_mcp.cluster.local_jobs import LocalJobs
from kimi_mcp.cluster.results import Results
from kimi_mcp.cluster.types import Finished, JobState, Lease
from kimi_mcp.cluster.watch import Watch
from kimi_mcp.core.background import contained
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.jobs import Job, JobHandler, JobKind
from kimi_mcp.runs.store.config import StoreLimits

log = logging.getLogger(__name__)


async def _none(_: str) -> int:
    return 0


def _not_joined() -> NotConfigured:
    return NotConfigured("This replica has not joined the cluster yet.", fix="Call again, or another replica.")


class Engine:
    """Jobs of several replicas: enqueues, waits for and cancels them, and as a worker does those it takes.

    ``lease``: of this server. ``concurrency``: how many jobs of a kind all replicas together do at once. ``finished``:
    whether a job got on before its replica died. ``given_up``: ends the record of a job at which three died, or that
    failed three times.
    """

    def __init__(
        self,
        url: str,
        *,
        lease: Lease,
        handlers: Mapping[JobKind, JobHandler],
        concurrency: Mapping[JobKind, int],
        version: str = JOB_FORMAT,
        finished: Finished = _none,
        given_up: JobHandler | None = None,
        limits: EngineLimits | None = None,
        store_limits: StoreLimits | None = None,
    ) -> None:
        self.limits = limits = limits or EngineLimits()
        self._lease, self._version = lease, version
        self._handlers, self._concurrency = handlers, concurrency
        self._database = JobDatabase(open_engine(url, limits, store_limits or StoreLimits()), limits)
        self._watch = Watch(
            self._database.engine,
            version,
            limits,
            running=lambda: [job.id for job in self.running],
            cancelled=self._interrupt_soon,
        )
        self._results = Results(self._find, limits)
        self._local = LocalJobs(
            self._database,
            handlers=handlers,
            finished=finished,
            given_up=given_up,
            is_there=lambda: self._watch.seen.is_there,
            cancelled=self._cancel_later,
            limits=limits,
        )
        self._client: DBOSClient | None = None
        self._has_started = anyio.Event()
        self._worker: transact.Worker | None = None
        self._id = ""
        self._is_taking, self._is_lost = False, False
        self._siblings: dict[str, int] = {}
        self._reaping: asyncio.Task[None] | None = None
        self._tasks = set[asyncio.Task[bool]]()

    @property
    def running(self) -> tuple[Job, ...]:
        """The jobs that this replica does; may be read by other threads."""
        return self._local.running

    async def start(self, *, worker: bool) -> None:
        """Make the engine's tables where they are missing; ``worker``: take jobs from here on.

        Raises ``NotConfigured``.
        """
        client = transact.open_client(self._database.engine)
        try:
            await self._database.run(partial(transact.migrate, client))
            await self._database.run(partial(self._database.execute, statements.LOCK, statements.PREPARE_DEATHS))
            self._client = client
            self._has_started.set()
            if worker:
                await self._start_worker()
        except SQLAlchemyError as fault:
            raise unprepared(fault) from None

    async def started(self) -> None:
        """Return once there are tables to enqueue in. Raises ``NotConfigured`` where that takes too long."""
        with anyio.move_on_after(self.limits.outage_s):
            await self._has_started.wait()
        if self._client is None:
            raise _not_joined()

    async def _start_worker(self) -> None:
        self._id, self._loop = self._lease.id, asyncio.get_running_loop()
        worker = transact.Worker(
            self._database.engine,
            executor=self._id,
            version=self._version,
            allowed=self._allowed,
            perform=self._local.perform,
            limits=self.limits,
        )
        try:
            await worker.launch()
        except BaseException:
            await worker.destroy()
            raise
        self._worker = worker
        self._watch.start()
        self._reaping = asyncio.create_task(self._reap())
        self._is_taking = True

    def _allowed(self, kind: JobKind) -> int:
        """How many jobs of a kind this replica may have now, those counted that it has. In a thread."""
        seen = self._watch.seen
        if not self._is_taking or kind not in self._handlers or not seen.queued[kind]:
            return 0
        replicas = max(1, self._lease.living)
        most = max(1, ceil(self._concurrency.get(kind, 1) / replicas))
        return min(most, seen.part(kind, self._id, replicas))

    # ── jobs of anybody ───────────────────────────────────────────────────────────────────────────────────────────

    async def enqueue(self, kind: JobKind, job_id: str, payload: Mapping[str, Any]) -> None:
        """Let some replica do a job; one of that id that is there already goes on, or has ended.

        The first agents of a swarm come before the later ones of another, so that none waits for all of those.
        """
        options = EnqueueOptions(
            workflow_name=kind,
            queue_name=transact.QUEUES[kind],
            workflow_id=job_id,
            app_version=self._version,
            priority=self._priority(job_id),
        )

        def enqueue() -> None:
            self._known.enqueue(options, dict(payload))

        await self._database.run_through_outage(enqueue)

    async def renew(self, job_id: str) -> None:
        """Forget a job that has ended, or that no living replica can take, so that it can be enqueued anew.

        So are those of its children that have no result and don't go on. A job that waits or runs stays as it is.
        """
        versions = {self._version, *self._lease.job_formats}
        stopped = statements.stopped(job_id, versions), statements.stopped_children(job_id, versions)
        if await self._database.run_through_outage(partial(self._database.forget, *stopped)):
            log.warning("%s is begun anew: its job had stopped before it ended", job_id)

    async def result(self, job_id: str) -> Mapping[str, Any]:
        """Wait for the result of a job. Raises ``JobCancelled`` and ``JobLost``."""
        return await self._results.wait(job_id)

    async def cancel(self, job_id: str) -> None:
        """Cancel a job and its children; ``RUN/``: the children of a swarm alone. What has ended stays as it is."""
        parent = job_id.removesuffix("/")

        def cancel() -> None:
            if job_id == parent:
                self._known.cancel_workflow(parent)  # first: it makes no more children
            children = [row.workflow_uuid for row in self._database.rows(statements.children(parent))]
            if children:
                self._known.cancel_workflows(children)

        await self._database.run_through_outage(cancel)
        self._local.interrupt("cancelled", lambda job: job.id == job_id or job.id.startswith(f"{parent}/"))

    def _interrupt_soon(self, job_ids: set[str]) -> None:
        """Jobs that this replica does are cancelled: another one, or another thread, says so."""

        def interrupt() -> None:
            self._local.interrupt("cancelled", lambda job: job.id in job_ids)

        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(interrupt)

    def _cancel_later(self, job_id: str) -> None:
        """A job that was cancelled may have made more children meanwhile."""
        if "/" not in job_id:
            cancel = partial(self.cancel, f"{job_id}/")
            task = asyncio.create_task(contained("jobs of a swarm could not be cancelled", cancel))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def jobs(self) -> list[JobState]:
        """Every job that has not ended, the oldest first."""
        return await self._unfinished(None)

    async def job(self, job_id: str) -> JobState | None:
        """A job that has not ended."""
        return next(iter(await self._unfinished(job_id)), None)

    async def _unfinished(self, job_id: str | None) -> list[JobState]:
        wanted = statements.unfinished(job_id)
        return [
            JobState.of(row) for row in await self._database.run_through_outage(partial(self._database.rows, wanted))
        ]

    # ── jobs of replicas that are gone ────────────────────────────────────────────────────────────────────────────

    async def _reap(self) -> None:
        """Return jobs whose replica is dead to their queues, and remove what ended long ago.

        Whoever finds the replica dead may die as well: so this depends on nothing but what is in the tables.
        """
        clean_at, forgotten_since = 0.0, inf
        while True:
            await asyncio.sleep(self.limits.reap_s)
            seen = self._watch.seen
            try:
                others = seen.servers - {self._id}
                for server in await anyio.to_thread.run_sync(self._dead_among, list(others)) if others else ():
                    if taken := await self.take_over(server):
                        log.warning("a server died: others go on with its %d jobs", len(taken))
                having = sum(seen.running[self._id, kind] for kind in self._handlers)
                now = time.monotonic()
                forgotten_since = min(forgotten_since, now) if having > len(self.running) else inf
                if now - forgotten_since > self.limits.forgotten_s:  # DBOS dropped some, by a fault of its own
                    forgotten_since = inf
                    await self._requeue(self._id, but={job.id for job in self.running})
                if seen.is_there and time.monotonic() >= clean_at:
                    clean_at = time.monotonic() + self.limits.clean_every_s
                    await self._database.run(self._clean)
            except SQLAlchemyError as fault:
                log.debug("jobs can't be looked after just now: %s", type(fault).__name__)
            except Exception:
                log.exception("jobs can't be looked after")

    def _dead_among(self, servers: Sequence[str]) -> list[str]:
        return [server for server in servers if not self._lease.is_alive(server)]

    async def take_over(self, server_id: str) -> list[str]:
        """Let others take the jobs of a replica that is dead; their ids. Raises ``SQLAlchemyError``.

        Safe to repeat, and for several at once: a job that somebody else has taken meanwhile stays with that one.
        """
        await self._database.run(partial(self._database.execute, statements.died(server_id)))
        return await self._requeue(server_id)

    async def _requeue(self, server_id: str, but: Collection[str] = ()) -> list[str]:
        with suppress(SQLAlchemyError):  # they wait for their turn, then
            await self._database.run(partial(self._database.execute, statements.put_first(server_id, but)))
        return await self._database.run(
            partial(transact.requeue, self._known, server_id, self._version, but=but),
        )

    def _clean(self) -> None:
        self._database.execute(statements.forget_deaths(self.limits.keep_s))
        old = statements.jobs.c.workflow_uuid.in_(statements.ended(self.limits.keep_s))
        while self._database.forget(old):
            pass

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def drain(self) -> None:
        """Take no more jobs, and return the own ones to their queues: others go on at once. Waits for their end here.

        Where the database is away, others take them once this replica's lease is over.
        """
        self._is_taking = False
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if self._reaping is not None:
            self._reaping.cancel()
        await anyio.to_thread.run_sync(worker.stop_taking)
        if not self._is_lost:
            await self._return_jobs()
        await self._local.end("drained", self.limits.leave_s)
        await anyio.to_thread.run_sync(self._watch.stop)
        with anyio.move_on_after(self.limits.leave_s):
            await worker.destroy()

    async def _return_jobs(self) -> None:
        with anyio.move_on_after(self.limits.leave_s):
            try:
                await self._database.run(partial(self._database.execute, statements.uncount(self._id)))
                await self._requeue(self._id)
            except SQLAlchemyError as fault:
                log.warning("jobs could not be returned: %s", type(fault).__name__)

    async def abandon(self) -> None:
        """End every job here without a word: this replica is taken for dead, and others may have them already."""
        self._is_taking, self._is_lost = False, True
        await self._local.end("lost", self.limits.abandon_s)

    async def aclose(self) -> None:
        """Drain it, and close the connections."""
        await self.drain()
        self._results.close()
        client, self._client = self._client, None
        self._has_started.set()  # whoever waits for it need not wait any longer
        if client is not None:
            client.destroy()
        self._database.engine.dispose()

    # ── the database ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _known(self) -> DBOSClient:
        if self._client is None:
            raise _not_joined()
        return self._client

    async def _find(self, ids: Sequence[str]) -> Mapping[str, Any]:
        """The rows of those jobs that go on no more, for ``Results``; None: not known. Raises ``SQLAlchemyError``."""

        def find() -> Mapping[str, Any]:
            ended = [row.id for row in self._database.rows(statements.not_in_flight(ids))]
            rows = self._known.list_workflows(workflow_ids=ended, load_input=False) if ended else ()
            return dict.fromkeys(ended) | {row.workflow_id: row for row in rows}

        return await self._database.run(find)

    def _priority(self, job_id: str) -> int:
        """1 for a swarm; for an agent one more than siblings of it were enqueued here before."""
        parent, slash, _ = job_id.partition("/")
        if not slash:
            return 1
        before = self._siblings.pop(parent, 0)
        self._siblings[parent] = before + 1
        while len(self._siblings) > 1_000:
            del self._siblings[next(iter(self._siblings))]
        return before + 1
