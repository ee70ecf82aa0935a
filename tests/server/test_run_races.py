"""Races of a run: cancelled while it is written down, asked for while it ends, closed while it is opened."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import KimiClient, connect, connect_messages, store_limits, wait_until
from tests.server.requests import HELD_STEP, chats


def statuses(folder: Path) -> list[str]:
    """What the file says of each run."""
    with opened(folder) as file:
        return [row[0] for row in file.execute("SELECT status FROM runs")]


async def test_a_run_that_is_cancelled_while_it_is_written_down_does_not_run_for_ever(
    sim: Simulator, data_dir: Path
) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    async with connect(sim, options=store_limits(locked_s=1), KIMI_REPLY_WITHIN_S="30") as kimi:
        assert (await kimi.run()).status == "completed"  # the file is there
        with opened(data_dir) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kimi.think)
                await wait_until(lambda: kimi.runs.live)
                await wait_until(lambda: any(run._recording.locked() for run in kimi.runs.live.values()))
                tasks.cancel_scope.cancel()
            await wait_until(lambda: not kimi.runs.live)
            other.execute("ROLLBACK")
        await kimi.runs.store.abandon("nobody", False)  # behind it in the writer's order
        assert "running" not in statuses(data_dir)
    assert chats(sim) == []


async def test_a_caller_that_leaves_while_its_run_is_written_down_spoils_nothing(
    sim: Simulator, data_dir: Path
) -> None:
    """The handler wants the id, the run is about to be sent: both write it down."""
    listed = {"match": {"path": "/v1/models"}, "gate": "models"}
    del sim
    async with (
        Simulator(provider="vllm") as engine,
        connect_messages(engine, provider="vllm", KIMI_REPLY_WITHIN_S="0.05") as host,
    ):
        engine.play(listed)
        await host.result("kimi_run", {})
        with opened(data_dir) as other:
            other.execute("BEGIN IMMEDIATE")
            await host.call("kimi_instant", {"prompt": "hi"}, 1)
            await engine.until(lambda: engine.waiting_at("models") == 1)
            await wait_until(lambda: any(run._recording.locked() for run in host.runs.live.values()))
            await host.cancel(1, reason="Request timed out")
            await wait_until(lambda: not any(run._recording.locked() for run in host.runs.live.values()))
            other.execute("ROLLBACK")
        engine.open_gate("models")
        await wait_until(lambda: not host.runs.live)
        assert statuses(data_dir) == ["completed"]
        assert len(chats(engine)) == 1


async def test_two_first_calls_open_one_journal(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        results: list[str] = []

        async def ask(number: int) -> None:
            results.append((await kimi.instant(f"call {number}")).status)

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(ask, number)
        assert results == ["completed"] * 10
        assert len((await kimi.run()).answer.splitlines()) == 10


async def test_a_call_that_is_cancelled_while_the_first_one_opens_the_journal_is_none(sim: Simulator) -> None:
    async with connect_messages(sim) as host:
        for number in range(5):
            await host.call("kimi_instant", {"prompt": "hi"}, number)
            await host.cancel(number, reason="the user pressed escape")
        assert (await host.result("kimi_instant", {"prompt": "hi"}))["status"] == "completed"
        await wait_until(lambda: not host.runs.live)
        assert host.state.waiting == {}


async def test_a_run_that_ends_while_it_is_cancelled_has_one_end(sim: Simulator) -> None:
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.01") as kimi:
        for number in range(20):
            sim.play({**HELD_STEP, "gate": f"end {number}"})
            started = await kimi.think(f"call {number}")
            await sim.until(lambda number=number: sim.waiting_at(f"end {number}") == 1)
            sim.open_gate(f"end {number}")
            ends: list[Any] = []

            async def look(action: str, run_id: str = started.run_id, ends: list[Any] = ends) -> None:
                ends.append((await kimi.run(run_id, action, wait_s=10)).structured)

            async with anyio.create_task_group() as tasks:
                for action in ("wait", "cancel", "wait", "cancel"):
                    tasks.start_soon(look, action)
            assert ends[0]["status"] in ("completed", "cancelled")
            assert all(end == ends[0] for end in ends), "everybody sees the same end"
            assert (await kimi.run(started.run_id)).structured == ends[0]


async def test_what_was_posted_before_the_end_is_written(sim: Simulator, data_dir: Path) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.01") as kimi:
        ids = [(await kimi.think(f"call {number}")).run_id for number in range(12)]
        await sim.until(lambda: sim.waiting_at("end") == 12)
        for run_id in ids:
            while (await kimi.run(run_id, "status")).answer != HELD_STEP["content"]:
                pass
    with opened(data_dir) as file:
        rows = file.execute("SELECT status, answer, reasoning FROM runs").fetchall()
        assert rows == [("failed", HELD_STEP["content"], HELD_STEP["reasoning"])] * 12
        assert file.execute("SELECT count(*) FROM pieces").fetchone() == (0,)


@pytest.mark.parametrize("times", [1, pytest.param(19, marks=pytest.mark.soak)])
async def test_many_quick_calls_leave_no_thread_descriptor_or_task_behind(sim: Simulator, times: int) -> None:
    others = set(threading.enumerate())  # what another test left behind is not this one's
    async with connect(sim) as kimi:

        async def ask(number: int) -> None:
            assert (await kimi.instant("hi", temperature=None)).status == "completed", number

        async def many(number: int) -> None:
            async with anyio.create_task_group() as tasks:
                for each in range(number):
                    tasks.start_soon(ask, each)

        await many(50)
        gc.collect()
        before = _held()
        for _ in range(times):
            await many(50)
        # A few come and go with connections that are kept; what each call left behind would be fifty and more.
        await wait_until(lambda: len(asyncio.all_tasks()) <= before[2] + 5)
        gc.collect()
        threads, files, _ = _held()
        assert threads <= before[0]
        assert files <= before[1] + 2
        assert not kimi.runs.recorder._written
    await wait_until(
        lambda: not {each.name for each in {*threading.enumerate()} - others} & {"store-writer", "store-reader"}
    )


def _held() -> tuple[int, int, int]:
    folder = Path("/proc/self/fd")
    files = len(list(folder.iterdir())) if folder.exists() else 0
    return threading.active_count(), files, len(asyncio.all_tasks())


async def test_a_journal_that_fails_in_the_middle_costs_no_answer_and_no_server(sim: Simulator, data_dir: Path) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, options=store_limits(locked_s=0.1), KIMI_REPLY_WITHIN_S="0.05") as kimi:
        started = await kimi.think()
        await sim.until(lambda: sim.waiting_at("end") == 1)
        with opened(data_dir) as other:
            other.execute("BEGIN EXCLUSIVE")
            sim.open_gate("end")
            with anyio.fail_after(60):
                fetched = await kimi.run(started.run_id, wait_s=10)
            assert fetched.status == "completed"
            assert fetched.answer == HELD_STEP["content"]
            refused = await kimi.think()
            assert refused.code == "not_configured"
            assert "locked" in refused.error["message"]
            assert (await kimi.run(started.run_id)).answer == HELD_STEP["content"], "it stays readable"
            other.execute("ROLLBACK")
        assert (await kimi.think()).status == "completed", "the next call works"
        assert (await kimi.run(started.run_id)).answer == HELD_STEP["content"]
        await _written(kimi, data_dir, started.run_id)
    async with connect(sim) as later:
        assert (await later.run(started.run_id)).answer == HELD_STEP["content"], (
            "it was written down as soon as that could be"
        )


async def _written(kimi: KimiClient, folder: Path, run_id: str) -> None:
    with anyio.fail_after(60):
        while True:
            await kimi.run()
            with opened(folder) as file:
                if file.execute("SELECT status FROM runs WHERE id = ?", [run_id]).fetchone() == ("completed",):
                    return


async def test_a_run_that_is_cancelled_while_it_takes_its_turn_gives_it_back(sim: Simulator, data_dir: Path) -> None:
    async with connect(sim, options=store_limits(locked_s=1)) as one, connect(sim) as other:
        first = await one.instant("one")
        conversation = first.structured["conversation_id"]
        with opened(data_dir) as file:
            file.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: one.instant("two", conversation_id=conversation))
                await wait_until(lambda: any(run.conversation_id for run in one.runs.live.values()))
                tasks.cancel_scope.cancel()
            await wait_until(lambda: not one.runs.live)
            file.execute("ROLLBACK")
        await one.runs.store.abandon("nobody", False)  # behind it in the writer's order
        with opened(data_dir) as file:
            assert file.execute("SELECT writer FROM conversations").fetchall() == [(None,)]
        with anyio.fail_after(60):
            assert (await other.instant("three", conversation_id=conversation)).status == "completed"


async def test_a_run_that_was_listed_before_it_was_sent_can_be_read_once_it_is_cancelled(sim: Simulator) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    async with connect_messages(sim, KIMI_MAX_CONCURRENCY="1", KIMI_REPLY_WITHIN_S="30") as host:
        await host.call("kimi_instant", {"prompt": "first"}, 1)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await host.call("kimi_instant", {"prompt": "second"}, 2)
        await wait_until(lambda: any(run.recorded and not run.attempts for run in host.runs.live.values()))
        listed = str((await host.result("kimi_run", {}, "list"))["answer"])
        (waiting,) = (row.split()[0] for row in listed.splitlines() if row.endswith("second"))
        await host.cancel(2)
        await wait_until(lambda: len(host.runs.live) == 1)
        read = await host.result("kimi_run", {"run_id": waiting, "action": "status"}, "read")
        assert (read["status"], read["run_id"]) == ("cancelled", waiting)
        sim.open_gate("end")
