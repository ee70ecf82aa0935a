"""Who cancels a run: a user does, a host whose own clock ran out does not, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client._memory import InMemoryTransport
from mcp.server import Server
from mcp.shared.exceptions import MCPError

from kimi_mcp.server import client_quirks
from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, connect, connect_messages, store_limits, wait_until
from tests.server.requests import chats
from tests.server.test_rejoining import gives_up
from tests.server.test_unwritten_ends import Lock

TEXT = {"reasoning": "Hm, let me see.", "content": "It is 391."}
HELD = {"gate": "end", "gate_at": "finish", **TEXT}


GAVE_UP = [
    "Request timed out",
    "McpError: MCP error -32001: Request timed out",
    "timed out after 60s",
    "Timed out while waiting for response to ClientRequest. Waited 60.0 seconds.",
]
CANCELLED = [None, "", "caller cancelled", "the user pressed escape", "AbortError: This operation was aborted"]


async def arrived(kimi: KimiClient) -> str:
    """The id of the only run, once it has brought its whole text."""
    run_id = await kimi.only_run()
    with anyio.fail_after(60):
        while (await kimi.run(run_id, "status")).answer != TEXT["content"]:
            pass
    return run_id


async def test_a_users_cancellation_closes_the_request_and_keeps_what_had_arrived(sim: Simulator, mode: str) -> None:
    sim.play(HELD)
    run_id = ""
    async with connect(sim, mode) as kimi:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kimi.think)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            run_id = await arrived(kimi)
            tasks.cancel_scope.cancel()
        await sim.client_gone()
        kept = await kimi.run(run_id)
        assert kept.status == "cancelled"
        assert kept.code == "cancelled"
        assert kept.answer == "It is 391."
        assert kept.reasoning == "Hm, let me see."
        assert kept.text.startswith("It is 391.\n\n[cancelled")
        assert kimi.state.waiting == {}
        assert (await kimi.think()).status == "completed", "the next call works"


async def test_a_client_whose_clock_ran_out_leaves_the_run_alive_and_fetchable(sim: Simulator, mode: str) -> None:
    sim.play(HELD)
    async with connect(sim, mode) as kimi:
        await gives_up(sim, kimi)
        run_id = await arrived(kimi)
        assert (await kimi.run(run_id, "status")).status == "running"
        sim.open_gate("end")
        fetched = await kimi.run(run_id, "wait")
        assert fetched.status == "completed"
        assert fetched.answer == "It is 391."
        assert kimi.state.waiting == {}
    assert len(chats(sim)) == 1, "it is paid for once"


async def test_the_sdk_says_that_its_clock_ran_out_as_we_know_it(mode: str) -> None:
    reasons: list[Any] = []

    async def never(context: Any, params: Any) -> Any:
        await anyio.sleep_forever()

    async def listen(ctx: Any, call_next: Any) -> Any:
        if ctx.method == "notifications/cancelled":
            reasons.append((ctx.params or {}).get("reason"))
        return await call_next(ctx)

    server = Server[Any]("a server", on_call_tool=never)
    server.middleware.append(listen)
    async with Client(InMemoryTransport(server), mode=mode) as client:
        with pytest.raises(MCPError, match="timed out"):
            await client.call_tool("a tool", read_timeout_seconds=0.01)
        await wait_until(lambda: bool(reasons))
    assert client_quirks.timed_out(reasons[0])


@pytest.mark.parametrize("reason", GAVE_UP + CANCELLED)
@pytest.mark.parametrize("request_id", [7, "seven"])
async def test_the_reason_of_a_cancellation_decides(sim: Simulator, reason: str | None, request_id: int | str) -> None:
    sim.play(HELD)
    gave_up = reason in GAVE_UP
    async with connect_messages(sim) as host:
        await host.call("kimi_think", {"prompt": "hi"}, request_id)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await host.cancel(request_id, **({} if reason is None else {"reason": reason}))
        listed = await host.result("kimi_run", {})
        run_id = listed["answer"].split()[0]
        if gave_up:
            sim.open_gate("end")
        else:
            await sim.client_gone()
        result = await host.result("kimi_run", {"run_id": run_id, "action": "wait"})
        assert host.state.waiting == {}
    assert result["status"] == ("completed" if gave_up else "cancelled")
    assert result["answer"] == "It is 391."
    assert len(chats(sim)) == 1, "it is paid for once"


@pytest.mark.parametrize(("requested", "cancelled"), [(7, "7"), ("7", 7)], ids=["as text", "as a number"])
async def test_a_host_that_writes_the_id_in_another_type_still_cancels(
    sim: Simulator, requested: int | str, cancelled: int | str
) -> None:
    sim.play(HELD)
    async with connect_messages(sim) as host:
        await host.call("kimi_think", {"prompt": "hi"}, requested)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await host.cancel(cancelled, reason="user pressed escape")
        await sim.client_gone()
        assert host.state.waiting == {}


@pytest.mark.parametrize(
    "params",
    [{}, {"requestId": None}, {"requestId": [7]}, {"requestId": {"a": 1}}, {"requestId": 99}, {"requestId": True}],
)
async def test_a_cancellation_of_nothing_is_passed_over(sim: Simulator, params: dict[str, Any]) -> None:
    sim.play(HELD)
    async with connect_messages(sim) as host:
        await host.call("kimi_think", {"prompt": "hi"}, 1)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await host.send("notifications/cancelled", params)
        assert "running" in (await host.result("kimi_run", {}))["answer"]
        sim.open_gate("end")
        reply = await host.receive()
        assert reply["id"] == 1
        assert reply["result"]["structuredContent"]["status"] == "completed"


@pytest.mark.parametrize("reason", [7, ["Request timed out"], {"a": 1}])
async def test_a_reason_that_is_no_text_counts_as_a_users(sim: Simulator, reason: Any) -> None:
    sim.play(HELD)
    async with connect_messages(sim) as host:
        await host.call("kimi_think", {"prompt": "hi"}, 1)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await host.cancel(1, reason=reason)
        await sim.client_gone()
        assert (await host.result("kimi_run", {}))["status"] == "completed"


async def test_cancelling_a_wait_leaves_the_run_alone_when_the_hosts_clock_ran_out(sim: Simulator) -> None:
    sim.play(HELD)
    async with connect_messages(sim, KIMI_REPLY_WITHIN_S="0.05") as host:
        started = await host.result("kimi_think", {"prompt": "hi"})
        await host.call("kimi_run", {"run_id": started["run_id"], "wait_s": 60}, 2)
        await host.cancel(2, reason="Request timed out")
        sim.open_gate("end")
        result = await host.result("kimi_run", {"run_id": started["run_id"], "wait_s": 60})
    assert result["status"] == "completed"
    assert result["answer"] == "It is 391."


async def test_a_cancellation_that_comes_with_the_call_itself_ends_it(sim: Simulator) -> None:
    sim.play({**HELD, "times": "always"})
    async with connect_messages(sim) as host:
        for number in range(20):
            await host.call("kimi_think", {"prompt": "hi"}, number)
            await host.cancel(number)
        await host.result("kimi_run", {})
        with anyio.fail_after(60):
            while host.state.runs is None or host.runs.live:
                await anyio.sleep(0.01)
        assert host.state.waiting == {}
    assert sim.open_streams == 0


async def test_a_user_who_cancels_while_the_reply_waits_for_the_store_ends_the_run(
    sim: Simulator, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kimi_mcp.runs.run.STORE_WITHIN_S", 60.0)
    options = store_limits(locked_s=60, locked_least_s=60)
    async with connect_messages(sim, options=options, KIMI_REPLY_WITHIN_S="0.05") as host:
        await host.result("kimi_run", {})
        with Lock(data_dir) as lock:
            lock.take()
            await host.call("kimi_think", {"prompt": "hi"}, 1)
            await wait_until(lambda: any(run.is_known for run in host.runs.live.values()))
            await host.cancel(1)
            assert (await host.result("kimi_run", {}))["answer"]
        await wait_until(lambda: not host.runs.live)
        assert host.state.waiting == {}
    assert chats(sim) == []


@pytest.mark.parametrize("wave", [10, pytest.param(100, marks=pytest.mark.soak)], ids=["hundred", "thousand"])
async def test_a_number_of_cancellations_leaves_nothing_behind(sim: Simulator, wave: int) -> None:
    async with connect(sim, KIMI_MAX_CONCURRENCY=str(wave)) as kimi:

        async def cancel_all(offered: int) -> None:
            sim.reset()
            sim.play({**HELD, "times": "always"})
            async with anyio.create_task_group() as tasks:
                for number in range(offered):
                    tasks.start_soon(kimi.think, f"call {number}")
                await sim.until(lambda: sim.waiting_at("end") == min(wave, offered))
                tasks.cancel_scope.cancel()
            await sim.until(lambda: sim.open_streams == 0)
            assert {request.outcome for request in chats(sim)} == {"client_gone"}

        await cancel_all(5)
        gc.collect()
        tasks_before, files_before = len(asyncio.all_tasks()), _open_files()
        for _ in range(8):
            await cancel_all(wave)
        await cancel_all(wave * 2)  # half of them never got a place
        with anyio.fail_after(60):
            while len(asyncio.all_tasks()) > tasks_before or kimi.state.waiting or kimi.runs.live:
                await anyio.sleep(0.01)
        gc.collect()
        assert _open_files() <= files_before + 2
        sim.reset()
        assert (await kimi.think()).status == "completed", "the next call works"


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0
