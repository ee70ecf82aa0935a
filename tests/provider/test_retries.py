"""How often a call asks, and how long it waits between."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import anyio
import pytest

from kimi_mcp.provider import MOST_ATTEMPTS, Deadlines
from kimi_mcp.provider.retry import RetryBudget, backoff, requested_wait
from kimi_mcp.simulator import Simulator
from tests.provider.loopback import response, saying
from tests.provider.requests import SHORT, Clock, ask, upstream

ONCE = [
    {"status": 400},
    {"status": 401},
    {"status": 402},
    {"status": 403},
    {"status": 404},
    {"status": 410},
    {"status": 413},
    {"status": 422},
    {"status": 499},
    {"status": 501},
    {"status": 429, "error_type": "exceeded_current_quota_error"},
    {"status": 403, "error_type": "permission_denied_error"},
    {"status": 302, "headers": {"location": "http://127.0.0.1:9/v1"}, "body": ""},
]
AGAIN = [
    {"status": 408},
    {"status": 409},
    {"status": 429, "error_type": "engine_overloaded_error"},
    {"status": 429, "error_type": "rate_limit_reached_error"},
    {"status": 500},
    {"status": 500, "error_type": "unexpected_output"},
    {"status": 502, "html": True},
    {"status": 503},
    {"status": 504, "html": True},
    {"status": 529, "error_type": "overloaded"},
    {"html": True},
    {"empty_choices": True, "no_finish": True},
    {"body": ""},
    {"truncate_at": 0},
    {"truncate_at": 0, "over": "raw"},
    {"reset_at": 0, "over": "raw"},
    {"at": "head", "bad_json": True},
    {"at": "head", "error_event": {"type": "server_error", "message": "oops"}},
    {"at": "head", "error_event": {"type": "engine_overloaded_error", "message": "busy"}},
    {"at": "head", "error_event": {"type": "rate_limit_reached_error", "message": "slow down"}},
]


def _name(step: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in step.items())


@pytest.mark.parametrize("step", ONCE, ids=_name)
async def test_what_no_repetition_fixes_is_asked_once(sim: Simulator, step: dict[str, Any]) -> None:
    sim.play({**step, "times": "always"})
    clock = Clock()
    with anyio.fail_after(60):
        outcome = await ask(upstream(clock), sim)
    assert outcome.code is not None
    assert (outcome.attempts, clock.waits, len(sim.requests)) == ([1], [], 1)


@pytest.mark.parametrize("step", AGAIN, ids=_name)
async def test_what_may_pass_is_asked_again_until_the_attempts_are_used_up(
    sim: Simulator, step: dict[str, Any]
) -> None:
    sim.play({**step, "times": "always"})
    clock = Clock()
    with anyio.fail_after(60):
        outcome = await ask(upstream(clock), sim)
    assert outcome.code is not None
    assert outcome.error is not None
    assert getattr(outcome.error, "retryable", None) is True
    assert outcome.attempts == list(range(1, MOST_ATTEMPTS + 1))
    assert clock.waits == [0.25, 0.5, 1.0, 2.0]
    assert len(sim.requests) == MOST_ATTEMPTS


@pytest.mark.parametrize("step", AGAIN, ids=_name)
async def test_what_passed_is_answered_by_the_second_attempt(sim: Simulator, step: dict[str, Any]) -> None:
    sim.play(step, SHORT)
    with anyio.fail_after(60):
        outcome = await ask(upstream(), sim)
    assert outcome.error is None
    assert (outcome.sent, outcome.attempts, len(outcome.waits)) == (2, [1, 2], 1)
    assert (outcome.accumulator.reasoning, outcome.accumulator.answer, outcome.accumulator.finished) == (
        "Hm.",
        "Hi.",
        True,
    )


@pytest.mark.parametrize(
    "step",
    [
        {"at": "finish", "bad_json": True},
        {"at": "finish", "error_event": {"type": "engine_overloaded_error", "message": "busy"}},
        {"reset_at": 700},
        {"truncate_at": 700},
    ],
    ids=_name,
)
async def test_nothing_is_asked_again_once_a_token_has_come(sim: Simulator, step: dict[str, Any]) -> None:
    sim.play({**step, "times": "always"})
    with anyio.fail_after(60):
        outcome = await ask(upstream(), sim)
    assert outcome.code in ("upstream_broken", "overloaded")
    assert outcome.attempts == [1]
    assert not outcome.accumulator.finished
    assert outcome.accumulator.reasoning


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7.25),
        ({"retry-after": "1.5"}, 1.75),
        ({"retry-after-ms": "2500", "retry-after": "9"}, 2.75),
        ({"retry-after": formatdate(1_000_030, usegmt=True)}, 30.25),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.25),
        ({"retry-after": "0"}, 0.25),
        ({"retry-after": "120"}, 120.25),
        ({"retry-after": "soon"}, 0.25),
        ({"retry-after": "-5"}, 0.25),
        ({"retry-after": "nan"}, 0.25),
        ({"retry-after": ""}, 0.25),
        ({"x-ratelimit-reset": "12"}, 12.25),
        ({"x-ratelimit-reset": "1000040"}, 0.25),
        ({"x-ratelimit-reset": "99999999999999999"}, 0.25),
    ],
    ids=str,
)
async def test_a_providers_wish_to_wait_is_heard_and_garbage_is_not(
    sim: Simulator, headers: dict[str, str], wait: float
) -> None:
    sim.play({"status": 429, "error_type": "rate_limit_reached_error", "headers": headers}, SHORT)
    clock = Clock()
    outcome = await ask(upstream(clock, wall=lambda: 1_000_000.0), sim)
    assert outcome.error is None
    assert clock.waits == [wait]
    assert outcome.waits == [(wait, "rate_limited")]


@pytest.mark.parametrize("value", ["3600", "121", "9" * 300, formatdate(1_003_600, usegmt=True)])
async def test_who_asks_for_more_than_two_minutes_is_not_asked_again(sim: Simulator, value: str) -> None:
    sim.play({"status": 429, "error_type": "engine_overloaded_error", "headers": {"retry-after": value}, "times": 9})
    clock = Clock()
    outcome = await ask(upstream(clock, wall=lambda: 1_000_000.0), sim)
    assert outcome.code == "overloaded"
    assert (outcome.attempts, clock.waits) == ([1], [])
    if len(value) < 100:
        assert ("121 s" if value == "121" else "3600 s") in outcome.error.fix  # type: ignore[union-attr]


def test_a_reset_near_now_counts_in_seconds_and_milliseconds_since_1970() -> None:
    now = 1_790_000_000.0
    assert requested_wait({"x-ratelimit-reset": "1790000030"}, now) == 30
    assert requested_wait({"x-ratelimit-reset": "1790000030000"}, now) == 30
    assert requested_wait({"x-ratelimit-reset": "1790009999"}, now) is None
    assert requested_wait({"x-ratelimit-reset": "1789999999"}, now) is None


def test_waits_are_drawn_between_nothing_and_a_bound_that_doubles_up_to_eight_seconds() -> None:
    assert [backoff(attempt, lambda: 1.0) for attempt in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert backoff(4, lambda: 0.0) == 0


async def test_the_total_deadline_covers_all_attempts_and_the_waits_between(sim: Simulator) -> None:
    sim.play({"status": 503, "headers": {"retry-after": "40"}, "times": "always"})
    clock = Clock()
    outcome = await ask(upstream(clock, deadlines=Deadlines(total_s=100)), sim)
    assert outcome.code == "overloaded"
    assert clock.waits == [40.25, 40.25]
    assert outcome.attempts == [1, 2, 3]
    assert "KIMI_TOTAL_TIMEOUT_S" in outcome.error.fix  # type: ignore[union-attr]


async def test_a_last_attempt_is_cut_by_what_the_total_deadline_has_left(sim: Simulator) -> None:
    sim.play({"status": 503, "headers": {"retry-after": "9"}}, {"gate": "never"})
    with anyio.fail_after(60):
        outcome = await ask(upstream(deadlines=Deadlines(total_s=9.4)), sim)
    assert outcome.code == "upstream_timeout"
    assert outcome.attempts == [1, 2]
    assert "KIMI_TOTAL_TIMEOUT_S" in outcome.error.fix  # type: ignore[union-attr]


@pytest.mark.soak
async def test_a_long_outage_costs_at_most_a_tenth_more_requests_than_calls() -> None:
    clock = Clock()
    page = response(b"", status="503 Service Unavailable")
    calls = 600
    async with saying(page) as server:
        up = upstream(clock)
        for _ in range(calls):
            clock.now += 0.3
            assert (await ask(up, server.base_url)).code == "overloaded"
    assert calls < len(server.requests) <= calls * 1.1


def test_a_quiet_minute_has_ten_retries_and_a_busy_one_a_tenth_of_its_calls() -> None:
    now = [0.0]
    budget = RetryBudget(lambda: now[0])
    budget.call()
    assert [budget.take() for _ in range(12)].count(True) == 10
    for _ in range(300):
        budget.call()
    assert [budget.take() for _ in range(100)].count(True) == 20  # 301 calls grant 30, of which 10 are gone
    now[0] = 60.5
    assert [budget.take() for _ in range(12)].count(True) == 10
    budget = RetryBudget(lambda: now[0])
    sent = 0
    for _ in range(50_000):  # an hour of a little less than 14 calls a second, all of which fail
        now[0] += 0.072
        budget.call()
        sent += 1
        while budget.take():
            sent += 1
    assert sent <= 50_000 * 1.1
