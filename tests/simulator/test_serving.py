"""Serving a simulator until it is cancelled, and its independence."""

from __future__ import annotations

import ast
import json
import re
import socket
import sys
from pathlib import Path

import anyio
import httpx2
import pytest

import kimi_mcp.simulator
from kimi_mcp.simulator import ScenarioError, Simulator, SimulatorError, serve_simulator
from tests.simulator.requests import INSTANT

pytestmark = pytest.mark.anyio


async def test_a_simulator_announces_its_base_url_and_plays_its_scenario(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.json"
    scenario.write_text(json.dumps([{"content": "from the file"}]))
    urls: list[str] = []
    announced = anyio.Event()

    def announce(url: str) -> None:
        urls.append(url)
        announced.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_simulator, "moonshot", "127.0.0.1", 0, scenario, announce)
            await announced.wait()
            (url,) = urls
            assert url.startswith("http://127.0.0.1:")
            async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
                headers = {"authorization": "Bearer sk-test"}
                got = await client.post(f"{url}/chat/completions", json=INSTANT, headers=headers)
            assert got.json()["choices"][0]["message"]["content"] == "from the file"
            tasks.cancel_scope.cancel()


async def test_a_busy_port_is_one_clear_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence = f"the simulator can't listen on 127.0.0.1:{port} (Address already in use); choose another --port"
        with pytest.raises(SimulatorError, match=f"^{re.escape(sentence)}$"):
            async with Simulator(port=port):
                pass


async def test_a_wrong_scenario_is_one_clear_sentence(tmp_path: Path) -> None:
    scenario = tmp_path / "wrong.json"
    scenario.write_text('[{"statsu": 500}]')
    with pytest.raises(ScenarioError, match=f"^{re.escape(str(scenario))}: step 1: unknown key statsu"):
        await serve_simulator("simulator", "127.0.0.1", 0, scenario)


def test_the_oracle_imports_nothing_of_the_product_and_no_data_of_it() -> None:
    folder = Path(kimi_mcp.simulator.__file__).parent
    allowed = {"PIL", "anyio", "h11", "pydantic", "python_multipart", *sys.stdlib_module_names}
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                ours = name == "kimi_mcp.simulator" or name.startswith("kimi_mcp.simulator.")
                assert ours or name.split(".")[0] in allowed, f"{path.name} imports {name}"


def test_every_file_of_the_simulator_stays_short() -> None:
    folder = Path(kimi_mcp.simulator.__file__).parent
    for path in folder.glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) < 400, path.name
