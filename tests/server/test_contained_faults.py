"""Faults of the store behind a server's calls: none of them ends the server, or a run that it does not concern."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs import Run, Runs
from kimi_mcp.runs.budgets import SpendingLimits
from kimi_mcp.runs.recorder import RunRecorder
from kimi_mcp.runs.store.config import FILE, StoreLimits
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.loop_time import others_wait
from tests.runs.store.stores import opened
from tests.server.clients import ServerOptions, connect, connect_messages, store_limits, wait_until
from tests.server.requests import HELD_STEP, chats

RECOVERING = ServerOptions(timings=Timings(warm_up_after_s=3600, recover_after_s=0))
"""A server that searches for runs of dead servers as soon as it starts."""


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Once the log says so."""
    with anyio.fail_after(60):
        while text not in caplog.text:
            await anyio.sleep(0.01)


# ── a cancellation ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_cancellation_that_the_store_does_not_take_ends_no_other_run(
    sim: Simulator, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    options = store_limits(locked_s=1)
    async with connect_messages(sim, options=options) as owner, connect_messages(sim, options=options) as host:
        await owner.call("kimi_think", {"prompt": "theirs"}, 1)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await owner.cancel(1, reason="Request timed out")
        await wait_until(lambda: _abandoned(data_dir))
        await host.call("kimi_think", {"prompt": "ours"}, 1)
        await host.call("kimi_think", {"prompt": "theirs"}, 2)  # it joins the run of the other server
        await sim.until(lambda: sim.waiting_at("end") == 2)
        await wait_until(lambda: set(host.state.waiting) == {1, 2})
        with opened(data_dir) as file:
            file.execute("BEGIN IMMEDIATE")
            await host.cancel(2)
            await logged(caplog, "a cancellation could not be passed on")
            file.execute("ROLLBACK")
        sim.open_gate("end")
        replies = [await host.receive()]
        while replies[-1].get("id") != 1:
            replies.append(await host.receive())
    assert replies[-1]["result"]["structuredContent"]["status"] == "completed"
    assert len(chats(sim)) == 2


def _abandoned(data: Path) -> bool:
    with opened(data) as file:
        return file.execute("SELECT abandoned FROM runs").fetchone() == (1,)


def _garbage(data: Path) -> None:
    for name in (FILE, f"{FILE}-wal"):
        (data / name).write_bytes(b"no database " * 2_000)


def _file_for_folder(data: Path) -> None:
    file = data.with_name("file")
    file.write_text("a file")
    for number in range(1_000):  # a store that still writes may make the folder again in between
        data.rename(data.with_name(f"moved-{number}"))
        with suppress(OSError):
            file.rename(data)
            return
    raise AssertionError("the folder came again each time")


def _folder_for_lock(data: Path) -> None:
    for lock in (data / "servers").glob("*.lock"):
        lock.unlink(missing_ok=True)
        lock.mkdir()


def _folder_for_file(data: Path) -> None:
    for part in data.glob(f"{FILE}*"):
        part.unlink(missing_ok=True)
    (data / FILE).mkdir()


@pytest.mark.parametrize("spoil", [_garbage, _file_for_folder, _folder_for_lock, _folder_for_file])
async def test_a_store_that_breaks_under_its_runs_costs_no_answer(
    sim: Simulator, data_dir: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    looks, hold = [0], SpendingLimits.enforce

    async def counted(limits: SpendingLimits, *given: Any) -> None:
        await hold(limits, *given)
        looks[0] += 1

    monkeypatch.setattr(SpendingLimits, "enforce", counted)
    sim.play({**HELD_STEP, "times": "always"})
    async with connect_messages(sim, options=store_limits(write_every_s=0.01)) as host:
        for number in (1, 2):
            await host.call("kimi_think", {"prompt": f"call {number}"}, number)
        await sim.until(lambda: sim.waiting_at("end") == 2)
        spoil(data_dir)
        await host.cancel(1)
        await sim.client_gone(1)
        before = looks[0]
        await wait_until(lambda: looks[0] >= before + 3)
        sim.open_gate("end")
        reply = await host.receive()
        while reply.get("id") != 2:
            reply = await host.receive()
        sim.play()
        next_one = await host.result("kimi_instant", {"prompt": "hi"})
    assert reply["result"]["structuredContent"]["status"] == "completed"
    assert reply["result"]["structuredContent"]["answer"] == HELD_STEP["content"]
    assert next_one["status"] in ("completed", "failed"), "it is a result, whatever it says"


# ── what an earlier server left ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["srv_0123456789abcdef.lock", "srv_0123456789abcdef.starting"])
async def test_a_folder_in_place_of_a_lock_file_keeps_nobody_from_serving(
    sim: Simulator, data_dir: Path, name: str
) -> None:
    (data_dir / "servers" / name).mkdir(parents=True)
    async with connect(sim, options=RECOVERING) as kimi:
        await others_wait()
        assert (await kimi.think()).status == "completed"


async def test_a_folder_that_can_not_be_named_is_the_callers_to_know_and_ends_nobody(
    sim: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(sim, options=RECOVERING, KIMI_DATA_DIR="~nobody-of-that-name/data") as kimi:
        await logged(caplog, "runs of a dead server could not be recovered")
        refused = await kimi.think()
    assert refused.code == "not_configured"
    assert "KIMI_DATA_DIR" in refused.error["fix"]


async def test_a_store_that_is_broken_when_it_looks_back_ends_nobody(
    sim: Simulator, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data_dir / "servers").mkdir(parents=True)
    (data_dir / "servers" / "srv_0123456789abcdef.lock").touch()
    (data_dir / FILE).mkdir()
    async with connect(sim, options=RECOVERING) as kimi:
        await logged(caplog, "runs of a dead server could not be recovered")
        assert (await kimi.think()).code == "not_configured"


# ── the watcher, and a run's end ──────────────────────────────────────────────────────────────────────────────────


async def test_a_look_at_the_runs_that_fails_is_logged_once_and_done_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looked, broken = [0], [True]

    def highest_price() -> None:
        looked[0] += 1
        if broken[0]:
            raise LookupError("of our own making")

    end = anyio.Event()

    async def work(run: Run) -> Outcome:
        await end.wait()
        return Outcome(status="completed", answer="Done.")

    journal, run = (
        RunStore(None, limits=StoreLimits(write_every_s=0.01)),
        Run(caller="a test", tool="kimi_think", prompt="p"),
    )
    async with anyio.create_task_group() as tasks:
        runs = Runs(tasks, journal, limits=SpendingLimits(call_usd=1.0, highest_price=highest_price))  # type: ignore[arg-type]
        runs.start(run, work)
        with anyio.fail_after(60):
            while looked[0] < 5:
                await anyio.sleep(0.01)
            broken[0], before = False, looked[0]
            while looked[0] < before + 2:
                await anyio.sleep(0.01)
            end.set()
            await run.done.wait()
    await journal.aclose()
    assert run.outcome is not None
    assert run.outcome.answer == "Done."
    assert caplog.text.count("spending could not be held against its limits") == 1


@pytest.mark.parametrize("where", ["in its work", "as its end is written"])
async def test_a_run_that_fails_by_a_fault_of_ours_is_reported_so_and_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    begun, end = anyio.Event(), anyio.Event()

    async def fail(run: Run) -> Outcome:
        await begun.wait()
        if where == "in its work":
            raise LookupError("of our own making")
        return Outcome(status="completed", answer="Done.")

    async def work(run: Run) -> Outcome:
        begun.set()
        await end.wait()
        return Outcome(status="completed", answer="Done.")

    written = RunRecorder.write_end

    async def write_end(writer: RunRecorder, run: Run) -> None:
        if run is failing and where != "in its work":
            raise LookupError("of our own making")
        await written(writer, run)

    monkeypatch.setattr(RunRecorder, "write_end", write_end)
    failing, other = (Run(caller="a test", tool="kimi_think", prompt="p") for _ in range(2))
    journal = RunStore(None)
    async with anyio.create_task_group() as tasks:
        runs = Runs(tasks, journal)
        runs.start(failing, fail)
        runs.start(other, work)
        with anyio.fail_after(60):
            await failing.wait()
        end.set()
        with anyio.fail_after(60):
            await other.wait()
    await journal.aclose()
    assert other.outcome is not None
    assert other.outcome.answer == "Done."
    assert failing.outcome is not None
    code = failing.outcome.error and failing.outcome.error.code
    assert (failing.outcome.status, code) == (("failed", "internal") if where == "in its work" else ("completed", None))
