"""Claude Code with what ``install`` writes, against the simulator and a scripted model: what its model gets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from anyio import to_thread

from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from tests.hosts.scripted_claude import Block, Request, ScriptedModel, scripted_model
from tests.npm import CLAUDE, run

pytestmark = pytest.mark.soak

OURS = {f"mcp__kimi__{name}" for name in TOOLS}
THINK = "mcp__kimi__kimi_think"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(provider="simulator") as simulator:
        yield simulator


def install(home: Path, sim: Simulator, *options: str) -> None:
    program = Path(sys.executable).with_name("kimi-mcp")
    settings = ("--env", "KIMI_PROVIDER=simulator", "--env", f"KIMI_BASE_URL={sim.base_url}")
    subprocess.run(
        [program, "install", "claude-code", *settings, *options],
        env={"HOME": str(home)},
        check=True,
        capture_output=True,
    )


async def claude(home: Path, model: ScriptedModel) -> str:
    """What its one-shot mode prints."""
    arguments = ("-p", "Is P equal to NP?", "--allowedTools", ",".join(OURS))
    outcome = await to_thread.run_sync(
        lambda: run(
            CLAUDE,
            *arguments,
            home=home,
            ANTHROPIC_BASE_URL=model.url,
            ANTHROPIC_API_KEY="sk-ant-scripted",
            NO_PROXY="127.0.0.1",
        )
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def text(value: str) -> Block:
    return {"type": "text", "text": value}


def use(tool: str, **arguments: object) -> Block:
    return {"type": "tool_use", "name": tool, "input": arguments}


def results(request: Request) -> list[str]:
    """The results of tools that a request holds, in order, as JSON."""
    messages = [message["content"] for message in request["messages"] if isinstance(message["content"], list)]
    parts = [part for content in messages for part in content]
    return [json.dumps(part["content"]) for part in parts if part["type"] == "tool_result"]


async def test_its_model_has_every_tool_at_once_and_gets_the_answer(sim: Simulator, tmp_path: Path) -> None:
    sim.play({"content": "Nobody knows."})

    def script(request: Request) -> Block:
        received = results(request)
        return text(received[-1]) if received else use(THINK, prompt="Is P equal to NP?")

    install(tmp_path, sim)
    with scripted_model(script) as model:
        printed = await claude(tmp_path, model)
    assert {tool["name"] for tool in model.requests[0]["tools"]} >= OURS
    assert "Nobody knows." in printed


async def test_a_model_gets_the_error_and_its_fix(sim: Simulator, tmp_path: Path) -> None:
    def script(request: Request) -> Block:
        received = results(request)
        return text(received[-1]) if received else use(THINK, prompt="Is P equal to NP?", model="gpt-7")

    install(tmp_path, sim)
    with scripted_model(script) as model:
        printed = await claude(tmp_path, model)
    assert "invalid_arguments" in printed
    assert "Leave `model` out" in printed


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("translate", "kimi_instant"), ("screenshot", "kimi_vision"), ("deep research", "kimi_swarm")],
)
async def test_tools_left_to_a_search_are_found_by_a_trigger(
    sim: Simulator, tmp_path: Path, wanted: str, found: str
) -> None:
    """And ``kimi_think`` needs no search: it is in the prompt as soon as the server is connected."""
    sim.play({"content": "Nobody knows."})

    def script(request: Request) -> Block:
        match len(received := results(request)):
            case 0:
                return use("ToolSearch", query=wanted, max_results=5)
            case 1:
                return use(THINK, prompt="Is P equal to NP?")
            case _:
                return text(received[-1])

    install(tmp_path, sim, "--defer")
    with scripted_model(script) as model:
        printed = await claude(tmp_path, model)
    assert found in results(model.requests[1])[0]
    assert THINK in {tool["name"] for tool in model.requests[1]["tools"]}
    assert "Nobody knows." in printed
