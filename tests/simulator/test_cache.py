"""The prompt cache: what hits it, how long, and what that costs by the published prices."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_mcp.simulator import Simulator
from tests.simulator.requests import post

MINUTE = 60.0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def k3(text: str, ttl: str | None = None, **more: Any) -> dict[str, Any]:
    options = {} if ttl is None else {"prompt_cache_options": {"ttl": ttl}}
    return {"model": "kimi-k3", "messages": [{"role": "user", "content": text}], **options, **more}


async def cached(sim: Simulator, body: dict[str, Any]) -> int:
    return int((await post(sim, body)).json()["usage"]["cached_tokens"])


BEGINNING = "The same beginning. " * 200
"""1,000 tokens: three whole chunks and a part."""


async def test_a_beginning_hits_in_whole_chunks_and_the_same_prompt_as_a_whole(sim: Simulator) -> None:
    assert await cached(sim, k3(BEGINNING + "one")) == 0
    assert await cached(sim, k3(BEGINNING + "two")) == 3 * 256
    again = (await post(sim, k3(BEGINNING + "two"))).json()["usage"]
    assert again["cached_tokens"] == again["prompt_tokens"]
    assert await cached(sim, k3("Another beginning. " + BEGINNING)) == 0


async def test_a_cache_key_does_nothing_and_tools_come_first(sim: Simulator) -> None:
    await cached(sim, k3(BEGINNING))
    assert await cached(sim, k3(BEGINNING + "!", prompt_cache_key="another")) == 3 * 256
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    assert await cached(sim, k3(BEGINNING, tools=[tool])) == 0


@pytest.mark.parametrize(("ttl", "minutes"), [(None, 5), ("5m", 5), ("1h", 60)])
async def test_what_is_written_is_lost_after_its_time_which_each_hit_begins_anew(ttl: str | None, minutes: int) -> None:
    clock = Clock()
    async with Simulator(clock=clock) as sim:
        await cached(sim, k3(BEGINNING, ttl))
        clock.now += (minutes - 1) * MINUTE
        assert await cached(sim, k3(BEGINNING + "a", ttl)) > 0
        clock.now += (minutes - 1) * MINUTE
        assert await cached(sim, k3(BEGINNING + "b", ttl)) > 0, "the hit began it anew"
        clock.now += (minutes + 1) * MINUTE
        assert await cached(sim, k3(BEGINNING + "c", ttl)) == 0


@pytest.mark.parametrize(
    ("model", "ttl", "read", "written", "output"),
    [("kimi-k3", "5m", 0.30, 3.00, 15), ("kimi-k3", "1h", 0.30, 6.00, 15), ("kimi-k3.1-pro", "1h", 0.20, 4.00, 10)],
)
async def test_writes_and_hits_are_billed_as_published(
    model: str, ttl: str, read: float, written: float, output: float
) -> None:
    async with Simulator() as sim:
        rest = {"5m": written, "1h": written / 2}[ttl]
        usage = (await post(sim, {**k3(BEGINNING, ttl), "model": model})).json()["usage"]
        chunks, more = divmod(usage["prompt_tokens"], 256)
        spent = chunks * 256 * written + more * rest + usage["completion_tokens"] * output
        assert sim.billed_usd == pytest.approx(spent / 1e6)
        usage = (await post(sim, {**k3(BEGINNING, ttl), "model": model})).json()["usage"]
        spent += usage["prompt_tokens"] * read + usage["completion_tokens"] * output
        assert sim.billed_usd == pytest.approx(spent / 1e6)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("kimi-k3", {"ttl": "2h"}, "only 5m, 1h are allowed"),
        ("kimi-k3", {"ttl": None}, "only 5m, 1h are allowed"),
        ("kimi-k3", {"mode": "implicit"}, "unknown field 'prompt_cache_options.mode'"),
        ("kimi-k3", "1h", "'prompt_cache_options' must be object"),
        ("kimi-k2.6", {"ttl": "1h"}, "1h is not supported by this model"),
    ],
)
async def test_any_other_time_is_refused(sim: Simulator, model: str, options: Any, message: str) -> None:
    got = await post(sim, {**k3("Hi"), "model": model, "prompt_cache_options": options})
    assert got.status_code == 400
    assert message in got.json()["error"]["message"]
