"""MCP Apps: the document, the tools that name it, and what their results have for hosts that show it."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from mcp.client import advertise
from mcp.shared.exceptions import MCPError

from kimi_mcp.core.errors import RunNotFound
from kimi_mcp.server import apps, tasks
from kimi_mcp.server.apps import LEVELS, MIME_TYPE, MOST_BYTES, RUNS, URI, VIEW, bounded
from kimi_mcp.server.callers import LOCAL
from kimi_mcp.server.results import MOST_ANSWER_CHARS
from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, connect, connect_newest
from tests.server.requests import HELD_STEP
from tests.server.test_run_resources import somebody_elses
from tests.server.test_swarm import LEADING, TELL

SHOWS = advertise(apps.EXTENSION, {"mimeTypes": ["text/plain", MIME_TYPE]})
"""A client that shows such documents."""


def host(sim: Simulator | None, mode: str, **variables: str) -> AbstractAsyncContextManager[KimiClient]:
    """A host that shows such documents."""
    return connect(sim, mode, extensions=[SHOWS], **variables)


async def call(kimi: KimiClient, tool: str, **arguments: Any) -> dict[str, Any]:
    """The ``_meta`` of a result."""
    return (await kimi.client.call_tool(tool, arguments)).meta or {}


def weight(view: Any) -> int:
    """Bytes of a view as JSON."""
    return len(json.dumps(view, ensure_ascii=False, separators=(",", ":")).encode())


async def test_the_tools_that_are_shown_name_the_document(mode: str) -> None:
    async with connect(None, mode) as kimi:
        listed = {tool.name: (tool.meta or {}).get("ui") for tool in (await kimi.client.list_tools()).tools}
    shown = {name for name, ui in listed.items() if ui == {"resourceUri": URI}}
    assert shown == {"kimi_think", "kimi_swarm", "kimi_run"}
    assert {ui is None for name, ui in listed.items() if name not in shown} == {True}


async def test_the_extension_is_declared_in_the_newest_era(mode: str) -> None:
    async with connect(None, mode) as kimi:
        declared = kimi.client.server_capabilities
    assert declared is not None
    assert (declared.extensions or {}).get(apps.EXTENSION) == ({} if mode == "auto" else None)


async def test_the_document_is_a_resource_that_loads_nothing(mode: str) -> None:
    async with connect(None, mode) as kimi:
        (listed,) = [each for each in (await kimi.client.list_resources()).resources if each.uri == URI]
        (read,) = (await kimi.client.read_resource(URI)).contents
    assert listed.mime_type == read.mime_type == MIME_TYPE
    assert (listed.meta or {})["ui"] == (read.meta or {})["ui"] == apps.RESOURCE_META["ui"]
    assert "csp" not in apps.RESOURCE_META["ui"], "no domain is named"
    html: str = getattr(read, "text")  # noqa: B009 - it is one of two kinds
    assert html.startswith("<!doctype html>")
    assert "default-src 'none'" in html
    assert "ui/initialize" in html
    assert len(html.encode()) <= 150_000


async def test_a_result_has_the_view_of_its_run(sim: Simulator, mode: str) -> None:
    async with host(sim, mode) as kimi:
        result = await kimi.think()
        view = result.meta[VIEW]
    assert view["run"]["run_id"] == result.run_id
    assert view["run"]["status"] == "completed"
    assert view["reasoning"]
    assert [lane["steps"][0]["state"] for lane in view["lanes"]] == ["done"]
    assert view["cancellable"] is False
    assert not view.keys() & set(apps.IN_RESULT), "the result has them"
    assert result.text == result.answer, "the text is there too"


async def test_a_swarm_has_a_lane_for_each_agent(sim: Simulator, mode: str) -> None:
    sim.play(LEADING, {"match": {"system": "You lead a swarm"}, "content": "A and B."})
    async with host(sim, mode) as kimi:
        view = (await call(kimi, "kimi_swarm", prompt="Compare A and B."))[VIEW]
    assert [lane["id"] for lane in view["lanes"]] == ["main", "agent-1", "agent-2"]
    assert view["run"]["agents"] == 2


async def test_a_step_of_a_shown_run_can_be_read_alone(sim: Simulator, mode: str) -> None:
    async with host(sim, mode) as kimi:
        view = (await call(kimi, "kimi_swarm", **TELL, tools=["none"]))[VIEW]
        (agent,) = [lane for lane in view["lanes"] if lane["id"] == "agent-2"]
        uri = f"kimi://runs/{view['run']['run_id']}/steps/{agent['steps'][0]['key']}"
        (read,) = (await kimi.client.read_resource(uri)).contents
        with pytest.raises(MCPError):
            await kimi.client.read_resource(f"{uri}-other")
    step = json.loads(getattr(read, "text"))  # noqa: B009 - it is one of two kinds
    assert step["result"]
    assert step["reasoning"]


async def test_a_run_that_goes_on_is_followed_and_cancelled_by_kimi_run(sim: Simulator, mode: str) -> None:
    sim.play({**HELD_STEP})
    async with host(sim, mode, KIMI_REPLY_WITHIN_S="1") as kimi:
        begun = (await call(kimi, "kimi_think", prompt="Think long."))[VIEW]
        run_id = begun["run"]["run_id"]
        listed = (await call(kimi, "kimi_run"))[RUNS]
        looked = (await call(kimi, "kimi_run", run_id=run_id, action="wait", wait_s=0))[VIEW]
        ended = (await call(kimi, "kimi_run", run_id=run_id, action="cancel"))[VIEW]
    assert [(run["run_id"], run["status"], run["prompt"]) for run in listed] == [(run_id, "running", "Think long.")]
    assert [view["run"]["status"] for view in (begun, looked, ended)] == ["running", "running", "cancelled"]
    assert [view["cancellable"] for view in (begun, looked, ended)] == [True, True, False]


@pytest.mark.parametrize("settings", [None, {}, {"mimeTypes": ["text/html"]}, {"mimeTypes": MIME_TYPE}])
async def test_a_client_that_does_not_show_it_gets_the_text_alone(sim: Simulator, mode: str, settings: Any) -> None:
    extensions = [] if settings is None else [advertise(apps.EXTENSION, settings)]
    async with connect(sim, mode, extensions=extensions) as kimi:
        thought = await kimi.think()
        listed = await kimi.run()
    assert not thought.meta.keys() & {VIEW, RUNS}
    assert not listed.meta.keys() & {VIEW, RUNS}


@pytest.mark.parametrize("action", ["answer", "reasoning"])
async def test_a_page_and_another_tool_have_no_view(sim: Simulator, mode: str, action: str) -> None:
    async with host(sim, mode) as kimi:
        quick = await kimi.instant()
        page = await kimi.run(quick.run_id, action)
    assert not quick.meta.keys() & {VIEW, RUNS}
    assert not page.meta.keys() & {VIEW, RUNS}


async def test_a_refused_call_has_its_error_and_no_view(sim: Simulator, mode: str) -> None:
    async with host(sim, mode) as kimi:
        result = await kimi.call("kimi_think", {"prompt": " "})
    assert result.code == "invalid_arguments"
    assert not result.meta.keys() & {VIEW, RUNS}


async def test_somebody_elses_run_is_not_shown(sim: Simulator, mode: str, data_dir: Any) -> None:
    (theirs,) = await somebody_elses(data_dir)
    async with host(sim, mode) as kimi:
        result = await kimi.run(theirs)
        listed = await call(kimi, "kimi_run")
        with pytest.raises(MCPError):
            await kimi.client.read_resource(f"kimi://runs/{theirs}/steps/main")
    assert result.code == "run_not_found"
    assert not result.meta.keys() & {VIEW, RUNS}
    assert listed[RUNS] == []


async def test_a_run_that_is_kept_for_its_host_is_its_callers_alone(sim: Simulator) -> None:
    async with host(sim, "auto") as kimi:
        run_id = (await kimi.think()).run_id
        assert kimi.state.shown is not None
        assert (await kimi.state.shown.open(kimi.runs.store, run_id, LOCAL)).record.id == run_id
        with pytest.raises(RunNotFound):
            await kimi.state.shown.open(kimi.runs.store, run_id, "somebody else")


async def hang(*call: Any) -> Any:
    await anyio.sleep_forever()


async def fail(*call: Any) -> Any:
    raise ValueError("a bug")


@pytest.mark.parametrize("found", [hang, fail])
async def test_a_result_comes_whatever_becomes_of_its_view(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, found: Any
) -> None:
    monkeypatch.setattr(apps, "_found", found)
    monkeypatch.setattr(apps, "WITHIN_S", 0.05)
    async with host(sim, "auto") as kimi:
        result = await kimi.think()
    assert result.status == "completed"
    assert VIEW not in result.meta


async def test_the_result_of_a_task_has_the_view_too(sim: Simulator) -> None:
    async with connect_newest(sim, tasks.EXTENSION, apps.EXTENSION) as kimi:
        task = await kimi.call("kimi_swarm", TELL | {"tools": ["none"]})
        while (found := await kimi.ask("tasks/get", taskId=task["taskId"]))["status"] == "working":
            await anyio.sleep(0.01)
    assert found["result"]["_meta"][VIEW]["run"]["run_id"] == task["taskId"]


async def test_a_long_answer_is_not_carried_a_third_time(sim: Simulator, mode: str) -> None:
    sim.play({"content": "ä" * 2 * MOST_ANSWER_CHARS, "reasoning": "ö" * 100_000})
    async with host(sim, mode) as kimi:
        view = (await call(kimi, "kimi_think", prompt="Write much."))[VIEW]
    assert weight(view) <= MOST_BYTES
    assert view["cut"]["reasoning"] == 100_000
    assert len(view["reasoning"]) == LEVELS[0][0]


def swarm_view(agents: int, steps: int, text: str = "") -> dict[str, Any]:
    """The view of a swarm."""
    step = {"kind": "request", "label": "step", "state": "done", "tokens": 10, "cost_usd": 0.5, "why": "", "calls": []}
    return {
        "version": 1,
        "run": {"run_id": "run_1", "status": "completed"},
        "prompt": text,
        "reasoning": text,
        "answer": text,
        "conversation": {"before": [{}] * 50, "after": [{}] * 50},
        "lanes": [
            {
                "id": f"agent-{agent}",
                "system": text,
                "task": text,
                "steps": [
                    {**step, "key": f"{agent}/{number}", "start_s": number, "end_s": number + 0.5}
                    for number in range(steps)
                ],
            }
            for agent in range(agents)
        ],
        "cut": {"answer": 9},
    }


def test_a_view_that_is_small_keeps_each_step() -> None:
    view = swarm_view(10, 20)
    small = bounded(view)
    assert small["lanes"] == view["lanes"]
    assert small["cut"] == {}
    assert len(small["conversation"]["before"]) == len(small["conversation"]["after"]) == apps.MOST_TURNS


@pytest.mark.parametrize("text", ["", "word " * 20_000, "🌍" * 100_000])
def test_a_view_that_is_large_joins_the_steps_of_each_agent(text: str) -> None:
    small = bounded(swarm_view(128, 100, text))
    assert weight(small) <= MOST_BYTES
    assert len(small["lanes"]) == 128
    for lane in small["lanes"]:
        steps = lane["steps"]
        assert (steps[0]["start_s"], steps[-1]["end_s"]) == (0, 99.5)
        assert sum(step["tokens"] for step in steps) == 1000
        assert sum(step["cost_usd"] for step in steps) == 50


def test_what_a_joined_step_can_not_know_it_does_not_say() -> None:
    view = swarm_view(128, 100)
    view["lanes"][0]["steps"][0]["cost_usd"] = None
    view["lanes"][0]["steps"][1] |= {"state": "failed", "why": "rate_limited"}
    view["lanes"][0]["steps"][-1] |= {"state": "unfinished", "end_s": None}
    first, *_, last = bounded(view)["lanes"][0]["steps"]
    assert (first["cost_usd"], first["state"], first["why"]) == (None, "failed", "rate_limited")
    assert (last["state"], last["end_s"]) == ("unfinished", None)


def test_a_view_that_nothing_makes_small_has_no_lanes() -> None:
    small = bounded(swarm_view(5000, 2))
    assert weight(small) <= MOST_BYTES
    assert small["lanes"] == []
