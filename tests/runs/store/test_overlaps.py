"""Several servers on one PostgreSQL: their transactions overlap, and what only one of them may do one of them does."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from kimi_mcp.core.errors import BudgetExceeded, KimiError, NotConfigured
from kimi_mcp.runs.store import changes
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.day_limits import DayLimit
from kimi_mcp.runs.store.records import Used
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.runs.store.swarm_totals import SwarmTotals
from kimi_mcp.runs.store.tables import EXPANSIONS, MIGRATIONS, read_fact, runs, write_fact
from tests import postgres
from tests.loop_time import others_wait
from tests.runs.store.stores import CALLER, begin, end, entry, in_thread, run_store

SERVERS = 3
LASTING = StoreLimits(beat_s=3_600, answers_within_s=60)
"""No lease runs out, and a busy machine gets its time."""


@asynccontextmanager
async def opened_stores(folder: Path, url: str) -> AsyncIterator[list[RunStore]]:
    """The stores of several servers, opened at the same moment."""
    async with AsyncExitStack() as opened:
        found = [
            await opened.enter_async_context(run_store(folder / str(number), url=url, limits=LASTING))
            for number in range(SERVERS)
        ]
        assert not [fault for fault in await at_once([kept.orphans for kept in found]) if fault]
        yield found


@pytest.fixture
async def stores(tmp_path: Path, database_url: str) -> AsyncIterator[list[RunStore]]:
    """The stores of several servers."""
    with anyio.fail_after(60):
        async with opened_stores(tmp_path, database_url) as found:
            yield found


async def at_once(requested: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """What each of them gives, or how it fails."""
    given: list[Any] = [None] * len(requested)

    async def ask(number: int) -> None:
        try:
            given[number] = await requested[number]()
        except KimiError as fault:
            given[number] = fault

    async with anyio.create_task_group() as tasks:
        for number in range(len(requested)):
            tasks.start_soon(ask, number)
    return given


class Meeting:
    """Threads that wait for each other, each of them once: a transaction may be done again."""

    def __init__(self, threads: int) -> None:
        self._barrier, self._were_there = threading.Barrier(threads), set[int]()

    def wait(self) -> None:
        if (thread := threading.get_ident()) not in self._were_there:
            self._were_there.add(thread)
            self._barrier.wait(60)


async def overlapping(stores: list[RunStore], query: Callable[..., Any], *arguments: Callable[[RunStore], Any]) -> Any:
    """What each store's query gives, in transactions that have all begun before any of them goes on."""
    begun = Meeting(len(stores))

    def together(connection: Connection, *given: Any) -> Any:
        connection.execute(sa.select(runs.c.id)).all()  # a transaction begins with its first statement
        begun.wait()
        return query(connection, *given)

    return await at_once([partial(kept.write, together, *(each(kept) for each in arguments)) for kept in stores])


def an_id(kept: RunStore) -> str:
    return kept.lock.id


async def test_tables_are_made_once_by_servers_that_start_at_the_same_moment(
    tmp_path: Path, postgres_server: str
) -> None:
    with anyio.fail_after(60), postgres.database(postgres_server, empty=True) as url:
        async with opened_stores(tmp_path, url) as stores:
            facts = [await stores[0].read(read_fact, name) for name in ("version", "revision", "folder")]
    assert facts == ["4", str(len(EXPANSIONS)), None], "and the database belongs to no data folder"


async def test_servers_that_start_while_tables_are_made_for_longer_than_they_wait_find_them_once(
    tmp_path: Path, postgres_server: str
) -> None:
    made: list[int] = []

    def make_slowly(connection: Connection) -> None:
        MIGRATIONS[0](connection)
        made.append(1)
        connection.execute(sa.text("SELECT pg_sleep(1)"))

    impatient = StoreLimits(beat_s=3_600, answers_within_s=0.3)

    async def open_at_last(kept: RunStore) -> None:
        while True:
            with suppress(NotConfigured):
                return await begin(kept, f"run_{kept.lock.id}")

    with anyio.fail_after(60), postgres.database(postgres_server, empty=True) as url:
        async with AsyncExitStack() as opened:
            options: dict[str, Any] = {"url": url, "limits": impatient, "migrations": (make_slowly,)}
            found = [await opened.enter_async_context(run_store(tmp_path / str(n), **options)) for n in range(SERVERS)]
            async with anyio.create_task_group() as tasks:
                for kept in found:
                    tasks.start_soon(open_at_last, kept)
    assert made == [1]


async def test_no_writer_waits_for_another(stores: list[RunStore]) -> None:
    one, other, _ = stores
    began, goes_on = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        changes.write(connection, entry("run_held"), one.lock.id, 0.0)
        began.set()
        goes_on.wait(60)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.write, hold)
        await in_thread(began.wait, 60)
        await begin(other, "run_2")
        await other.steps("run_2").begin("step", {})
        await end(other, "run_2")
        assert await other.find("run_held", CALLER) is None, "it is not committed"
        goes_on.set()


@pytest.mark.parametrize("caller", [None, CALLER], ids=["for-all", "of-a-principal"])
async def test_a_budget_is_never_exceeded_by_who_spend_at_once(stores: list[RunStore], caller: str | None) -> None:
    limit = DayLimit(usd=1.0, variable="A_LIMIT", caller=caller)

    def spend(number: int) -> Callable[[], Awaitable[Any]]:
        kept = stores[number % SERVERS]
        run = entry(f"run_{number}", started_at=kept.now())
        return partial(kept.record, run, counted_usd=0.125, limits=[limit], is_new=True)

    ended = await at_once([spend(number) for number in range(24)])
    refused = [fault for fault in ended if isinstance(fault, BaseException)]
    assert [type(fault) for fault in refused] == [BudgetExceeded] * 16
    assert await stores[0].spent_today_usd() == 1.0


async def test_a_dead_servers_run_is_taken_over_by_one(stores: list[RunStore]) -> None:
    await begin(stores[0], resumable=True)
    await stores[0].write(changes.change, "run_1", {"owner": "srv_xdead"})
    (orphan,) = await stores[0].orphans()
    assert orphan.orphaned
    taken = await at_once([partial(kept.adopt, orphan) for kept in stores])
    assert sorted(taken) == [False] * (SERVERS - 1) + [True]
    found = await stores[0].find("run_1", CALLER)
    assert found is not None
    assert found.owner == stores[taken.index(True)].lock.id


async def test_a_run_that_has_ended_is_taken_up_again_by_one(stores: list[RunStore]) -> None:
    await begin(stores[0])
    await end(stores[0])
    ended = await stores[0].find("run_1", CALLER)
    reopened = await overlapping(stores, changes.reopen, lambda _: ended, an_id, lambda _: 1.0)
    assert sorted(map(str, reopened)) == ["0.0", *["None"] * (SERVERS - 1)]
    found = await stores[0].find("run_1", CALLER)
    assert found is not None
    assert found.outcome.answer == "It is 391.", "its text is there once"


async def test_a_turn_has_one_holder(stores: list[RunStore]) -> None:
    await begin(stores[0], conversation_id="conv_1")
    await end(stores[0], conversation_id="conv_1")
    have_read = Meeting(SERVERS)
    await stores[0].write(changes.take_turn, "conv_1", "run_gone", "srv_xgone", lambda *_: False)

    def dead(run_id: str, owner: str) -> bool:
        """All have read who holds it, before anyone takes it over."""
        have_read.wait()
        return False

    def take(kept: RunStore) -> Callable[[], Awaitable[Any]]:
        run_id, owner = f"run_of_{kept.lock.id}", kept.lock.id
        return lambda: kept.write(changes.take_turn, "conv_1", run_id, owner, dead)

    taken = await at_once([take(kept) for kept in stores])
    assert sorted(taken) == [False] * (SERVERS - 1) + [True]
    conversation = await stores[0].conversation("conv_1")
    assert conversation is not None
    assert conversation.writer_owner == stores[taken.index(True)].lock.id


async def test_a_step_is_begun_once(stores: list[RunStore]) -> None:
    await begin(stores[0])
    begun = [kept.steps("run_1", sa.true()) for kept in stores]
    results = await at_once([partial(steps.begin, "step", {"by": number}) for number, steps in enumerate(begun)])
    assert results == [None] * SERVERS
    (step,) = await stores[0].steps("run_1").recorded()
    await begun[step.description["by"]].finish("step", {"n": 1})
    assert await begun[0].begin("step", {}) == {"n": 1}


async def test_a_transaction_that_postgresql_gives_up_for_another_one_is_done_again(stores: list[RunStore]) -> None:
    one, other, _ = stores
    await begin(one, "run_1")
    await begin(one, "run_2")
    have_one = Meeting(2)

    def add(connection: Connection, first: str, second: str) -> None:
        connection.exec_driver_sql("SET LOCAL deadlock_timeout = '10ms'")
        add_one = sa.update(runs).values(counted_usd=runs.c.counted_usd + 1)
        connection.execute(add_one.where(runs.c.id == first))
        have_one.wait()
        connection.execute(add_one.where(runs.c.id == second))

    adds: list[Callable[[], Awaitable[Any]]] = [
        lambda: one.write(add, "run_1", "run_2"),
        lambda: other.write(add, "run_2", "run_1"),
    ]
    await at_once(adds)
    counted = await one.read(lambda connection: connection.execute(sa.select(runs.c.counted_usd)).scalars().all())
    assert counted == [2.0, 2.0]


async def test_servers_that_count_the_same_swarms_at_once_wait_in_one_order(stores: list[RunStore]) -> None:
    """A transaction that holds one swarm's totals and wants another's is never given up for one that has those."""
    one, other, third = stores
    decided: list[RunStore] = []
    is_held, goes_on = threading.Event(), threading.Event()
    for run_id in ("run_1", "run_2"):
        await begin(one, run_id)
        await SwarmTotals(one, run_id).open()

    async def count(kept: RunStore, *run_ids: str) -> None:
        is_busy, is_free = threading.Event(), threading.Event()

        def keep_busy(_: Connection) -> None:
            is_busy.set()
            is_free.wait(60)

        def decide(used: Used, held: Used) -> Used:
            decided.append(kept)
            is_held.set()
            goes_on.wait(60)
            return used

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.write, keep_busy)
            await in_thread(is_busy.wait, 60)
            for run_id in run_ids:
                tasks.start_soon(SwarmTotals(kept, run_id).hold, "agent-1/step-1", decide)
            await others_wait()
            is_free.set()  # what waited meanwhile shares a transaction

    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count, one, "run_1", "run_2")
        await in_thread(is_held.wait, 60)
        tasks.start_soon(count, other, "run_2", "run_1")
        while not await third.read(lambda connection: connection.execute(waiting).scalar()):
            pass
        goes_on.set()
    assert decided == [one, one, other, other]


async def test_a_later_revision_of_the_tables_refuses_nobody(tmp_path: Path, database_url: str) -> None:
    async with run_store(tmp_path, url=database_url, limits=LASTING) as kept:
        await kept.write(write_fact, "revision", "99")
    async with run_store(tmp_path, url=database_url, limits=LASTING) as kept:
        await begin(kept)
        assert await kept.read(read_fact, "revision") == "99"
