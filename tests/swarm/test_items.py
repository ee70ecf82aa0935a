"""Items: one sub-agent each, results in order, then one synthesis; and every list of items that makes no sense."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm.call import SwarmCall, check_items
from kimi_mcp.swarm.limits import SwarmLimits
from tests.swarm.scenarios import SYNTHESIS, Tools, agents, chats, messages, reply, searching, statuses, swarm, task_of

CITIES = ("Rome", "Oslo", "Lima")
TELL = "Tell me about {{item}}, and only about {{item}}."


def refused(prompt: str, *items: str, **more: Any) -> InvalidArguments:
    with pytest.raises(InvalidArguments) as raised:
        check_items(SwarmCall(prompt=prompt, items=items, **more))
    return raised.value


async def test_each_item_gets_a_sub_agent_and_one_synthesis_follows(sim: Simulator) -> None:
    outcome = await swarm(sim, TELL, items=CITIES)
    assert outcome.status == "completed"
    sent = [task_of(request) for request in chats(sim)]
    assert sorted(sent[:3]) == sorted(f"Tell me about {city}, and only about {city}." for city in CITIES)
    assert len(sent) == 4, "no main agent gives out the work"
    assert len(chats(sim, SYNTHESIS)) == 1
    assert [agent["name"] for agent in agents(outcome)] == list(CITIES)
    assert outcome.swarm is not None
    assert (outcome.swarm["steps"], outcome.swarm["critical_steps"]) == (1, 2)


async def test_the_synthesis_gets_the_results_in_the_order_of_the_items(sim: Simulator) -> None:
    sim.play(*(reply({"text": f"only about {city}"}, content=f"<{city}>", gate=city) for city in CITIES))
    sim.play(reply({"system": SYNTHESIS}, content="All three."))
    async with anyio.create_task_group() as tasks:

        async def backwards() -> None:
            for number, city in enumerate(reversed(CITIES), 1):
                await sim.until(lambda city=city: sim.waiting_at(city) == 1)
                sim.open_gate(city)
                await sim.until(lambda n=number: sum(one.outcome == "answered" for one in chats(sim)) >= n)

        tasks.start_soon(backwards)
        outcome = await swarm(sim, TELL, items=CITIES)
        assert outcome.answer == "All three."
    prompt = task_of(chats(sim, SYNTHESIS)[0])
    places = [prompt.index(f"<{city}>") for city in CITIES]
    assert places == sorted(places)
    assert TELL in prompt


async def test_a_failed_item_is_named_and_the_others_are_put_together(sim: Simulator) -> None:
    sim.play(reply({"text": "only about Oslo"}, status=401))
    outcome = await swarm(sim, TELL, items=CITIES)
    assert outcome.status == "partial"
    assert outcome.error is not None
    assert outcome.error.code == "auth_failed"
    assert "Incomplete: agent-2 (Oslo)." in outcome.error.message
    assert statuses(outcome) == ["completed", "failed", "completed"]
    assert "agent-2 (Oslo) failed. auth_failed" in task_of(chats(sim, SYNTHESIS)[0])
    assert outcome.answer


async def test_where_every_item_failed_nothing_is_put_together(sim: Simulator) -> None:
    sim.play(reply({"text": "only about"}, status=401))
    outcome = await swarm(sim, TELL, items=CITIES)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.code == "auth_failed"
    assert not chats(sim, SYNTHESIS)


async def test_where_the_synthesis_fails_the_results_are_the_answer(sim: Simulator) -> None:
    sim.play(*(reply({"text": f"only about {city}"}, content=f"<{city}>") for city in CITIES))
    sim.play(reply({"system": SYNTHESIS}, status=401))
    outcome = await swarm(sim, TELL, items=CITIES)
    assert outcome.status == "partial", "nothing that was paid for is lost"
    assert [outcome.answer.count(f"<{city}>") for city in CITIES] == [1, 1, 1]
    assert outcome.error is not None
    assert outcome.error.code == "auth_failed"


async def test_the_items_sub_agents_have_the_tools(sim: Simulator) -> None:
    sim.play(*searching("only about Rome", "forum"))
    tools = Tools()
    outcome = await swarm(sim, TELL, items=CITIES, tools=tools)
    assert tools.calls == [("search", {"query": "forum"})]
    assert [agent["steps"] for agent in agents(outcome)] == [2, 1, 1]
    assert outcome.swarm is not None
    assert outcome.swarm["critical_steps"] == 3
    assert "tools" not in (chats(sim, SYNTHESIS)[0].body or {})


@pytest.mark.soak
async def test_results_too_long_for_one_request_are_shortened_visibly(sim: Simulator) -> None:
    long = {city: f"begin {city} " + "x" * 600_000 + f" end {city}" for city in CITIES}
    sim.play(*(reply({"text": f"only about {city}"}, content=text) for city, text in long.items()))
    outcome = await swarm(
        sim, TELL, items=CITIES, variables={"KIMI_BUDGET_USD_PER_SWARM": "100"}, limits=SwarmLimits(step_tokens=200_000)
    )
    assert outcome.status == "completed", outcome.error
    prompt = task_of(chats(sim, SYNTHESIS)[0])
    for city in CITIES:
        assert f"begin {city}" in prompt
        assert f"end {city}" in prompt
    assert prompt.count("characters in all") == 3


@pytest.mark.parametrize("count", [2, 128])
def test_two_to_128_items_are_taken(count: int) -> None:
    items = tuple(f"item {number}" for number in range(count))
    assert len(set(check_items(SwarmCall(prompt=TELL, items=items)).tasks)) == count


@pytest.mark.parametrize("count", [1, 129])
def test_fewer_and_more_are_refused_with_the_numbers(count: int) -> None:
    error = refused(TELL, *(f"item {number}" for number in range(count)))
    assert str(count) in error.message
    assert "2 to 128" in error.message


def test_a_prompt_without_the_place_for_an_item_is_refused() -> None:
    error = refused("Tell me.", "a", "b")
    assert "{{item}}" in error.message
    assert "{{item}}" in error.fix


@pytest.mark.parametrize("second", ["a", " a", "a\n"])
def test_an_item_that_stands_there_twice_is_refused(second: str) -> None:
    assert "`items[0]` and `items[2]` are the same" in refused(TELL, "a", "b", second).message


def test_more_items_than_max_agents_are_refused() -> None:
    error = refused(TELL, "a", "b", "c", max_agents=2)
    assert "3 entries" in error.message
    assert "`max_agents`" in error.fix


def test_an_item_that_looks_like_the_place_is_put_in_as_it_is() -> None:
    assert SwarmCall(prompt="x {{item}}", items=("{{item}}", "b")).tasks == ("x {{item}}", "x b")


async def test_a_sub_agent_of_an_item_has_a_system_prompt_and_its_task_last(sim: Simulator) -> None:
    await swarm(sim, TELL, items=CITIES)
    request = next(each for each in chats(sim) if task_of(each) == "Tell me about Rome, and only about Rome.")
    assert [message["role"] for message in messages(request)] == ["system", "user"]
