"""Tasks beyond their request: after the death of their server, in another one, joined, and with the official client."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import pytest
from mcp import Client
from mcp.client import ClaimContext, ClientExtension, ResultClaim
from mcp.client._memory import InMemoryTransport
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, Result

from kimi_mcp.server.tasks import EXTENSION, TaskParams
from kimi_mcp.simulator import Simulator
from tests.server.clients import connect, enveloped, new_server, wait_until
from tests.server.processes import raw_server_process
from tests.server.requests import HELD_STEP, chats
from tests.server.results import checked
from tests.server.tasks import HOLDS_OSLO, ended, ended_after, options, tasks_of
from tests.server.test_swarm import TELL


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
        await wait_until(lambda: all(run.abandoned for run in client.runs.live.values()))
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
