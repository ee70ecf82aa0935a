"""Limits of the day in PostgreSQL, where transactions of several servers overlap: never more than the limit."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from kimi_mcp.core.errors import BudgetExceeded
from kimi_mcp.runs.budgets import SpendingLimits
from kimi_mcp.runs.store.day_limits import WantedBudget, midnight
from kimi_mcp.runs.store.spending import distrust
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.runs.store.tables import runs
from tests.runs.store.stores import ended, entry, run_end, run_store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests start no PostgreSQL there")

ANN, BEN = "kimi-mcp#ann", "kimi-mcp#ben"
NOON = 20_000 * 86_400 + 43_200.0
CENT = 2**-7  # sums of it are exact


class Servers:
    """Servers on one database, whose runs cost cents."""

    def __init__(self, stores: list[RunStore], limits: SpendingLimits) -> None:
        self.stores, self._limits = stores, limits
        self.refused: list[BudgetExceeded] = []

    async def begin(self, number: int, caller: str, cents: float, *, hold: float = 0) -> bool:
        """Let a run begin at one of them; whether its limits allowed that."""
        store, run = self.stores[number % len(self.stores)], f"run_{number}"
        limits = self._limits.of_day(caller)
        try:
            await store.record(
                entry(run, caller=caller, started_at=NOON),
                counted_usd=cents * CENT,
                limits=limits,
                hold_usd=hold * CENT,
                is_new=True,
            )
        except BudgetExceeded as refusal:
            self.refused.append(refusal)
            return False
        return True

    async def go_on(self, number: int, caller: str, cents: float, *, hold: float) -> float:
        """Let a run have spent so much; how many cents more are held for it."""
        store, run = self.stores[number % len(self.stores)], f"run_{number}"
        wanted = WantedBudget(usd=hold * CENT, limits=self._limits.of_day(caller), day=midnight(NOON))
        held = await store.append([], {run: {"counted_usd": cents * CENT}}, {run: wanted})
        return held[run].usd / CENT if run in held else 0.0

    async def end(self, number: int, cents: float) -> None:
        """Let a run end, which has cost so much."""
        store, run = self.stores[number % len(self.stores)], f"run_{number}"
        await store.end(run_end(store, ended(run), counted_usd=cents * CENT))

    async def spent(self, caller: str | None = None) -> float:
        """Cents that are counted and held."""
        return await self.stores[0].spent_today_usd(caller=caller) / CENT


@asynccontextmanager
async def servers(
    folder: Path, url: str, *, many: int = 3, day_usd: float, principal_day_usd: float | None = None
) -> AsyncIterator[Servers]:
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(run_store(folder, url=url, wall=lambda: NOON)) for _ in range(many)]
        yield Servers(stores, SpendingLimits(day_usd=day_usd, principal_day_usd=principal_day_usd))


@pytest.mark.soak
async def test_runs_that_begin_at_once_in_three_servers_never_exceed_a_limit_together(
    tmp_path: Path, database_url: str
) -> None:
    began: list[str] = []
    async with servers(tmp_path, database_url, day_usd=20 * CENT, principal_day_usd=12 * CENT) as three:

        async def begin(number: int) -> None:
            caller = (ANN, BEN)[number % 2]
            if await three.begin(number, caller, 1):
                began.append(caller)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(60):
                    tasks.start_soon(begin, number)
        assert len(began) == 20
        assert 8 <= began.count(ANN) <= 12
        assert await three.spent() == pytest.approx(20)
        assert {refusal.code for refusal in three.refused} == {"budget_exceeded"}


async def test_what_is_held_for_running_calls_is_nobody_elses_until_they_end(tmp_path: Path, database_url: str) -> None:
    async with servers(tmp_path, database_url, day_usd=10 * CENT) as three:
        assert await three.begin(0, ANN, 1, hold=3)
        assert await three.spent() == pytest.approx(4)
        assert not await three.begin(1, BEN, 7)
        assert await three.begin(2, BEN, 1, hold=20), "half of what is left is held at first"
        assert await three.spent() == pytest.approx(7.5)
        assert await three.go_on(0, ANN, 3, hold=3) == pytest.approx(3)
        assert await three.go_on(2, BEN, 1, hold=20) == pytest.approx(3)
        assert await three.go_on(2, BEN, 4, hold=20) == pytest.approx(0)
        assert await three.spent() == pytest.approx(10)
        await three.end(0, 2)
        assert await three.go_on(2, BEN, 4, hold=20) == pytest.approx(4)
        assert not await three.begin(3, ANN, 1)
        await three.end(2, 4)
        assert await three.begin(4, ANN, 4)
        assert await three.spent() == pytest.approx(10)


@pytest.mark.soak
async def test_running_calls_that_go_on_at_once_are_held_to_the_limit_together(
    tmp_path: Path, database_url: str
) -> None:
    held = dict[int, float]()
    async with servers(tmp_path, database_url, day_usd=30 * CENT, principal_day_usd=20 * CENT) as three:

        async def run(number: int) -> None:
            caller = (ANN, BEN)[number % 2]
            if await three.begin(number, caller, 1, hold=1):
                held[number] = 1
                for _ in range(3):
                    spent = held[number]
                    held[number] = spent + await three.go_on(number, caller, spent, hold=1)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(24):
                    tasks.start_soon(run, number)
        assert await three.spent() <= 30 + 1e-9
        assert max([await three.spent(caller) for caller in (ANN, BEN)]) <= 20 + 1e-9
        assert sum(held.values()) <= 30 + 1e-9


@pytest.mark.soak
async def test_what_other_programs_did_to_the_runs_is_counted_before_anybody_is_refused(
    tmp_path: Path, database_url: str
) -> None:
    async with servers(tmp_path, database_url, many=1, day_usd=10 * CENT) as one:
        assert await one.begin(0, ANN, 10)
        assert not await one.begin(1, ANN, 1)
        await one.stores[0].write(lambda connection: connection.execute(sa.delete(runs)).rowcount)
        await one.stores[0].write(distrust)  # else it takes a second
        assert await one.begin(2, ANN, 10)


@pytest.mark.soak
async def test_a_server_that_was_taken_for_dead_frees_nothing_of_a_run_that_another_one_has(
    tmp_path: Path, database_url: str
) -> None:
    async with servers(tmp_path, database_url, many=2, day_usd=10 * CENT) as two:
        assert await two.begin(0, ANN, 8)
        adopted = sa.update(runs).where(runs.c.id == "run_0").values(owner=two.stores[1].lock.id)
        await two.stores[1].write(lambda connection: connection.execute(adopted).rowcount)
        await two.end(0, 1)
        assert await two.go_on(0, ANN, 1, hold=5) == 0
        assert not await two.begin(1, BEN, 3)
