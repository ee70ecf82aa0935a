"""``SwarmJobs``: what a replica does with the jobs of swarms, as a worker and as one that enqueues. I/O: the runs'."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from kimi_mcp.core.background import carried_out, contained, start_contained
from kimi_mcp.core.errors import Internal, KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.runs import Run, Runs
from kimi_mcp.runs.jobs import MOST_ATTEMPTS, Job, JobHandler, JobKind, Jobs
from kimi_mcp.runs.store.swarm_totals import SwarmTotals, finished_steps
from kimi_mcp.server.state import ServerState
from kimi_mcp.swarm import prepare_resume
from kimi_mcp.swarm.replicas import Replicas
from kimi_mcp.swarm.worker import SwarmWorker

if TYPE_CHECKING:
    from kimi_mcp.cluster.engine import Engine

LOOK_EVERY_S = 15.0
"""Seconds between two looks for swarms without a job: their server died before it enqueued them, or was no replica."""

WRITTEN_EVERY_S = 0.1
"""Seconds between two looks whether the end of a swarm is in the store, where that takes longer."""

ADOPT_EVERY_S = 0.5
"""Seconds between two attempts to take over a swarm that another server has taken meanwhile."""

SWARMS = 300
"""How many swarms all replicas run at once: their main agents mostly wait."""


class SwarmJobs:
    """The jobs of swarms in one replica."""

    def __init__(self, state: ServerState, pipeline: Pipeline, runs: Runs) -> None:
        self._pipeline, self._runs = pipeline, runs
        self.handlers: Mapping[JobKind, JobHandler] = {"swarm": self.swarm, "agent": self.agent}
        """Who does a job of each kind."""
        self.concurrency: Mapping[JobKind, int] = {"swarm": SWARMS, "agent": 2 * state.settings.max_concurrency}
        """How many jobs all replicas do at once: of agents more than there are slots, since some of them use tools."""
        self._jobs: Jobs | None = None
        self._tasks, self._limits = state.tasks, state.swarm_limits
        self._worker = SwarmWorker(state.tasks, pipeline, runs, limits=state.swarm_limits)

    def use(self, engine: Engine) -> None:
        """Enqueue and cancel swarms there from here on, and enqueue those that servers without it leave."""
        if self._runs.queue is None:  # else an earlier attempt to join has failed
            start_contained(self._tasks, "swarms of dead servers are not looked for any more", self._look_for_orphans)
        self._jobs, self._runs.queue = engine, EngineQueue(engine)

    async def _look_for_orphans(self) -> None:
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            await contained("swarms of dead servers could not be looked for", self._runs.resume_all)

    async def agent(self, job: Job) -> Mapping[str, Any]:
        """Run a sub-agent."""
        return await self._worker.run_agent(job)

    async def swarm(self, job: Job) -> Mapping[str, Any]:
        """Run a swarm: its main agent, whose sub-agents are jobs of their own."""
        run = await self._adopted(job)
        if run is None:
            return {}  # it has ended
        try:
            await run.done.wait()
            while self._runs.recorder.is_pending(run.id):  # noqa: ASYNC110 - else its end is lost with this replica
                await anyio.sleep(WRITTEN_EVERY_S)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await (run.cancel() if job.interruption == "cancelled" else run.leave())
            raise
        finally:
            if run.elsewhere is None:
                await self._forget(run.id)
        return {}

    async def given_up(self, job: Job) -> Mapping[str, Any]:
        """End the record of a swarm at which several replicas died, with what it has; release what an agent held."""
        run_id, _, agent_id = job.id.partition("/")
        if job.kind == "agent":
            await SwarmTotals(self._runs.store, run_id).release_agent(agent_id)
        elif (record := await self._runs.store.find(job.id, None)) is not None:
            died = job.attempt - 1
            cause = f"{died} replicas ended while they ran this swarm" if died >= MOST_ATTEMPTS else "The swarm failed"
            fix = "Call again; the logs of the replicas say more."
            error = Internal(f"{cause}; what had finished is kept.", fix=fix)
            assert self._jobs is not None, "an engine has these jobs"
            await self._jobs.cancel(f"{run_id}/")
            if not (await self._runs.cancel_orphan(record, error)).running:
                await self._forget(run_id)
        return {}

    async def _forget(self, run_id: str) -> None:
        forget = SwarmTotals(self._runs.store, run_id).remove
        await carried_out(contained("what a swarm has used is still counted", forget))

    async def finished(self, job_id: str) -> int:
        """How many steps of a job are finished; a swarm's gets on with those of its agents."""
        run_id, _, agent_id = job_id.partition("/")
        return await self._runs.store.read(finished_steps, run_id, f"{agent_id}/" if agent_id else "")

    async def _adopted(self, job: Job) -> Run | None:
        """The run of a swarm, which this replica runs from here on; None: it has ended."""
        while True:
            record = await self._runs.store.find(job.id, None)
            if record is None or not record.running:
                return None
            if record.cancel_requested:
                await self._runs.cancel_orphan(record)
                return None
            task = cast("Mapping[str, Any]", record.request.get("task") or {})
            work = await anyio.to_thread.run_sync(self._work, task, job)
            if (run := await self._runs.adopt(record, task, work)) is not None:
                return run
            await anyio.sleep(ADOPT_EVERY_S)

    def _work(self, task: Mapping[str, Any], job: Job) -> Callable[[Run], Awaitable[Outcome]]:
        assert self._jobs is not None, "an engine has these jobs"
        try:
            return prepare_resume(task, self._pipeline, self._limits, Replicas(jobs=self._jobs, job=job))
        except KimiError as error:
            return partial(self._refused, error=error)

    async def _refused(self, run: Run, error: KimiError) -> Outcome:
        async def refuse() -> Outcome:
            raise error

        return await self._pipeline.outcome(run, refuse())


class EngineQueue:
    """Runs that wait in the engine for a replica."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def enqueue(self, run_id: str) -> None:
        """See ``RunQueue``. A replica that is about to join has it already."""
        await self.engine.started()
        await self.engine.renew(run_id)  # who enqueues a run knows that it has not ended
        await self.engine.enqueue("swarm", run_id, {})

    async def cancel(self, run_id: str) -> bool:
        """See ``RunQueue``."""
        await self.engine.started()
        job = await self.engine.job(run_id)
        await self.engine.cancel(run_id)
        return job is not None and job.status == "queued"
