"""The main agent: it makes sub-agents, gives out tasks, and writes the answer from their messages."""

from __future__ import annotations

import json

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.swarm.scenarios import (
    MAIN_AGENT,
    Tools,
    agents,
    calling,
    chats,
    leading,
    messages,
    reply,
    searching,
    statuses,
    swarm,
)

TWO = (("reader", "Look at A."), ("reader", "Look at B."))


def answered(sim: Simulator, turns: int = 1) -> list[dict[str, str]]:
    """The tool messages that the main agent got before its answer."""
    last = next(request for request in reversed(chats(sim, MAIN_AGENT)))
    found = [message for message in messages(last) if message["role"] == "tool"]
    assert turns == sum(message["role"] == "assistant" for message in messages(last))
    return found


async def test_all_tasks_of_a_turn_run_at_the_same_time(sim: Simulator) -> None:
    sim.play(leading(*TWO), reply({"text": "Look at A."}, gate="both"), reply({"text": "Look at B."}, gate="both"))
    async with anyio.create_task_group() as tasks:

        async def when_both_wait() -> None:
            await sim.until(lambda: sim.waiting_at("both") == 2)
            sim.open_gate("both")

        tasks.start_soon(when_both_wait)
        outcome = await swarm(sim)
        assert outcome.status == "completed"
        assert statuses(outcome) == ["completed", "completed"]


async def test_results_come_back_in_the_order_of_the_calls_under_their_own_ids(sim: Simulator) -> None:
    sim.play(
        leading(*TWO),
        reply({"text": "Look at A."}, content="A is round.", gate="late"),
        reply({"text": "Look at B."}, content="B is square."),
    )
    async with anyio.create_task_group() as tasks:

        async def when_b_is_done() -> None:
            await sim.until(lambda: any(one.outcome == "answered" for one in chats(sim, "Look at B.")))
            sim.open_gate("late")

        tasks.start_soon(when_b_is_done)
        await swarm(sim)
    first, second, third = answered(sim)
    assert [first["tool_call_id"], second["tool_call_id"], third["tool_call_id"]] == [
        "functions.create_subagent:0",
        "functions.assign_task:50",
        "functions.assign_task:51",
    ]
    assert "A is round." in second["content"]
    assert "B is square." in third["content"]


async def test_a_sub_agent_gets_its_system_prompt_and_its_task_as_the_last_user_message(sim: Simulator) -> None:
    sim.play(leading(*TWO))
    await swarm(sim)
    (request,) = chats(sim, "Look at A.")
    system, task = messages(request)
    assert system["role"] == "system"
    assert system["content"].startswith("You are reader.\n\n")
    assert task == {"role": "user", "content": "Look at A."}


async def test_the_prompt_reaches_the_main_agent_verbatim(sim: Simulator) -> None:
    await swarm(sim, "  Compare {A} and {{item}}.\n")
    (request,) = chats(sim)
    assert messages(request)[1] == {"role": "user", "content": "  Compare {A} and {{item}}.\n"}
    assert request.body is not None
    tools = json.loads(json.dumps(request.body["tools"]))
    assert {tool["function"]["name"]: tool["function"]["parameters"]["required"] for tool in tools} == {
        "create_subagent": ["name", "system_prompt"],
        "assign_task": ["agent", "prompt"],
    }


async def test_a_small_question_needs_no_sub_agent(sim: Simulator) -> None:
    outcome = await swarm(sim)
    assert outcome.status == "completed"
    assert agents(outcome) == []
    assert outcome.swarm is not None
    assert (outcome.swarm["steps"], outcome.swarm["critical_steps"]) == (1, 1)


async def test_a_sub_agent_can_be_given_tasks_in_later_turns(sim: Simulator) -> None:
    sim.play(leading(*TWO), leading(("reader", "Look at C."), turn=1))
    outcome = await swarm(sim)
    assert [agent["id"] for agent in agents(outcome)] == ["agent-1", "agent-2", "agent-3"]
    assert {agent["name"] for agent in agents(outcome)} == {"reader"}
    assert len(answered(sim, turns=2)) == 4


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (calling("assign_task", {"agent": "nobody", "prompt": "x"}), "no sub-agent of that name"),
        (calling("assign_task", {"agent": "reader"}), "`agent` and `prompt`"),
        (calling("assign_task", {"agent": "reader", "prompt": "x", "more": "y"}), "`agent` and `prompt`"),
        (calling("assign_task", {"agent": "reader", "prompt": 7}), "`agent` and `prompt`"),
        (calling("create_subagent", {"name": " ", "system_prompt": "x"}), "`name` and `system_prompt`"),
        (calling("create_subagent", {"name": "x\ny", "system_prompt": "x"}), "one line"),
        (calling("launch_rocket", {}), "There is no tool of the name launch_rocket"),
    ],
)
async def test_a_call_that_makes_no_sense_starts_nobody_and_gets_the_reason(
    sim: Simulator, call: dict[str, object], why: str
) -> None:
    sim.play(reply({"system": MAIN_AGENT, "turns": 0}, tool_calls=[call]))
    outcome = await swarm(sim)
    assert outcome.status == "completed"
    assert agents(outcome) == []
    (result,) = answered(sim)
    assert why in result["content"]


async def test_a_name_is_given_once(sim: Simulator) -> None:
    make = [calling("create_subagent", {"name": "a", "system_prompt": prompt}, n) for n, prompt in enumerate("xy")]
    sim.play(reply({"system": MAIN_AGENT, "turns": 0}, tool_calls=make))
    await swarm(sim)
    first, second = answered(sim)
    assert "a is there" in first["content"]
    assert "a already" in second["content"]


async def test_no_more_tasks_are_given_out_than_max_agents_allows(sim: Simulator) -> None:
    sim.play(leading(*(("reader", f"Look at {number}.") for number in range(5))))
    outcome = await swarm(sim, max_agents=3)
    assert len(agents(outcome)) == 3
    assert [("all of its 3 tasks" in each["content"]) for each in answered(sim)] == [False] * 4 + [True] * 2


async def test_a_failed_sub_agent_is_reported_as_such_and_the_others_results_remain(sim: Simulator) -> None:
    sim.play(leading(*TWO), reply({"text": "Look at A."}, status=401), reply({"text": "Look at B."}, content="B."))
    outcome = await swarm(sim)
    assert outcome.status == "completed"
    assert statuses(outcome) == ["failed", "completed"]
    _, first, second = answered(sim)
    assert "agent-1 (reader) failed. auth_failed: " in first["content"]
    assert second["content"] == "agent-2 (reader), completed:\n\nB."


async def test_what_a_broken_sub_agent_had_written_reaches_the_main_agent(sim: Simulator) -> None:
    sim.play(leading(*TWO), reply({"text": "Look at A."}, content="A is rou", no_finish=True))
    outcome = await swarm(sim)
    assert statuses(outcome) == ["failed", "completed"]
    assert "failed (upstream_broken: " in answered(sim)[1]["content"]
    assert "A is rou" in answered(sim)[1]["content"]


async def test_tools_are_named_to_the_main_agent_and_offered_to_sub_agents_alone(sim: Simulator) -> None:
    sim.play(leading(*TWO), *searching("Look at A.", "a"))
    tools = Tools()
    outcome = await swarm(sim, tools=tools)
    assert "these tools: search." in messages(chats(sim, MAIN_AGENT)[0])[0]["content"]
    for request in chats(sim, "Look at "):
        assert request.body is not None
        (offered,) = json.loads(json.dumps(request.body["tools"]))
        assert offered["function"]["name"] == "search"
    assert tools.calls == [("search", {"query": "a"})]
    assert [agent["tool_calls"] for agent in agents(outcome)] == [1, 0]
    assert (tools.opened, tools.closed) == (1, 1), "once a swarm"
    assert outcome.policy == ()


async def test_without_tools_it_works_and_says_so(sim: Simulator) -> None:
    sim.play(leading(*TWO))
    outcome = await swarm(sim)
    assert outcome.status == "completed"
    assert [entry.rule for entry in outcome.policy] == ["swarm-tools"]
    assert "no tools" in outcome.policy[0].why
    assert "Sub-agents have no tools" in messages(chats(sim, MAIN_AGENT)[0])[0]["content"]
    assert "You have no tools" in messages(chats(sim, "Look at A.")[0])[0]["content"]


async def test_the_warnings_of_the_tools_are_in_the_result(sim: Simulator) -> None:
    outcome = await swarm(sim, tools=Tools(warnings=("The server maps did not start.",)))
    assert [(entry.rule, entry.action, entry.why) for entry in outcome.policy] == [
        ("swarm-tools", "warned", "The server maps did not start.")
    ]
