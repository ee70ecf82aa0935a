"""What the prompts of a swarm cost for each cache time, as the simulator bills them. I/O: a simulator on loopback.

``python -m benchmarks.cache_time`` prints the table of docs/decisions/0022-cache-time.md. The simulator's clock is
moved instead of waited for: each round of requests begins so many minutes after the one before it. Only what the
prompts cost counts, since the answers cost the same.
"""

from __future__ import annotations

import anyio

from kimi_mcp.catalogue import load
from kimi_mcp.core.types import CacheTtl
from kimi_mcp.pipeline.route import today
from kimi_mcp.provider import Endpoint, Upstream
from kimi_mcp.provider.decoding import StreamAccumulator
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm.cache_time import choose_ttl

MODEL, AT_ONCE = "kimi-k3", 15
MINUTES = (1, 6)
"""Between two rounds."""

CASES = [(8, 20_000, 200), (15, 20_000, 200), (40, 1_000, 200), (40, 20_000, 200), (40, 20_000, 4_000)]
CASES += [(100, 20_000, 200), (100, 100_000, 200)]
"""Agents, tokens that they share, tokens of each one's own."""


def text_of(tokens: int, mark: str) -> str:
    """A text of so many tokens of the simulator's, four characters each."""
    return f"{mark} says it once more. ".ljust(20, ".") * (tokens // 5)


async def prompts_usd(agents: int, common: int, own: int, ttl: CacheTtl, minutes: float, requests: int) -> float:
    """US dollars of all prompts of a swarm whose agents make so many requests each."""
    clock = [0.0]
    body = {"model": MODEL, "stream": True, "prompt_cache_options": {"ttl": ttl}, "max_completion_tokens": 1}
    shared, provider = text_of(common, "All"), load().providers["simulator"]
    async with Simulator(provider="simulator", clock=lambda: clock[0]) as sim:
        upstream, endpoint = Upstream(), Endpoint(provider=provider, base_url=sim.base_url)
        try:
            for first in range(0, agents, AT_ONCE):
                for _ in range(requests):
                    for agent in range(first, min(first + AT_ONCE, agents)):
                        prompt = shared + text_of(own, f"{agent:03}")
                        messages = [{"role": "user", "content": prompt}]
                        await upstream.stream(endpoint, {**body, "messages": messages}, StreamAccumulator())
                    clock[0] += minutes * 60
            return sim.billed_usd
        finally:
            await upstream.aclose()


async def main() -> None:
    """Print the table."""
    profile = load().profile("simulator", MODEL)
    assert profile is not None, today()
    print("| agents | shared | own | requests each | rounds, min apart | 5m, USD | 1h, USD | chosen |")
    print("|---|---|---|---|---|---|---|---|")
    for agents, common, own in CASES:
        for requests in (1, 2):
            chosen = choose_ttl(
                profile, common=common, own=own * agents, agents=agents, at_once=AT_ONCE, may_call=requests > 1
            )
            for minutes in MINUTES:
                usd = [await prompts_usd(agents, common, own, ttl, minutes, requests) for ttl in ("5m", "1h")]
                columns = (agents, f"{common:,}", f"{own:,}", requests, minutes, *(f"{each:.3f}" for each in usd))
                print("|", " | ".join(map(str, columns)), "|", chosen or "5m", "|", flush=True)


if __name__ == "__main__":
    anyio.run(main)
