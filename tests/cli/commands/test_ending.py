"""Commands that are terminated by a signal: their tools end with them, and a swarm is kept to be gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process

from kimi_mcp.simulator import Simulator
from tests.cli.commands.shell import kimi, started, to
from tests.server.test_swarm_end_to_end import ODD_SERVER
from tests.swarm.tools.test_stdio_client import ended

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups")

ASK = ("ask", "Tell me about {{item}}.", "--item", "Rome", "--item", "Oslo")


@pytest.fixture
def stubborn(tmp_path: Path) -> Path:
    """A file of servers, of which the one leaves only by force and has a child that does too; beside it their ids."""
    file, pids = tmp_path / "mcp.json", tmp_path / "pids"
    entry = {"command": sys.executable, "args": [str(ODD_SERVER), "grandchild", "stays", f"pids={pids}"]}
    file.write_text(json.dumps({"mcpServers": {"odd": entry}}))
    return file


@asynccontextmanager
async def halfway(sim: Simulator, file: Path, *command: str) -> AsyncIterator[tuple[Process, list[int]]]:
    """A command in the middle of a swarm: Rome has answered, Oslo never does there. And its tools' processes."""
    sim.play({"match": {"text": "about Oslo"}, "gate": "never", "times": 1})
    settings = to(sim, KIMI_SWARM_MCP=str(file))
    async with started(*command, settings=settings, stdin=subprocess.DEVNULL) as process:
        await sim.until(lambda: sim.waiting_at("never") == 1)
        while not any(step["result"] for step in await steps()):
            await anyio.sleep(0.01)
        yield process, [int(pid) for pid in file.with_name("pids").read_text().split()]


async def steps() -> list[dict[str, Any]]:
    run_id = (await row())["run_id"]
    return (await kimi("runs", "show", run_id, "--json")).json["steps"]


async def row() -> dict[str, Any]:
    """The one run."""
    (only,) = (await kimi("runs", "--json")).json
    return only


async def leaves(process: Process, *how: signal.Signals) -> tuple[int, str]:
    """How a terminated command exits, and what it prints."""
    for place, number in enumerate(how):
        if place:
            await anyio.sleep(0.05)  # so that this one comes in the midst of its end
        process.send_signal(number)
    assert process.stderr is not None
    printed = b"".join([piece async for piece in process.stderr])
    return await process.wait(), printed.decode()


async def all_ended(pids: list[int]) -> None:
    """Return once all processes are gone: they were killed, and a busy machine takes its time to carry that out."""
    assert len(pids) == 2
    with anyio.fail_after(60):
        while not all(map(ended, pids)):
            await anyio.sleep(0.01)


def requested(sim: Simulator, text: str) -> int:
    """How often an agent was asked so."""
    bodies = [request.body for request in sim.requests if request.path.endswith("/chat/completions")]
    return sum(json.dumps(text) in json.dumps(body and body["messages"]) for body in bodies)


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
async def test_ask_that_is_terminated_leaves_its_swarm_and_takes_its_tools_along(
    sim: Simulator, stubborn: Path, how: signal.Signals
) -> None:
    async with halfway(sim, stubborn, *ASK) as (process, tools):
        status, printed = await leaves(process, how)
        assert status == 128 + how
        await all_ended(tools)
    run = await row()
    assert run["status"] == "running", "it is not at its end"
    assert f"kimi-mcp runs resume {run['run_id']}" in printed
    assert "Traceback" not in printed
    done = await kimi("runs", "resume", run["run_id"], "--json", settings=to(sim, KIMI_SWARM_MCP=str(stubborn)))
    assert done.json["status"] == "completed"
    assert (requested(sim, "Tell me about Rome."), requested(sim, "Tell me about Oslo.")) == (1, 2)


@pytest.mark.soak
@pytest.mark.parametrize("times", [1, 3])
async def test_ctrl_c_ends_a_swarm_of_ask_with_its_tools(sim: Simulator, stubborn: Path, times: int) -> None:
    async with halfway(sim, stubborn, *ASK) as (process, tools):
        status, printed = await leaves(process, *[signal.SIGINT] * times)
        assert (status, printed) == (130, "")
        await all_ended(tools)
    assert (await row())["status"] == "partial", "Rome is answered"


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_resumed_swarm_is_left_once_more_and_can_be_resumed_again(
    sim: Simulator, stubborn: Path, how: signal.Signals
) -> None:
    async with halfway(sim, stubborn, *ASK) as (process, _):
        await leaves(process, signal.SIGTERM)
    run_id = (await row())["run_id"]
    stubborn.with_name("pids").unlink()
    async with halfway(sim, stubborn, "runs", "resume", run_id) as (process, tools):
        status, printed = await leaves(process, how)
        assert status == 128 + how
        assert f"kimi-mcp runs resume {run_id}" in printed
        assert "Traceback" not in printed
        await all_ended(tools)
    assert (await row())["status"] == "running"
    done = await kimi("runs", "resume", run_id, "--json", settings=to(sim, KIMI_SWARM_MCP=str(stubborn)))
    assert done.json["status"] == "completed"
    assert (requested(sim, "Tell me about Rome."), requested(sim, "Tell me about Oslo.")) == (1, 3)


async def test_a_call_that_is_terminated_keeps_what_had_arrived(sim: Simulator) -> None:
    sim.play({"gate": "end", "gate_at": "finish", "content": "It is 391."})
    async with started("ask", "What is 17 * 23?", settings=to(sim), stdin=subprocess.DEVNULL) as process:
        await sim.until(lambda: sim.waiting_at("end") == 1)
        status, printed = await leaves(process, signal.SIGTERM)
    assert status == 143
    assert "stopped before the answer was complete" in printed
    run = await row()
    assert (run["status"], run["error"]) == ("failed", "answer_cut_off")


async def test_a_signal_that_is_ignored_stays_so(sim: Simulator) -> None:
    """As ``nohup`` has it: what goes on behind a closed terminal goes on."""
    sim.play({"gate": "end", "gate_at": "finish", "content": "It is 391."})
    command = "trap '' HUP; exec \"$@\""
    shell = ["sh", "-c", command, "sh", sys.executable, "-m", "kimi_mcp", "ask", "What is 17 * 23?"]
    environment = os.environ | to(sim)
    async with await anyio.open_process(shell, env=environment, stdin=subprocess.DEVNULL) as process:
        with anyio.fail_after(60):
            await sim.until(lambda: sim.waiting_at("end") == 1)
            process.send_signal(signal.SIGHUP)
            sim.open_gate("end")
            assert await process.wait() == 0


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
async def test_what_a_script_starts_in_the_background_ends_by_a_signal(sim: Simulator, how: signal.Signals) -> None:
    """A shell without job control has SIGINT ignored there."""
    sim.play({"gate": "end", "gate_at": "finish", "content": "It is 391."})
    shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "kimi_mcp", "ask", "What is 17 * 23?"]
    async with await anyio.open_process(shell, env=os.environ | to(sim), stdin=subprocess.DEVNULL) as process:
        with anyio.fail_after(60):
            await sim.until(lambda: sim.waiting_at("end") == 1)
            status, _ = await leaves(process, how)
    assert status == 128 + how
    assert (await row())["error"] == "answer_cut_off"
