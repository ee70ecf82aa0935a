"""A swarm whose budget does not suffice asks its host's user for more, while it runs."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest

from kimi_mcp.core.profiles import dollars
from kimi_mcp.runs.store.questions import BudgetQuestions
from kimi_mcp.server.tasks import EXTENSION
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm import budget_raise
from tests.server.clients import NewestClient, connect, connect_newest, wait_until
from tests.server.requests import chats
from tests.server.tasks import ended
from tests.server.test_swarm import TELL
from tests.server.users import User

SMALL: dict[str, Any] = {**TELL, "tools": ["none"], "max_cost_usd": 0.1}
"""A swarm whose budget pays for none of its agents."""

FORM: dict[str, Any] = {"elicitation": {"form": {}}}
ACCEPTED: dict[str, Any] = {"budget-1": {"action": "accept", "content": {"more_usd": 1}}}


async def test_a_raised_budget_lets_the_swarm_go_on(sim: Simulator, mode: str) -> None:
    user = User("accept", more_usd=1.5)
    async with connect(sim, mode, user=user) as kimi:
        result = await kimi.call("kimi_swarm", SMALL)
    assert (result.status, len(chats(sim))) == ("completed", 4)
    (question,) = user.questions
    assert "0.1000 USD is left of its budget of 0.1000 USD, of which it has used 0.00 USD." in question.message
    assert "So far: 3 agents" in question.message
    field = question.requested_schema["properties"]["more_usd"]
    assert (field["type"], field["minimum"], "maximum" in field) == ("number", 0, False)
    assert field["default"] >= 0.1
    assert f"It suggests {dollars(field['default'])} more." in question.message


async def test_the_question_names_what_the_next_request_may_cost(sim: Simulator) -> None:
    user = User("decline")
    async with connect(sim, user=user) as kimi:
        await kimi.call("kimi_swarm", SMALL)
    found = re.match(r"The swarm's next request, and .* may cost up to ([\d.]+) USD; ", user.questions[0].message)
    assert found is not None
    assert float(found[1]) > SMALL["max_cost_usd"]


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_without_more_the_swarm_concludes_as_ever(sim: Simulator, mode: str, action: str) -> None:
    user = User(action)
    async with connect(sim, mode, user=user) as kimi:
        requested = await kimi.call("kimi_swarm", SMALL)
    async with connect(sim, mode) as kimi:
        unasked = await kimi.call("kimi_swarm", SMALL)
    assert len(user.questions) == 1
    assert (requested.status, requested.code) == (unasked.status, "budget_exceeded")
    assert ("The user declined to raise it." in str(requested.error)) == (action == "decline")
    assert "declined" not in str(unasked.error)


@pytest.mark.parametrize("more", [0, -1, True, "much"])
async def test_what_is_no_amount_raises_nothing(sim: Simulator, more: Any) -> None:
    user = User("accept", more_usd=more)
    async with connect(sim, "legacy", user=user) as kimi:
        result = await kimi.call("kimi_swarm", SMALL)
    assert result.code == "budget_exceeded"
    assert len(user.questions) == 1
    assert chats(sim) == []


async def test_a_host_that_fails_to_ask_counts_as_a_user_who_declines(sim: Simulator) -> None:
    user = User("error")
    async with connect(sim, "legacy", user=user) as kimi:
        result = await kimi.call("kimi_swarm", SMALL)
    assert (result.code, len(user.questions)) == ("budget_exceeded", 1)


async def test_a_swarm_asks_again_where_what_it_got_is_used_up(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_raise, "MOST_QUESTIONS", 2)
    user = User("accept", more_usd=0.001)
    async with connect(sim, "legacy", user=user) as kimi:
        result = await kimi.call("kimi_swarm", SMALL)
    assert result.code == "budget_exceeded"
    for question, budget in zip(user.questions, ("0.1000", "0.1010"), strict=True):
        assert f"left of its budget of {budget} USD" in question.message


@pytest.mark.parametrize("content", [{}, {"other": 1}])
async def test_an_answer_without_an_amount_raises_nothing(sim: Simulator, mode: str, content: dict[str, Any]) -> None:
    user = User("accept", **content)
    async with connect(sim, mode, user=user) as kimi:
        result = await kimi.call("kimi_swarm", SMALL)
    assert (result.code, len(user.questions), chats(sim)) == ("budget_exceeded", 1, [])


async def test_an_empty_content_raises_nothing(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities=FORM) as client:
        state = (await client.call("kimi_swarm", SMALL))["requestState"]
        empty = {"budget-1": {"action": "accept", "content": {}}}
        done = await client.call("kimi_swarm", SMALL, inputResponses=empty, requestState=state)
    assert done["structuredContent"]["error"]["code"] == "budget_exceeded"
    assert chats(sim) == []


async def test_a_user_who_never_answers_counts_as_one_who_declines(
    sim: Simulator, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_raise, "ANSWER_S", 0.0)
    async with connect(sim, mode, user=User("never")) as kimi:
        result = await kimi.call("kimi_swarm", SMALL)
    assert result.code == "budget_exceeded"


async def test_what_was_answered_early_asks_at_the_next_look(sim: Simulator, mode: str) -> None:
    user = User("never")
    async with connect(sim, mode, user=user, KIMI_REPLY_WITHIN_S="0.01") as kimi:
        user.action, user.content = "accept", {"more_usd": 1}
        result = await kimi.call("kimi_swarm", SMALL)
        if result.status == "running":
            result = await kimi.ended(result)
    assert result.status == "completed"
    assert len(user.questions) == 1


async def test_a_swarm_that_waits_for_its_user_can_be_cancelled(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities=FORM) as client:
        requested = await client.call("kimi_swarm", SMALL)
        assert requested["resultType"] == "input_required"
        (run_id,) = client.runs.live
        looked = await client.call("kimi_run", {"run_id": run_id, "action": "status"})
        assert looked["structuredContent"]["status"] == "running"
        cancelled = await client.call("kimi_run", {"run_id": run_id, "action": "cancel"})
    assert cancelled["structuredContent"]["status"] == "cancelled"


async def test_the_call_that_is_made_again_joins_its_swarm(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities=FORM) as client:
        requested = await client.call("kimi_swarm", SMALL)
        assert requested["inputRequests"].keys() == {"budget-1"}
        state = requested["requestState"]
        refused = await client.call("kimi_swarm", TELL, inputResponses=ACCEPTED, requestState=state)
        assert refused["message"] == "Invalid or expired requestState"
        (run_id,) = client.runs.live
        done = await client.call("kimi_swarm", SMALL, inputResponses=ACCEPTED, requestState=state)
        assert (done["structuredContent"]["status"], done["structuredContent"]["run_id"]) == ("completed", run_id)
        again = await client.call("kimi_swarm", SMALL, inputResponses=ACCEPTED, requestState=state)
        assert again["structuredContent"]["run_id"] == run_id
    assert len(chats(sim)) == 4


async def test_another_server_of_the_store_takes_the_answer(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities=FORM) as first, connect_newest(sim, capabilities=FORM) as second:
        state = (await first.call("kimi_swarm", SMALL))["requestState"]
        (run_id,) = first.runs.live
        done = await second.call("kimi_swarm", SMALL, inputResponses=ACCEPTED, requestState=state)
        assert (done["structuredContent"]["status"], done["structuredContent"]["run_id"]) == ("completed", run_id)


async def test_a_server_that_resumes_the_swarm_knows_what_was_given(sim: Simulator) -> None:
    sim.play({"match": {"text": "Tell me about Oslo."}, "gate": "oslo"})
    async with connect_newest(sim, capabilities=FORM) as client:
        requested = await client.call("kimi_swarm", SMALL)
        (run_id,) = client.runs.live
        async with anyio.create_task_group() as calls:
            again = {"inputResponses": ACCEPTED, "requestState": requested["requestState"]}
            calls.start_soon(lambda: client.call("kimi_swarm", SMALL, **again))
            await sim.until(lambda: sim.waiting_at("oslo") == 1)
            calls.cancel_scope.cancel()
    sim.open_gate("oslo")
    user = User("decline")
    async with connect(sim, user=user) as kimi:
        result = await kimi.ended(await kimi.run(run_id, wait_s=30))
    assert result.status == "completed"
    assert user.questions == []


async def test_questions_go_with_their_run(sim: Simulator) -> None:
    async with connect(sim, user=User("accept", more_usd=1)) as kimi:
        result = await kimi.call("kimi_swarm", SMALL)
        questions = BudgetQuestions(kimi.runs.store, result.run_id)
        assert [(each.action, each.given_usd) for each in await questions.all()] == [("accept", 1.0)]
        assert await kimi.runs.store.retention.remove(kimi.runs.store.now() + 1) == [result.run_id]
        assert await questions.all() == ()


# ── tasks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def waiting(client: NewestClient, task: dict[str, Any]) -> dict[str, Any]:
    """The task once it waits for its user."""
    with anyio.fail_after(60):
        while (task := await client.ask("tasks/get", taskId=task["taskId"]))["status"] != "input_required":
            await anyio.sleep(0.01)
    return task


async def test_a_task_requires_input_until_it_is_answered(sim: Simulator) -> None:
    async with connect_newest(sim, EXTENSION, capabilities=FORM) as client:
        task = await waiting(client, await client.call("kimi_swarm", SMALL))
        request = task["inputRequests"]["budget-1"]
        assert request["method"] == "elicitation/create"
        assert request["params"]["requestedSchema"]["required"] == ["more_usd"]
        assert "waits for its user" in task["statusMessage"]
        update = {"taskId": task["taskId"], "inputResponses": {"other": {"action": "accept"}, "budget-1": {"x": 1}}}
        await client.ask("tasks/update", **update)
        assert (await waiting(client, task))["status"] == "input_required"
        await client.ask("tasks/update", taskId=task["taskId"], inputResponses=ACCEPTED)
        done = await ended(client, task)
    assert done["result"]["structuredContent"]["status"] == "completed"


async def test_a_client_of_tasks_that_can_not_ask_sees_no_question(sim: Simulator) -> None:
    async with connect_newest(sim, EXTENSION) as client:
        done = await ended(client, await client.call("kimi_swarm", SMALL))
    assert done["result"]["structuredContent"]["error"]["code"] == "budget_exceeded"


async def test_a_swarm_that_waits_for_its_user_says_so(sim: Simulator) -> None:
    async with connect_newest(sim, capabilities=FORM) as client:
        await client.call("kimi_swarm", SMALL)
        (run,) = client.runs.live.values()
        await wait_until(lambda: "waits for its user" in run.phase())
