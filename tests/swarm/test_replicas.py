"""A swarm whose agents run on several replicas: the same outcome as on one, each step made once, one budget for all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from kimi_mcp.core.errors import Internal
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.runs import Run, Runs
from kimi_mcp.runs.jobs import Job, JobCancelled, JobHandler, JobKind, JobLost
from kimi_mcp.runs.store.looks import texts_of
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.runs.store.swarm_totals import CountedSteps
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm import SwarmCall, run_swarm
from kimi_mcp.swarm.ledger import BudgetLedger, Wanted
from kimi_mcp.swarm.limits import SwarmLimits
from kimi_mcp.swarm.replicas import Replicas, share
from kimi_mcp.swarm.shared_ledger import SharedLedger
from kimi_mcp.swarm.worker import SwarmWorker
from tests.runs.store.stores import begin
from tests.swarm.scenarios import MAIN_AGENT, leading, pipeline_and_runs, pipeline_for, quick, reply

ITEMS = [f"city {number}" for number in range(6)]


class Distributed:
    """Jobs that two workers of this process take in turn. No engine: nothing is taken over, and nobody is fenced."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.workers: list[JobHandler] = []
        self.taken: dict[str, int] = {}
        self._tasks = tasks
        self._ended: dict[str, anyio.Event] = {}
        self._results: dict[str, Mapping[str, Any] | JobLost] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}

    async def enqueue(self, kind: JobKind, job_id: str, payload: Mapping[str, Any]) -> None:
        if job_id not in self.taken:
            self.taken[job_id] = len(self.taken) % len(self.workers)
            self._ended[job_id], self._scopes[job_id] = anyio.Event(), anyio.CancelScope()
            job = Job(id=job_id, kind=kind, payload=payload, attempt=1, fence=sa.true())
            self._tasks.start_soon(self._do, job)

    async def _do(self, job: Job) -> None:
        with self._scopes[job.id]:
            try:
                self._results[job.id] = await self.workers[self.taken[job.id]](job)
            except JobLost as lost:
                self._results[job.id] = lost
        self._ended[job.id].set()

    async def result(self, job_id: str) -> Mapping[str, Any]:
        await self._ended[job_id].wait()
        if job_id not in self._results:
            raise JobCancelled
        if isinstance(result := self._results[job_id], JobLost):
            raise result
        return result

    async def cancel(self, job_id: str) -> None:
        for each, scope in self._scopes.items():
            if each.startswith(f"{job_id}/"):
                scope.cancel()


class Cluster:
    """Two replicas in this process, on one database; the main agent runs in the first."""

    def __init__(self, pipeline: Pipeline, runs: Sequence[Runs], jobs: Distributed) -> None:
        self.pipeline, self.runs, self.jobs = pipeline, runs, jobs

    async def swarm(self, prompt: str = "Compare A and B.", *, limits: SwarmLimits | None = None, **call: Any) -> Run:
        """A swarm that runs over both, to its end."""
        run = Run(caller="local", tool="kimi_swarm", prompt=prompt)
        replicas = Replicas(jobs=self.jobs, job=Job(id=run.id, kind="swarm", payload={}, attempt=1, fence=sa.true()))

        async def work(run: Run) -> Outcome:
            requested = SwarmCall(prompt=prompt, tools=(), **call)
            return await run_swarm(requested, run, self.pipeline, limits=limits, concurrency=quick(), replicas=replicas)

        self.runs[0].start(run, work)
        await run.wait()
        return run


@asynccontextmanager
async def cluster(sim: Simulator, folder: Path, url: str, **variables: str) -> AsyncIterator[Cluster]:
    stores = [RunStore(folder, url=url) for _ in range(2)]
    try:
        async with pipeline_for(sim, **variables) as pipeline, anyio.create_task_group() as tasks:
            runs, jobs = [Runs(tasks, store) for store in stores], Distributed(tasks)
            limits = SwarmLimits(launch_interval_s=0)
            for each in runs:
                jobs.workers.append(SwarmWorker(tasks, pipeline, each, limits=limits, linger_s=0).run_agent)
            yield Cluster(pipeline, runs, jobs)
            tasks.cancel_scope.cancel()
    finally:
        for store in stores:
            await store.aclose()


async def alone(play: Sequence[Mapping[str, Any]], prompt: str = "Compare A and B.", **call: Any) -> Outcome:
    """How the same swarm ends in one process, before a provider whose cache knows nothing yet."""
    run = Run(caller="local", tool="kimi_swarm", prompt=prompt)
    requested = SwarmCall(prompt=prompt, tools=(), **call)
    async with Simulator(provider="simulator") as sim, pipeline_and_runs(sim) as (pipeline, runs):
        sim.play(*play)
        runs.start(run, partial(run_swarm, requested, pipeline=pipeline, concurrency=quick()))
        await run.wait()
    assert run.outcome is not None
    return run.outcome


def reported(outcome: Outcome | None) -> Any:
    """All of an outcome that does not depend on time."""
    assert outcome is not None
    assert outcome.swarm is not None
    block = {name: value for name, value in outcome.swarm.items() if name != "speedup"}
    known = (outcome.status, outcome.answer, outcome.usage, outcome.cost_usd, outcome.policy, outcome.error)
    return *known, outcome.model_answered, outcome.timing.attempts, block


PLAY = [
    leading(("reader", "Look at A."), ("writer", "Look at B.")),
    leading(("reader", "Look at C."), turn=1),
    reply({"system": MAIN_AGENT, "turns": 2}, content="A, B and C are known."),
    reply({"text": "Look at B."}, content="", finish_reason="length"),
    *(reply({"text": f"Look at {letter}."}, content=f"All is known of {letter}.") for letter in "AC"),
]
"""A main agent that assigns tasks twice; one of its sub-agents gets no answer in as many tokens as it may have."""


async def test_a_swarm_over_two_replicas_ends_as_it_does_on_one(
    sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    sim.play(*PLAY)
    async with cluster(sim, tmp_path, database_url) as both:
        over_two = await both.swarm()
        assert set(both.jobs.taken.values()) == {0, 1}
        assert [both.jobs.taken[f"{over_two.id}/agent-{number}"] for number in (1, 2, 3)] == [0, 1, 0]
    assert reported(over_two.outcome) == reported(await alone(PLAY))


@pytest.mark.soak
async def test_items_over_two_replicas_end_as_on_one(sim: Simulator, tmp_path: Path, database_url: str) -> None:
    tell = [reply({"text": f"Tell me about {item}."}, content=f"{item} is big.") for item in ITEMS]
    sim.play(*tell)
    async with cluster(sim, tmp_path, database_url) as both:
        over_two = await both.swarm("Tell me about {{item}}.", items=tuple(ITEMS))
    assert reported(over_two.outcome) == reported(await alone(tell, "Tell me about {{item}}.", items=tuple(ITEMS)))


async def test_what_an_agent_writes_is_seen_by_who_looks_at_it_whichever_replica_runs_it(
    sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    tell = [
        {"match": {"text": f"about {item}."}, "gate": "end", "gate_at": "finish", "content": item} for item in ITEMS
    ]
    sim.play(*tell)
    page, agents = RunStore(tmp_path, url=database_url), [f"agent-{number}" for number in range(1, len(ITEMS) + 1)]
    async with cluster(sim, tmp_path, database_url) as both, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(both.swarm, "Tell me about {{item}}.", items=tuple(ITEMS)))
        await sim.until(lambda: sim.waiting_at("end") == len(ITEMS), 60)
        (run_id,) = both.runs[0].live
        found: dict[str, str] = {}
        with anyio.fail_after(60):
            while found != dict(zip(agents, ITEMS, strict=True)):
                for agent in agents:
                    await page.look_at(run_id, agent)
                texts = await page.read(texts_of, run_id, agents)
                found = {agent: each.answer.text for agent, each in texts.items()}
        assert set(both.jobs.taken.values()) == {0, 1}
        sim.open_gate("end")
    await page.aclose()


# ── the ledger ────────────────────────────────────────────────────────────────────────────────────────────────────


REQUEST = {"counted_usd": 0.2, "counted_tokens": 7}
"""What is recorded of a request, as far as it is counted."""


@asynccontextmanager
async def ledgers(folder: Path, url: str, usd: float) -> AsyncIterator[tuple[list[SharedLedger], CountedSteps]]:
    """The ledger of one swarm in two replicas, and the steps of its agents."""
    stores = [RunStore(folder, url=url) for _ in range(2)]
    try:
        await begin(stores[0], "run_1")
        with anyio.fail_after(30):
            limits = SwarmLimits(usd=usd, tool_calls=1)
            parts = [await share(store, "run_1", limits, quick(), elapsed_s=0.0) for store in stores]
            yield [each.ledger for each in parts], parts[0].steps.fenced_by(sa.true())
    finally:
        for store in stores:
            await store.aclose()


async def test_two_replicas_never_spend_the_same_dollar(tmp_path: Path, database_url: str) -> None:
    wanted, waited = Wanted(usd=0.6, then=0.0, reserved=0.0), anyio.Event()
    async with ledgers(tmp_path, database_url, 1.0) as ((one, another), steps), anyio.create_task_group() as tasks:
        assert await one.request_permission("agent-1/step-1", wanted) == (True, None)

        async def wait() -> None:
            assert await another.request_permission("agent-2/step-1", wanted) == (True, None)
            waited.set()

        tasks.start_soon(wait)
        await steps.begin("agent-1/step-1", {})
        for _ in range(2):  # as where the answer to the first commit was lost
            await steps.finish("agent-1/step-1", REQUEST)
        await waited.wait()
        assert await another.total_usd() == 0.2, "it is counted once"
        assert await one.request_permission("agent-3/step-1", Wanted(usd=0.9, then=0.0, reserved=0.0)) == (False, "usd")


async def test_what_a_dead_replica_held_is_released_as_another_one_begins_the_step_again(
    tmp_path: Path, database_url: str
) -> None:
    wanted = Wanted(usd=0.6, then=0.0, reserved=0.0)
    async with ledgers(tmp_path, database_url, 1.0) as ((dead, another), _):
        assert await dead.request_permission("agent-1/step-1", wanted) == (True, None)
        assert await another.request_permission("agent-1/step-1", wanted) == (True, None)
        assert await dead.request_tool_call("agent-2/step-1/tool-1")
        assert not await another.request_tool_call("agent-3/step-1/tool-1")
        assert await another.request_tool_call("agent-2/step-1/tool-1")


async def test_what_an_agent_held_whose_job_is_lost_is_there_for_the_others(
    sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    sim.play(reply({"text": "Tell me about city 1."}, content="It is big."))
    limits, held = SwarmLimits(usd=5.0, launch_interval_s=0), anyio.Event()
    async with cluster(sim, tmp_path, database_url) as both:

        async def dies(job: Job) -> Mapping[str, Any]:
            run_id, _, agent_id = job.id.partition("/")
            shared = await share(both.runs[1].store, run_id, limits, quick(), elapsed_s=0.0)
            wanted = Wanted(usd=4.9999, then=0.0, reserved=0.0)
            assert await shared.ledger.request_permission(f"{agent_id}/step-1", wanted) == (True, None)
            held.set()
            raise JobLost(Internal("It was given up.", fix="Call again."))

        async def waits(job: Job, worker: JobHandler = both.jobs.workers[1]) -> Mapping[str, Any]:
            await held.wait()
            return await worker(job)

        both.jobs.workers[:] = [dies, waits]
        with anyio.fail_after(30):
            run = await both.swarm("Tell me about {{item}}.", items=tuple(ITEMS[:2]), limits=limits, max_cost_usd=5.0)
    assert run.outcome is not None
    assert run.outcome.swarm is not None
    assert [agent["status"] for agent in run.outcome.swarm["agents"]] == ["failed", "completed"]


async def test_whoever_waits_for_money_is_refused_once_the_time_is_over(tmp_path: Path, database_url: str) -> None:
    wanted, now = Wanted(usd=0.6, then=0.0, reserved=0.0), 0.0
    store = RunStore(tmp_path, url=database_url)
    limits, concurrency = SwarmLimits(usd=1.0, seconds=10.0), quick(clock=lambda: now)
    try:
        await begin(store, "run_1")
        shared = (await share(store, "run_1", limits, concurrency, elapsed_s=0.0)).ledger
        alone = BudgetLedger(limits, clock=lambda: now)
        for ledger in (shared, alone):
            now = 0.0
            assert await ledger.request_permission("agent-1/step-1", wanted) == (True, None)
            now = 10.0
            with anyio.fail_after(30):
                assert await ledger.request_permission("agent-2/step-1", wanted) == (False, "seconds")
    finally:
        await store.aclose()
