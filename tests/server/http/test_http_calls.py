"""Over HTTP a client has all that it has over stdio, in both eras."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import CancelledNotification, CancelledNotificationParams, ResourceTemplateReference

from kimi_mcp.runs import Run
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, connect, wait_until
from tests.server.http.served import Served, error_of, message, newest, newest_headers, served
from tests.server.media import picture
from tests.server.requests import HELD_STEP, chats, messages

QUICK = ServerOptions(
    timings=Timings(warm_up_after_s=3600, first_progress_s=0.05, progress_every_s=0.05, store=StoreLimits())
)


def brief(grace_s: float) -> ServerOptions:
    """A server that waits so long for a call whose stream closed to come again."""
    return ServerOptions(timings=Timings(warm_up_after_s=3600, stream_grace_s=grace_s))


async def test_what_is_offered_is_the_same_as_over_stdio(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as stdio, served(sim) as http, http.client(mode) as remote:
        for ask in ("list_tools", "list_resources", "list_resource_templates", "list_prompts"):
            expected, found = await getattr(stdio.client, ask)(), await getattr(remote.client, ask)()
            assert found == expected, ask


async def test_a_call_a_conversation_a_resource_a_prompt_and_a_completion_work(sim: Simulator, mode: str) -> None:
    async with served(sim) as http, http.client(mode) as kimi:
        first = await kimi.think("one")
        second = await kimi.instant("two", conversation_id=first.structured["conversation_id"])
        assert (first.status, second.status) == ("completed", "completed")
        assert [each["role"] for each in messages(sim)] == ["user", "assistant", "user"]
        listed = (await kimi.client.read_resource("kimi://runs")).contents[0]
        assert {row["run_id"] for row in json.loads(listed.text)} == {first.run_id, second.run_id}  # type: ignore[union-attr]
        assert (await kimi.run(first.run_id)).answer == first.answer
        prompt = (await kimi.client.list_prompts()).prompts[0]
        needed = {each.name: "x" for each in prompt.arguments or ()}
        assert (await kimi.client.get_prompt(prompt.name, needed)).messages
        reference = ResourceTemplateReference(uri="kimi://runs/{id}")
        offered = await kimi.client.complete(reference, {"name": "id", "value": "run_"})
        assert set(offered.completion.values) == {first.run_id, second.run_id}


async def test_progress_comes_on_the_stream_of_the_call(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    reports: list[str | None] = []

    async def report(progress: float, total: float | None, text: str | None) -> None:
        reports.append(text)
        sim.open_gate("end")

    async with served(sim, options=QUICK) as http, http.client(mode) as kimi:
        result = await kimi.call("kimi_think", {"prompt": "x"}, progress_callback=report)
    assert result.status == "completed"
    assert reports


async def test_a_medium_of_32_mb_arrives_as_a_data_uri(sim: Simulator) -> None:
    call = {"name": "kimi_vision", "arguments": {"prompt": "x", "images": ["data:image/png;base64,!"]}}
    body = json.dumps(newest("tools/call", call)).encode().replace(b"!", b"A" * 43_000_000)
    async with served(sim) as http:
        result = (await http.post(body, newest_headers("tools/call", "kimi_vision"))).json()["result"]
        assert result["structuredContent"]["error"]["code"] == "media_rejected", "it was read, and it is no picture"


async def test_paths_of_the_servers_disk_are_refused_unless_roots_are_set(
    sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "notes.txt").write_text("the notes")
    (folder / "a.png").write_bytes(picture(1))
    monkeypatch.chdir(folder)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("kimi_think", {"prompt": "x", "files": ["notes.txt"]}),
        ("kimi_think", {"prompt": "x", "files": ["*.txt"]}),
        ("kimi_vision", {"prompt": "x", "images": [str(folder / "a.png")]}),
        ("kimi_vision", {"prompt": "x", "images": [(folder / "a.png").as_uri()]}),
        ("kimi_video", {"prompt": "x", "video": "a.mp4"}),
    ]
    async with served(sim) as http, http.client() as kimi:
        for tool, arguments in calls:
            refused = await kimi.call(tool, arguments)
            assert refused.error["code"] == "path_refused", arguments
            assert "data URI" in refused.error["fix"]
            assert str(folder) not in refused.text
        assert chats(sim) == []
        await kimi.call("kimi_swarm", {"prompt": "Sum up: {{item}}", "items": ["notes.txt", "*.txt"]})
        assert chats(sim), "what names no file that may be read is a text"
    assert "the notes" not in str([request.body for request in chats(sim)])
    async with served(sim, KIMI_ROOTS=str(folder)) as http, http.client() as kimi:
        for tool, arguments in calls[:4]:
            assert (await kimi.call(tool, arguments)).status == "completed", arguments


async def test_the_same_ids_in_two_sessions_are_two_requests(sim: Simulator) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    async with served(sim) as http:
        first, second = await http.session(), await http.session()
        done: dict[str, Any] = {}

        async def call(headers: dict[str, str], prompt: str) -> None:
            params = {"name": "kimi_think", "arguments": {"prompt": prompt}}
            done[prompt] = await http.post(message("tools/call", params, "same"), headers)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, first, "one")
            tasks.start_soon(call, second, "two")
            await sim.until(lambda: sim.waiting_at("end") == 2)
            await wait_until(lambda: len(http.state.waiting) == 2)
            stop = message("notifications/cancelled", {"requestId": "same", "reason": "the user"}, None)
            assert (await http.post(stop, first)).status_code == 202
            await wait_until(lambda: "one" in done)
            sim.open_gate("end")
        assert "cancelled" in done["one"].text
        assert HELD_STEP["content"] in done["two"].text
        assert http.state.waiting == {}


async def test_an_id_that_another_open_request_has_is_refused(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    call = {"name": "kimi_think", "arguments": {"prompt": "x"}}
    limits = HttpLimits(same_id_s=0)
    async with served(sim, limits=limits) as http, anyio.create_task_group() as tasks:
        headers, first = await http.session(), list[str]()

        async def post() -> None:
            first.append((await http.post(message("tools/call", call, 7), headers)).text)

        tasks.start_soon(post)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        refused = await http.post(message("tools/list", {}, "7"), headers)
        assert (refused.status_code, refused.json()["id"]) == (400, "7")
        assert "its own" in error_of(refused)["message"]
        assert (await http.post(message("tools/list", {}, "7"), await http.session())).status_code == 200
        sim.open_gate("end")
        await wait_until(lambda: first)
        assert HELD_STEP["content"] in first[0]


async def test_an_id_that_was_answered_may_be_used_again_at_once(sim: Simulator) -> None:
    async with served(sim) as http:
        headers = await http.session()
        for _ in range(50):
            assert (await http.post(message("tools/list", {}, 7), headers)).status_code == 200


@pytest.mark.parametrize(("reason", "goes_on"), [("the user", False), ("timed out after 1.0s", True)])
async def test_a_users_cancellation_by_notification_cancels_at_once_and_a_hosts_timeout_does_not(
    sim: Simulator, reason: str, goes_on: bool
) -> None:
    sim.play(HELD_STEP)
    async with served(sim, options=brief(0)) as http, http.client("legacy") as kimi:
        runs: list[Run] = []

        async def call() -> None:
            with suppress(MCPError):
                await kimi.think()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            await wait_until(lambda: http.state.waiting)
            runs.extend(http.runs.live.values())
            (key,) = http.state.waiting
            assert isinstance(key, tuple)
            params = CancelledNotificationParams(request_id=key[2], reason=reason)
            await kimi.client.session.send_notification(CancelledNotification(params=params))
            await wait_until(lambda: len(http.state.calls) == 0)
        if goes_on:
            sim.open_gate("end")
        (run,) = runs
        await run.wait()
        assert (await run.current_outcome()).status == ("completed" if goes_on else "cancelled")


async def closes_its_stream(sim: Simulator, http: Served, mode: str) -> None:
    """A client that closes the connection without a word, once all but the end of the answer has come."""
    call = {"name": "kimi_think", "arguments": {"prompt": "again"}}
    if mode == "legacy":
        body, headers = message("tools/call", call), await http.session()
    else:
        body, headers = newest("tools/call", call), newest_headers("tools/call", "kimi_think")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(http.post, body, headers)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await wait_until(lambda: len(http.state.calls) == 1)
        tasks.cancel_scope.cancel()


async def test_a_closed_stream_cancels_the_run_once_nobody_came_for_it(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    async with served(sim, options=brief(0)) as http:
        await closes_its_stream(sim, http, mode)
        await wait_until(lambda: not http.runs.live)
        async with http.client(mode) as kimi:
            assert (await kimi.run(await kimi.only_run())).status == "cancelled"
        assert http.state.waiting == {}


async def test_the_same_call_within_the_grace_joins_the_run_whose_stream_closed(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    async with served(sim, options=brief(3600)) as http:
        await closes_its_stream(sim, http, mode)
        await wait_until(lambda: all(run.abandoned for run in http.runs.live.values()))
        results: list[Any] = []
        async with http.client(mode) as kimi, anyio.create_task_group() as tasks:

            async def ask() -> None:
                results.append(await kimi.think("again"))

            tasks.start_soon(ask)
            await wait_until(lambda: len(http.state.calls) == 1)
            sim.open_gate("end")
        assert results[0].status == "completed"
        assert results[0].rules == ["run-rejoined"]
        assert len(chats(sim)) == 1, "it was paid for once"


async def test_a_run_whose_stream_closed_goes_on_where_somebody_asks_for_it(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    async with served(sim, options=brief(3600)) as http:
        await closes_its_stream(sim, http, mode)
        (run,) = http.runs.live.values()
        await wait_until(lambda: run.abandoned)
        async with http.client(mode) as kimi:
            assert (await kimi.run(run.id, "status")).status == "running"
            sim.open_gate("end")
            assert (await kimi.run(run.id)).status == "completed"


async def test_a_session_that_ends_leaves_its_calls(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with served(sim, options=brief(0)) as http:
        headers = await http.session()
        params = {"name": "kimi_think", "arguments": {"prompt": "x"}}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(http.post, message("tools/call", params), headers)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            await wait_until(lambda: len(http.state.calls) == 1)
            assert (await http.raw.delete("/mcp", headers=headers)).status_code == 200
        await wait_until(lambda: not http.runs.live)
        assert http.state.waiting == {}
        gone = await http.post(message("tools/list"), headers)
        assert gone.status_code == 404
        assert "Session not found" in error_of(gone)["message"]


async def test_a_client_of_tasks_gets_one_and_can_ask_for_it(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    extension = "io.modelcontextprotocol/tasks"
    timings = Timings(warm_up_after_s=3600, task_after_s=0)
    async with served(sim, options=ServerOptions(timings=timings)) as http:

        async def ask(method: str, name: str, params: dict[str, Any]) -> dict[str, Any]:
            body = newest(method, params)
            capabilities = {"extensions": {extension: {}}}
            body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities
            return (await http.post(body, newest_headers(method, name))).json()["result"]

        call = {"name": "kimi_think", "arguments": {"prompt": "x"}}
        task = await ask("tools/call", "kimi_think", call)
        assert task["resultType"] == "task"
        assert (await ask("tasks/get", task["taskId"], {"taskId": task["taskId"]}))["status"] == "working"
        mismatched = await http.post(
            newest("tasks/get", {"taskId": task["taskId"]}), newest_headers("tasks/get", "other")
        )
        assert (mismatched.status_code, error_of(mismatched)["code"]) == (400, -32020)
        sim.open_gate("end")
        (run,) = http.runs.live.values()
        await run.wait()
        ended = await ask("tasks/get", task["taskId"], {"taskId": task["taskId"]})
        assert ended["result"]["structuredContent"]["answer"] == HELD_STEP["content"]
