"""Cache time: an hour for swarms whose agents share a long beginning, where that costs less."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_mcp.catalogue import load
from kimi_mcp.core.profiles import Profile
from kimi_mcp.simulator import ReceivedRequest, Simulator
from kimi_mcp.swarm.cache_time import choose_ttl
from kimi_mcp.swarm.limits import SwarmConcurrency, SwarmLimits
from tests.swarm.scenarios import SYNTHESIS, chats, swarm

LONG = "All of this is the same for everyone. " * 300
NAMES = tuple(f"town {number}" for number in range(12))


def profile(provider: str = "moonshot", model: str = "kimi-k3") -> Profile:
    found = load().profile(provider, model)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("common", "own", "agents", "may_call", "chosen"),
    [  # the table of docs/decisions/0022-cache-time.md
        (20_000, 200, 8, True, None),
        (20_000, 200, 15, False, None),
        (1_000, 200, 40, False, None),
        (20_000, 200, 40, False, "1h"),
        (20_000, 200, 40, True, "1h"),
        (20_000, 4_000, 40, True, None),
        (100_000, 200, 100, True, "1h"),
        (0, 200, 0, True, None),
    ],
)
def test_an_hour_is_chosen_where_it_was_measured_to_cost_less(
    common: int, own: int, agents: int, may_call: bool, chosen: str | None
) -> None:
    counts = {"common": common, "own": own * agents, "agents": agents, "at_once": 15, "may_call": may_call}
    assert choose_ttl(profile(), **counts) == chosen


@pytest.mark.parametrize(("provider", "model"), [("moonshot", "kimi-k2.6"), ("together", "kimi-k3")])
def test_no_hour_is_chosen_where_none_is_sold(provider: str, model: str) -> None:
    sold = {"common": 100_000, "own": 0, "agents": 100, "at_once": 15, "may_call": True}
    assert choose_ttl(profile(provider, model), **sold) is None


@pytest.mark.parametrize(("prompt", "ttl"), [(LONG + "{{item}}", "1h"), ("{{item}}" + LONG, None)])
async def test_the_sub_agents_share_their_beginning_for_an_hour(sim: Simulator, prompt: str, ttl: str | None) -> None:
    few = SwarmConcurrency(3, SwarmLimits(launch_interval_s=0))
    outcome = await swarm(sim, prompt, items=NAMES, model="kimi-k3", concurrency=few)
    assert outcome.status == "completed"

    def sent(request: ReceivedRequest) -> str | None:
        options: Any = (request.body or {}).get("prompt_cache_options", {})
        return options.get("ttl")

    (synthesis,) = chats(sim, SYNTHESIS)
    assert [sent(request) for request in chats(sim) if request is not synthesis] == [ttl] * len(NAMES)
    assert sent(synthesis) is None, "it shares nothing"
    too_much = (outcome.cost_usd or 0.0) - sim.billed_usd
    assert -1e-9 < too_much < 13 * 256 * 3e-6, "of each prompt the end counts as written"
