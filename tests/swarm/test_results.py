"""The report of a swarm: its block, its usage and cost, its progress, and what is left when it is cancelled."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.outcome import structured, text
from kimi_mcp.core.types import Completion, Usage
from kimi_mcp.runs import Run
from kimi_mcp.runs.store.records import JSON
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm import SwarmCall, run_swarm
from kimi_mcp.swarm.stats import StepResult, SwarmStats
from tests.swarm.memory_steps import MemorySteps
from tests.swarm.scenarios import (
    MAIN_AGENT,
    SYNTHESIS,
    Tools,
    agents,
    chats,
    leading,
    messages,
    no_tools,
    pipeline_and_runs,
    quick,
    reply,
    searching,
    statuses,
    swarm,
)

TASKS = (("reader", "Look at A."), ("critic", "Look at B."))


def step(took: float, waited: float = 0.0) -> StepResult:
    """A step of that many seconds."""
    usage = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=2, total_tokens=15)
    return StepResult(
        completion=Completion(finish_reason="stop", usage=usage), attempts=1, pieces=5, took_s=took, waited_s=waited
    )


def test_critical_steps_are_the_main_agents_and_the_longest_of_each_stage() -> None:
    stats = SwarmStats()
    for stage in ((3, 1), (2, 5, 4), ()):
        stats.add(stats.main, step(1.0))
        for steps in stage:
            agent = stats.add_agent("x")
            for _ in range(steps):
                stats.add(agent, step(1.0))
    block = stats.block()
    assert block["steps"] == 3
    assert block["critical_steps"] == (1 + 3) + (1 + 5) + 1
    assert block["speedup"] == round(18 / 11, 2)


def test_waiting_for_its_turn_makes_a_swarm_slower_and_one_agent_not() -> None:
    stats = SwarmStats()
    stats.add(stats.main, step(1.0))
    for waited in (0.0, 3.0):
        stats.add(stats.add_agent("x"), step(2.0, waited))
    assert stats.block()["speedup"] == round(5 / 6, 2)


def test_a_swarm_without_a_step_has_no_speedup() -> None:
    assert SwarmStats().block() == {"agents": [], "steps": 0, "critical_steps": 0, "speedup": None}


async def test_usage_and_cost_sum_all_requests(sim: Simulator) -> None:
    sim.play(leading(*TASKS), *searching("Look at A.", "a", "b"))
    outcome = await swarm(sim, tools=Tools())
    parts = [agent["usage"] for agent in agents(outcome)]
    assert outcome.usage is not None
    assert outcome.usage.prompt_tokens is not None
    assert outcome.usage.prompt_tokens > sum(part["prompt_tokens"] for part in parts) > 0
    assert outcome.usage.total_tokens == outcome.usage.prompt_tokens + (outcome.usage.completion_tokens or 0)
    assert outcome.usage.reasoning_tokens is None, "the upstream did not say"
    cached = outcome.usage.cached_tokens or 0
    by_hand = (outcome.usage.prompt_tokens - cached) * 0.60 + cached * 0.10
    by_hand += (outcome.usage.completion_tokens or 0) * 3.00
    assert outcome.cost_usd == pytest.approx(by_hand / 1e6)
    assert outcome.timing.attempts == len(chats(sim)) == 6


async def test_a_request_that_brought_nothing_makes_no_number_unknown(sim: Simulator) -> None:
    sim.play(leading(*TASKS), reply({"text": "Look at A."}, status=401))
    outcome = await swarm(sim)
    assert outcome.usage is not None
    assert outcome.usage.total_tokens
    assert agents(outcome)[0]["usage"]["total_tokens"] == 0


async def test_tokens_that_nobody_counted_are_null(sim: Simulator) -> None:
    sim.play(leading(*TASKS), reply({"text": "Look at A."}, usage="missing"))
    outcome = await swarm(sim)
    assert agents(outcome)[0]["usage"]["total_tokens"] is None
    assert agents(outcome)[1]["usage"]["total_tokens"]
    assert outcome.usage is None or outcome.usage.total_tokens is None
    assert outcome.cost_usd is None


async def test_the_model_that_answered_is_the_one_that_is_paid(sim: Simulator) -> None:
    sim.play(reply({"system": MAIN_AGENT}, answer_model="kimi-k3"))
    outcome = await swarm(sim)
    assert outcome.usage is not None
    by_hand = (outcome.usage.prompt_tokens or 0) * 3.00 + (outcome.usage.completion_tokens or 0) * 15.00
    assert outcome.cost_usd == pytest.approx(by_hand / 1e6)
    assert (outcome.model_sent, outcome.model_answered) == ("kimi-k2.5", "kimi-k3")
    assert "model-answered" in [entry.rule for entry in outcome.policy]


async def test_progress_tells_agents_steps_tokens_and_cost(sim: Simulator) -> None:
    sim.play(
        leading(*TASKS),
        reply({"text": "Look at A."}, status=401),
        reply({"text": "Look at B."}, gate="b", gate_at="finish", content="B is"),
    )
    async with pipeline_and_runs(sim) as (pipeline, runs):
        run = Run(caller="a test", tool="kimi_swarm", prompt="p")
        runs.start(run, lambda run: run_swarm(SwarmCall(prompt="p"), run, pipeline, concurrency=quick()))
        await sim.until(lambda: sim.waiting_at("b") == 1)
        with anyio.fail_after(60):
            while "1 running, 1 failed" not in run.phase() or "about" not in run.phase():
                await anyio.lowlevel.checkpoint()
        assert run.phase().startswith("2 agents: 1 running, 1 failed · 2 steps · about ")
        assert " USD · " in run.phase()
        snapshot = run.snapshot()
        assert snapshot.status == "running"
        assert statuses(snapshot) == ["failed", "running"]
        assert "(2 agents: 1 running, 1 failed)" in text(snapshot)
        sim.open_gate("b")
        await run.done.wait()
        assert run.outcome is not None
        assert statuses(run.outcome) == ["failed", "completed"]


async def test_cancelling_closes_every_sub_agents_request(sim: Simulator) -> None:
    items = tuple(f"city {number}" for number in range(40))
    sim.play(reply({"text": "Tell me"}, gate="never", gate_at="content"))
    async with pipeline_and_runs(sim, KIMI_BUDGET_USD_PER_SWARM="100") as (pipeline, runs):
        run = Run(caller="a test", tool="kimi_swarm", prompt="p")
        call = SwarmCall(prompt="Tell me about {{item}}.", items=items)
        runs.start(run, lambda run: run_swarm(call, run, pipeline, concurrency=quick()))
        await sim.until(lambda: sim.waiting_at("never") == 40)
        run.cancel_soon()
        await sim.client_gone(40)
        await run.done.wait()
        assert run.outcome is not None
        assert run.outcome.status == "cancelled"
        assert statuses(run.outcome) == ["cancelled"] * 40
        assert run.outcome.timing.attempts == 40


async def test_cancelling_ends_tools_that_hang(sim: Simulator) -> None:
    sim.play(leading(*TASKS), *searching("Look at A.", "a"))
    tools = Tools()
    tools.source.held = anyio.Event()
    async with pipeline_and_runs(sim) as (pipeline, runs):
        run = Run(caller="a test", tool="kimi_swarm", prompt="p")
        runs.start(run, lambda run: run_swarm(SwarmCall(prompt="p"), run, pipeline, concurrency=quick(), tools=tools))
        with anyio.fail_after(60):
            while not tools.calls:
                await anyio.lowlevel.checkpoint()
            run.cancel_soon()
            await run.done.wait()
        assert tools.closed == 1


async def test_a_toolbox_that_fails_costs_that_agent_alone(sim: Simulator) -> None:
    class Broken(Tools):
        async def call(self, name: str, arguments: str):
            raise RuntimeError("of somebody else's making")

    sim.play(leading(*TASKS), *searching("Look at A.", "a"))
    outcome = await swarm(sim, tools=Broken())
    assert statuses(outcome) == ["failed", "completed"]
    assert outcome.status == "completed"
    assert "somebody else" not in str(structured(outcome, reasoning_chars=100))


async def test_the_main_agents_failure_is_the_swarms(sim: Simulator) -> None:
    sim.play(reply({"system": MAIN_AGENT}, status=401))
    outcome = await swarm(sim)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "auth_failed")


async def test_where_the_main_agent_fails_at_the_end_what_the_others_found_is_kept(sim: Simulator) -> None:
    sim.play(
        leading(*TASKS),
        reply({"text": "Look at A."}, content="A is round."),
        reply({"system": MAIN_AGENT}, status=401),
    )
    outcome = await swarm(sim)
    assert outcome.status == "partial"
    assert "A is round." in outcome.answer
    assert outcome.error is not None
    assert outcome.error.code == "auth_failed"


async def test_a_swarm_that_is_stopped_while_its_tools_end_has_its_whole_answer(sim: Simulator) -> None:
    class Slow(Tools):
        ending = anyio.Event()

        async def __aexit__(self, *ended: object) -> None:
            self.ending.set()
            await anyio.sleep_forever()

    tools = Slow()
    sim.play(leading(*TASKS), reply({"system": MAIN_AGENT}, content="A and B."))
    async with pipeline_and_runs(sim) as (pipeline, runs):
        run = Run(caller="a test", tool="kimi_swarm", prompt="p")
        runs.start(run, lambda run: run_swarm(SwarmCall(prompt="p"), run, pipeline, concurrency=quick(), tools=tools))
        with anyio.fail_after(60):
            await tools.ending.wait()
            await run.cancel()
    assert run.outcome is not None
    assert (run.outcome.status, run.outcome.answer, run.outcome.error) == ("completed", "A and B.", None)


async def test_where_nothing_is_written_down_a_server_that_ends_leaves_nobody_to_go_on(sim: Simulator) -> None:
    sim.play(reply({"text": "about A"}, content="A is round."), reply({"text": "about B"}, gate="never"))
    run = Run(caller="a test", tool="kimi_swarm", prompt="p")
    call = SwarmCall(prompt="Tell me about {{item}}.", items=("A", "B"))
    async with pipeline_and_runs(sim) as (pipeline, runs):
        runs.start(run, lambda run: run_swarm(call, run, pipeline, concurrency=quick(), tools=no_tools))
        await sim.until(lambda: sim.waiting_at("never") == 1)
        with anyio.fail_after(60):
            while run.progress is None or "1 running, 1 done" not in run.phase():
                await anyio.sleep(0.005)
    assert not runs.left
    assert run.outcome is not None
    assert (run.outcome.status, statuses(run.outcome)) == ("partial", ["completed", "cancelled"])
    assert "A is round." in run.outcome.answer
    assert run.outcome.error is not None
    assert "The server was stopped" in run.outcome.error.message


class Forgetful(MemorySteps):
    """A record that takes no more of one agent's requests from some moment on."""

    def __init__(self, agent: str, call: str) -> None:
        super().__init__()
        self._agent, self._call = agent, call

    async def begin(self, key: str, description: JSON) -> JSON | None:
        return self._taken("begin", key) or await super().begin(key, description)

    async def finish(self, key: str, result: JSON) -> None:
        self._taken("finish", key)
        await super().finish(key, result)

    def _taken(self, call: str, key: str) -> None:
        if call == self._call and key.startswith(self._agent):
            raise NotConfigured("The store is locked.", fix="Close what holds it open.")


async def test_where_the_record_takes_no_more_of_the_main_agent_what_the_others_found_is_kept(sim: Simulator) -> None:
    sim.play(reply({"text": "about A"}, content="A is round."), reply({"text": "about B"}, content="B is not."))
    sim.play(reply({"system": "Several agents"}, content="One of two."))
    outcome = await swarm(sim, "Tell me about {{item}}.", items=("A", "B"), steps=Forgetful("main", "begin"))
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("partial", "not_configured")
    assert "A is round." in outcome.answer
    assert "B is not." in outcome.answer
    assert not chats(sim, "Several agents"), "a step that can't be begun in the record is not paid for"


async def test_a_last_answer_that_the_record_does_not_take_is_the_swarms_answer(sim: Simulator) -> None:
    sim.play(reply({"text": "about A"}, content="A is round."), reply({"system": SYNTHESIS}, content="One."))
    outcome = await swarm(sim, "Tell me about {{item}}.", items=("A", "B"), steps=Forgetful("main", "finish"))
    assert (outcome.status, outcome.answer) == ("completed", "One.")


async def test_an_answer_that_the_record_never_takes_is_counted_and_nothing_more_is_paid_for(sim: Simulator) -> None:
    sim.play(reply({"text": "about A"}, content="A is round."), reply({"text": "about B"}, content="B is not."))
    outcome = await swarm(sim, "Tell me about {{item}}.", items=("A", "B"), steps=Forgetful("agent-1", "finish"))
    assert statuses(outcome) == ["completed", "completed"]
    assert [agent["steps"] for agent in agents(outcome)] == [1, 1]
    assert outcome.timing.attempts == len(chats(sim)) == 2
    assert outcome.cost_usd is not None
    assert outcome.status == "partial", "a synthesis could not be resumed without them"
    assert "A is round." in outcome.answer


async def test_a_tool_call_that_the_record_does_not_take_is_reported_in_the_records_words(sim: Simulator) -> None:
    sim.play(leading(*TASKS), *searching("Look at A.", "a"))
    await swarm(sim, tools=Tools(), steps=Forgetful("agent-1/step-1/tool", "begin"))
    last = messages(chats(sim, MAIN_AGENT)[-1])
    assert "agent-1 (reader) failed. not_configured: The store is locked." in str(last)


def test_what_was_recorded_is_read_back_the_same() -> None:
    one = step(1.5, 0.25)
    assert StepResult.from_json(one.as_json()) == one


def test_what_a_newer_version_recorded_of_a_request_is_read_without_what_it_added() -> None:
    one = step(1.5, 0.25)
    assert StepResult.from_json(with_news(one.as_json())) == one


def with_news(record: Any) -> Any:
    """The record as a newer version would write it: each object in it has one more field."""
    if isinstance(record, dict):
        return {"news": 1} | {name: with_news(value) for name, value in record.items()}
    return [with_news(each) for each in record] if isinstance(record, list | tuple) else record
