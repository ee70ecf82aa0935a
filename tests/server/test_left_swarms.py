"""Swarms that a server left behind: the next one goes on with them unasked, unless it can't, or has to end them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm.limits import SwarmLimits
from tests.runs.store.stores import begin, in_thread, opened
from tests.server import clients
from tests.server.clients import ServerOptions
from tests.server.keys import KEY
from tests.server.processes import raw_server_process
from tests.server.requests import body_of, chats
from tests.server.results import Result
from tests.server.stdio.peer import Peer
from tests.server.test_swarm_end_to_end import ODD_SERVER, file_of_servers, written_down
from tests.swarm.tools.test_stdio_client import ended

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups"),
]

TELL = {"prompt": "Tell me about {{item}}.", "items": ["Rome", "Oslo", "Lima"]}


VERSION_3 = Path(__file__).parents[1] / "runs/store/version_3.sql"
"""A store as SQL."""


served = partial(clients.connect, options=ServerOptions(timings=Timings(warm_up_after_s=3600, recover_after_s=0)))
"""A server in this process that recovers runs as soon as it starts."""

LATE = ServerOptions(timings=Timings(warm_up_after_s=3600, recover_after_s=600))
"""For a server that recovers none within a test."""


@asynccontextmanager
async def begun(sim: Simulator, **variables: str) -> AsyncIterator[tuple[Peer, str]]:
    """A server process in the middle of a swarm: two agents have answered, Oslo's never does there."""
    sim.play({"match": {"text": "Tell me about Oslo."}, "gate": "never", "times": 1})
    async with raw_server_process(sim, KIMI_REPLY_WITHIN_S="0.05", **variables) as peer:
        await peer.initialize()
        await peer.call("kimi_swarm", **TELL)
        run_id = (await peer.receive())["result"]["structuredContent"]["run_id"]
        await written_down(run_id, 2)
        await sim.until(lambda: sim.waiting_at("never") == 1)
        yield peer, run_id


@asynccontextmanager
async def begun_here(sim: Simulator, **variables: str) -> AsyncIterator[str]:
    """The same of a server in this process, which leaves as at the end of its input when the test does."""
    sim.play({"match": {"text": "Tell me about Oslo."}, "gate": "never", "times": 1})
    async with served(sim, KIMI_REPLY_WITHIN_S="0.05", **variables) as kimi:
        run_id = (await kimi.call("kimi_swarm", TELL)).run_id
        await written_down(run_id, 2)
        await sim.until(lambda: sim.waiting_at("never") == 1)
        yield run_id


Leaving = Callable[..., Awaitable[str]]


@pytest.fixture(params=["in this process", pytest.param("SIGKILL", marks=pytest.mark.soak)])
def left(sim: Simulator, request: pytest.FixtureRequest) -> Leaving:
    """The run of a swarm whose server has gone; make soak kills one, make test lets one leave in this process."""

    async def leave(how: str = request.param, **variables: str) -> str:
        if how == "in this process":
            async with begun_here(sim, **variables) as run_id:
                pass
        else:
            async with begun(sim, **variables) as (peer, run_id):
                await (peer.close_stdin() if how == "EOF" else in_thread(peer.signal, signal.Signals[how]))
                await peer.exit_status()
        return run_id

    return leave


async def status(run_id: str) -> str:
    """How a run stands on record."""

    def look() -> str:
        with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
            return file.execute("SELECT status FROM runs WHERE id = ?", (run_id,)).fetchone()[0]

    return await in_thread(look)


async def cancel_requests(run_id: str) -> None:
    """Once that is on record."""

    def look() -> bool:
        with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
            return bool(file.execute("SELECT cancel_asked FROM runs WHERE id = ?", (run_id,)).fetchone()[0])

    while not await in_thread(look):
        await anyio.sleep(0.01)


async def comes_to(run_id: str, wanted: str) -> None:
    with anyio.fail_after(60):
        while await status(run_id) != wanted:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("how", ["SIGKILL", *(pytest.param(how, marks=pytest.mark.soak) for how in ("EOF", "SIGTERM"))])
@pytest.mark.parametrize("left", ["as configured"], indirect=True)
async def test_a_server_goes_on_unasked_with_what_the_one_before_left(sim: Simulator, left: Leaving, how: str) -> None:
    run_id = await left(how)
    assert await status(run_id) == "running", "it is not at its end"
    async with served(sim):
        await comes_to(run_id, "completed")
    assert len(chats(sim)) == 3 + 1 + 1, "Oslo is asked once more, the others are not; one synthesis"


async def test_a_living_servers_swarm_is_never_touched(sim: Simulator) -> None:
    async with begun(sim) as (peer, run_id), served(sim) as kimi:
        assert (await kimi.run(run_id, "status")).status == "running"
        assert (await kimi.run(run_id, "wait", wait_s=1)).status == "running"
        assert len(chats(sim)) == 3
        sim.open_gate("never")
        assert (await kimi.run(run_id, "wait", wait_s=10)).status == "completed"
        await peer.still_serves()
    assert len(chats(sim)) == 4, "it was asked for by its own server alone"


async def test_two_servers_that_find_it_at_once_go_on_with_it_once(sim: Simulator, left: Leaving) -> None:
    run_id = await left()
    async with served(sim), served(sim):
        await comes_to(run_id, "completed")
    assert len(chats(sim)) == 5


async def test_what_a_dead_server_left_can_be_ended_without_asking_anything(
    sim: Simulator, left: Leaving, mode: str
) -> None:
    run_id = await left()
    counted = "SELECT counted_usd FROM runs"
    with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
        before = file.execute(counted).fetchone()
    async with served(sim, mode, options=LATE, KIMI_API_KEY=KEY) as kimi:
        result = await kimi.run(run_id, "cancel")
        assert (result.status, result.code) == ("partial", "cancelled")
        assert [name in result.answer for name in ("(Rome), completed", "Oslo", "(Lima), completed")] == [
            True,
            False,
            True,
        ]
        swarm, usage = result.structured["swarm"], result.structured["usage"]
        assert [agent["status"] for agent in swarm["agents"]] == ["completed", "cancelled", "completed"]
        assert [agent["steps"] for agent in swarm["agents"]] == [1, 0, 1]
        assert (swarm["steps"], swarm["critical_steps"]) == (0, 1), "no step of the synthesis, and the longest agent"
        assert usage["total_tokens"] == sum(agent["usage"]["total_tokens"] for agent in swarm["agents"]) > 0
        assert usage["cost_usd"] > 0
        assert result.structured["timing"]["attempts"] == 2, "of the third nobody knows"
        assert await status(run_id) == "partial"
        assert (await kimi.run(run_id)).structured == result.structured
    with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
        assert file.execute(counted).fetchone() == before, "what was spent today stays spent"
    assert len(chats(sim)) == 3


async def test_one_that_its_server_was_asked_to_cancel_and_did_not_notice_is_not_gone_on_with(
    sim: Simulator, left: Leaving
) -> None:
    run_id = await left()
    with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
        file.execute("UPDATE runs SET cancel_asked = 1")
    async with served(sim) as kimi:
        await comes_to(run_id, "partial")
        result = await kimi.run(run_id)
    assert [agent["status"] for agent in result.structured["swarm"]["agents"]] == [
        "completed",
        "cancelled",
        "completed",
    ]
    assert len(chats(sim)) == 3, "nothing is asked any more"


async def test_one_whose_server_dies_before_it_hears_that_it_is_cancelled_ends_all_the_same(sim: Simulator) -> None:
    results: list[Result] = []
    async with begun(sim) as (peer, run_id), served(sim, options=LATE) as kimi:
        await kimi.run(run_id, "status")
        peer.signal(signal.SIGSTOP)  # it hears nothing any more

        async def cancel() -> None:
            results.append(await kimi.run(run_id, "cancel"))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel)
                await cancel_requests(run_id)
                peer.signal(signal.SIGKILL)
    assert (results[0].status, results[0].code) == ("partial", "cancelled")
    assert len(chats(sim)) == 3


async def test_one_that_is_cancelled_before_it_is_as_far_again_keeps_what_it_had_used(
    sim: Simulator, left: Leaving
) -> None:
    run_id = await left()
    sim.play({"match": {"path": "/v1/models"}, "gate": "models"})  # it asks for them before it goes on with anything
    async with served(sim) as kimi:
        await sim.until(lambda: sim.waiting_at("models") == 1)
        running = await kimi.run(run_id, "status")
        cancelled = await kimi.run(run_id, "cancel")
    assert (running.status, cancelled.status, cancelled.code) == ("running", "partial", "cancelled")
    assert "(Rome), completed" in cancelled.answer
    for result, third in ((running, "running"), (cancelled, "cancelled")):
        assert [agent["status"] for agent in result.structured["swarm"]["agents"]] == ["completed", third, "completed"]
        assert result.structured["usage"]["total_tokens"] > 0
        assert result.structured["usage"]["cost_usd"] > 0
        assert result.attempts == 2
    with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
        counted, outcome = file.execute("SELECT counted_usd, outcome FROM runs").fetchone()
    assert counted == pytest.approx(cancelled.structured["usage"]["cost_usd"]), "what was spent today stays spent"
    assert json.loads(outcome)["usage"]["total_tokens"] == cancelled.structured["usage"]["total_tokens"]
    assert len(chats(sim)) == 3


async def test_a_server_that_can_not_reach_its_provider_leaves_it_alone(sim: Simulator, left: Leaving) -> None:
    run_id = await left()
    async with served(None, provider=None) as poor:
        result = await poor.run(run_id, "wait", wait_s=1)
        assert result.code == "not_configured"
        assert await status(run_id) == "running", "another server may go on with it"
    async with served(sim):
        await comes_to(run_id, "completed")


def broken(file: Path, how: str) -> dict[str, str]:
    """Settings of a server whose tools can't be had."""
    if how == "unset":
        return {}
    if how == "no JSON":
        file.write_text("{")
    elif how == "not listed":
        file.write_text('{"mcpServers": {"another": {"command": "true"}}}')
    elif how == "disabled":
        file.write_text(file.read_text().replace('"command"', '"disabled": true, "command"'))
    return {"KIMI_SWARM_MCP": str(file.with_name("none.json") if how == "not there" else file)}


@pytest.mark.parametrize("how", ["not there", "no JSON", "not listed", "disabled", "unset"])
async def test_a_server_whose_file_of_tools_is_broken_leaves_it_alone(
    sim: Simulator, left: Leaving, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    file = file_of_servers(tmp_path)
    run_id = await left(KIMI_SWARM_MCP=file)
    whole = Path(file).read_text()
    async with served(sim, **broken(Path(file), how)) as poor:
        result = await poor.run(run_id, "wait", wait_s=1)
        assert result.code == "not_configured"
        assert "KIMI_SWARM_MCP" in result.error["message"] + result.error["fix"]
        with anyio.fail_after(60):
            while "is left for another server" not in caplog.text:
                await anyio.sleep(0.01)
        assert result.error["message"] in caplog.text
        assert result.error["fix"] in caplog.text, "whoever reads the log learns what to fix"
    assert await status(run_id) == "running", "another server may go on with it"
    assert len(chats(sim)) == 3
    Path(file).write_text(whole)
    async with served(sim, KIMI_SWARM_MCP=file):
        await comes_to(run_id, "completed")
    assert len(chats(sim)) == 5


async def active_s(run_id: str) -> float:
    """For how long a run has lived, on record."""

    def look() -> float:
        with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
            return file.execute("SELECT lived_s FROM runs WHERE id = ?", (run_id,)).fetchone()[0]

    return await in_thread(look)


async def test_its_time_goes_on_where_it_was_when_its_server_died(sim: Simulator) -> None:
    async with begun(sim) as (peer, run_id):
        with anyio.fail_after(60):
            while await active_s(run_id) < 0.5:
                await anyio.sleep(0.01)
        peer.process.kill()
        await peer.exit_status()
    with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
        file.execute("UPDATE runs SET lived_s = ?, started_at = started_at - 864000", (SwarmLimits().seconds,))
    async with served(sim) as kimi:
        result = await kimi.run(run_id, "wait", wait_s=10)
    assert result.status == "partial"
    assert result.code == "budget_exceeded"
    assert "240 minutes" in result.error["message"]
    assert [agent["status"] for agent in result.structured["swarm"]["agents"]] == ["completed", "failed", "completed"]


async def test_the_time_for_which_it_lay_dead_does_not_count(sim: Simulator, left: Leaving) -> None:
    run_id = await left()
    with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
        file.execute("UPDATE runs SET lived_s = 60.0, started_at = started_at - 864000")
    async with served(sim) as kimi:
        assert (await kimi.run(run_id, "wait", wait_s=10)).status == "completed"


async def test_it_never_goes_on_with_another_provider_than_it_began_with(sim: Simulator, left: Leaving) -> None:
    run_id = await left()
    async with served(sim, options=LATE, provider="vllm") as other:
        result = await other.run(run_id, "wait", wait_s=1)
        assert (result.code, result.error["rule"]) == ("policy_refused", "provider-allowed")
    assert await status(run_id) == "running"
    assert len(chats(sim)) == 3
    async with served(sim, options=LATE, provider="vllm", KIMI_ALLOWED_PROVIDERS="simulator") as kimi:
        result = await kimi.run(run_id, "cancel")
    assert result.structured["provider"] == "simulator"


@pytest.mark.parametrize(
    "task",
    [{"kind": "of a later version"}, {"prompt": "Hi.", "items": [], "tools": None, "known_servers": 5}],
    ids=["other fields", "other types"],
)
async def test_one_that_another_version_left_keeps_no_other_from_going_on(
    sim: Simulator, left: Leaving, task: Any
) -> None:
    odd = RunStore(Path(os.environ["KIMI_DATA_DIR"]))
    await begin(odd, "run_odd", tool="kimi_swarm", resumable=True, request={"task": task})
    await odd.aclose(unfinished=True)
    run_id = await left()
    async with served(sim) as kimi:
        await comes_to(run_id, "completed")
        assert await status("run_odd") == "running"
        assert (await kimi.run("run_odd", "cancel")).status == "cancelled"


@pytest.mark.parametrize("how", ["EOF", "SIGTERM"])
async def test_a_server_that_leaves_takes_its_swarms_tools_along(sim: Simulator, tmp_path: Path, how: str) -> None:
    pids, file = tmp_path / "pids", tmp_path / "mcp.json"
    stubborn = {"command": sys.executable, "args": [str(ODD_SERVER), "grandchild", "stays", f"pids={pids}"]}
    file.write_text(json.dumps({"mcpServers": {"odd": stubborn}}))
    async with begun(sim, KIMI_SWARM_MCP=str(file)) as (peer, _):
        started = [int(pid) for pid in pids.read_text().split()]
        assert len(started) == 2
        await (peer.close_stdin() if how == "EOF" else in_thread(peer.signal, signal.SIGTERM))
        assert await peer.exit_status() == 0
        gone = [ended(pid) for pid in started]
    assert gone == [True, True], "its processes are gone before it is"


async def test_a_store_of_version_3_is_read_and_its_swarm_taken_up(sim: Simulator, data_dir: Path) -> None:
    """The file was written by the last commit before the modules got their places (e840957), and its server killed."""
    data_dir.mkdir(exist_ok=True)
    with opened(data_dir) as file:
        file.executescript(VERSION_3.read_text(encoding="utf-8"))
    async with served(sim) as kimi:
        swarm = await kimi.run("run_6b7c457f232b999f0e7dbd85", wait_s=60)
        assert swarm.status == "completed"
        assert [agent["status"] for agent in swarm.structured["swarm"]["agents"]] == ["completed"] * 3
        requested = [body_of(chat)["messages"][-1]["content"] for chat in chats(sim)]
        assert requested[0] == "Tell me about Oslo."
        assert len(requested) == 2, "the others had answered; one synthesis"
        answered = await kimi.run("run_1dcf67a4e1bd203af269fdf7")
        assert answered.status == "completed"
        assert answered.structured["reasoning"]["text"].startswith("[simulator] I am kimi-k2.5 in thinking mode.")
        assert answered.structured["usage"]["total_tokens"]
        for run_id, code in (
            ("run_3b92d74da1a544ab7f9c2432", "upstream_broken"),
            ("run_b6839408a6d1322cf8116a09", "auth_failed"),
        ):
            assert (await kimi.run(run_id)).code == code
        followed = await kimi.think("And again?", conversation_id="conv_542dbc064ad8e0648a04d3a2")
        assert followed.status == "completed"
        sent = body_of(chats(sim)[-1])["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant"] * 2 + ["user"]
        assert sent[3]["content"] == answered.answer
        assert sent[3]["reasoning_content"] == answered.structured["reasoning"]["text"]
