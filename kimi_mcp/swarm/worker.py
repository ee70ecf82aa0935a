"""``SwarmWorker``: runs sub-agents of swarms whose main agents may be anywhere. I/O: the pipeline, tools, the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from kimi_mcp.core import callers, observing
from kimi_mcp.core.background import start_contained
from kimi_mcp.core.errors import Cancelled, KimiError
from kimi_mcp.core.plan import Plan
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.pipeline.route import Route
from kimi_mcp.runs import Run, Runs
from kimi_mcp.runs.jobs import Fenced, Job
from kimi_mcp.runs.store.retries import with_retries
from kimi_mcp.swarm.agents import LocalAgents
from kimi_mcp.swarm.budget_raise import BudgetRaise, budget_raise
from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.limits import SwarmConcurrency, SwarmLimits
from kimi_mcp.swarm.orchestrate import effective_limits, open_swarm_tools, resolve
from kimi_mcp.swarm.replicas import AgentEnd, Shared, as_payload, share
from kimi_mcp.swarm.stats import Agent, SwarmStats
from kimi_mcp.swarm.step_runner import StepRunner
from kimi_mcp.swarm.tools import SwarmTools

LINGER_S = 10.0
"""Seconds for which a swarm's tools stay open here after its last agent: another one may come."""


class SwarmWorker:
    """Runs sub-agents; those of one swarm share its tools, its slots and its ledger.

    ``limits``: those that neither a call nor the settings set.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        pipeline: Pipeline,
        runs: Runs,
        *,
        limits: SwarmLimits | None = None,
        linger_s: float = LINGER_S,
    ) -> None:
        self._tasks, self._pipeline, self._runs = tasks, pipeline, runs
        self._limits, self._linger_s = limits or SwarmLimits(), linger_s
        self._open: dict[str, _Opening] = {}

    async def run_agent(self, job: Job) -> Mapping[str, Any]:
        """Do the job of one sub-agent; its result."""
        run_id, _, agent_id = job.id.partition("/")
        try:
            async with self._swarm(run_id) as swarm:
                return as_payload(await self._run(job, swarm, agent_id))
        except KimiError as error:
            return as_payload(AgentEnd(status="failed", error=error))
        except Fenced:
            return {}  # another replica has the job, and what this one returns counts nowhere

    async def _run(self, job: Job, swarm: _Swarm, agent_id: str) -> AgentEnd:
        agent = Agent(id=agent_id, name=str(job.payload["name"]))
        stats = SwarmStats()
        stats.begin_stage()
        runner = StepRunner(
            pipeline=self._pipeline,
            route=swarm.route,
            profile=swarm.plan.profile,
            run=swarm.run,
            steps=swarm.shared.steps.fenced_by(job.fence),
            concurrency=swarm.concurrency,
            ledger=swarm.shared.ledger,
            stats=stats,
            effort=swarm.call.effort,
            cache_ttl=job.payload["cache_ttl"],
            before=None,
            is_patient=True,  # a replica that is cut off from it for a while is no reason to lose an agent
        )
        system, prompt = job.payload.get("system"), job.payload.get("prompt")
        if prompt is None:
            prompt = swarm.call.tasks[int(agent_id.rpartition("-")[2]) - 1]
        callers.CURRENT.set(swarm.run.caller)
        observing.add_ids(run_id=swarm.run.id, tool=swarm.run.tool, principal=swarm.run.caller)
        began_by = swarm.run.traceparent
        continued = observing.ContinuedWork(tool=swarm.run.tool, traceparent=began_by) if began_by else None
        try:
            with observing.within(continued):
                await LocalAgents(runner, swarm.tools).run(agent, system, str(prompt))
            await runner.written()
        finally:
            runner.close()
        return AgentEnd(
            status=agent.status, answer=agent.answer, error=agent.error, warnings=tuple(swarm.tools.warnings)
        )

    def _raise_of(self, call: SwarmCall, run: Run, limits: SwarmLimits) -> BudgetRaise | None:
        """How a swarm asks for more; what it has done is known where its main agent runs."""

        async def doing() -> str:
            record = await self._runs.store.find(run.id, None)
            return "under way" if record is None or record.phase is None else record.phase.doing

        settings = self._pipeline.settings
        return budget_raise(
            call, self._runs.store, run.id, caller=run.caller, limits=limits, settings=settings, doing=doing
        )

    def _slots(self) -> int:
        return int(self._pipeline.upstream.slots)

    # ── what the agents of a swarm share here ─────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def _swarm(self, run_id: str) -> AsyncGenerator[_Swarm]:
        """A swarm as it is open here; the first agent opens it."""
        opening = self._open.get(run_id)
        if opening is None:
            opening = self._open[run_id] = _Opening()
            with observing.without_ids():
                start_contained(self._tasks, "a swarm's tools could not be closed", self._keep_open, run_id, opening)
        opening.users += 1
        opening.changed.set()
        try:
            await opening.ready.wait()
            if opening.failure is not None:
                raise opening.failure
            if opening.swarm is None:
                await anyio.sleep_forever()  # the server ends, and this job with it
            assert opening.swarm is not None
            yield opening.swarm
        finally:
            opening.users -= 1
            opening.changed.set()

    async def _keep_open(self, run_id: str, opening: _Opening) -> None:
        try:
            async with self._opened(run_id) as opening.swarm:
                opening.ready.set()
                while opening.users or not await self._is_over(opening):
                    await opening.changed.wait()
                    opening.changed = anyio.Event()
                del self._open[run_id]  # before it closes: who comes now opens it anew
        except Exception as fault:
            opening.failure = fault
            if not isinstance(fault, KimiError):
                raise
        finally:
            if self._open.get(run_id) is opening:
                del self._open[run_id]
            opening.ready.set()

    async def _is_over(self, opening: _Opening) -> bool:
        """Whether no agent comes for a while."""
        opening.changed = anyio.Event()
        with anyio.move_on_after(self._linger_s):
            await opening.changed.wait()
        return not opening.users

    @asynccontextmanager
    async def _opened(self, run_id: str) -> AsyncGenerator[_Swarm]:
        record = await with_retries(partial(self._runs.store.find, run_id, None))
        if record is None or not record.running:
            raise Cancelled("The swarm has ended.", fix="Call again if you still want its answer.")
        task = cast("Mapping[str, Any]", record.request["task"])
        run, call = Run.resumed(record, task, now=self._runs.store.now()), SwarmCall.from_json(task)
        run.traceparent = record.traceparent
        callers.CURRENT.set(run.caller)
        route, plan = await resolve(call, run, self._pipeline)
        limits = effective_limits(self._limits, call, plan.limits, self._pipeline.settings)
        # Of the slots each replica has its share; that of the main agent paces the launches.
        concurrency = SwarmConcurrency(self._slots, replace(limits, launch_interval_s=0))
        async with open_swarm_tools(call, self._pipeline, route, run.caller) as tools:
            tools.definitions = call.known_definitions or ()
            store, raises = self._runs.store, self._raise_of(call, run, limits)
            limits = limits if raises is None else await raises.known(limits)
            parts = await share(store, run_id, limits, concurrency, elapsed_s=record.lived_s, raises=raises)
            yield _Swarm(
                call=call,
                run=run,
                route=route.with_tools(tools.definitions),
                plan=plan,
                tools=tools,
                concurrency=concurrency,
                shared=parts,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Swarm:
    """What the agents of one swarm share in this process."""

    call: SwarmCall
    run: Run
    """As it is recorded: it runs elsewhere, or here as another object."""
    route: Route
    plan: Plan
    tools: SwarmTools
    concurrency: SwarmConcurrency
    shared: Shared


@dataclass(slots=True, kw_only=True, eq=False)
class _Opening:
    """A swarm that is opened, open, or could not be."""

    users: int = 0
    swarm: _Swarm | None = None
    failure: Exception | None = None
    ready: anyio.Event = field(default_factory=anyio.Event)
    changed: anyio.Event = field(default_factory=anyio.Event)
