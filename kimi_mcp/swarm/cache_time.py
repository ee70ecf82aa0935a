"""How long the beginning that a swarm's agents share stays in the provider's cache. Pure, no I/O.

For five minutes what is written costs as much as other input, for an hour twice as much (forum.moonshot.ai t/613), and
each hit begins the time anew. So an hour pays only where the beginning would be lost between two rounds of requests
and written again: for many agents, few of which run at once, and whose own parts are short beside it.
docs/decisions/0022-cache-time.md has what was measured.
"""

from __future__ import annotations

from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.types import CacheTtl


def choose_ttl(
    profile: Profile, *, common: int, own: int, agents: int, at_once: int, may_call: bool
) -> CacheTtl | None:
    """``1h`` where it costs less if every round takes more than five minutes; None: the provider's default.

    ``common``: tokens of the beginning; ``own``: those of all agents' own parts together; ``agents``: how many there
    are, ``at_once`` how many of them run at a time; ``may_call``: whether they have tools, for which an agent makes
    another request at least.
    """
    price = profile.price
    if not agents or price is None or price.write_1h is None or "1h" not in profile.cache_ttls:
        return None
    rounds = -(-agents // max(1, at_once)) * (2 if may_call else 1)
    requests = agents * (2 if may_call else 1)
    five_minutes = rounds * common * price.input + (requests - rounds) * common * price.cached + own * price.input
    an_hour = common * price.write_1h + (requests - 1) * common * price.cached + own * price.write_1h
    return "1h" if an_hour < five_minutes else None
