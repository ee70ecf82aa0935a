"""A swarm that may cost more than ``KIMI_CONFIRM_ABOVE_USD`` asks its host's user before it begins."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, connect, connect_newest
from tests.server.requests import chats
from tests.server.test_swarm import CITIES, TELL
from tests.server.users import User

ABOVE: dict[str, Any] = {"KIMI_CONFIRM_ABOVE_USD": "0.5"}


def impatient() -> ServerOptions:
    """Of a server that waits for no user."""
    return ServerOptions(timings=Timings(warm_up_after_s=3600, answer_s=0.05))


async def test_an_accepted_swarm_runs_after_one_question(sim: Simulator, mode: str) -> None:
    user = User("accept")
    async with connect(sim, mode, user=user, options=None, **ABOVE) as kimi:
        result = await kimi.call("kimi_swarm", TELL)
    assert result.status == "completed"
    (question,) = user.questions
    assert "up to 2.00 USD" in question.message
    assert "at most 3 sub-agents, on kimi-k2.5 at simulator" in question.message
    assert question.message.endswith("Its task: Tell me about {{item}}.")
    assert question.requested_schema == {"type": "object", "properties": {}}


@pytest.mark.parametrize(("action", "message"), [("decline", "The user declined this swarm"), ("cancel", "dismissed")])
async def test_a_swarm_that_its_user_does_not_want_is_refused(
    sim: Simulator, mode: str, action: str, message: str
) -> None:
    async with connect(sim, mode, user=User(action), **ABOVE) as kimi:
        result = await kimi.call("kimi_swarm", TELL)
        assert (await kimi.run()).answer == "No run is known to this server yet."
    assert (result.status, result.code, result.structured["run_id"]) == ("failed", "budget_exceeded", None)
    assert message in result.error["message"]
    assert "`max_cost_usd` of at most 0.5" in result.error["fix"]
    assert chats(sim) == []


async def test_a_cheaper_swarm_begins_without_a_question(sim: Simulator, mode: str) -> None:
    user, few_steps = User("decline"), {"items": CITIES[:2], "max_agent_steps": 1, "tools": ["none"]}
    async with connect(sim, mode, user=user, **ABOVE) as kimi:
        result = await kimi.call("kimi_swarm", {**TELL, "max_cost_usd": 0.5})
        few = await kimi.call("kimi_swarm", TELL | few_steps)
    assert (result.status, few.status) == ("completed", "completed")
    assert user.questions == []


async def test_every_swarm_asks_above_0(sim: Simulator, mode: str) -> None:
    user = User("decline")
    async with connect(sim, mode, user=user, KIMI_CONFIRM_ABOVE_USD="0") as kimi:
        result = await kimi.call("kimi_swarm", {**TELL, "items": ["Rome", "Oslo"], "max_agent_steps": 1})
    assert result.code == "budget_exceeded"
    assert "max_cost_usd" not in result.error["fix"]
    assert len(user.questions) == 1


async def test_without_the_setting_nobody_is_asked(sim: Simulator, mode: str) -> None:
    user = User("decline")
    async with connect(sim, mode, user=user) as kimi:
        assert (await kimi.call("kimi_swarm", TELL)).status == "completed"
    assert user.questions == []


async def test_a_host_that_can_not_ask_runs_the_swarm(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, **ABOVE) as kimi:
        assert (await kimi.call("kimi_swarm", TELL)).status == "completed"


async def test_a_swarm_that_is_refused_anyway_asks_nobody(sim: Simulator, mode: str) -> None:
    user = User("accept")
    async with connect(sim, mode, user=user, **ABOVE) as kimi:
        assert (await kimi.call("kimi_swarm", {**TELL, "model": "kimi-k9"})).code == "invalid_arguments"
        assert (await kimi.call("kimi_swarm", {**TELL, "prompt": "no place"})).code == "invalid_arguments"
    assert user.questions == []


async def test_a_user_who_never_answers_counts_as_one_who_declines(sim: Simulator) -> None:
    async with connect(sim, "legacy", user=User("never"), options=impatient(), **ABOVE) as kimi:
        result = await kimi.call("kimi_swarm", TELL)
    assert result.code == "budget_exceeded"
    assert "did not answer in time" in result.error["message"]
    assert chats(sim) == []


async def test_a_host_that_fails_to_ask_counts_as_unanswered(sim: Simulator) -> None:
    async with connect(sim, "legacy", user=User("error"), **ABOVE) as kimi:
        result = await kimi.call("kimi_swarm", TELL)
    assert result.code == "budget_exceeded"
    assert chats(sim) == []


async def test_a_call_that_is_cancelled_while_its_user_is_asked_begins_nothing(sim: Simulator, mode: str) -> None:
    user = User("never")
    async with connect(sim, mode, user=user, **ABOVE) as kimi:
        async with anyio.create_task_group() as calling:
            calling.start_soon(kimi.call, "kimi_swarm", TELL)
            await user.requested.wait()
            calling.cancel_scope.cancel()
        assert (await kimi.run()).answer == "No run is known to this server yet."
    assert chats(sim) == []


# ── the newest era, message by message ────────────────────────────────────────────────────────────────────────────────

FORM: dict[str, Any] = {"elicitation": {"form": {}}}
ACCEPTED = {"confirm": {"action": "accept"}}


async def test_a_client_that_can_show_urls_alone_is_not_asked(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities={"elicitation": {"url": {}}}, **ABOVE) as client:
        assert (await client.call("kimi_swarm", TELL))["resultType"] == "complete"


async def test_an_answer_counts_only_with_the_state_of_its_question(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities=FORM, **ABOVE) as client:
        requested = await client.call("kimi_swarm", TELL, inputResponses=ACCEPTED)
        assert requested["resultType"] == "input_required"
        state = requested["requestState"]
        for forged in (state[:-1] + ("A" if state[-1] != "A" else "B"), "v1.x", "run_1"):
            refused = await client.call("kimi_swarm", TELL, inputResponses=ACCEPTED, requestState=forged)
            assert refused["message"] == "Invalid or expired requestState"
        other = {**TELL, "items": ["Rome", "Bern"]}
        refused = await client.call("kimi_swarm", other, inputResponses=ACCEPTED, requestState=state)
        assert refused["message"] == "Invalid or expired requestState"
        assert chats(sim) == []
        again = await client.call("kimi_swarm", TELL, requestState=state)
        assert again["resultType"] == "input_required"
        begun = await client.call("kimi_swarm", TELL, inputResponses=ACCEPTED, requestState=state)
    assert begun["structuredContent"]["status"] == "completed"


async def test_the_same_answer_brought_twice_begins_one_swarm(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities=FORM, **ABOVE) as client:
        state = (await client.call("kimi_swarm", TELL))["requestState"]
        first, second = [
            await client.call("kimi_swarm", TELL, inputResponses=ACCEPTED, requestState=state) for _ in range(2)
        ]
    assert first["structuredContent"] == second["structuredContent"]
    assert len(chats(sim)) == 4


async def test_another_server_of_the_same_store_takes_the_answer(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities=FORM, **ABOVE) as client:
        state = (await client.call("kimi_swarm", TELL))["requestState"]
    async with connect_newest(sim, capabilities=FORM, **ABOVE) as client:
        begun = await client.call("kimi_swarm", TELL, inputResponses=ACCEPTED, requestState=state)
        assert begun["structuredContent"]["status"] == "completed"
    async with connect_newest(sim, capabilities=FORM, KIMI_JOURNAL="off", **ABOVE) as client:
        refused = await client.call("kimi_swarm", TELL, inputResponses=ACCEPTED, requestState=state)
    assert refused["message"] == "Invalid or expired requestState"


async def test_a_swarm_that_may_cost_more_by_now_is_asked_about_again(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities=FORM, KIMI_BUDGET_USD_PER_SWARM="1", **ABOVE) as client:
        state = (await client.call("kimi_swarm", TELL))["requestState"]
    async with connect_newest(sim, capabilities=FORM, **ABOVE) as client:
        requested = await client.call("kimi_swarm", TELL, inputResponses=ACCEPTED, requestState=state)
    assert requested["resultType"] == "input_required"
    assert "up to 2.00 USD" in requested["inputRequests"]["confirm"]["params"]["message"]
