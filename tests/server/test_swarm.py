"""``kimi_swarm`` as a host sees it: arguments, result, progress, and a run like any other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, connect
from tests.server.requests import body_of, chats

CITIES = ["Rome", "Oslo", "Lima"]
TELL = {"prompt": "Tell me about {{item}}.", "items": CITIES}

LEADING = {
    "match": {"system": "You lead a swarm", "turns": 0},
    "tool_calls": [
        {"name": "create_subagent", "arguments": {"name": "reader", "system_prompt": "You read."}},
        {"name": "assign_task", "arguments": {"agent": "reader", "prompt": "Look at A."}, "id": "functions.a:1"},
        {"name": "assign_task", "arguments": {"agent": "reader", "prompt": "Look at B."}, "id": "functions.a:2"},
    ],
}


async def test_a_swarm_answers_with_its_agents(sim: Simulator, mode: str) -> None:
    sim.play(LEADING, {"match": {"system": "You lead a swarm"}, "content": "A and B."})
    async with connect(sim, mode) as kimi:
        result = await kimi.call("kimi_swarm", {"prompt": "Compare A and B."})
    assert result.status == "completed"
    assert result.answer == "A and B."
    assert result.rules == []
    assert result.text == "A and B."
    swarm = result.structured["swarm"]
    assert set(swarm) == {"agents", "steps", "critical_steps", "speedup"}
    assert [set(agent) for agent in swarm["agents"]] == [{"id", "name", "status", "steps", "tool_calls", "usage"}] * 2
    assert (swarm["steps"], swarm["critical_steps"]) == (2, 3)
    assert result.structured["usage"]["cost_usd"] > 0
    assert result.structured["mode"] == "thinking"
    assert result.structured["model"] == {"asked": "auto", "sent": "kimi-k2.5", "answered": "kimi-k2.5"}


async def test_each_step_of_a_swarm_has_its_effort(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        known = await kimi.call("kimi_swarm", {**TELL, "effort": "low", "model": "kimi-k3", "tools": ["none"]})
        unknown = await kimi.call("kimi_swarm", {**TELL, "effort": "low", "tools": ["none"]})
    assert [body_of(request).get("reasoning_effort") for request in chats(sim)] == ["low"] * 4 + [None] * 4
    assert (known.rules, unknown.rules) == (["swarm-tools"], ["effort-known", "swarm-tools"])


def offered(sim: Simulator) -> list[str]:
    """The tools in the first request."""
    return [tool["function"]["name"] for tool in body_of(chats(sim)[0])["tools"]]


async def test_without_any_setting_sub_agents_have_files_and_the_web(mode: str) -> None:
    async with Simulator(provider="vllm") as sim, connect(sim, mode, provider="vllm") as kimi:
        result = await kimi.call("kimi_swarm", {**TELL, "tools": []})
    assert (result.status, result.rules) == ("completed", [])
    assert offered(sim) == ["files__list", "files__read", "files__search", "web__fetch"]


async def test_a_swarm_without_roots_says_why_its_agents_have_no_files(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_ROOTS=os.pathsep) as kimi:
        result = await kimi.call("kimi_swarm", TELL)
        assert result.rules == ["swarm-tools"]
        assert "The tools of files are not there: no folder may be read (KIMI_ROOTS names none)." in result.text
        assert not [name for name in offered(sim) if name.startswith("files")]
        unwanted = await kimi.call("kimi_swarm", {**TELL, "tools": ["web.*"]})
    assert unwanted.rules == [], "nobody asked for files"


async def test_agents_read_and_search_the_files_of_the_roots(sim: Simulator, folder: Path, mode: str) -> None:
    (folder / "a.py").write_text("def main(): ...\n")
    calls = [
        {"name": "files__search", "arguments": {"regex": "def \\w+"}, "id": "functions.a:0"},
        {"name": "files__read", "arguments": {"path": "../a.py"}, "id": "functions.a:1"},
    ]
    sim.play({"match": {"text": "Tell me about Rome.", "turns": 0}, "tool_calls": calls})
    async with connect(sim, mode, KIMI_ROOTS=str(folder)) as kimi:
        result = await kimi.call("kimi_swarm", TELL)
    assert result.status == "completed"
    results = [each["content"] for q in chats(sim) for each in body_of(q)["messages"] if each["role"] == "tool"]
    assert "a.py:1: def main(): ..." in results[0]
    assert results[1].startswith("The path is outside the folders")


async def test_a_glob_among_the_items_gives_each_file_to_an_agent(sim: Simulator, folder: Path) -> None:
    for name in "ab":
        (folder / f"{name}.py").write_text(f"# {name}, whole\n")
    call = {"prompt": "Review {{item}}.", "items": ["*.py"]}
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        result = await kimi.call("kimi_swarm", call)
    assert [agent["name"] for agent in result.structured["swarm"]["agents"]] == ["a.py", "b.py"]
    sent = [body_of(each)["messages"][-1]["content"] for each in chats(sim)]
    assert any("# a, whole\n" in text and "# b" not in text for text in sent)


async def test_a_swarm_gets_no_tools_where_its_caller_wants_none(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.call("kimi_swarm", {**TELL, "tools": ["none"]})
    assert result.status == "completed"
    assert result.rules == ["swarm-tools"]
    assert "tools" not in body_of(chats(sim)[0])


async def test_sub_agents_search_with_the_providers_own_tools(sim: Simulator, mode: str) -> None:
    call = {"name": "moonshot__web_search", "arguments": {"query": "Oslo in winter"}}
    sim.play({"match": {"text": "Tell me about Oslo.", "turns": 0}, "tool_calls": [call]})
    async with connect(sim, mode) as kimi:
        result = await kimi.call("kimi_swarm", TELL)
    assert result.status == "completed"
    assert [agent["tool_calls"] for agent in result.structured["swarm"]["agents"]] == [0, 1, 0]
    assert result.structured["usage"]["cost_usd"] > 0.005, "a search has its price"


async def test_a_swarm_that_takes_long_returns_a_handle_like_any_other_call(sim: Simulator, mode: str) -> None:
    sim.play({"match": {"text": "Tell me about Oslo."}, "gate": "oslo"})
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.3") as kimi:
        result = await kimi.call("kimi_swarm", TELL)
        assert result.status == "running"
        await sim.until(lambda: sim.waiting_at("oslo") == 1)
        with anyio.fail_after(60):
            while (status := await kimi.run(result.run_id, "status")).structured["swarm"]["agents"][0]["steps"] == 0:
                pass
        assert [agent["status"] for agent in status.structured["swarm"]["agents"]][1] == "running"
        sim.open_gate("oslo")
        fetched = await kimi.run(result.run_id, "wait", wait_s=10)
        assert fetched.status == "completed"
        assert [agent["name"] for agent in fetched.structured["swarm"]["agents"]] == CITIES
        page = await kimi.run(result.run_id, "answer")
        assert page.structured["page"]["text"] == fetched.answer
        assert (await kimi.run(result.run_id)).structured == fetched.structured
    assert len(chats(sim)) == 4, "it was paid for once"


async def test_kimi_run_cancels_a_swarm_with_every_request(sim: Simulator, mode: str) -> None:
    sim.play({"match": {"text": "Tell me"}, "gate": "never", "times": "always"})
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.1") as kimi:
        result = await kimi.call("kimi_swarm", TELL)
        await sim.until(lambda: sim.waiting_at("never") == 3)
        cancelled = await kimi.run(result.run_id, "cancel")
        await sim.client_gone(3)
    assert cancelled.status == "cancelled"
    assert [agent["status"] for agent in cancelled.structured["swarm"]["agents"]] == ["cancelled"] * 3


async def test_progress_tells_how_the_agents_stand(sim: Simulator, mode: str) -> None:
    often = ServerOptions(timings=Timings(warm_up_after_s=3600, first_progress_s=0.1, progress_every_s=0.1))
    sim.play({"match": {"text": "Tell me about Oslo."}, "gate": "oslo"})
    heard: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")
        if "1 running, 2 done" in heard[-1]:
            sim.open_gate("oslo")

    async with connect(sim, mode, options=often) as kimi:
        with anyio.fail_after(60):
            result = await kimi.call("kimi_swarm", TELL, progress_callback=hear)
    assert result.status == "completed"
    assert any("3 agents: 1 running, 2 done · 2 steps · about" in line for line in heard)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "`prompt`"),
        ({"prompt": " "}, "`prompt`"),
        ({"prompt": "Tell me.", "items": CITIES}, "{{item}}"),
        ({"prompt": "{{item}}", "items": ["one"]}, "`items`"),
        ({"prompt": "{{item}}", "items": []}, None),
        ({"prompt": "{{item}}", "items": ["a", "a"]}, "`items[0]`"),
        ({"prompt": "{{item}}", "items": ["a", " "]}, "`items[1]`"),
        ({"prompt": "{{item}}", "items": "a"}, "`items`"),
        ({"prompt": "x", "max_agents": -1}, "`max_agents`"),
        ({"prompt": "x", "max_agents": 101}, "`max_agents`"),
        ({"prompt": "x", "max_steps": "3"}, "`max_steps`"),
        ({"prompt": "x", "max_cost_usd": -1}, "`max_cost_usd`"),
        ({"prompt": "x", "tools": [1]}, "`tools[0]`"),
        ({"prompt": "x", "system": "y"}, "no argument `system`"),
        ({"prompt": "x", "temperature": 1}, "no argument `temperature`"),
    ],
)
async def test_what_a_swarm_can_not_take_is_refused_before_anything_is_sent(
    sim: Simulator, arguments: dict[str, Any], named: str | None
) -> None:
    async with connect(sim) as kimi:
        result = await kimi.call("kimi_swarm", arguments)
    if named is None:
        assert result.status == "completed", "no items at all are the same as none"
        return
    assert result.code == "invalid_arguments"
    assert named in result.error["message"]
    assert result.structured["run_id"] is None
    assert not chats(sim)


async def test_more_steps_than_allowed_are_adjusted_and_reported(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.call("kimi_swarm", {"prompt": "x", "max_steps": 16})
    assert "swarm-steps" in result.rules
    assert "max_steps 16 → 15" in result.text


async def test_without_a_key_a_swarm_says_not_configured(mode: str) -> None:
    async with connect(None, mode, provider=None) as kimi:
        result = await kimi.call("kimi_swarm", {"prompt": "x"})
    assert result.code == "not_configured"


async def test_a_provider_that_is_not_allowed_gets_no_swarm(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        result = await kimi.call("kimi_swarm", {"prompt": "x", "provider": "moonshot"})
    assert (result.code, result.error["rule"]) == ("policy_refused", "provider-allowed")


async def test_a_partial_swarm_says_what_is_missing_and_how_to_go_on(sim: Simulator, mode: str) -> None:
    sim.play({"match": {"text": "about Oslo"}, "status": 401})
    async with connect(sim, mode) as kimi:
        result = await kimi.call("kimi_swarm", TELL)
    assert result.status == "partial"
    assert not result.is_error
    assert "agent-2 (Oslo)" in result.error["message"]
    assert "agent-2 (Oslo)" in result.text
    assert result.error["fix"] in result.text
