"""What an account may be asked a minute, by all that share it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest

from kimi_mcp.provider.decoding import StreamAccumulator
from kimi_mcp.provider.retry import AccountLimits, limit_in
from kimi_mcp.simulator import Simulator
from tests.provider.requests import BODY, SHORT, Clock, ask, endpoint, upstream
from tests.server.clients import wait_until

MINUTE = 60.0


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        (
            "Your account org-1<ak-2> request reached organization max RPM: 3, please try again after 1 seconds",
            ("requests", 3),
        ),
        ("request reached max organization concurrency: 1, please try again after 0 seconds", ("at-once", 1)),
        ("Your account a<b> request reached organization max concurrency: 50, please try again", ("at-once", 50)),
        ("request reached organization max TPM: 64000, current: 64010", ("tokens", 64000)),
        ("request reached project TPM rate limit, current: 1410, limit: 100, see the docs", ("tokens", 100)),
        ("request reached organization max RPM: 0", None),
        ("The engine is currently overloaded, please try again later", None),
        ("", None),
    ],
)
def test_a_refusal_names_its_limit(message: str, limit: tuple[str, int] | None) -> None:
    assert limit_in(message) == limit


def test_nothing_is_held_back_before_a_refusal() -> None:
    account = AccountLimits(Clock())
    for _ in range(1_000):
        account.sent(100_000)
    assert account.wait_for(1_000_000) == 0


def test_requests_are_remembered_for_a_minute_though_nobody_asks_for_them() -> None:
    clock = Clock()
    account = AccountLimits(clock)
    for _ in range(100_000):
        account.sent(1_000)
        clock.now += 1
        assert len(account._sent.events) <= MINUTE
    assert account.last_minute == (MINUTE - 1, (MINUTE - 1) * 1_000)


def test_requests_wait_until_the_oldest_of_the_minute_is_a_minute_old() -> None:
    clock = Clock()
    account = AccountLimits(clock)
    for _ in range(3):
        account.sent(10)
        clock.now += 10
    account.refused(("requests", 3), None)
    assert account.wait_for(10) == pytest.approx(30)
    clock.now += 30
    assert account.wait_for(10) == 0


def test_tokens_are_counted_as_they_are_asked_for() -> None:
    clock = Clock()
    account = AccountLimits(clock)
    account.sent(600)
    clock.now += 20
    account.sent(300)
    account.refused(("tokens", 1_000), None)
    assert account.wait_for(100) == 0
    assert account.wait_for(101) == pytest.approx(40)
    assert account.wait_for(5_000) == pytest.approx(60), "one that fits into no minute goes when nothing else does"


def test_what_the_provider_asks_to_wait_holds_for_everyone() -> None:
    clock = Clock()
    account = AccountLimits(clock)
    account.refused(None, 7)
    assert account.wait_for(1) == 7
    clock.now += 7
    assert account.wait_for(1) == 0


def test_a_limit_is_forgotten_when_there_was_no_refusal_for_long() -> None:
    clock = Clock()
    account = AccountLimits(clock)
    account.refused(("requests", 1), None)
    account.refused(("at-once", 2), None)
    account.sent(1)
    assert account.wait_for(1) > 0
    assert account.places.total == 1
    clock.now += 601
    account.sent(1)
    assert account.wait_for(1) == 0
    assert account.places.total > 1_000


async def test_a_request_that_yields_waits_for_the_minute_and_one_that_does_not_goes_at_once(sim: Simulator) -> None:
    clock = Clock()
    up = upstream(clock)
    refused = {
        "status": 429,
        "error_type": "rate_limit_reached_error",
        "error_message": "request reached organization max RPM: 1, please try again after 1 seconds",
    }
    sim.play(refused, {**SHORT, "times": "always"})
    await ask(up, sim)
    waits: list[tuple[float, str]] = []
    before = clock.now
    accumulator = StreamAccumulator()
    await up.stream(
        endpoint(sim.base_url),
        BODY,
        accumulator,
        yields=True,
        on_wait=lambda seconds, why: waits.append((seconds, why)),
    )
    assert accumulator.answer == "Hi."
    assert waits, "it gets the reason of its wait"
    assert {why for _, why in waits} == {"rate_limited"}
    assert clock.now - before >= 50
    before = clock.now
    assert (await ask(up, sim)).accumulator.answer == "Hi."
    assert clock.now == before, "a single call is not held back"


async def test_many_that_yield_leave_a_place_for_one_that_does_not(sim: Simulator) -> None:
    up = upstream(max_concurrency=3)
    sim.play({**SHORT, "match": {"text": "many"}, "gate": "many", "times": "always"}, {**SHORT, "times": "always"})
    many = {**BODY, "messages": [{"role": "user", "content": "many"}]}
    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(_one_of_many, up, sim, many)
        await sim.until(lambda: sim.waiting_at("many") == 2)
        with anyio.fail_after(60):
            assert (await ask(up, sim)).accumulator.answer == "Hi."
        sim.open_gate("many")


async def _one_of_many(up, sim: Simulator, body: dict) -> None:
    await up.stream(endpoint(sim.base_url), body, StreamAccumulator(), yields=True)


def test_replicas_divide_what_an_account_may_send_and_each_has_one_at_least() -> None:
    clock = Clock()
    account = AccountLimits(clock)
    account.refused(("requests", 9), None)
    account.refused(("at-once", 10), None)
    account.share_among(4)
    for _ in range(2):
        account.sent(1)
    assert account.wait_for(1) > 0
    assert account.places.total == 1
    account.share_among(100)
    clock.now += MINUTE
    assert account.wait_for(1) == 0
    account.share_among(1)
    assert account.places.total == 9


async def test_a_refusal_of_another_replica_halves_what_runs_at_once_and_successes_give_it_back() -> None:
    clock = Clock()
    account = AccountLimits(clock)
    async with anyio.create_task_group() as tasks:
        async with AsyncExitStack() as held:
            for _ in range(4):
                await held.enter_async_context(account.places.hold())
            account.refused_elsewhere({"requests": 100}, wait_s=7, ago_s=1)
        assert (account.places.total, account.wait_for(1)) == (2, 7)
        for _ in range(5):
            account.succeeded()
        assert account.places.total == 3
        for _ in range(4):
            account.succeeded()
        assert account.places.total > 1_000
        tasks.cancel_scope.cancel()


async def test_slots_are_divided_among_replicas_and_what_runs_beyond_a_share_is_waited_for(sim: Simulator) -> None:
    up = upstream(max_concurrency=4)
    for number in range(3):
        sim.play({**SHORT, "gate": f"{number}"})
    sim.play({**SHORT, "times": "always"})
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask, up, sim)
        await sim.until(lambda: sum(sim.waiting_at(f"{number}") for number in range(3)) == 3)
        up.share_among(2)
        assert up.slots == 2
        tasks.start_soon(ask, up, sim)
        sim.open_gate("0")
        await sim.until(lambda: sim.requests[0].outcome == "answered")
        await wait_until(lambda: up.waiting == 1)
        assert len(sim.requests) == 3, "two still run, as many as the share has"
        sim.open_gate("1")
        await sim.until(lambda: len(sim.requests) == 4)
        sim.open_gate("2")
    up.share_among(9)
    assert up.slots == 1
