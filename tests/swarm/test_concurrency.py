"""The concurrency: agents are launched in stages, a rate limit halves what runs at once, successes give it back."""

from __future__ import annotations

import anyio
import pytest

from kimi_mcp.core.errors import UpstreamUnreachable
from kimi_mcp.core.types import Completion, Request
from kimi_mcp.pipeline.call import Call
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.pipeline.route import Route
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs import Run
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm import SwarmCall, run_swarm
from kimi_mcp.swarm.limits import SwarmConcurrency, SwarmLimits
from kimi_mcp.swarm.step_runner import UNREACHABLE_DELAYS_S
from tests.loop_time import others_wait
from tests.swarm.scenarios import (
    SYNTHESIS,
    Tools,
    agents,
    chats,
    pipeline_and_runs,
    quick,
    reply,
    searching,
    statuses,
    swarm,
)

TELL = "Tell me about {{item}}."


def city(number: int) -> str:
    return f"city {number}"


async def test_five_begin_at_once_and_then_one_at_a_time() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(round(seconds, 1))

    concurrency = SwarmConcurrency(
        64, SwarmLimits(launch_burst=5, launch_interval_s=0.7), sleep=sleep, clock=lambda: 1_000.0
    )
    for _ in range(8):
        await concurrency.wait_for_launch()
    assert waits == [0.7, 1.4, 2.1], "seconds after the first five"


async def test_one_place_of_the_servers_is_left_for_others() -> None:
    assert SwarmConcurrency(16).capacity == 15
    assert SwarmConcurrency(1).capacity == 1, "but there is always one"


async def test_a_wave_of_rate_limits_halves_once_and_successes_give_back_slowly() -> None:
    concurrency = SwarmConcurrency(17)
    generation = concurrency.generation
    for _ in range(5):
        concurrency.rate_limited(generation)
    assert concurrency.capacity == 8
    concurrency.rate_limited(concurrency.generation)
    assert concurrency.capacity == 4, "what went out afterwards is another generation"
    for _ in range(4):
        concurrency.succeeded()
    assert 4.8 < concurrency.capacity < 5.1, "one more after as many as are allowed"
    for _ in range(1_000):
        concurrency.succeeded()
    assert concurrency.capacity == 16
    for _ in range(20):
        concurrency.rate_limited(concurrency.generation)
    assert concurrency.capacity == 1


async def test_no_more_requests_are_under_way_than_there_are_places(sim: Simulator) -> None:
    sim.play({"match": {"text": "Tell me"}, "times": "always", "gate": "all"})
    async with anyio.create_task_group() as tasks:

        async def look() -> None:
            await sim.until(lambda: sim.waiting_at("all") == 3)
            await others_wait()
            assert sim.waiting_at("all") == 3
            sim.open_gate("all")

        tasks.start_soon(look)
        outcome = await swarm(sim, TELL, items=tuple(map(city, range(9))), concurrency=quick(4))
        assert outcome.status == "completed"


async def test_a_request_that_was_limited_is_made_again_and_nobody_fails(sim: Simulator) -> None:
    limited = {"status": 429, "error_type": "rate_limit_reached_error"}
    sim.play({"match": {"text": "Tell me about city 0."}, "times": 7, **limited})
    concurrency = quick(16)
    outcome = await swarm(sim, TELL, items=tuple(map(city, range(6))), concurrency=concurrency)
    assert outcome.status == "completed", outcome.error
    assert statuses(outcome) == ["completed"] * 6
    assert len(chats(sim)) == outcome.timing.attempts == 7 + 6 + 1
    assert all(agent["steps"] == 1 for agent in agents(outcome)), "a step is made once, however often it is tried"
    assert concurrency.capacity < 15


async def test_an_agent_that_stays_limited_gets_the_reason(sim: Simulator) -> None:
    limited = {"status": 429, "error_type": "rate_limit_reached_error", "retry_after": 3600}
    sim.play({"match": {"text": "Tell me about city 0"}, "times": "always", **limited})
    outcome = await swarm(sim, TELL, items=(city(0), city(1)), concurrency=quick())
    assert statuses(outcome) == ["failed", "completed"]
    assert outcome.status == "partial"
    assert outcome.error is not None
    assert outcome.error.code == "rate_limited"


async def test_a_swarm_leaves_a_slot_for_a_single_call(sim: Simulator) -> None:
    sim.play({"match": {"text": "Tell me"}, "times": "always", "gate": "never"})
    items = tuple(map(city, range(20)))
    async with pipeline_and_runs(sim, KIMI_MAX_CONCURRENCY="4") as (pipeline, runs):
        big = Run(caller="a test", tool="kimi_swarm", prompt=TELL)
        call = SwarmCall(prompt=TELL, items=items)
        runs.start(big, lambda run: run_swarm(call, run, pipeline, concurrency=quick(4)))
        await sim.until(lambda: sim.waiting_at("never") == 3)
        small = Run(caller="a test", tool="kimi_instant", prompt="hi")
        runs.start(small, lambda run: pipeline.run(Call(mode="instant", prompt="hi"), run))
        await small.done.wait()
        assert small.outcome is not None
        assert small.outcome.status == "completed"


async def test_an_agent_that_had_an_answer_waits_for_a_provider_that_is_unreachable_for_a_while(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, tried = Pipeline.step, list[int]()

    async def cut_off(self: Pipeline, request: Request, route: Route, state: RequestState) -> Completion:
        if len(request.turns) > 2:
            tried.append(len(request.turns))
            if len(tried) <= len(UNREACHABLE_DELAYS_S):
                raise UpstreamUnreachable("Nobody answers.", fix="Look at the network.")
        return await step(self, request, route, state)

    monkeypatch.setattr(Pipeline, "step", cut_off)
    sim.play(reply({"system": SYNTHESIS}, content="Both are round."))  # it holds what the agents were asked
    sim.play(*searching("about A", "a"), reply({"text": "about B"}, content="B is round."))
    outcome = await swarm(sim, "Tell me about {{item}}.", items=("A", "B"), tools=Tools())
    assert outcome.status == "completed", outcome.error
    assert len(tried) == len(UNREACHABLE_DELAYS_S) + 1
    assert len(chats(sim)) == 4
