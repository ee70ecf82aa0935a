"""Questions to users of hosts over HTTP: sessions, principals and quotas."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.server.http.auth.scopes import USE
from kimi_mcp.server.http.auth.token_file import TokenFile
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, wait_until
from tests.server.http.served import Served, bearer, newest, newest_headers, served
from tests.server.requests import chats
from tests.server.test_swarm import TELL
from tests.server.users import User

ABOVE: dict[str, Any] = {"KIMI_CONFIRM_ABOVE_USD": "0.5"}


@pytest.mark.parametrize(("action", "status"), [("accept", "completed"), ("decline", "failed"), ("cancel", "failed")])
async def test_a_user_is_asked_over_http(sim: Simulator, mode: str, action: str, status: str) -> None:
    user = User(action)
    async with served(sim, **ABOVE) as http, http.client(mode, user=user) as kimi:
        result = await kimi.call("kimi_swarm", TELL)
    assert result.status == status
    assert len(user.questions) == 1
    assert len(chats(sim)) == (4 if action == "accept" else 0)


async def test_a_client_that_leaves_while_its_user_is_asked_begins_nothing(sim: Simulator, mode: str) -> None:
    user = User("never")
    async with served(sim, **ABOVE) as http:
        async with http.client(mode, user=user) as kimi, anyio.create_task_group() as calling:
            calling.start_soon(kimi.call, "kimi_swarm", TELL)
            await user.requested.wait()
            calling.cancel_scope.cancel()
        await wait_until(lambda: not http.serving.app.gate.calling)
        assert http.runs.live == {}
    assert chats(sim) == []


UNFORGIVING = ServerOptions(timings=Timings(warm_up_after_s=3600, stream_grace_s=0))
"""Of a server that cancels a run as soon as nobody waits for it."""

SMALL: dict[str, Any] = {**TELL, "tools": ["none"], "max_cost_usd": 0.1}
"""A swarm whose budget pays for none of its agents."""


async def test_a_swarm_asks_for_more_over_http(sim: Simulator, mode: str) -> None:
    user = User("accept", more_usd=1)
    async with served(sim, options=UNFORGIVING) as http, http.client(mode, user=user) as kimi:
        result = await kimi.call("kimi_swarm", SMALL)
    assert (result.status, len(user.questions)) == ("completed", 1)


def tokens(folder: Path, *names: str) -> tuple[dict[str, Any], list[str]]:
    """A file of tokens, as a setting, and the token of each name."""
    file = TokenFile(folder / "tokens.json")
    made = [file.add(name, USE, now=datetime.now(UTC))[1] for name in names]
    return {"KIMI_HTTP_TOKENS": str(folder / "tokens.json"), "KIMI_ROOTS": str(folder)}, made


async def requested(http: Served, token: str, arguments: Any = TELL, **more: Any) -> dict[str, Any]:
    """A swarm's result or error, for a client of the newest era that can ask."""
    request = newest("tools/call", {"name": "kimi_swarm", "arguments": arguments, **more})
    request["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = {"elicitation": {"form": {}}}
    response = await http.post(request, newest_headers("tools/call", "kimi_swarm") | bearer(token))
    text = response.text
    found = response.json() if text.startswith("{") else _last(text)
    return found["error"] if "error" in found else found["result"]


def _last(stream: str) -> dict[str, Any]:
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    return json.loads(lines[-1])


async def test_the_question_of_one_principal_is_not_answered_by_another(sim: Simulator, tmp_path: Path) -> None:
    variables, (ann, ben) = tokens(tmp_path, "ann", "ben")
    accepted = {"inputResponses": {"confirm": {"action": "accept"}}}
    async with served(sim, **variables, **ABOVE) as http:
        state = (await requested(http, ann))["requestState"]
        stolen = await requested(http, ben, requestState=state, **accepted)
        assert stolen["message"] == "Invalid or expired requestState"
        assert chats(sim) == []
        assert (await requested(http, ann, requestState=state, **accepted))["structuredContent"][
            "status"
        ] == "completed"


async def test_a_call_that_is_made_again_with_its_answer_counts_once(sim: Simulator, tmp_path: Path) -> None:
    variables, (ann,) = tokens(tmp_path, "ann")
    accepted = {"inputResponses": {"confirm": {"action": "accept"}}}
    async with served(sim, **variables, **ABOVE, KIMI_QUOTA_CALLS_PER_MINUTE="2") as http:
        for _ in range(2):
            state = (await requested(http, ann))["requestState"]
            result = await requested(http, ann, requestState=state, **accepted)
            assert result["structuredContent"]["status"] == "completed"
        state = (await requested(http, ann))["requestState"]
        third = await requested(http, ann, requestState=state, **accepted)
    assert third["structuredContent"]["error"]["code"] == "rate_limited"


async def test_a_principal_gives_no_more_than_its_operator_allows(sim: Simulator, tmp_path: Path) -> None:
    variables, (ann,) = tokens(tmp_path, "ann")
    accepted = {"inputResponses": {"budget-1": {"action": "accept", "content": {"more_usd": 50}}}}
    async with served(sim, **variables, KIMI_BUDGET_USD_PER_SWARM="0.11") as http:
        question = await requested(http, ann, SMALL)
        field = question["inputRequests"]["budget-1"]["params"]["requestedSchema"]["properties"]["more_usd"]
        assert (field["maximum"], field["default"]) == (pytest.approx(0.01), pytest.approx(0.01))
        raised = await requested(http, ann, SMALL, requestState=question["requestState"], **accepted)
        error = raised["structuredContent"]["error"]
        assert (error["code"], "budget of 0.1100 USD" in error["message"]) == ("budget_exceeded", True)
        unasked = await requested(http, ann, {**SMALL, "max_cost_usd": 0.11})
        assert unasked["structuredContent"]["error"]["code"] == "budget_exceeded"


async def test_the_answer_to_a_swarm_that_runs_counts_against_no_quota(sim: Simulator, tmp_path: Path) -> None:
    variables, (ann,) = tokens(tmp_path, "ann")
    accepted = {"inputResponses": {"budget-1": {"action": "accept", "content": {"more_usd": 1}}}}
    async with served(sim, **variables, KIMI_QUOTA_CALLS_PER_MINUTE="1") as http:
        question = await requested(http, ann, SMALL)
        done = await requested(http, ann, SMALL, requestState=question["requestState"], **accepted)
    assert done["structuredContent"]["status"] == "completed"
