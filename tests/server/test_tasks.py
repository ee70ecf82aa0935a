"""Tasks: a long call answers with a handle for clients that know the extension, and for no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Literal

import anyio
import pytest
from mcp import Client
from mcp.client import ClaimContext, ClientExtension, ResultClaim
from mcp.client._memory import InMemoryTransport
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, Result
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.server.state import Timings
from kimi_mcp.server.tasks import EXTENSION, TaskParams
from kimi_mcp.simulator import Simulator
from tests.server.clients import (
    NewestClient,
    ServerOptions,
    connect,
    connect_messages,
    connect_newest,
    enveloped,
    new_server,
    wait_until,
)
from tests.server.media import CLIP, data_uri, picture
from tests.server.processes import raw_server_process
from tests.server.requests import HELD_STEP, chats
from tests.server.results import checked
from tests.server.stdio.peer import INITIALIZE
from tests.server.test_swarm import TELL

HOLDS_OSLO = {"match": {"text": "Tell me about Oslo."}, "gate": "oslo"}


def options(**timings: Any) -> ServerOptions:
    """Of a server with such timings."""
    return ServerOptions(timings=Timings(warm_up_after_s=3600, store=StoreLimits(written_within_s=10), **timings))


AT_ONCE = options(task_after_s=0, progress_every_s=0.05)
"""Whatever may become a task does so as soon as it is recorded."""

client_of = partial(connect_newest, options=AT_ONCE)


@asynccontextmanager
async def tasks_of(sim: Simulator, **variables: str) -> AsyncIterator[NewestClient]:
    """A client that takes tasks."""
    async with client_of(sim, EXTENSION, **variables) as client:
        yield client


async def ended(client: NewestClient, task: Mapping[str, Any]) -> dict[str, Any]:
    """The task once it has ended."""
    with anyio.fail_after(60):
        while (task := await client.ask("tasks/get", taskId=task["taskId"]))["status"] == "working":
            await anyio.sleep(0.01)
    return dict(task)


def bare(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without what is about its message."""
    return {name: value for name, value in result.items() if name != "_meta"}


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


async def ended_after(sim: Simulator, client: NewestClient, task: Mapping[str, Any]) -> dict[str, Any]:
    """The task once it has ended, which the gate kept it from."""
    sim.open_gate("end")
    return await ended(client, task)


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
        asked = {"taskId": task["taskId"], "inputResponses": {"name": {"action": "accept"}}}
        assert bare(await client.ask("tasks/update", **asked)) == {"resultType": "complete"}
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


# ── listening ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_listens_to_a_task_hears_how_it_goes_and_ends(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with tasks_of(sim) as client:
        task = await client.call("kimi_think", {"prompt": "hi"})
        wanted = {"taskIds": [task["taskId"], "run_unknown"], "toolsListChanged": True}
        number, _ = await client.send("subscriptions/listen", {"notifications": wanted})
        heard = [await client.notifications.get() for _ in range(3)]
        sim.open_gate("end")
        while heard[-1]["params"]["status"] == "working":
            heard.append(await client.notifications.get())
        done = await client.ask("tasks/get", taskId=task["taskId"])
    assert heard[0]["method"] == "notifications/subscriptions/acknowledged"
    assert heard[0]["params"]["notifications"] == {"taskIds": [task["taskId"]]}
    assert {each["method"] for each in heard[1:]} == {"notifications/tasks"}
    assert [each["params"]["status"] for each in heard[1:3]] == ["working", "working"]
    assert {each["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] for each in heard} == {number}
    told = bare(heard[-1]["params"])
    assert told == {name: value for name, value in bare(done).items() if name != "resultType"}


async def test_who_stops_listening_hears_nothing_more_and_the_task_goes_on(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with tasks_of(sim) as client:
        task = await client.call("kimi_think", {"prompt": "hi"})
        number, _ = await client.send("subscriptions/listen", {"notifications": {"taskIds": [task["taskId"]]}})
        await client.notifications.get()
        await client.cancel(number)
        await client.ask("tasks/get", taskId=task["taskId"])
        while not client.notifications.empty():
            client.notifications.get_nowait()
        assert (await ended_after(sim, client, task))["status"] == "completed"
        assert client.notifications.empty()


async def test_what_can_not_be_listened_to_is_not_agreed_to(sim: Simulator) -> None:
    async with client_of(sim) as client:
        await client.send("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        assert (await client.notifications.get())["params"]["notifications"] == {}
        assert (await client.ask("subscriptions/listen", notifications={"taskIds": 7}))["code"] == -32602


# ── longer than its server, and elsewhere ─────────────────────────────────────────────────────────────────────────


async def test_a_task_outlives_its_server_as_its_run_does(sim: Simulator) -> None:
    sim.play(HOLDS_OSLO, {"match": {"text": "17 * 23"}, **HELD_STEP})
    async with tasks_of(sim) as client:
        swarm = await client.call("kimi_swarm", TELL)
        think = await client.call("kimi_think", {"prompt": "What is 17 * 23?"})
        await sim.until(lambda: sim.waiting_at("oslo") == 1 and sim.waiting_at("end") == 1)
    async with tasks_of(sim) as client:
        resumed = await ended(client, swarm)
        cut_off = await ended(client, think)
    assert resumed["createdAt"] == swarm["createdAt"]
    assert resumed["result"]["structuredContent"]["status"] == "completed"
    assert cut_off["status"] == "completed"
    assert cut_off["result"]["structuredContent"]["error"]["code"] == "answer_cut_off"


@pytest.mark.soak
async def test_a_task_outlives_a_server_that_is_killed(sim: Simulator) -> None:
    def message(method: str, **params: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": 1, "method": method, "params": enveloped(params, EXTENSION)}

    sim.play(HOLDS_OSLO)
    async with raw_server_process(sim) as peer:
        task = (await peer.request(message("tools/call", name="kimi_swarm", arguments=TELL)))["result"]
        assert task["resultType"] == "task"
        await sim.until(lambda: sim.waiting_at("oslo") == 1)
        peer.process.kill()
        await peer.process.wait()
    sim.open_gate("oslo")
    async with raw_server_process(sim) as peer:
        look = message("tasks/get", taskId=task["taskId"])
        with anyio.fail_after(60):
            while (task := (await peer.request(look))["result"])["status"] == "working":
                await anyio.sleep(0.05)
    assert task["status"] == "completed"
    assert task["result"]["structuredContent"]["status"] == "completed"


async def test_a_call_that_joins_a_run_as_a_task_says_so_in_its_result(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with tasks_of(sim) as client:
        number, answer = await client.send("tools/call", {"name": "kimi_think", "arguments": {"prompt": "hi"}})
        first = (await answer)["result"]
        await client.cancel(number, "Request timed out")
        await wait_until(lambda: all(run.abandoned for run in client.runs._live.values()))
        task = await client.call("kimi_think", {"prompt": "hi"})
        assert task["taskId"] == first["taskId"]
        done = await ended_after(sim, client, task)
    assert [entry["rule"] for entry in done["result"]["structuredContent"]["policy"]] == ["run-rejoined"]


async def test_a_task_of_another_server_is_seen_and_cancelled(sim: Simulator) -> None:
    sim.play(HELD_STEP, HELD_STEP)
    async with tasks_of(sim) as one, tasks_of(sim) as other:
        task = await one.call("kimi_think", {"prompt": "one"})
        assert (await other.ask("tasks/get", taskId=task["taskId"]))["status"] == "working"
        await other.ask("tasks/cancel", taskId=task["taskId"])
        await sim.client_gone()
        assert (await ended(other, task))["status"] == "cancelled"
        task = await one.call("kimi_think", {"prompt": "two"})
        done = await ended_after(sim, other, task)
        assert done == await ended(one, task), "both see the same, to the last field"


# ── the official client ───────────────────────────────────────────────────────────────────────────────────────────


class TaskResult(Result):
    result_type: Literal["task"]
    task_id: str
    poll_interval_ms: int


class TaskState(Result):
    status: str
    result: CallToolResult | None = None


class Tasks(ClientExtension):
    """Fetches the result of a task, as a host does."""

    identifier = EXTENSION

    def __init__(self) -> None:
        self.polled = 0

    def claims(self) -> list[ResultClaim[TaskResult]]:
        return [ResultClaim(result_type="task", model=TaskResult, resolve=self._resolve)]

    async def _resolve(self, task: TaskResult, context: ClaimContext) -> CallToolResult:
        request = Request[TaskParams, str](method="tasks/get", params=TaskParams(task_id=task.task_id))
        while True:
            self.polled += 1
            state = await context.session.send_request(request, TaskState)
            if state.result is not None:
                return state.result
            await anyio.sleep(task.poll_interval_ms / 1000)


async def test_the_official_client_gets_the_result_through_a_task(sim: Simulator) -> None:
    extension = Tasks()
    server = new_server(sim, options=options(poll_every_s=0.01))
    async with Client(InMemoryTransport(server), extensions=[extension]) as client:
        result = checked(await client.call_tool("kimi_swarm", TELL))
    assert result.status == "completed"
    assert extension.polled >= 1


async def test_the_official_client_that_knows_no_tasks_gets_a_plain_error_for_one(sim: Simulator, mode: str) -> None:
    request = Request[TaskParams, str](method="tasks/get", params=TaskParams(task_id="run_0"))
    async with connect(sim, mode) as kimi:
        with pytest.raises(MCPError) as caught:
            await kimi.client.session.send_request(request, TaskState)
    assert caught.value.code == -32021
    assert len(chats(sim)) == 0
