"""Several servers on one data folder: each sees the others' runs, waits for them, ends them, and knows the dead."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import latest, opened
from tests.server.clients import connect, store_limits, wait_until
from tests.server.processes import raw_server_process, server_process
from tests.server.requests import HELD_STEP, body_of, chats
from tests.server.results import checked
from tests.server.stdio.peer import Peer

pytestmark = pytest.mark.soak


@asynccontextmanager
async def owner(sim: Simulator, **variables: str) -> AsyncIterator[Peer]:
    """A server in a process of its own, greeted."""
    async with raw_server_process(sim, **variables) as peer:
        await peer.initialize()
        yield peer


async def arrived(sim: Simulator, kimi: Any, number: int = 1) -> list[str]:
    """The ids of so many runs that another server has brought whole texts of, as this one sees them."""
    with anyio.fail_after(60):
        await sim.until(lambda: sim.waiting_at("end") == number, within=60)
        while True:  # the other one needs the processor too: it is not asked without a pause
            lines = (await kimi.run()).answer.splitlines()
            ids = [one.split()[0] for one in lines if one.startswith("run_")]
            started = [await kimi.run(run_id, "status") for run_id in ids]
            if len(started) == number and all(each.answer == HELD_STEP["content"] for each in started):
                return ids
            await anyio.sleep(0.05)


async def test_a_run_of_another_server_is_seen_read_and_waited_for(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    async with owner(sim) as peer, connect(sim, mode) as kimi:
        await peer.call("kimi_think", 1, prompt="hi")
        (run_id,) = await arrived(sim, kimi)
        status = await kimi.run(run_id, "status")
        assert status.status == "running"
        assert status.reasoning == HELD_STEP["reasoning"]
        assert status.structured["model"]["sent"] == "kimi-k2.5", "it was sent, and that is known"
        assert status.attempts == 1
        assert status.structured["timing"]["total_s"] > 0
        page = await kimi.run(run_id, "answer", offset=3)
        assert page.structured["page"] == {"of": "answer", "text": "is 391.", "offset": 3, "next_offset": 10}
        results: list[Any] = []

        async def wait() -> None:
            results.append(await kimi.run(run_id, wait_s=20))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            sim.open_gate("end")
        own = (await peer.receive())["result"]["structuredContent"]
    assert results[0].status == "completed"
    assert results[0].structured == own, "both see the same, to the last field"
    assert len(chats(sim)) == 1


async def test_another_server_ends_a_run(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with owner(sim) as peer, connect(sim) as kimi:
        await peer.call("kimi_think", 1, prompt="hi")
        (run_id,) = await arrived(sim, kimi)
        cancelled = await kimi.run(run_id, "cancel")
        await sim.client_gone()
        own = (await peer.receive())["result"]["structuredContent"]
    assert cancelled.status == own["status"] == "cancelled"
    assert cancelled.answer == HELD_STEP["content"]


async def test_the_dead_are_known_at_once(sim: Simulator, mode: str) -> None:
    sim.play({**HELD_STEP, "times": 3})
    async with owner(sim) as peer, connect(sim, mode) as kimi:
        for number in range(3):
            await peer.call("kimi_think", number, prompt=f"call {number}")
        ids = await arrived(sim, kimi, 3)
        peer.process.kill()
        await peer.process.wait()
        listed = (await kimi.run()).answer
        assert "running" not in listed
        for run_id in ids:
            for action in ("status", "wait", "cancel"):
                with anyio.fail_after(60):  # a run that is thought to live is waited for much longer
                    result = await kimi.run(run_id, action)
                assert result.status == "failed"
                assert result.code == "answer_cut_off"
                assert result.answer == HELD_STEP["content"]
                assert result.reasoning == HELD_STEP["reasoning"]
                assert result.structured["model"]["sent"] == "kimi-k2.5"
                assert result.structured["usage"]["cost_usd"] is None
            assert (await kimi.run(run_id, "reasoning")).structured["page"]["text"] == HELD_STEP["reasoning"]


async def test_a_living_server_whose_lock_file_somebody_removes_is_seen_to_live_again(
    sim: Simulator, data_dir: Path
) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.2") as one, connect(sim) as other:
        run_id = (await one.think()).run_id
        await sim.until(lambda: sim.waiting_at("end") == 1)
        locks = data_dir / "servers"
        (lock,) = locks.glob("*.lock")
        lock.unlink()
        await wait_until(lock.exists)
        assert (await other.run(run_id, "status")).status == "running"
        sim.open_gate("end")
        assert (await other.run(run_id, wait_s=30)).status == "completed"


async def test_a_living_server_whose_lock_file_is_missing_for_a_moment_keeps_its_call(
    sim: Simulator, data_dir: Path
) -> None:
    sim.play(HELD_STEP)
    slow = store_limits(write_every_s=60)  # the file stays missing while the other one looks
    async with connect(sim, options=slow, KIMI_REPLY_WITHIN_S="0.2") as one, connect(sim, options=slow) as other:
        run_id = (await one.think("one")).run_id
        await sim.until(lambda: sim.waiting_at("end") == 1)
        for lock in (data_dir / "servers").glob("*.lock"):
            lock.unlink()
        assert (await other.run(run_id, "status")).status == "running"
        sim.open_gate("end")
        ended = await one.run(run_id, wait_s=30)
        assert ended.status == "completed"
        sim.play()
        await other.instant("two", conversation_id=ended.structured["conversation_id"])
        assert [message["content"] for message in body_of(chats(sim)[-1])["messages"]] == [
            "one",
            HELD_STEP["content"],
            "two",
        ]


async def test_who_waits_for_a_run_hears_of_its_servers_death(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with owner(sim) as peer, connect(sim) as kimi:
        await peer.call("kimi_think", 1, prompt="hi")
        (run_id,) = await arrived(sim, kimi)
        results: list[Any] = []

        async def wait() -> None:
            results.append(await kimi.run(run_id, wait_s=60))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                peer.process.kill()
    assert results[0].status == "failed"
    assert results[0].answer == HELD_STEP["content"]


@pytest.mark.parametrize("way", ["EOF", "SIGTERM", "SIGINT"])
async def test_a_server_that_ends_writes_down_what_has_arrived(sim: Simulator, way: str) -> None:
    live = 20
    sim.play({**HELD_STEP, "times": live})
    async with owner(sim, KIMI_MAX_CONCURRENCY=str(live)) as peer, connect(sim) as kimi:
        for number in range(live):
            await peer.call("kimi_think", number, prompt=f"call {number}")
        await sim.until(lambda: sim.waiting_at("end") == live)
        ids = await _ids(kimi, live)
        if way == "EOF":
            await peer.close_stdin()
        else:
            peer.signal(signal.Signals[way])
        assert await peer.exit_status() == 0
        for run_id in ids:
            result = await kimi.run(run_id)
            assert result.status == "failed"
            assert result.code == "answer_cut_off"
            assert result.answer == HELD_STEP["content"], "all that the simulator had sent"


async def _ids(kimi: Any, number: int) -> list[str]:
    """The ids of all runs, those of other servers too."""
    with anyio.fail_after(60):
        while True:
            ids = [record.id for record in await latest(kimi.runs.store)] if kimi.state.runs else []
            if len(ids) == number:
                return ids
            await kimi.run()


@pytest.mark.parametrize("way", ["EOF", "SIGTERM"])
async def test_a_locked_file_does_not_keep_a_server_from_ending(sim: Simulator, way: str, data_dir: Path) -> None:
    live = 20
    sim.play({**HELD_STEP, "times": live})
    async with owner(sim, KIMI_MAX_CONCURRENCY=str(live)) as peer, connect(sim) as kimi:
        for number in range(live):
            await peer.call("kimi_think", number, prompt=f"call {number}")
        await sim.until(lambda: sim.waiting_at("end") == live)
        ids = await _ids(kimi, live)
        with opened(data_dir) as file:
            file.execute("BEGIN IMMEDIATE")
            if way == "EOF":
                await peer.close_stdin()
            else:
                peer.signal(signal.Signals[way])
            assert await peer.exit_status() == 0
            file.execute("ROLLBACK")
        results = [await kimi.run(run_id) for run_id in ids]
    assert {result.status for result in results} == {"failed"}
    assert all(HELD_STEP["content"].startswith(result.answer) for result in results)


async def test_runs_of_all_servers_are_listed_newest_first(sim: Simulator) -> None:
    async with connect(sim) as one, connect(sim) as other:
        ids = [(await (one, other)[number % 2].instant(f"call {number}")).run_id for number in range(6)]
        for kimi in (one, other):
            assert [each.split()[0] for each in (await kimi.run()).answer.splitlines()] == ids[::-1]


async def test_a_long_answer_of_another_process_comes_in_pages(sim: Simulator) -> None:
    answer = "".join(f"{number} 你好🌍\n" for number in range(6_000))
    sim.play({"content": answer, "event_tokens": 500})
    async with server_process(sim) as client:
        started = checked(await client.call_tool("kimi_think", {"prompt": "hi", "max_tokens": 262_000}))
        async with connect(sim) as kimi:
            assert await kimi.full_text(started.run_id) == answer


async def test_twenty_writers_of_one_conversation_take_turns(sim: Simulator) -> None:
    sim.play({"content": "23.", "reasoning": "Hm."})
    async with connect(sim) as one, connect(sim) as other:
        first = await one.think("the first")
        conversation = first.structured["conversation_id"]
        statuses: list[str] = []

        async def write(number: int) -> None:
            result = await (one, other)[number % 2].instant(f"writer {number:02}", conversation_id=conversation)
            statuses.append(result.status)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(write, number)
        assert statuses == ["completed"] * 20
        await one.instant("the last", conversation_id=conversation)
    sent = [[m["content"] for m in body_of(chat)["messages"] if m["role"] == "user"] for chat in chats(sim)]
    assert [len(users) for users in sent] == list(range(1, 23)), "each went on where the one before had ended"
    assert sorted(sent[-1][1:-1]) == [f"writer {number:02}" for number in range(20)], "and none is lost"
    assert all(later[: len(sooner)] == sooner for sooner, later in pairwise(sent))


async def test_a_writer_whose_server_is_killed_gives_its_turn_away(sim: Simulator) -> None:
    sim.play({"content": "23."}, HELD_STEP)
    async with owner(sim) as peer, connect(sim) as kimi:
        first = await kimi.instant("one")
        conversation = first.structured["conversation_id"]
        await peer.call("kimi_think", 1, prompt="two", conversation_id=conversation)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        results: list[Any] = []

        async def write() -> None:
            results.append(await kimi.instant("three", conversation_id=conversation))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                os.kill(peer.process.pid, signal.SIGKILL)
    assert results[0].status == "completed"
    assert [m["content"] for m in body_of(chats(sim)[-1])["messages"]] == ["one", "23.", "three"]


async def test_a_writer_that_gives_up_waiting_leaves_no_turn_taken(sim: Simulator) -> None:
    sim.play({"content": "23."}, HELD_STEP)
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.3") as one, connect(sim) as other:
        first = await other.instant("one")
        conversation = first.structured["conversation_id"]
        working = await one.think("two", conversation_id=conversation)
        assert working.status == "running"
        await sim.until(lambda: sim.waiting_at("end") == 1)
        waiting = [await one.think(f"in vain {number}", conversation_id=conversation) for number in range(3)]
        assert {each.attempts for each in waiting} == {0}
        for each in waiting:
            assert (await one.run(each.run_id, "cancel")).status == "cancelled"
        sim.open_gate("end")
        assert (await one.run(working.run_id, wait_s=10)).status == "completed"
        with anyio.fail_after(60):
            assert (await other.instant("three", conversation_id=conversation)).status == "completed"
    assert [m["content"] for m in body_of(chats(sim)[-1])["messages"]] == [
        "one",
        "23.",
        "two",
        "It is 391.",
        "three",
    ]


async def test_a_run_that_was_taken_back_while_another_server_waits_for_it_is_found_gone(
    sim: Simulator, data_dir: Path
) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.3") as one, connect(sim) as other:
        started = await one.think()
        results: list[Any] = []

        async def wait() -> None:
            results.append(await other.run(started.run_id, wait_s=60))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.sleep(0.3)
                with opened(data_dir) as file:
                    file.execute("DELETE FROM runs")
        sim.open_gate("end")
        assert (await one.run(started.run_id, wait_s=10)).status == "completed"
        assert (await one.run(started.run_id)).answer == HELD_STEP["content"], "its own server still has it"
    assert results[0].code == "run_not_found"
