"""Replicas on one PostgreSQL: what runs in one is seen, waited for, ended and continued through another at once.

Nobody looks by itself here (``look_every_s``): what a replica knows of another's runs it has heard.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from sqlalchemy import Engine, delete, event

from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.shared_tables import servers
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.loop_time import others_wait
from tests.server.clients import KimiClient, ServerOptions, connect, wait_until
from tests.server.requests import HELD_STEP, body_of, chats
from tests.server.tasks import EXTENSION, connect_newest
from tests.server.test_progress import Heard

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests start no PostgreSQL there")

TIMINGS: dict[str, Any] = {
    "warm_up_after_s": 3600,
    "first_progress_s": 0.05,
    "progress_every_s": 0.05,
    "store": StoreLimits(look_every_s=3600, write_every_s=0.05, written_within_s=10),
}
OPTIONS = ServerOptions(timings=Timings(**TIMINGS))

Connect = Callable[[str], AbstractAsyncContextManager[KimiClient]]


@pytest.fixture
def replica(sim: Simulator, tmp_path: Path, database_url: str) -> Connect:
    """Connects to a replica of that name."""

    @asynccontextmanager
    async def connected(name: str, mode: str = "auto") -> AsyncIterator[KimiClient]:
        variables = {"KIMI_DATABASE_URL": database_url, "KIMI_DATA_DIR": str(tmp_path / name)}
        async with connect(sim, mode, options=OPTIONS, **variables) as kimi:
            yield kimi

    return connected


async def started(sim: Simulator, kimi: KimiClient, tasks: TaskGroup, **arguments: Any) -> str:
    """The id of a run that has brought its whole answer, but for the end; its call waits for that."""
    tasks.start_soon(partial(kimi.think, **arguments))
    await sim.until(lambda: sim.waiting_at("end") == 1)
    (run_id,) = kimi.runs.live
    return run_id


async def arrived(kimi: KimiClient, run_id: str) -> Any:
    """Its status once all of that is seen here."""
    while True:
        status = await kimi.run(run_id, "status")
        if status.answer == HELD_STEP["content"]:
            return status
        await anyio.sleep(0.01)


async def test_a_run_of_another_replica_is_seen_and_waited_for_as_if_it_ran_here(
    sim: Simulator, replica: Any, mode: str
) -> None:
    sim.play(HELD_STEP)
    heard, results, own = Heard(), list[Any](), None
    async with replica("one") as one, replica("other", mode) as other, anyio.create_task_group() as tasks:
        run_id = await started(sim, one, tasks)
        status = await arrived(other, run_id)
        assert status.reasoning == HELD_STEP["reasoning"]
        assert status.structured["model"]["sent"] == "kimi-k2.5"
        page = await other.run(run_id, "answer", offset=3)
        assert page.structured["page"] == {"of": "answer", "text": "is 391.", "offset": 3, "next_offset": 10}

        async def wait() -> None:
            arguments = {"run_id": run_id, "wait_s": 60}
            results.append(await other.call("kimi_run", arguments, progress_callback=heard))

        tasks.start_soon(wait)
        await heard.until("answering · about")
        one.runs.live[run_id].report("reading a page")
        await heard.until("reading a page")
        sim.open_gate("end")
        own = await one.run(run_id, wait_s=60)
    assert results[0].status == "completed"
    assert own is not None
    assert results[0].structured == own.structured
    assert heard.messages.count("reading a page") == 1


@pytest.mark.soak
async def test_a_task_of_another_replica_is_listened_to_and_cancelled(
    sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    sim.play(HELD_STEP)
    options = ServerOptions(timings=Timings(**TIMINGS, task_after_s=0))

    def replica(name: str) -> Any:
        folder = str(tmp_path / name)
        return connect_newest(sim, EXTENSION, options=options, KIMI_DATABASE_URL=database_url, KIMI_DATA_DIR=folder)

    async with replica("one") as one, replica("other") as other:
        task = (await one.call("kimi_think", {"prompt": "hi"}))["taskId"]
        await sim.until(lambda: sim.waiting_at("end") == 1)
        await other.send("subscriptions/listen", {"notifications": {"taskIds": [task]}})
        while "answering" not in str(await other.notifications.get()):
            pass
        await other.ask("tasks/cancel", taskId=task)
        await sim.client_gone()
        assert (await one.ask("tasks/get", taskId=task))["status"] == "cancelled"


async def test_a_conversation_goes_on_in_another_replica_once_its_turn_is_free(sim: Simulator, replica: Any) -> None:
    sim.play({"content": "23."}, HELD_STEP, {"content": "25."})
    results = list[Any]()
    async with replica("one") as one, replica("other") as other, anyio.create_task_group() as tasks:
        conversation = (await one.instant("one")).structured["conversation_id"]
        await started(sim, one, tasks, prompt="two", conversation_id=conversation)

        async def follow_up() -> None:
            results.append(await other.instant("three", conversation_id=conversation))

        tasks.start_soon(follow_up)
        await wait_until(lambda: other.state.runs and other.runs.live)
        await others_wait()
        assert len(chats(sim)) == 2
        sim.open_gate("end")
    assert results[0].answer == "25."
    sent = [message["content"] for message in body_of(chats(sim)[-1])["messages"]]
    assert sent == ["one", "23.", "two", HELD_STEP["content"], "three"]


async def test_what_a_swarm_of_another_replica_does_is_seen(sim: Simulator, replica: Any) -> None:
    sim.play(HELD_STEP)
    async with replica("one") as one, replica("other") as other, anyio.create_task_group() as tasks:
        tasks.start_soon(one.call, "kimi_swarm", {"prompt": "Plan it.", "tools": []})
        await sim.until(lambda: sim.waiting_at("end") == 1)
        (run_id,) = one.runs.live
        status = await arrived(other, run_id)
        assert status.reasoning == HELD_STEP["reasoning"]
        assert status.structured["swarm"]["steps"] == 1
        run = await other.runs.find(run_id, None)
        assert _without_seconds(run) == _without_seconds(one.runs.live[run_id])
        sim.open_gate("end")
        assert (await other.run(run_id, wait_s=60)).status == "completed"


@pytest.mark.soak
async def test_a_call_whose_replica_is_found_dead_ends_for_those_who_wait_with_what_had_arrived(
    sim: Simulator, replica: Any
) -> None:
    sim.play(HELD_STEP)
    results, run_id = list[Any](), ""
    async with replica("one") as one, replica("other") as other, anyio.create_task_group() as tasks:
        run_id = await started(sim, one, tasks)
        await arrived(other, run_id)

        async def wait() -> None:
            results.append(await other.run(run_id, wait_s=60))

        tasks.start_soon(wait)
        await wait_until(lambda: other.runs.followers)
        server = one.runs.store.lock.id  # it goes on under another one
        gone = delete(servers).where(servers.c.id == server)
        await other.runs.store.write(lambda connection: connection.execute(gone).rowcount)
        await wait_until(lambda: not other.runs.store.lock.is_alive(server))
        await other.runs.resume_all()  # as a replica does that finds another one dead
        await wait_until(lambda: results)
        tasks.cancel_scope.cancel()
    assert (results[0].status, results[0].code, results[0].answer) == ("failed", "answer_cut_off", HELD_STEP["content"])
    assert f'kimi_run(run_id="{run_id}", action="continue")' in results[0].structured["error"]["fix"]


def _without_seconds(run: Any) -> str:
    return run.phase().rpartition(" · ")[0]


@pytest.mark.soak
async def test_many_who_wait_for_a_run_of_another_replica_read_it_once(sim: Simulator, replica: Any) -> None:
    sim.play(HELD_STEP)
    reads = list[str]()

    def count(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        del connection, cursor, more
        if statement.startswith("SELECT runs.id"):
            reads.append(statement)

    async with replica("one") as one, replica("other") as other, anyio.create_task_group() as calls:
        run_id = await started(sim, one, calls)
        await arrived(other, run_id)
        runs = [await other.runs.find(run_id, None) for _ in range(100)]
        event.listen(Engine, "before_cursor_execute", count)
        try:
            async with anyio.create_task_group() as tasks:
                for run in runs:
                    tasks.start_soon(run.wait)
                await others_wait()
                sim.open_gate("end")
        finally:
            event.remove(Engine, "before_cursor_execute", count)
        assert {(await run.current_outcome()).status for run in runs} == {"completed"}
        assert other.runs.followers == {}
    assert len(reads) < 20
