"""Long calls: who waits, who gets a handle, and the same call made again, which is paid for once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp_types import CancelledNotification, CancelledNotificationParams

from kimi_mcp.server.callers import LOCAL
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import KimiClient, connect, connect_messages, store_limits, wait_until
from tests.server.media import CLIP, picture, write
from tests.server.requests import HELD_STEP, chats
from tests.server.test_unwritten_ends import Lock

AGAIN = {"prompt": "What is 17 * 23?"}


async def gives_up(
    sim: Simulator, kimi: KimiClient, waiting: int = 1, *, tool: str = "kimi_think", **arguments: Any
) -> None:
    """A call whose host loses patience by its own clock, once all but the end of the answer has come."""
    before = set(kimi.state.waiting)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kimi.call, tool, {**AGAIN, **arguments})
        await sim.until(lambda: sim.waiting_at("end") == waiting)
        await wait_until(lambda: kimi.state.waiting.keys() > before)
        (request_id,) = kimi.state.waiting.keys() - before
        assert not isinstance(request_id, tuple)
        timed_out = CancelledNotificationParams(request_id=request_id, reason="timed out after 1.0s")
        await kimi.client.session.send_notification(CancelledNotification(params=timed_out))
        await wait_until(lambda: all(run.abandoned for run in kimi.runs.live.values()))
        tasks.cancel_scope.cancel()


async def test_a_host_that_is_not_known_to_wait_gets_a_handle(sim: Simulator, mode: str) -> None:
    sim.play({**HELD_STEP, "times": "always"})

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        del progress, total, message

    async with connect(sim, mode, host="somebody", KIMI_REPLY_WITHIN_S="0.2") as kimi:
        plain = await kimi.think("one")
        requested = await kimi.call("kimi_think", {"prompt": "two"}, progress_callback=heard)
    for result in (plain, requested):
        assert result.status == "running"
        assert f'kimi_run(run_id="{result.run_id}", action="wait")' in result.text


async def test_a_patient_host_waits_as_long_as_progress_comes(sim: Simulator, mode: str) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    results: list[Any] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        del progress, total, message

    async with connect(sim, mode, host="claude-code", KIMI_REPLY_WITHIN_S="0.2") as kimi:

        async def ask() -> None:
            results.append(await kimi.call("kimi_think", AGAIN, progress_callback=heard))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            result = await kimi.think("another, and it asks for no progress")
            assert result.status == "running", "who wants no progress can't be known to wait for it"
            assert results == []
            sim.open_gate("end")
    assert results[0].status == "completed"


async def test_a_host_that_gave_up_finds_its_run_and_the_same_call_joins_it(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, mode) as kimi:
        await gives_up(sim, kimi)
        listed = (await kimi.run()).answer
        assert "running" in listed
        assert AGAIN["prompt"] in listed
        results: list[Any] = []

        async def ask() -> None:
            results.append(await kimi.think(**AGAIN))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await wait_until(lambda: len(kimi.state.waiting) == 1)
            sim.open_gate("end")
        (joined,) = results
        assert joined.status == "completed"
        assert joined.run_id == listed.split()[0]
        assert joined.rules == ["run-rejoined"]
        assert joined.text.startswith(HELD_STEP["content"])
        assert "run-rejoined" in joined.text
        assert len(chats(sim)) == 1, "it was paid for once"
        anew = await kimi.think(**AGAIN)
        assert anew.run_id != joined.run_id
        assert anew.rules == []
    assert len(chats(sim)) == 2, "what was given out is requested anew"


async def test_the_same_call_gets_the_answer_that_came_when_nobody_waited_even_after_a_restart(
    sim: Simulator, mode: str
) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, mode) as kimi:
        await gives_up(sim, kimi)
        sim.open_gate("end")
        await wait_until(lambda: not kimi.runs.live)
    async with connect(sim, mode) as later:
        joined = await later.think(**AGAIN)
        assert joined.status == "completed"
        assert joined.answer == HELD_STEP["content"]
        assert joined.rules == ["run-rejoined"]
        assert len(chats(sim)) == 1
        assert (await later.think(**AGAIN)).rules == []
    assert len(chats(sim)) == 2


async def test_the_same_call_joins_a_run_of_another_server(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with connect(sim) as one, connect(sim, KIMI_REPLY_WITHIN_S="0.3") as other:
        await gives_up(sim, one)
        result = await other.think(**AGAIN)
        assert result.status == "running"
        assert result.rules == ["run-rejoined"]
        sim.open_gate("end")
        assert (await other.run(result.run_id, wait_s=10)).answer == HELD_STEP["content"]
    assert len(chats(sim)) == 1


async def test_a_call_again_at_once_joins_although_it_comes_with_the_cancellation(sim: Simulator) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    async with connect_messages(sim) as host:
        await host.call("kimi_think", AGAIN, 1)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await host.cancel(1, reason="Request timed out")
        await host.call("kimi_think", AGAIN, 2)
        await wait_until(lambda: set(host.state.waiting) == {2})
        sim.open_gate("end")
        again = (await host.receive())["result"]["structuredContent"]
    assert [entry["rule"] for entry in again["policy"]] == ["run-rejoined"]
    assert len(chats(sim)) == 1


async def test_a_call_again_joins_although_its_host_gave_up_as_the_reply_was_under_way(sim: Simulator) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    async with connect_messages(sim, KIMI_REPLY_WITHIN_S="0.05") as host:
        await host.call("kimi_think", AGAIN, 1)
        assert (await host.receive())["result"]["structuredContent"]["status"] == "running"
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await host.cancel(1, reason="Request timed out")
        await host.call("kimi_think", AGAIN, 2)
        again = (await host.receive())["result"]["structuredContent"]
        sim.open_gate("end")
    assert [entry["rule"] for entry in again["policy"]] == ["run-rejoined"]
    assert len(chats(sim)) == 1


async def test_a_call_again_at_once_gets_the_answer_whose_reply_its_host_did_not_wait_for(
    sim: Simulator, data_dir: Path
) -> None:
    async with connect_messages(sim, options=store_limits(locked_s=60, locked_least_s=60)) as host:
        first = await host.result("kimi_think", AGAIN, 1)
        with Lock(data_dir) as lock:
            lock.take()  # what the host gave up on is not recorded yet when it calls again
            await host.cancel(1, reason="Request timed out")
            await host.call("kimi_think", AGAIN, 2)
            await host.result("kimi_run", {})
        again = (await host.receive())["result"]["structuredContent"]
    assert [entry["rule"] for entry in again["policy"]] == ["run-rejoined"]
    assert again["run_id"] == first["run_id"]
    assert len(chats(sim)) == 1


async def test_a_stop_that_comes_after_the_reply_cancels_nothing(sim: Simulator) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    async with connect_messages(sim, KIMI_REPLY_WITHIN_S="0.05") as host:
        await host.call("kimi_think", AGAIN, 1)
        run_id = (await host.receive())["result"]["structuredContent"]["run_id"]
        await host.cancel(1, reason="the user pressed stop")
        await sim.until(lambda: sim.waiting_at("end") == 1)
        sim.open_gate("end")
        await host.call("kimi_run", {"run_id": run_id, "wait_s": 60}, 2)
        assert (await host.receive())["result"]["structuredContent"]["status"] == "completed"


@pytest.mark.parametrize(
    "changed",
    [{"prompt": "What is 17 * 24?"}, {"system": "Be brief."}, {"max_tokens": 20_000}, {"model": "kimi-k2.6"}],
    ids=lambda changed: next(iter(changed)),
)
async def test_another_call_joins_nothing(sim: Simulator, changed: dict[str, Any]) -> None:
    sim.play(HELD_STEP)
    async with connect(sim) as kimi:
        await gives_up(sim, kimi)
        result = await kimi.think(**{**AGAIN, **changed})
        assert result.rules == []
        assert (await kimi.instant(**AGAIN)).rules == []
    assert len(chats(sim)) == 3


NAMING = {
    "a text file": ("kimi_think", {"files": ["a.txt"]}, "a.txt", b"hello"),
    "a glob": ("kimi_instant", {"files": ["*.md"]}, "b.md", b"# Hi"),
    "a glob that is a name": ("kimi_think", {"files": ["[id].tsx"]}, "[id].tsx", b"f()"),
    "a picture": ("kimi_vision", {"images": ["a.png", "b.png"]}, "b.png", picture(7)),
    "a picture's URI": ("kimi_vision", {"images": ["FILE://localhost{folder}/b.png"]}, "b.png", picture(7)),
    "a clip": ("kimi_video", {"video": " clip.mp4"}, "clip.mp4", CLIP[:-1] + b"!"),
}
"""How a call names a file, which one changes, and into what: most are as long as what was there."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with the files that those calls name."""
    folder = tmp_path / "project"
    folder.mkdir()
    write(folder, a_txt="HELLO", b_md="# Ho", a_png=picture(1), b_png=picture(2), clip_mp4=CLIP)
    (folder / "[id].tsx").write_text("g()")
    return folder


@pytest.mark.parametrize("case", NAMING)
async def test_the_same_call_about_the_same_files_joins(sim: Simulator, folder: Path, case: str) -> None:
    tool, named, *_ = NAMING[case]
    sim.play(HELD_STEP)
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        await gives_up(sim, kimi, tool=tool, **_in(folder, named))
        sim.open_gate("end")
        assert (await kimi.call(tool, {**AGAIN, **_in(folder, named)})).rules == ["run-rejoined"]
    assert len(chats(sim)) == 1


@pytest.mark.parametrize("case", NAMING)
async def test_the_same_call_about_a_file_that_has_changed_is_another_call(
    sim: Simulator, folder: Path, case: str
) -> None:
    tool, named, changed, content = NAMING[case]
    sim.play(HELD_STEP)
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        await gives_up(sim, kimi, tool=tool, **_in(folder, named))
        before = (folder / changed).stat()
        (folder / changed).write_bytes(content)
        os.utime(folder / changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some tools leave it
        sim.open_gate("end")
        assert (await kimi.call(tool, {**AGAIN, **_in(folder, named)})).rules == []
    assert len(chats(sim)) == 2


async def test_a_glob_that_meets_another_file_makes_another_call(sim: Simulator, folder: Path) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, KIMI_ROOTS=str(folder)) as kimi:
        await gives_up(sim, kimi, files=["**/*.md"])
        (folder / "docs").mkdir()
        write(folder / "docs", c_md="# More")
        sim.open_gate("end")
        assert (await kimi.think(**AGAIN, files=["**/*.md"])).rules == []
    assert len(chats(sim)) == 2


def _in(folder: Path, value: Any) -> Any:
    match value:
        case dict():
            return {name: _in(folder, each) for name, each in value.items()}
        case list():
            return [_in(folder, each) for each in value]
        case _:
            return value.replace("{folder}", str(folder))


async def test_another_host_joins_nothing(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, host="one") as one, connect(sim, host="other") as other:
        await gives_up(sim, one)
        assert (await other.think(**AGAIN)).rules == []
    assert len(chats(sim)) == 2


async def test_a_run_that_failed_or_whose_server_died_is_asked_anew(sim: Simulator, data_dir: Path) -> None:
    sim.play({**HELD_STEP, "no_finish": True}, HELD_STEP)
    async with connect(sim) as kimi:
        await gives_up(sim, kimi)
        sim.open_gate("end")
        await wait_until(lambda: not kimi.runs.live)
        anew = await kimi.think(**AGAIN)
        assert anew.status == "completed"
        assert anew.rules == []
        (data_dir / "servers" / "srv_dead.lock").touch()  # as if a server had been killed that its host had given up on
        with opened(data_dir) as file:
            file.execute("UPDATE runs SET status = 'running', owner = 'srv_dead', abandoned = 1")
        assert (await kimi.think(**AGAIN)).rules == []
    assert len(chats(sim)) == 3


async def test_an_answer_that_is_too_old_is_asked_anew(sim: Simulator, data_dir: Path) -> None:
    sim.play(HELD_STEP)
    async with connect(sim) as kimi:
        await gives_up(sim, kimi)
        sim.open_gate("end")
        await wait_until(lambda: not kimi.runs.live)
        with opened(data_dir) as file:
            file.execute("UPDATE runs SET ended_at = ended_at - 3601")
        assert (await kimi.think(**AGAIN)).rules == []
    assert len(chats(sim)) == 2


async def test_many_may_join_at_once_and_it_is_paid_for_once(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with connect(sim) as kimi:
        await gives_up(sim, kimi)
        results: list[Any] = []

        async def ask() -> None:
            results.append(await kimi.think(**AGAIN))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask)
            await wait_until(lambda: len(kimi.state.waiting) == 10)
            sim.open_gate("end")
    assert len({result.run_id for result in results}) == 1
    assert {result.answer for result in results} == {HELD_STEP["content"]}
    assert all(result.rules == ["run-rejoined"] for result in results)
    assert len(chats(sim)) == 1


@pytest.mark.parametrize("where", ["here", "another server"])
async def test_a_user_who_cancels_a_joined_run_ends_it(sim: Simulator, where: str) -> None:
    sim.play(HELD_STEP)
    async with connect(sim) as one, connect(sim) as other:
        await gives_up(sim, one)
        kimi = one if where == "here" else other
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: kimi.think(**AGAIN))
            await wait_until(lambda: len(kimi.state.waiting) == 1)
            tasks.cancel_scope.cancel()
        await sim.client_gone()
        await wait_until(lambda: not one.runs.live)
        (run,) = await one.runs.latest(LOCAL)
        assert run.outcome.status == "cancelled"
        anew = await kimi.think(**AGAIN)
        assert anew.rules == []


async def test_a_host_that_gives_up_on_a_joined_run_may_join_it_again(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, KIMI_REPLY_WITHIN_S="60") as kimi:
        await gives_up(sim, kimi)
        await gives_up(sim, kimi)
        sim.open_gate("end")
        assert (await kimi.think(**AGAIN)).rules == ["run-rejoined"]
    assert len(chats(sim)) == 1


async def test_a_user_who_cancels_is_no_host_that_gave_up(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with connect(sim) as kimi:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: kimi.think(**AGAIN))
            await sim.until(lambda: sim.waiting_at("end") == 1)
            tasks.cancel_scope.cancel()
        await sim.client_gone()
        assert (await kimi.think(**AGAIN)).rules == []
    assert len(chats(sim)) == 2


async def test_without_a_journal_the_same_call_joins_too(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, KIMI_JOURNAL="off") as kimi:
        await gives_up(sim, kimi)
        sim.open_gate("end")
        await wait_until(lambda: not kimi.runs.live)
        assert (await kimi.think(**AGAIN)).rules == ["run-rejoined"]
        assert (await kimi.think(**AGAIN)).rules == []
    assert len(chats(sim)) == 2
