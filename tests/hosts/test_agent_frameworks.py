"""Agent frameworks with our server and a scripted model: what its model is offered, and what it gets for each call."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from tests.server.http.served import served

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("agent_frameworks.py")
SHAPE = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("kimi_think", {"prompt": "Why is the sky blue?"}, "was asked: Why is the sky blue?"),
    ("kimi_instant", {"prompt": "Name a colour.", "response_schema": SHAPE}, "[simulator] a: Name a colour."),
    ("kimi_vision", {"prompt": "What is it?", "images": ["shot.png"]}, "Media: image png"),
    ("kimi_video", {"prompt": "What happens?", "video": "clip.mp4"}, "Media: video mp4"),
    ("kimi_swarm", {"prompt": "Look at {{item}}.", "items": ["Rome", "Oslo"]}, "agent-1 (Rome), completed"),
    ("kimi_run", {}, "kimi_swarm  Look at"),
    ("kimi_think", {"prompt": "hi", "temperature": 9}, "`temperature` must be 2 or less"),
]
"""Each call, and what its result must have."""

FRAMEWORKS = {
    "fastmcp": "agents",
    "google_adk": "agents-adk",
    "langchain": "agents-sdk1",
    "openai_agents": "agents",
    "pydantic_ai": "agents",
}
"""The environment of each, which ``make soak`` makes; requirements/ has the versions."""


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(provider="simulator") as simulator:
        yield simulator


@pytest.mark.parametrize("name", FRAMEWORKS)
async def test_an_agents_model_is_offered_every_tool_and_gets_answers_and_errors(
    sim: Simulator, data_dir: Path, name: str
) -> None:
    await offers_every_tool(name, [sys.executable, "-m", "kimi_mcp"], sim, data_dir)


async def test_fastmcps_client_is_offered_every_tool_and_gets_answers_and_errors_over_http(
    sim: Simulator, data_dir: Path
) -> None:
    async with served(sim, KIMI_ROOTS=str(ROOT / "examples")) as http:
        await offers_every_tool("fastmcp", [http.serving.local_url], sim, data_dir)


async def offers_every_tool(name: str, command: list[str], sim: Simulator, data_dir: Path) -> None:
    """What a framework is offered by a server, which is a command or a URL, and what it gets of each call."""
    python = ROOT / ".venv" / FRAMEWORKS[name] / "bin" / "python"
    if not python.exists():
        pytest.skip("the agent frameworks are not installed: `make soak` does that where they can be downloaded")
    environment = {
        "KIMI_PROVIDER": "simulator",
        "KIMI_BASE_URL": sim.base_url,
        "KIMI_DATA_DIR": str(data_dir),
        "KIMI_ROOTS": str(ROOT / "examples"),
    }
    given = {
        "command": command,
        "env": environment,
        "calls": [(tool, arguments) for tool, arguments, _ in CALLS],
    }
    with anyio.fail_after(180):
        done = await anyio.run_process(
            [str(python), str(SCRIPT), name],
            input=json.dumps(given).encode(),
            env={"PATH": os.environ["PATH"], "HOME": str(data_dir)},
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert set(seen["offered"]) == set(TOOLS)
    assert seen["offered"]["kimi_think"]["properties"]["response_schema"]["type"].lower() == "object"
    assert len(seen["got"]) == len(CALLS)
    for (tool, _, wanted), got in zip(CALLS, seen["got"], strict=True):
        assert wanted in got, tool
