"""The simulator as a process, and its independence."""

from __future__ import annotations

import ast
import json
import signal
import socket
import sys
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.streams.text import TextReceiveStream

import kimi_mcp.simulator
from kimi_mcp.simulator import Simulator, SimulatorError, serve_simulator
from tests.simulator.requests import INSTANT

pytestmark = pytest.mark.anyio

COMMAND = [sys.executable, "-m", "kimi_mcp.simulator"]


async def test_the_command_prints_its_base_url_first_and_plays_its_scenario(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.json"
    scenario.write_text(json.dumps([{"content": "from the file"}]))
    command = [*COMMAND, "--provider", "moonshot", "--port", "0", "--faults", str(scenario)]
    with anyio.fail_after(15):
        async with await anyio.open_process(command, stderr=None) as process:
            assert process.stdout is not None
            url = (await TextReceiveStream(process.stdout).receive()).strip()
            assert url.startswith("http://127.0.0.1:")
            async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
                headers = {"authorization": "Bearer sk-test"}
                got = await client.post(f"{url}/chat/completions", json=INSTANT, headers=headers)
            assert got.json()["choices"][0]["message"]["content"] == "from the file"
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0


async def test_a_busy_port_is_one_clear_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with anyio.fail_after(15):
            ended = await anyio.run_process([*COMMAND, "--port", str(port)], check=False)
        assert ended.returncode == 1
        said = ended.stderr.decode().splitlines()
        assert said == [
            f"the simulator can't listen on 127.0.0.1:{port} (Address already in use); choose another --port"
        ]
        with pytest.raises(SimulatorError):
            async with Simulator(port=port):
                pass


async def test_a_wrong_scenario_is_one_clear_sentence(tmp_path: Path) -> None:
    scenario = tmp_path / "wrong.json"
    scenario.write_text('[{"statsu": 500}]')
    with anyio.fail_after(15):
        ended = await anyio.run_process([*COMMAND, "--faults", str(scenario)], check=False)
    assert ended.returncode == 1
    assert ended.stderr.decode().startswith(f"{scenario}: step 1: unknown key statsu")


async def test_serving_announces_the_base_url() -> None:
    said: list[str] = []
    announced = anyio.Event()

    def announce(line: str) -> None:
        said.append(line)
        announced.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_simulator, "nim", "127.0.0.1", 0, None, announce)
            await announced.wait()
            tasks.cancel_scope.cancel()
    assert said[0].startswith("http://127.0.0.1:")


def test_the_oracle_imports_nothing_of_the_product_and_no_data_of_it() -> None:
    folder = Path(kimi_mcp.simulator.__file__).parent
    allowed = {"anyio", "h11", "pydantic", "python_multipart", *sys.stdlib_module_names}
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
