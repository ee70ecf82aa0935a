"""A swarm on several replicas, as the one sees it that runs its main agent. I/O: jobs, and the store that all share.

Its sub-agents are jobs of whichever replica is free. What they have done is read from their recorded steps, so that the
swarm's stats are the same as where it runs in one process.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from kimi_mcp.core.background import Coalesced, contained, start_contained
from kimi_mcp.core.errors import Cancelled, KimiError, internal_error
from kimi_mcp.core.json_values import from_json, to_json
from kimi_mcp.core.redaction import scrub_values
from kimi_mcp.core.types import Status
from kimi_mcp.runs import Run
from kimi_mcp.runs.jobs import Job, JobCancelled, JobLost, Jobs
from kimi_mcp.runs.store.records import JSON
from kimi_mcp.runs.store.retries import with_retries
from kimi_mcp.swarm.agents import Agents
from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.limits import SwarmConcurrency, SwarmLimits
from kimi_mcp.swarm.orchestrate import tool_warnings
from kimi_mcp.swarm.recovery import add_recorded
from kimi_mcp.swarm.shared_ledger import SharedLedger
from kimi_mcp.swarm.stats import Agent, StepResult, SwarmStats
from kimi_mcp.swarm.step_runner import StepRunner

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore
    from kimi_mcp.runs.store.swarm_totals import CountedSteps
    from kimi_mcp.swarm.budget_raise import BudgetRaise

LOOK_EVERY_S = 2.0
"""Seconds between two looks at what is recorded, where no notification comes."""

COALESCED_S = 0.1
"""Seconds between two such looks at least."""

CANCEL_WITHIN_S = 2.0
"""Seconds for cancelling the jobs of a swarm that is stopped; whoever runs them sees its end at the latest then."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEnd:
    """How a sub-agent's job ended."""

    status: Status
    answer: str = ""
    """Its message; what had arrived of it where it failed."""
    error: KimiError | None = None
    """Why it is incomplete."""
    warnings: tuple[str, ...] = ()
    """What was missing of its tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all replicas share of a swarm."""

    steps: CountedSteps
    ledger: SharedLedger


async def share(
    store: RunStore,
    run_id: str,
    limits: SwarmLimits,
    concurrency: SwarmConcurrency,
    *,
    elapsed_s: float,
    raises: BudgetRaise | None = None,
) -> Shared:
    """What all replicas share of a run's swarm; ``elapsed_s``: the seconds before, ``raises``: how it asks for more."""
    from kimi_mcp.runs.store.swarm_totals import CountedSteps, SwarmTotals

    totals = SwarmTotals(store, run_id)
    used, heard = await with_retries(totals.open, sleep=concurrency.sleep), store.notifications
    ledger = SharedLedger(
        limits, totals, heard, run_id, used, concurrency=concurrency, elapsed_s=elapsed_s, raises=raises
    )
    return Shared(steps=CountedSteps(store, run_id), ledger=ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """Several replicas, for one swarm whose main agent runs here."""

    jobs: Jobs
    job: Job
    """The swarm's own."""

    async def share(
        self, run: Run, limits: SwarmLimits, concurrency: SwarmConcurrency, raises: BudgetRaise | None
    ) -> Shared:
        """What all of them share."""
        found = await share(run.store, run.id, limits, concurrency, elapsed_s=run.active_s(), raises=raises)
        return replace(found, steps=found.steps.fenced_by(self.job.fence))

    def agents(self, runner: StepRunner, call: SwarmCall, steps: CountedSteps) -> AbstractAsyncContextManager[Agents]:
        """Runs its sub-agents."""
        return remote_agents(runner, call, steps, self.jobs)


@asynccontextmanager
async def remote_agents(
    runner: StepRunner, call: SwarmCall, steps: CountedSteps, jobs: Jobs
) -> AsyncGenerator[RemoteAgents]:
    """Runs sub-agents on any replica. Those that run when the swarm is stopped are cancelled."""
    agents = RemoteAgents(runner, call, steps, jobs)
    agents.begun = await with_retries(steps.begun_by, sleep=runner.concurrency.sleep)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        start_contained(tasks, "a swarm's steps are not followed any more", agents.follow)
        try:
            yield agents
        except Exception as fault:  # noqa: BLE001 - it is raised below, where no task group wraps it
            failure = fault
        finally:
            if failure is not None or runner.run.is_stopped:
                with suppress(Exception), anyio.move_on_after(CANCEL_WITHIN_S, shield=True):
                    await jobs.cancel(f"{runner.run.id}/")
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


class RemoteAgents:
    """Runs sub-agents as jobs of any replica."""

    def __init__(self, runner: StepRunner, call: SwarmCall, steps: CountedSteps, jobs: Jobs) -> None:
        self._runner, self._call, self._steps, self._jobs = runner, call, steps, jobs
        self.begun: set[str] = set()
        """The sub-agents that had begun when this replica took the swarm."""
        self._progress: dict[str, _AgentProgress] = {}
        self._seen: set[str] = set()
        self._read = Coalesced(self._read_steps)

    async def run(self, agent: Agent, own_system: str | None, prompt: str) -> None:
        """See ``Agents``."""
        runner, job_id = self._runner, f"{self._runner.run.id}/{agent.id}"
        progress = self._of(agent.id)
        progress.agent = agent
        self._advance(progress)
        if agent.id not in self.begun and not runner.ledger.used_up(0.0, reserved=0.0):
            await runner.concurrency.wait_for_launch()
        payload: dict[str, Any] = {"name": agent.name, "cache_ttl": runner.cache_ttl}
        if not self._call.items:  # else it is known from the run's own record, and may be long
            payload |= {"system": own_system, "prompt": prompt}
        end = await self._end_of(job_id, payload)
        release = partial(self._steps.release_agent, agent.id)  # of a replica that died
        await contained(
            "what a sub-agent held is not released", partial(with_retries, release, sleep=runner.concurrency.sleep)
        )
        await self._catch_up_at_last()
        progress.is_over = True
        self._advance(progress)
        agent.end(end.status, error=end.error, answer=end.answer or agent.answer)
        runner.stats.report(tool_warnings(self._call, end.warnings))

    async def _end_of(self, job_id: str, payload: Mapping[str, Any]) -> AgentEnd:
        """The end of a sub-agent's job; whatever goes wrong with it, the others go on."""
        try:
            await self._jobs.enqueue("agent", job_id, scrub_values(payload))
            return from_json(AgentEnd, await self._jobs.result(job_id))
        except JobCancelled:
            error: KimiError = Cancelled("The sub-agent was cancelled.", fix="Call again if you still want the answer.")
        except JobLost as lost:
            error = lost.error
        except KimiError as fault:
            error = fault
        except Exception as fault:
            log.exception("a sub-agent failed because of a bug in kimi-mcp")
            error = internal_error(fault)
        return AgentEnd(status="failed", error=error)

    async def follow(self) -> None:
        """Add what is recorded to the stats, as long as the swarm runs."""
        store, run_id = self._runner.run.store, self._runner.run.id
        async with store.notifications.waiting("steps", run_id) as waiter:
            while True:
                with suppress(KimiError):  # what can't be read now is read at the next look
                    await self._catch_up()
                await waiter.next(LOOK_EVERY_S)
                await anyio.sleep(COALESCED_S)

    async def _catch_up_at_last(self) -> None:
        """All that is recorded by now, however long the store can't be read."""
        while True:
            try:
                return await self._catch_up()
            except KimiError:
                await self._runner.concurrency.sleep(LOOK_EVERY_S)

    async def _catch_up(self) -> None:
        await self._read()
        for progress in self._progress.values():
            if progress.is_new:
                self._advance(progress)
        self._runner.report_progress()

    async def _read_steps(self) -> None:
        for step in await self._steps.finished(self._seen):
            self._seen.add(step.key)
            progress = self._of(step.key.partition("/")[0])
            if step.result is not None and not step.key.startswith("main/"):
                progress.records[step.key] = step.result
                progress.is_new = True

    def _of(self, agent_id: str) -> _AgentProgress:
        return self._progress.setdefault(agent_id, _AgentProgress())

    def _advance(self, progress: _AgentProgress) -> None:
        progress.advance(self._runner.stats, self._runner.profile.provider.id)
        if progress.agent is not None and progress.agent.last is not None and progress.agent.last.pieces:
            self._runner.run.first_token_came()


class _AgentProgress:
    """The recorded steps of one sub-agent, and how far its stats have them."""

    def __init__(self) -> None:
        self.agent: Agent | None = None
        """None: the main agent has not come as far again as to start it."""
        self.records: dict[str, JSON] = {}
        """The results of its steps, by their keys."""
        self.is_new = self.is_over = False
        """Whether something was recorded since it advanced; whether nothing more will be."""
        self._tools_of = 0

    def advance(self, stats: SwarmStats, provider: str) -> None:
        """Add to its stats what is recorded: requests in their order, tool calls a turn at a time."""
        if (agent := self.agent) is None:
            return
        self.is_new = False
        while True:
            turn = f"{agent.id}/step-{agent.requested}"
            following = self.records.get(f"{agent.id}/step-{agent.requested + 1}")
            tools = [record for key, record in self.records.items() if key.startswith(f"{turn}/")]
            wanted = len(agent.last.completion.tool_calls) if agent.last is not None else 0
            is_whole = len(tools) >= wanted or following is not None or self.is_over
            if tools and is_whole and self._tools_of < agent.requested:
                self._tools_of = agent.requested
                agent.add_tool_calls(tools)
            if following is None:
                return
            add_recorded(stats, agent, StepResult.from_json(following), provider)


def as_payload(end: AgentEnd) -> Mapping[str, Any]:
    """The result of a sub-agent's job."""
    return scrub_values(to_json(end))
