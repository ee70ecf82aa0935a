"""What a principal's runs may cost a day: its own count, on every server, and of the others' no figure is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.core.callers import LOCAL
from kimi_mcp.core.errors import BudgetExceeded
from kimi_mcp.runs.budgets import SpendingLimits
from kimi_mcp.runs.store.store import RunStore
from tests.runs.store.stores import entry, run_store

ANN, BEN = "kimi-mcp#ann", "kimi-mcp#ben"
NOON = 20_000 * 86_400 + 43_200.0


async def spend(kept: RunStore, limits: SpendingLimits, caller: str, usd: float) -> None:
    """Record a run that costs that much."""
    run = entry(f"run_{caller}_{usd}", caller=caller, started_at=kept.now())
    await kept.record(run, counted_usd=usd, limits=limits.of_day(caller))


async def test_a_principal_spends_its_own_day_and_nobody_elses(tmp_path: Path) -> None:
    now = NOON
    limits = SpendingLimits(principal_day_usd=1.0)
    async with run_store(tmp_path, wall=lambda: now) as kept:
        await spend(kept, limits, ANN, 0.9)
        await spend(kept, limits, BEN, 0.5)
        await spend(kept, limits, LOCAL, 5.0)
    async with run_store(tmp_path, wall=lambda: now) as kept:
        with pytest.raises(BudgetExceeded) as refused:
            await spend(kept, limits, ANN, 0.2)
        await spend(kept, limits, BEN, 0.4)
        assert await kept.spent_today_by_caller({ANN, BEN, "kimi-mcp#eve"}) == {ANN: 0.9, BEN: 0.9}
        now += 43_200
        await spend(kept, limits, ANN, 0.8)
    error = refused.value
    assert (error.retry_after_s, error.code) == (43_200, "budget_exceeded")
    assert error.message == (
        "Your spending limit of today is reached: 0.9000 USD of 1.00 USD are spent, and the next request would start "
        "at about 0.2000 USD."
    )
    assert "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY" in error.fix


async def test_the_day_of_all_refuses_a_principal_without_a_figure(tmp_path: Path) -> None:
    limits = SpendingLimits(day_usd=1.0, principal_day_usd=1.0)
    async with run_store(tmp_path, wall=lambda: NOON) as kept:
        await spend(kept, limits, ANN, 0.9)
        with pytest.raises(BudgetExceeded) as refused:
            await spend(kept, limits, BEN, 0.2)
        with pytest.raises(BudgetExceeded, match=r"0\.9000 USD of 1\.00 USD"):
            await spend(kept, limits, LOCAL, 0.2)
    assert refused.value.message == "The server's spending limit of today is reached."
    running = limits.of_day(BEN)[-1].error(1.5, NOON)  # of a call that is stopped while it runs
    assert running.message == refused.value.message
    assert "KIMI_BUDGET_USD_PER_DAY" in refused.value.fix
    assert refused.value.retry_after_s == 43_200
