"""Work that is done again while the database is away."""

from __future__ import annotations

import pytest

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.store.retries import with_retries

AWAY = NotConfigured("The database is away.", fix="Start it.")


class Outages:
    """A database that is away for 10 s, back for 2 s, and so on; every attempt takes a moment. Its own clock."""

    def __init__(self, *, returns: bool = True) -> None:
        self.now, self._returns = 0.0, returns

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def work(self) -> float:
        self.now += 0.1
        if not self._returns or self.now % 12 < 10:
            raise AWAY
        return self.now


async def test_a_database_that_is_back_for_two_seconds_between_two_outages_is_met() -> None:
    database = Outages()
    met_at = await with_retries(database.work, sleep=database.sleep, clock=lambda: database.now)
    assert 10 <= met_at < 12


async def test_the_fault_is_raised_once_the_time_is_over() -> None:
    database = Outages(returns=False)
    with pytest.raises(NotConfigured):
        await with_retries(database.work, within_s=30, sleep=database.sleep, clock=lambda: database.now)
    assert database.now < 33


async def test_another_fault_is_raised_at_once() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await with_retries(fail)
