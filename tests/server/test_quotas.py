"""How many calls a principal may make, and all of them together: what is counted, refused and forgotten."""

from __future__ import annotations

import pytest

from kimi_mcp.core.errors import RateLimited
from kimi_mcp.core.settings import read_settings
from kimi_mcp.server.quotas import Quotas

ANN, BEN = "kimi-mcp#ann", "kimi-mcp#ben"


class Calls:
    """Calls against quotas, by a clock that only the test moves."""

    def __init__(self, **variables: str) -> None:
        self.now = 1_000.0
        self.running: list[str] = []
        self.quotas = Quotas(read_settings(variables), lambda: self.running, lambda: self.now)

    def make(self, principal: str = ANN, *, goes_on: bool = False) -> None:
        """A call that is taken, and has ended at once unless it ``goes_on``."""
        with self.quotas.taken(principal):
            self.running.append(principal)
        if not goes_on:
            self.running.remove(principal)

    def refused(self, principal: str = ANN) -> RateLimited:
        """A call that is refused."""
        with pytest.raises(RateLimited) as refusal:
            self.make(principal)
        assert refusal.value.as_json()["retry_after_s"] == refusal.value.retry_after_s
        return refusal.value


def test_calls_beyond_the_minutes_are_refused_until_the_oldest_is_a_minute_old() -> None:
    calls = Calls(KIMI_QUOTA_CALLS_PER_MINUTE="3")
    for _ in range(3):
        calls.make()
        calls.now += 10
    refusal = calls.refused()
    assert (refusal.code, refusal.retryable, refusal.retry_after_s) == ("rate_limited", True, 30)
    assert "KIMI_QUOTA_CALLS_PER_MINUTE" in refusal.fix
    assert "30 s" in refusal.fix
    calls.now += 29.5
    assert calls.refused().retry_after_s == 1
    calls.now += 0.5
    calls.make()
    assert calls.refused().retry_after_s == 10


def test_a_refused_call_is_not_counted() -> None:
    calls = Calls(KIMI_QUOTA_CALLS_PER_MINUTE="1", KIMI_QUOTA_ALL_CALLS_PER_MINUTE="2")
    calls.make()
    for _ in range(100):
        calls.now += 0.5
        calls.refused()
    calls.make(BEN)
    calls.now += 10
    calls.make()


def test_one_principals_calls_take_nothing_from_another() -> None:
    calls = Calls(KIMI_QUOTA_CALLS_PER_MINUTE="2", KIMI_QUOTA_CALLS_AT_ONCE="1")
    calls.make(goes_on=True)
    assert "KIMI_QUOTA_CALLS_AT_ONCE" in calls.refused().fix
    calls.make(BEN)
    calls.make(BEN)
    assert "KIMI_QUOTA_CALLS_PER_MINUTE" in calls.refused(BEN).fix


def test_a_call_beyond_those_at_once_is_taken_once_one_has_ended() -> None:
    calls = Calls(KIMI_QUOTA_CALLS_AT_ONCE="2")
    calls.make(goes_on=True)
    with calls.quotas.taken(ANN):  # it is only about to run
        refusal = calls.refused()
        assert refusal.retry_after_s
        assert "2 calls running" in refusal.message
    calls.make(goes_on=True)
    calls.refused()
    calls.running.pop()
    calls.make()


@pytest.mark.parametrize("variable", ["KIMI_QUOTA_ALL_CALLS_PER_MINUTE", "KIMI_QUOTA_ALL_CALLS_AT_ONCE"])
def test_what_all_may_together_refuses_without_a_figure_of_others(variable: str) -> None:
    calls = Calls(**{variable: "3"})
    for principal in (ANN, BEN, ANN):
        calls.make(principal, goes_on=True)
    refusal = calls.refused("kimi-mcp#eve")
    assert variable in refusal.fix
    assert refusal.retry_after_s
    assert not any(figure in refusal.message for figure in "0123456789")


def test_principals_are_forgotten_after_a_minute_though_nobody_asks_for_them() -> None:
    calls = Calls()
    for number in range(10_000):
        calls.make(f"kimi-mcp#{number}")
        calls.now += 1
        assert len(calls.quotas) <= 60
