"""Answers that end while the store is locked: they are given, and no later call goes on without them."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from threading import Event

import anyio
import pytest

from kimi_mcp.runs.store.config import FILE
from kimi_mcp.runs.store.pending import FOLDER
from kimi_mcp.runs.store.records import RunEnd
from kimi_mcp.simulator import Simulator
from tests.loop_time import LoopTime
from tests.runs.store.stores import everything, opened
from tests.server.clients import KimiClient, connect, store_limits, wait_until
from tests.server.keys import KEY
from tests.server.processes import raw_server_process
from tests.server.requests import HELD_STEP, body_of, chats
from tests.server.results import Result

IMPATIENT = store_limits(locked_s=0.1)
"""A server in this process does not wait for locks as long as it does elsewhere."""

WHOLE = ["one", "It is 391.", "two"]
"""What a follow-up sends."""


class Lock:
    """The lock of another program on the store."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / FILE
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *more: object) -> None:
        self.release()

    def take(self) -> None:
        self._connection = sqlite3.connect(self._file, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        if self._connection is not None:
            self._connection.execute("ROLLBACK")
            self._connection.close()
            self._connection = None


def sent(sim: Simulator) -> list[str]:
    return [message["content"] for message in body_of(chats(sim)[-1])["messages"]]


def kept(data_dir: Path) -> list[str]:
    return sorted(file.name for file in (data_dir / FOLDER).glob("*"))


async def unwritten_result(kimi: KimiClient, sim: Simulator, lock: Lock) -> Result:
    """The result of a call that ends while the store is locked; it stays locked."""
    results: list[Result] = []

    async def ask() -> None:
        results.append(await kimi.think("one"))

    sim.play(HELD_STEP)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            lock.take()
            sim.open_gate("end")
    return results[0]


@pytest.mark.soak
async def test_an_answer_whose_server_is_killed_before_it_was_written_is_gone_on_with(
    sim: Simulator, data_dir: Path
) -> None:
    sim.play(HELD_STEP)
    async with raw_server_process(sim, KIMI_API_KEY=KEY) as peer:
        await peer.initialize()
        await peer.call("kimi_think", 1, prompt="one")
        await sim.until(lambda: sim.waiting_at("end") == 1)
        with Lock(data_dir) as lock:
            lock.take()
            sim.open_gate("end")
            first = (await peer.receive())["result"]["structuredContent"]
            peer.process.kill()
            await peer.process.wait()
    assert first["status"] == "completed"
    assert kept(data_dir) == [f"{first['run_id']}.json"]
    assert KEY.encode() not in everything(data_dir)
    async with connect(sim, options=IMPATIENT) as later:
        second = await later.instant("two", conversation_id=first["conversation_id"])
        assert second.status == "completed"
        assert sent(sim) == WHOLE
        found = await later.run(first["run_id"])
        assert (found.status, found.answer, found.reasoning) == (
            "completed",
            first["answer"],
            first["reasoning"]["text"],
        )
    assert kept(data_dir) == []


@pytest.mark.parametrize("looks", ["kimi_run", "a follow-up", "a branch", "the list"])
async def test_whoever_finds_a_run_whose_end_was_kept_writes_it(
    sim: Simulator, data_dir: Path, looks: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Lock(data_dir) as lock:
        async with connect(sim, options=IMPATIENT) as kimi:
            first = await unwritten_result(kimi, sim, lock)
    assert first.run_id in caplog.text
    async with connect(sim, options=IMPATIENT) as later:
        if looks == "kimi_run":
            assert (await later.run(first.run_id)).status == "completed"
        elif looks in ("a follow-up", "a branch"):
            behind = first.run_id if looks == "a branch" else first.structured["conversation_id"]
            assert (await later.instant("two", conversation_id=behind)).status == "completed"
            assert sent(sim) == WHOLE
        else:
            assert "completed" in (await later.run()).answer
    assert kept(data_dir) == []


async def test_a_follow_up_is_refused_while_the_journal_is_locked_and_misses_nothing_then(
    sim: Simulator, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Lock(data_dir) as lock:
        async with connect(sim, options=IMPATIENT) as kimi, connect(sim, options=IMPATIENT) as other:
            first = await unwritten_result(kimi, sim, lock)
            assert first.status == "completed"
            conversation = first.structured["conversation_id"]
            for each in (kimi, other):
                assert (await each.instant("two", conversation_id=conversation)).code == "not_configured"
            assert len(chats(sim)) == 1
            lock.release()
            with anyio.fail_after(60):
                assert (await other.instant("two", conversation_id=conversation)).status == "completed"
                assert sent(sim) == WHOLE
                assert (await kimi.instant("three", conversation_id=conversation)).status == "completed"
            assert sent(sim)[: len(WHOLE)] == WHOLE
            assert kept(data_dir) == []
    assert "the end of" not in caplog.text, "nothing is lost at last"


async def test_an_end_that_takes_long_to_write_is_not_called_lost(
    sim: Simulator, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Lock(data_dir) as lock:
        async with connect(sim, options=store_limits(locked_s=30, written_within_s=0.01)) as kimi:
            first = await unwritten_result(kimi, sim, lock)
            assert first.status == "completed"
            assert kept(data_dir) == [f"{first.run_id}.json"]
            lock.release()
            await wait_until(lambda: kept(data_dir) == [])
            assert not kimi.runs.recorder.unwritten
    assert caplog.records == []


@pytest.mark.parametrize(
    ("case", "queued_s", "is_saved"),
    [("others are written", 100, False), ("for too long", 1, True), ("the server ends", 100, True)],
)
async def test_an_end_waits_for_those_before_it_while_they_are_written(
    sim: Simulator, data_dir: Path, monkeypatch: pytest.MonkeyPatch, case: str, queued_s: float, is_saved: bool
) -> None:
    began, may_end = (Event(), Event()), (Event(), Event())
    results: list[Result] = []
    saved: list[str] = []

    def hold(number: int, _: object) -> None:
        began[number].set()
        assert may_end[number].wait(60)

    async def ask() -> None:
        results.append(await kimi.think("one"))

    async def save(end: RunEnd) -> bool:
        saved.append(end.run_id)
        return await original(end)

    sim.play(HELD_STEP)
    options = store_limits(written_within_s=10, queued_s=queued_s, write_every_s=600)
    async with connect(sim, options=options) as kimi, anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        runs, time = kimi.runs, LoopTime()
        original = getattr(runs.recorder, "_save")  # noqa: B009 - its beginning is an event of the loop, its end is not
        monkeypatch.setattr(runs.recorder, "_save", save)
        (run_id,) = runs.live
        for number in (0, 1):
            tasks.start_soon(runs.store.write, partial(hold, number))
        await wait_until(began[0].is_set)
        sim.open_gate("end")
        await wait_until(lambda: runs.recorder.is_pending(run_id))
        await time.forward(6)
        assert (results, saved) == ([], [])
        may_end[0].set()
        await wait_until(began[1].is_set)  # the store went on after six seconds
        if case == "the server ends":
            runs.stop_ending()
        await time.forward(6)
        assert bool(saved) == is_saved
        await time.forward(6)
        assert saved == [run_id], "nothing was written for ten seconds"
        await wait_until(lambda: results)
        assert (results[0].status, kept(data_dir)) == ("completed", [f"{run_id}.json"])
        may_end[1].set()
        await wait_until(lambda: kept(data_dir) == [])


async def test_a_turn_that_can_be_written_nowhere_is_not_reported_as_one_of_its_conversation(
    sim: Simulator, data_dir: Path
) -> None:
    with Lock(data_dir) as lock:
        async with connect(sim, options=IMPATIENT) as kimi:
            data_dir.mkdir()
            (data_dir / FOLDER).write_text("no folder")
            first = await unwritten_result(kimi, sim, lock)
            assert (first.status, first.answer) == ("completed", HELD_STEP["content"])
            assert first.structured["conversation_id"] is None
            lock.release()
            await wait_until(lambda: not kimi.runs.recorder.unwritten)
            assert (await kimi.instant("two", conversation_id=first.run_id)).status == "completed"
        assert sent(sim) == WHOLE


async def test_a_kept_end_that_can_not_be_read_is_kept_aside(sim: Simulator, data_dir: Path) -> None:
    async with connect(sim, options=IMPATIENT) as kimi:
        first = await kimi.think("one")
    (data_dir / FOLDER).mkdir()
    (data_dir / FOLDER / f"{first.run_id}.json").write_text("{")
    (data_dir / "servers" / "srv_dead.lock").touch()
    with opened(data_dir) as file:
        file.execute("UPDATE runs SET status = 'running', owner = 'srv_dead'")
    async with connect(sim, options=IMPATIENT) as later:
        assert (await later.run(first.run_id)).status == "failed"
    assert kept(data_dir) == [f"{first.run_id}.damaged"]


async def test_a_turn_that_another_server_ended_otherwise_is_not_reported_as_one_of_its_conversation(
    sim: Simulator, data_dir: Path
) -> None:
    sim.play(HELD_STEP)
    results: list[Result] = []
    async with connect(sim) as kimi:

        async def ask() -> None:
            results.append(await kimi.think("one"))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await sim.until(lambda: sim.waiting_at("end") == 1)
                with opened(data_dir) as file:  # as if another one had taken this one for dead
                    file.execute("UPDATE runs SET status = 'failed', ended_at = 1, owner = 'srv_other'")
                sim.open_gate("end")
        (first,) = results
        assert (first.status, first.answer) == ("completed", HELD_STEP["content"])
        assert first.structured["conversation_id"] is None
