"""Rate limits of an account, over all its clients, and what each account has sent."""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
import pytest

from kimi_mcp.simulator import RateLimits, Simulator
from tests.simulator.requests import INSTANT, post, refusal


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def report(sim: Simulator) -> list[dict[str, Any]]:
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        answer = await client.get(sim.base_url.removesuffix("/v1") + "/simulator/accounts")
    return answer.json()["accounts"]


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (RateLimits(rpm=2), "reached organization max RPM: 2, please try again"),
        (RateLimits(tpm=2_500), "reached organization TPM rate limit, current: 2"),
    ],
)
async def test_what_is_beyond_an_account_s_minute_is_refused_until_it_is_over(limits: RateLimits, named: str) -> None:
    clock, body = Clock(), {**INSTANT, "max_completion_tokens": 1_000}
    async with Simulator(rate_limits=limits, clock=clock) as sim:
        for _ in range(2):
            assert (await post(sim, body)).status_code == 200
        status, kind, message = await refusal(sim, body)
        assert (status, kind) == (429, "rate_limit_reached_error")
        assert named in message
        assert (await post(sim, body, key="sk-another")).status_code == 200
        clock.now += 60
        assert (await post(sim, body)).status_code == 200


async def test_requests_at_once_are_counted_over_all_clients_and_given_back_by_one_that_leaves() -> None:
    async with Simulator(rate_limits=RateLimits(concurrency=1)) as sim, anyio.create_task_group() as tasks:
        sim.play({"gate": "open"})
        leaves = anyio.CancelScope()

        async def held() -> None:
            with leaves:
                await post(sim, INSTANT)

        tasks.start_soon(held)
        with anyio.fail_after(60):
            await sim.until(lambda: sim.waiting_at("open") == 1)
            _, _, message = await refusal(sim, INSTANT)
            assert "max organization concurrency: 1" in message
            leaves.cancel()
            await sim.until(lambda: sim.requests[0].outcome == "client_gone")
            assert (await post(sim, INSTANT)).status_code == 200


async def test_each_account_is_counted_without_its_key(sim: Simulator) -> None:
    for key, prompt in (("sk-a", "1"), ("sk-a", "1"), ("sk-a", "2"), ("sk-b", "1")):
        await post(sim, {**INSTANT, "messages": [{"role": "user", "content": prompt}]}, key=key)
    await post(sim, {"model": "kimi-k2.6"}, key="sk-a")
    first, second = await report(sim)
    assert (first["requests"], first["bodies"], first["running"], first["most_running"]) == (3, 2, 0, 1)
    assert (second["requests"], second["refused"]) == (1, {})
    assert "sk-" not in str((first, second))
    assert len(sim.requests) == 5, "who asks for the counts is not among them"
