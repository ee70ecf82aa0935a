"""Clients on the TypeScript SDKs, the Inspector and Vercel's AI SDK: they list every tool, and see answer and error."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from tests.hosts.scripted_model import scripted_model
from tests.hosts.test_hosts import CALLS, check, script, settings
from tests.npm import AI_SDK, INSPECTOR, SDK1, SDK2, Program, run
from tests.server.http.served import served

pytestmark = pytest.mark.soak

CLIENTS = Path(__file__).with_name("clients")
SERVER = Path(sys.executable).with_name("kimi-mcp")


async def ended(program: Program, *arguments: str | Path, home: Path, sim: Simulator) -> str:
    """What a program printed, which passes the settings of the server on."""
    passed = settings(sim) | {"NO_PROXY": "127.0.0.1"}
    outcome = await to_thread.run_sync(partial(run, program, *arguments, home=home, **passed))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.mark.parametrize(
    ("sdk", "modules"),
    [
        (SDK1, ("@modelcontextprotocol/sdk/client/index.js", "@modelcontextprotocol/sdk/client/stdio.js")),
        (SDK2, ("@modelcontextprotocol/client", "@modelcontextprotocol/client/stdio")),
    ],
    ids=["1", "2"],
)
async def test_a_client_of_the_typescript_sdk_calls_every_tool(
    sdk: Program, modules: tuple[str, str], sim: Simulator, tmp_path: Path
) -> None:
    await calls_every_tool(sdk, modules, SERVER, sim, tmp_path)


@pytest.mark.parametrize(
    ("sdk", "modules"),
    [
        (SDK1, ("@modelcontextprotocol/sdk/client/index.js", "@modelcontextprotocol/sdk/client/streamableHttp.js")),
        (SDK2, ("@modelcontextprotocol/client", "@modelcontextprotocol/client")),
    ],
    ids=["1", "2"],
)
async def test_a_client_of_the_typescript_sdk_calls_every_tool_over_http(
    sdk: Program, modules: tuple[str, str], sim: Simulator, tmp_path: Path
) -> None:
    async with served(sim, KIMI_ROOTS=str(Path.cwd())) as http:
        await calls_every_tool(sdk, modules, http.serving.local_url, sim, tmp_path)


async def calls_every_tool(
    sdk: Program, modules: tuple[str, str], server: str | Path, sim: Simulator, home: Path
) -> None:
    """A scripted client calls each tool, and one wrongly; all answers are whole."""
    calls = json.dumps([(tool, arguments) for tool, arguments, _ in CALLS])
    printed = json.loads(await ended(sdk, CLIENTS / "sdk.mjs", *modules, server, calls, home=home, sim=sim))
    assert printed["tools"] == list(TOOLS)
    for (tool, _, expected), result in zip(CALLS, printed["results"], strict=True):
        assert expected in result["content"][0]["text"], tool
        assert expected in json.dumps(result["structuredContent"]), tool
    assert [result.get("isError", False) for result in printed["results"]] == [*[False] * 6, True]


async def test_a_model_of_the_ai_sdk_is_offered_every_tool_and_gets_every_answer_and_error(
    sim: Simulator, tmp_path: Path
) -> None:
    with scripted_model(script) as model:
        url = f"{model.url}/v1"
        printed = await ended(AI_SDK, CLIENTS / "ai.mjs", SERVER, url, home=tmp_path, sim=sim)
    check(model.turns)
    assert "That is all." in printed


async def test_the_ai_sdk_connects_every_time_under_load(sim: Simulator, tmp_path: Path) -> None:
    """It gives a server a second for its first reply, then takes it for one of the older era."""
    counts = await ended(AI_SDK, CLIENTS / "connections.mjs", SERVER, "50", "8", home=tmp_path, sim=sim)
    assert json.loads(counts) == [len(TOOLS)] * 50


async def test_the_inspector_lists_every_tool_and_shows_an_answer_and_an_error(sim: Simulator, tmp_path: Path) -> None:
    given = [word for name, value in settings(sim).items() for word in ("-e", f"{name}={value}")]

    async def inspected(*requested: str) -> Any:
        outcome = await to_thread.run_sync(
            partial(
                run, INSPECTOR, "--cli", *given, SERVER, "--method", *requested, home=tmp_path, NO_PROXY="127.0.0.1"
            )
        )
        return json.loads(outcome.stdout)

    call = ("tools/call", "--tool-name", "kimi_think", "--tool-arg", "prompt=Think.")
    assert [tool["name"] for tool in (await inspected("tools/list"))["tools"]] == list(TOOLS)
    assert "was asked: Think." in (await inspected(*call))["content"][0]["text"]
    assert "Leave `model` out" in (await inspected(*call, "--tool-arg", "model=gpt-7"))["content"][0]["text"]


async def test_the_inspector_lists_every_tool_and_shows_an_answer_over_http(sim: Simulator, tmp_path: Path) -> None:
    async with served(sim) as http:

        async def inspected(*requested: str) -> Any:
            words = ("--cli", http.serving.local_url, "--transport", "http", "--method", *requested)
            outcome = await to_thread.run_sync(partial(run, INSPECTOR, *words, home=tmp_path, NO_PROXY="127.0.0.1"))
            assert outcome.returncode == 0, outcome.stdout + outcome.stderr
            return json.loads(outcome.stdout)

        assert [tool["name"] for tool in (await inspected("tools/list"))["tools"]] == list(TOOLS)
        call = ("tools/call", "--tool-name", "kimi_think", "--tool-arg", "prompt=Think.")
        assert "was asked: Think." in (await inspected(*call))["content"][0]["text"]
