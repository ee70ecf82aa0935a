"""``KIMI_CACHE_TTL``: sent where the provider has that choice, and counted where it costs more."""

from __future__ import annotations

import pytest

from kimi_mcp.simulator import Simulator
from tests.server.clients import connect
from tests.server.requests import body_of, chats

PROMPT = "A long prompt. " * 500


@pytest.mark.parametrize(
    ("provider", "model", "setting", "sent"),
    [
        ("simulator", "kimi-k3", "1h", {"ttl": "1h"}),
        ("simulator", "kimi-k3", "5m", {"ttl": "5m"}),
        ("simulator", "kimi-k3", None, None),
        ("simulator", "kimi-k2.6", "1h", None),
        ("vllm", "kimi-k2.5", "1h", None),
    ],
)
async def test_the_time_is_sent_where_the_provider_has_it(
    provider: str, model: str, setting: str | None, sent: dict[str, str] | None
) -> None:
    more = {"KIMI_CACHE_TTL": setting} if setting else {}
    async with Simulator(provider=provider) as sim, connect(sim, provider=provider, **more) as kimi:
        result = await kimi.think(model=model)
    assert result.status == "completed"
    assert body_of(chats(sim)[0]).get("prompt_cache_options") == sent


async def test_what_is_written_for_an_hour_costs_more(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_CACHE_TTL="1h") as kimi:
        first = await kimi.think(PROMPT, model="kimi-k3")
        spent = sim.billed_usd
        second = await kimi.think(PROMPT, model="kimi-k3")
    for result, billed in ((first, spent), (second, sim.billed_usd - spent)):
        assert result.structured["usage"]["cost_usd"] == pytest.approx(billed, abs=256 * 3e-6)
    assert second.structured["usage"]["cached_tokens"] == second.structured["usage"]["prompt_tokens"]


async def test_a_limit_counts_what_is_written_for_an_hour(sim: Simulator) -> None:
    tokens = len(PROMPT) // 4
    limit = f"{tokens * 4 / 3 * 4.5e-6:.6f}"  # above what K3 takes for the prompt, below that of an hour
    async with connect(sim, KIMI_BUDGET_USD_PER_CALL=limit, KIMI_CACHE_TTL="1h") as kimi:
        refused = await kimi.think(PROMPT, model="kimi-k3")
    assert (refused.code, chats(sim)) == ("budget_exceeded", [])
    async with connect(sim, KIMI_BUDGET_USD_PER_CALL=limit) as kimi:
        assert (await kimi.think(PROMPT, model="kimi-k3")).attempts == 1
