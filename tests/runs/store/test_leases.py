"""Who is alive on PostgreSQL: whoever renews its lease by the database's clock; who has lost it writes nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.core.errors import AnswerCutOff, NotConfigured
from kimi_mcp.core.types import TextPart, Turn
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.leases import ServerLease, living_servers, request_drain
from kimi_mcp.runs.store.locks import ServerLock
from kimi_mcp.runs.store.store import RunStore
from tests.runs.store.stores import CALLER, begin, end, entry, grow, in_thread, run_store

STOPPED = StoreLimits(beat_s=3_600)
"""Of a server that is stopped: its lease is never renewed."""

IMPATIENT = StoreLimits(lease_s=0, beat_s=3_600)
"""Of one that takes every other one for dead which does not renew its lease just now."""


def store(folder: Path, url: str, limits: StoreLimits) -> Any:
    return run_store(folder, url=url, limits=limits)


def lease_of(kept: RunStore) -> ServerLease:
    assert kept.lease is not None
    return kept.lease


def message(*texts: str) -> Sequence[Turn]:
    return [Turn(role="user", parts=(TextPart(text=text),)) for text in texts]


async def test_a_server_is_alive_as_long_as_its_lease_is_renewed_whatever_its_folder(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        store(tmp_path / "a", database_url, STOPPED) as one,
        store(tmp_path / "b", database_url, StoreLimits()) as other,
    ):
        await begin(one)
        found = await other.find("run_1", CALLER)
        assert found is not None
        assert found.running, "its server is heard of"
        assert not found.orphaned
        impatient = store(tmp_path / "c", database_url, IMPATIENT)
        async with impatient as looking:
            found = await looking.find("run_1", CALLER)
            assert found is not None
            assert found.outcome.status == "failed", "nobody runs it any more"
            assert found.owner == one.lock.id


async def test_a_server_that_leaves_is_dead_at_once(tmp_path: Path, database_url: str) -> None:
    async with store(tmp_path / "a", database_url, STOPPED) as one:
        await begin(one)
        async with store(tmp_path / "b", database_url, STOPPED) as other:
            await begin(other, "run_2")
            assert {each.id for each in await one.read(living_servers)} == {one.lock.id, other.lock.id}
        assert not await in_thread(one.lock.is_alive, other.lock.id)
        assert [each.id for each in await one.read(living_servers)] == [one.lock.id]


async def test_a_server_that_was_taken_for_dead_changes_nothing_of_what_others_took_over(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        store(tmp_path / "a", database_url, STOPPED) as zombie,
        store(tmp_path / "b", database_url, IMPATIENT) as other,
    ):
        known: dict[str, Any] = {"conversation_id": "conv_1", "resumable": True}
        await begin(zombie, **known)
        await begin(zombie, "run_2", conversation_id="conv_2")
        steps, name = zombie.steps("run_1"), zombie.lock.id
        await steps.begin("agent-1/step-1", {"by": "the first"})
        (orphan,) = await other.orphans()
        assert await other.adopt(orphan)
        await other.take_turn("conv_2", "run_3", lambda run_id: False)

        for late in (
            steps.finish("agent-1/step-1", {"answer": "late"}),
            steps.begin("agent-1/step-1", {}),
            steps.begin("agent-1/step-2", {}),
            zombie.record(entry(**known), counted_usd=1.0),
        ):
            with pytest.raises(AnswerCutOff, match="taken over this run"):
                await late
        assert await grow(zombie, "run_1", ("answer", 0, "late")) == []
        assert not await end(zombie, "run_1", conversation_id="conv_1", turns=message("late"))
        assert not await end(zombie, "run_2", conversation_id="conv_2", turns=message("late"))

        assert [(each.key, each.result) for each in await other.steps("run_1").recorded()] == [("agent-1/step-1", None)]
        found = await other.find("run_1", CALLER)
        assert found is not None
        assert (found.owner, found.outcome.status, found.outcome.answer) == (other.lock.id, "running", "")
        conversation = await other.conversation("conv_2")
        assert conversation is not None
        assert (conversation.writer, conversation.head) == ("run_3", None)
        await begin(zombie, "run_4")
        assert zombie.lock.id != name, "it goes on as a new server"
        found = await other.find("run_4", CALLER)
        assert found is not None
        assert found.owner == zombie.lock.id


async def test_a_replica_that_has_lost_its_lease_leaves_and_writes_nothing_more(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        store(tmp_path / "a", database_url, STOPPED) as zombie,
        store(tmp_path / "b", database_url, IMPATIENT) as other,
    ):
        leaves = list[bool]()
        lease_of(zombie).on_lost = lambda: leaves.append(lease_of(zombie).is_lost)
        await begin(zombie)
        await other.orphans()
        for _ in range(2):
            with pytest.raises(NotConfigured, match="it leaves"):
                await begin(zombie, "run_2")
        assert leaves == [True], "it is notified once"
        assert await other.find("run_2", CALLER) is None


async def test_a_lease_that_is_gone_is_noticed_with_the_next_beat(tmp_path: Path, database_url: str) -> None:
    async with AsyncExitStack() as opened:
        one = await opened.enter_async_context(store(tmp_path / "a", database_url, StoreLimits(beat_s=0.01)))
        beats, lost = threading.Event(), threading.Event()
        lease_of(one).describe = lambda: beats.set() or {}
        await begin(one)
        other = await opened.enter_async_context(store(tmp_path / "b", database_url, IMPATIENT))
        with anyio.fail_after(60):
            await in_thread(beats.wait)
            lease_of(one).on_lost = lost.set
            while not lost.is_set():
                await other.orphans()


async def test_a_server_that_is_asked_to_leave_hears_it_and_others_read_what_it_says_of_itself(
    tmp_path: Path, database_url: str
) -> None:
    requested = threading.Event()
    async with (
        store(tmp_path / "a", database_url, StoreLimits(beat_s=0.01)) as one,
        store(tmp_path / "b", database_url, StoreLimits(beat_s=0.01)) as other,
    ):
        lease_of(one).describe = lambda: {"role": "all"}
        lease_of(one).on_drain = requested.set
        await begin(one)
        await begin(other, "run_2")
        with anyio.fail_after(60):
            while lease_of(other).living < 2:
                await anyio.sleep(0.01)
            assert await other.write(request_drain, one.lock.id)
            assert not await other.write(request_drain, "srv_none")
            await in_thread(requested.wait)
            while lease_of(other).living > 1:  # who leaves needs no share any more
                await anyio.sleep(0.01)
        (shown,) = [each for each in await other.read(living_servers) if each.id == one.lock.id]
        assert (shown.drain, shown.facts["role"]) == (True, "all")
        assert lease_of(one).living == 1, "a command that looks at runs is no replica"


async def test_a_lease_is_not_renewed_for_an_event_loop_that_does_not_answer(tmp_path: Path, database_url: str) -> None:
    hangs, looked = asyncio.new_event_loop(), list[float]()
    renewals, seen = list[int](), threading.Event()

    def clock() -> float:
        looked.append(0.0 if not looked else 100.0)
        if len(looked) == 4:
            seen.set()
        return looked[-1]

    async with store(tmp_path, database_url, StoreLimits()) as kept:
        await begin(kept)
        lease = ServerLease(database_url, tmp_path, limits=StoreLimits(beat_s=0.01), loop=lambda: hangs, clock=clock)
        lease.describe = lambda: renewals.append(len(looked)) or {}
        await kept.write(lease.register)
        with anyio.fail_after(60):
            await in_thread(seen.wait)
        assert renewals == [0, 1], "as it registered, and with the beat that asked the loop"
        await in_thread(lease.release)
    hangs.close()


async def test_a_lease_is_renewed_for_an_event_loop_that_answers_before_it_was_asked(
    tmp_path: Path, database_url: str
) -> None:
    times, renewals, enough = count(), list[int](), threading.Event()

    class AtOnce:
        def call_soon_threadsafe(self, callback: Any) -> None:
            callback()

    def describe() -> dict[str, Any]:
        renewals.append(1)
        if len(renewals) == 10:
            enough.set()
        return {}

    async with store(tmp_path, database_url, StoreLimits()) as kept:
        await begin(kept)
        loop: Any = AtOnce()
        limits = StoreLimits(beat_s=0.01, lease_s=5)
        lease = ServerLease(database_url, tmp_path, limits=limits, loop=lambda: loop, clock=lambda: next(times))
        lease.describe = describe
        await kept.write(lease.register)
        with anyio.fail_after(60):
            await in_thread(enough.wait)
        await in_thread(lease.release)


async def test_a_server_of_the_version_before_and_a_new_one_see_each_other_by_their_lock_files(
    tmp_path: Path, database_url: str
) -> None:
    before = ServerLock(tmp_path, missing_s=-1)
    before.acquire()
    async with store(tmp_path, database_url, STOPPED) as kept:
        await begin(kept)
        assert before.is_alive(kept.lock.id)
        assert await in_thread(kept.lock.is_alive, before.id)
        before.release(unfinished=True)
        assert not await in_thread(kept.lock.is_alive, before.id)
        assert kept.lock.dead_servers() == {before.id}
    assert not before.is_alive(kept.lock.id)


async def test_a_machine_whose_clock_is_off_takes_the_time_of_the_database(tmp_path: Path, database_url: str) -> None:
    async with store(tmp_path, database_url, STOPPED) as kept:
        await begin(kept)
        assert lease_of(kept).ahead_s == 0.0, "its clock is that of the database"
        for late_s in (3_600, -3_600):
            lease = ServerLease(database_url, tmp_path, limits=STOPPED, wall=lambda late_s=late_s: time.time() - late_s)
            await kept.write(lease.register)
            assert lease.ahead_s == pytest.approx(late_s, abs=60)
            await in_thread(lease.release)
