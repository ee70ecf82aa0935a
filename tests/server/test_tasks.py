"""Tasks: a long call answers with a handle for clients that know the extension, and for no others."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import anyio
import pytest
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.server.tasks import EXTENSION
from kimi_mcp.simulator import Simulator
from tests.server.clients import connect, connect_messages, connect_newest
from tests.server.media import CLIP, data_uri, picture
from tests.server.requests import HELD_STEP
from tests.server.stdio.peer import INITIALIZE
from tests.server.tasks import AT_ONCE, HOLDS_OSLO, bare, client_of, ended, ended_after, tasks_of
from tests.server.test_swarm import TELL


async def test_a_swarm_answers_as_a_task_at_once(sim: Simulator) -> None:
    sim.play(HOLDS_OSLO)
    async with connect_newest(sim, EXTENSION) as client:
        task = await client.call("kimi_swarm", TELL)
        assert task["resultType"] == "task"
        assert task["taskId"].startswith("run_")
        assert task["status"] == "working"
        assert task["ttlMs"] == 30 * 86_400_000
        assert type(task["pollIntervalMs"]) is int
        assert datetime.fromisoformat(task["createdAt"]) <= datetime.fromisoformat(task["lastUpdatedAt"])
        assert not {"result", "error", "content", "structuredContent"} & task.keys()
        await sim.until(lambda: sim.waiting_at("oslo") == 1)
        looked = await client.ask("tasks/get", taskId=task["taskId"])
        assert looked["resultType"] == "complete"
        assert looked["status"] == "working"
        assert "agents" in looked["statusMessage"]
        assert looked["createdAt"] == task["createdAt"]
        sim.open_gate("oslo")
        done = await ended(client, task)
    assert done["status"] == "completed"
    structured = done["result"]["structuredContent"]
    assert structured["status"] == "completed"
    assert structured["run_id"] == task["taskId"]
    assert [agent["name"] for agent in structured["swarm"]["agents"]] == TELL["items"]


@pytest.mark.parametrize("tool", ["kimi_think", "kimi_vision", "kimi_video"])
async def test_a_call_that_takes_long_becomes_a_task(sim: Simulator, tool: str) -> None:
    sim.play(HELD_STEP)
    more: dict[str, Any] = {
        "kimi_think": {},
        "kimi_vision": {"images": [data_uri(picture(1))]},
        "kimi_video": {"video": data_uri(CLIP, "video/mp4")},
    }
    async with tasks_of(sim) as client:
        task = await client.call(tool, {"prompt": "What is this?", **more[tool]})
        assert task["resultType"] == "task"
        sim.open_gate("end")
        done = await ended(client, task)
    assert done["result"]["structuredContent"]["answer"] == HELD_STEP["content"]


async def test_a_call_that_is_soon_answered_becomes_no_task(sim: Simulator) -> None:
    async with connect_newest(sim, EXTENSION) as client:
        result = await client.call("kimi_think", {"prompt": "hi"})
    assert result["resultType"] == "complete"
    assert result["structuredContent"]["status"] == "completed"


async def test_an_instant_call_never_becomes_a_task(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with tasks_of(sim, KIMI_REPLY_WITHIN_S="0.2") as client:
        result = await client.call("kimi_instant", {"prompt": "hi"})
    assert result["resultType"] == "complete"
    assert result["structuredContent"]["status"] == "running"


async def test_the_result_of_a_task_is_that_of_the_plain_call(sim: Simulator) -> None:
    sim.play({**HELD_STEP, "reasoning": "Hm. " * 2_000})
    async with tasks_of(sim) as client:
        done = await ended_after(sim, client, await client.call("kimi_think", {"prompt": "hi", "temperature": 0.3}))
        plain = await client.call("kimi_run", {"run_id": done["taskId"]})
    assert done["result"] == bare(plain)
    assert [block["type"] for block in plain["content"]] == ["text", "resource_link"]
    assert plain["structuredContent"]["policy"]


async def test_a_call_that_fails_is_a_completed_task(sim: Simulator) -> None:
    sim.play({"gate": "end", "status": 401})
    async with tasks_of(sim) as client:
        done = await ended_after(sim, client, await client.call("kimi_think", {"prompt": "hi"}))
    assert done["status"] == "completed"
    assert done["result"]["isError"] is True
    assert done["result"]["structuredContent"]["error"]["code"] == "auth_failed"
    assert "error" not in done


async def test_a_swarm_that_is_refused_becomes_no_task(sim: Simulator) -> None:
    async with tasks_of(sim) as client:
        for refused in ({"prompt": "no place", "items": ["a", "b"]}, {**TELL, "model": "kimi-k9"}):
            result = await client.call("kimi_swarm", refused)
            assert result["resultType"] == "complete"
            assert result["isError"] is True
            assert result["structuredContent"]["run_id"] is None


# ── who gets tasks ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_declares_no_tasks_gets_none(sim: Simulator) -> None:
    sim.play({**HOLDS_OSLO, "times": "always"}, {**HELD_STEP, "times": "always"})
    async with client_of(sim, "io.modelcontextprotocol/ui", KIMI_REPLY_WITHIN_S="0.2") as client:
        for tool, arguments in (("kimi_swarm", TELL), ("kimi_think", {"prompt": "hi"})):
            result = await client.call(tool, arguments)
            assert result["resultType"] == "complete"
            assert result["structuredContent"]["status"] == "running"


async def test_the_older_era_knows_no_tasks(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    sim.play({**HOLDS_OSLO, "times": "always"})
    monkeypatch.setitem(INITIALIZE["params"], "capabilities", {"extensions": {EXTENSION: {}}})
    for version in HANDSHAKE_PROTOCOL_VERSIONS:
        async with connect_messages(sim, protocol=version, options=AT_ONCE, KIMI_REPLY_WITHIN_S="0.2") as host:
            assert (await host.result("kimi_swarm", TELL))["status"] == "running"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel", "subscriptions/listen"])
async def test_who_declares_no_tasks_hears_which_capability_is_missing(sim: Simulator, method: str) -> None:
    params = {"taskId": "run_1", "inputResponses": {}, "notifications": {"taskIds": ["run_1"]}}
    async with client_of(sim) as client:
        error = await client.ask(method, **params)
    assert error["code"] == -32021
    assert error["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


async def test_each_request_declares_for_itself(sim: Simulator) -> None:
    sim.play(HOLDS_OSLO)
    async with client_of(sim) as client:
        task = await client.ask("tools/call", EXTENSION, name="kimi_swarm", arguments=TELL)
        assert task["resultType"] == "task"
        assert (await client.ask("tasks/get", taskId=task["taskId"]))["code"] == -32021
        assert (await client.ask("tasks/get", EXTENSION, taskId=task["taskId"]))["status"] == "working"


async def test_the_extension_is_declared_in_the_newest_era_alone(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        declared = kimi.client.server_capabilities
    assert declared is not None
    assert (EXTENSION in (declared.extensions or {})) is (mode == "auto")
    assert declared.tools is not None
    assert declared.resources is not None
    assert not declared.tools.list_changed, "nothing but tasks can be listened to"
    assert not declared.resources.subscribe


# ── what can be done with one ─────────────────────────────────────────────────────────────────────────────────────


async def test_cancelling_a_task_closes_its_request_and_keeps_what_had_arrived(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with tasks_of(sim) as client:
        task = await client.call("kimi_think", {"prompt": "hi"})
        await sim.until(lambda: sim.waiting_at("end") == 1)
        assert bare(await client.ask("tasks/cancel", taskId=task["taskId"])) == {"resultType": "complete"}
        await sim.client_gone()
        done = await ended(client, task)
        assert done["status"] == "cancelled"
        assert "result" not in done
        assert task["taskId"] in done["statusMessage"], "it says how to read what had arrived"
        kept = await client.call("kimi_run", {"run_id": task["taskId"]})
        assert kept["structuredContent"]["status"] == "cancelled"
        assert bare(await client.ask("tasks/cancel", taskId=task["taskId"])) == {"resultType": "complete"}


async def test_a_swarm_that_is_cancelled_brings_what_its_agents_had_finished(sim: Simulator) -> None:
    sim.play(HOLDS_OSLO)
    async with tasks_of(sim) as client:
        task = await client.call("kimi_swarm", TELL)
        with anyio.fail_after(60):
            while "2 done" not in (await client.ask("tasks/get", taskId=task["taskId"])).get("statusMessage", ""):
                await anyio.sleep(0.01)
        await client.ask("tasks/cancel", taskId=task["taskId"])
        done = await ended(client, task)
    assert done["status"] == "completed"
    assert done["result"]["structuredContent"]["status"] == "partial"


async def test_cancelling_the_request_that_became_a_task_does_not_cancel_the_task(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with tasks_of(sim) as client:
        number, answer = await client.send("tools/call", {"name": "kimi_think", "arguments": {"prompt": "hi"}})
        task = (await answer)["result"]
        await client.cancel(number)
        assert (await client.ask("tasks/get", taskId=task["taskId"]))["status"] == "working"
        assert (await ended_after(sim, client, task))["status"] == "completed"


async def test_an_update_is_acknowledged_and_changes_nothing(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with tasks_of(sim) as client:
        task = await client.call("kimi_think", {"prompt": "hi"})
        requested = {"taskId": task["taskId"], "inputResponses": {"name": {"action": "accept"}}}
        assert bare(await client.ask("tasks/update", **requested)) == {"resultType": "complete"}
        assert (await ended_after(sim, client, task))["status"] == "completed"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_a_task_that_nobody_knows_is_an_invalid_parameter(sim: Simulator, method: str) -> None:
    async with tasks_of(sim) as client:
        for params in ({"taskId": "run_0"}, {"taskId": 7}, {}):
            assert (await client.ask(method, inputResponses={}, **params))["code"] == -32602


@pytest.mark.parametrize("method", ["tasks/result", "tasks/list"])
async def test_methods_of_older_tasks_do_not_exist(sim: Simulator, method: str) -> None:
    async with tasks_of(sim) as client:
        assert (await client.ask(method))["code"] == -32601


@pytest.mark.parametrize(("method", "waits_for"), [("tasks/get", "find"), ("tasks/cancel", "request_cancel")])
async def test_a_store_that_fails_is_an_error_that_says_what_to_do(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, method: str, waits_for: str
) -> None:
    async def fails(*arguments: Any, **more: Any) -> None:
        raise NotConfigured("The store is full.", fix="Free some space.")

    sim.play(HELD_STEP)
    async with tasks_of(sim) as owner, tasks_of(sim) as client:
        task = await owner.call("kimi_think", {"prompt": "hi"})
        monkeypatch.setattr(RunStore, waits_for, fails)
        error = await client.ask(method, taskId=task["taskId"])
    assert error["code"] == -32603
    assert error["message"] == "The store is full. Free some space."
