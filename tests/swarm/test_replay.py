"""A swarm that is replayed from its record repeats every decision and no request, wherever it was killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs import Run
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm import SwarmCall
from tests.swarm.memory_steps import MemorySteps
from tests.swarm.scenarios import Dying, Tools, agents, calling, chats, leading, reply, searching, statuses, swarm

TASKS = (("reader", "Look at A."), ("reader", "Look at B."), ("critic", "Look at C."))


def play(sim: Simulator) -> None:
    """Two stages, tool loops of several steps, calls side by side, a call that is refused, an agent that fails."""
    both = [calling("search", {"query": query}, number) for number, query in enumerate(("b1", "b2"))]
    sim.play(
        leading(*TASKS),
        *searching("Look at A.", "a1", "a2", "a3"),
        reply({"text": "Look at B.", "turns": 0}, tool_calls=[*both, calling("erase", {}, 9)]),
        reply({"text": "Look at B."}, content="B."),
        reply({"text": "Look at C."}, status=401),
        leading(("critic", "Look at D."), turn=1),
        *searching("Look at D.", "d1"),
        reply({"system": "You lead a swarm", "turns": 2}, content="All in all."),
    )


def facts(outcome: Outcome) -> dict[str, Any]:
    """What two swarms that took the same way have in common; how much the provider had cached is its own affair."""
    return {
        "status": outcome.status,
        "answer": outcome.answer,
        "reasoning": outcome.reasoning,
        "agents": [{key: agent[key] for key in ("id", "name", "status", "steps", "tool_calls")}
                   for agent in agents(outcome)],
        "steps": outcome.swarm and outcome.swarm["steps"],
        "critical_steps": outcome.swarm and outcome.swarm["critical_steps"],
        "prompt_tokens": outcome.usage and outcome.usage.prompt_tokens,
        "completion_tokens": outcome.usage and outcome.usage.completion_tokens,
        "attempts": outcome.timing.attempts,
        "policy": [entry.rule for entry in outcome.policy],
    }  # fmt: skip


async def killed_at(sim: Simulator, event: int, results: Mapping[str, Any], tools: Tools) -> Dying:
    """The record of a swarm that was killed at that event, or ended before."""
    run = Run(caller="a test", tool="kimi_swarm", prompt="p")
    steps = Dying(results, event, run.cancel_soon)
    await swarm(sim, steps=steps, tools=tools, run=run)
    return steps


async def test_a_replayed_swarm_requests_nothing_and_reports_the_same(sim: Simulator) -> None:
    play(sim)
    steps, tools = MemorySteps(), Tools()
    first = await swarm(sim, steps=steps, tools=tools)
    requests, called = len(chats(sim)), len(tools.calls)
    again = await swarm(sim, steps=steps, tools=tools)
    assert len(chats(sim)) == requests
    assert len(tools.calls) == called
    assert facts(again) == facts(first)
    assert again.swarm == first.swarm, "speed-up and usage come from the record too"
    assert again.cost_usd == first.cost_usd


async def test_every_record_is_plain_json(sim: Simulator) -> None:
    play(sim)
    steps = MemorySteps()
    first = await swarm(sim, steps=steps, tools=Tools())
    kept = MemorySteps()
    kept.results = json.loads(json.dumps(steps.results))
    assert json.loads(json.dumps(steps.descriptions)) == steps.descriptions
    assert (await swarm(sim, steps=kept, tools=Tools())).swarm == first.swarm


async def test_step_keys_are_stable_and_say_which_step_it_is(sim: Simulator) -> None:
    play(sim)
    steps = MemorySteps()
    await swarm(sim, steps=steps, tools=Tools())
    assert set(steps.results) == set(steps.descriptions)
    assert {key for key in steps.results if "tool" not in key} == {
        *("main/step-1", "main/step-2", "main/step-3"),
        *(f"agent-1/step-{number}" for number in range(1, 5)),
        *("agent-2/step-1", "agent-2/step-2", "agent-3/step-1", "agent-4/step-1", "agent-4/step-2"),
    }
    assert {key for key in steps.results if key.startswith("agent-2/step-1/")} == {
        f"agent-2/step-1/tool-{number}" for number in (1, 2, 3)
    }
    assert steps.descriptions["agent-1/step-1"]["task"] == "Look at A."


@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.soak)])
async def test_killed_at_any_event_it_continues_from_there_and_repeats_nothing(sim: Simulator, every: int) -> None:
    play(sim)
    whole, tools = MemorySteps(), Tools()
    unkilled = await swarm(sim, steps=whole, tools=tools)
    requests = sum("tool" not in key for key in whole.results)
    calls = len(tools.calls)
    assert requests == len(chats(sim))
    event = 1 - every
    while True:
        event += every
        sim.reset()
        play(sim)
        tools = Tools()
        dead = await killed_at(sim, event, {}, tools)
        if dead.events < event:
            break
        finished = set(dead.results)
        begun = set(dead.descriptions) - finished
        in_flight = {key.partition("/")[0] for key in begun}
        kept = MemorySteps()
        kept.results = dict(dead.results)
        resumed = await swarm(sim, steps=kept, tools=tools)
        assert facts(resumed) == facts(unkilled), f"killed at event {event}"
        assert set(kept.results) == set(whole.results)
        assert len(chats(sim)) <= requests + len(in_flight), f"killed at event {event}"
        assert len(tools.calls) <= calls + len([key for key in begun if "tool" in key])
        assert all(kept.results[key] == dead.results[key] for key in finished), "what is recorded stays"
    assert event > 60


async def test_killed_again_and_again_it_comes_to_its_end(sim: Simulator) -> None:
    play(sim)
    unkilled = await swarm(sim, tools=Tools())
    sim.reset()
    play(sim)
    results: Mapping[str, Any] = {}
    tools, servers = Tools(), 0
    while True:
        servers += 1
        dead = await killed_at(sim, 2 * len(results) + 9, results, tools)
        if dead.results.keys() == results.keys():
            break
        results = dead.results
    assert servers > 3
    kept = MemorySteps()
    kept.results = dict(results)
    assert facts(await swarm(sim, steps=kept, tools=tools)) == facts(unkilled)


@pytest.mark.soak
@pytest.mark.parametrize("event", range(4, 36, 3))
async def test_items_are_taken_up_again_too(sim: Simulator, event: int) -> None:
    items = tuple(f"city {number}" for number in range(8))
    sim.play(reply({"text": "city 3"}, content="Three."), reply({"system": "Several agents"}, content="In all."))
    tell = "Tell me about {{item}}."
    run = Run(caller="a test", tool="kimi_swarm", prompt="p")
    dead = Dying({}, event, run.cancel_soon)
    await swarm(sim, tell, items=items, steps=dead, run=run)
    kept = MemorySteps()
    kept.results = dict(dead.results)
    before = len(chats(sim))
    resumed = await swarm(sim, tell, items=items, steps=kept)
    assert resumed.status == "completed"
    assert len(chats(sim)) - before == 9 - len(dead.results)


async def test_a_swarm_that_is_taken_up_where_its_tools_are_not_goes_the_same_way(sim: Simulator) -> None:
    """Hosts differ: what the tools brought stands, and a call that is still to be made is answered in words."""
    play(sim)
    steps, run = MemorySteps(), Run(caller="a test", tool="kimi_swarm", prompt="p")
    first = await swarm(sim, steps=steps, tools=Tools(), run=run)
    requests = len(chats(sim))
    assert run.task is not None
    begun = SwarmCall.from_json(json.loads(json.dumps(run.task)))
    for key in ("agent-1/step-3/tool-1", "agent-1/step-4"):
        del steps.results[key]
    again = await swarm(sim, steps=steps, tools=Tools(definitions=()), known_definitions=begun.known_definitions)
    assert len(chats(sim)) == requests + 1, "the one step that was not on record"
    assert "search did not run" in steps.results["agent-1/step-3/tool-1"]["text"]
    assert statuses(again) == statuses(first)
    assert [agent["tool_calls"] for agent in agents(again)] == [2, 2, 0, 1]
    assert '"tools": [' in json.dumps(chats(sim)[-1].body)


async def test_the_limits_decide_a_step_once_and_for_all(sim: Simulator) -> None:
    """The requests of an agent are in the record: another budget at the replay changes none."""
    play(sim)
    steps, tight = MemorySteps(), {"KIMI_BUDGET_USD_PER_SWARM": "0.12"}
    first = await swarm(sim, steps=steps, tools=Tools(), variables=tight)
    assert first.status == "partial"
    requests = len(chats(sim))
    again = await swarm(sim, steps=steps, tools=Tools(), variables={"KIMI_BUDGET_USD_PER_SWARM": "100"})
    assert len(chats(sim)) == requests
    assert facts(again) == facts(first)


@pytest.mark.parametrize(
    "changed",
    [
        {"known_servers": 5},
        {"prompt": 5},
        {"prompt": None},
        {"items": "ab"},
        {"tools": [5]},
        {"max_steps": "many"},
        {"known_definitions": {"look": {}}},
        {"of_a_later_version": 1},
    ],
    ids=str,
)
def test_a_task_with_wrong_types_is_of_another_version(changed: dict[str, object]) -> None:
    task = asdict(SwarmCall(prompt="Hi.", items=("a", "b"), tools=("look",), known_servers=("odd",)))
    assert SwarmCall.from_json(json.loads(json.dumps(task))).items == ("a", "b")
    with pytest.raises(NotConfigured, match="another version"):
        SwarmCall.from_json({**task, **changed})


def test_a_task_that_lacks_what_every_swarm_has_is_of_another_version() -> None:
    with pytest.raises(NotConfigured, match="another version"):
        SwarmCall.from_json({"prompt": "Hi."})
