"""What a first call needs is imported and opened soon after the start, so that it waits for nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from kimi_mcp.runs.store.config import FILE
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, connect
from tests.server.processes import server_process

AT_ONCE = ServerOptions(timings=Timings(warm_up_after_s=0))


async def test_a_server_opens_its_store_without_a_call(sim: Simulator, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with server_process(sim, KIMI_DATA_DIR=str(folder)) as client:
        with anyio.fail_after(60):
            while not (folder / FILE).exists():
                await anyio.sleep(0.01)
        assert (await client.list_tools()).tools


async def test_a_store_that_cannot_be_opened_is_logged_and_refuses_calls_alone(sim: Simulator, tmp_path: Path) -> None:
    (folder := tmp_path / "data").write_text("a file where a folder belongs")
    log = tmp_path / "stderr"
    async with server_process(sim, stderr=log, KIMI_DATA_DIR=str(folder)) as client:
        with anyio.fail_after(60):
            while "could not be opened yet" not in log.read_text():
                await anyio.sleep(0.01)
        assert (await client.list_tools()).tools
        result = await client.call_tool("kimi_think", {"prompt": "hi"})
    assert result.structured_content is not None
    assert result.structured_content["error"]["code"] == "not_configured"


async def test_a_call_that_comes_first_opens_it_once(sim: Simulator) -> None:
    async with connect(sim, options=AT_ONCE) as kimi:
        assert (await kimi.think()).status == "completed"
        assert (await kimi.think()).status == "completed"


@pytest.mark.parametrize(
    ("package", "tool", "arguments"),
    [
        ("jsonschema", "kimi_think", {"prompt": "hi", "response_schema": {"type": "object"}}),
        ("kimi_mcp.swarm", "kimi_swarm", {"prompt": "hi"}),
    ],
)
async def test_a_call_whose_packages_are_damaged_says_that_the_installation_is_broken(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, package: str, tool: str, arguments: dict[str, object]
) -> None:
    async with connect(sim) as kimi:
        monkeypatch.setitem(sys.modules, package, None)
        failed = await kimi.call(tool, arguments)
    assert failed.code == "internal"
    assert "installation is broken" in failed.text
    assert package not in failed.text, "a foreign exception's text"
