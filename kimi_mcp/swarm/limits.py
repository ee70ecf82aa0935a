"""What a swarm may use, and how many of its requests run at once. Waits for requests; no I/O."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import anyio

from kimi_mcp.core.errors import BudgetExceeded
from kimi_mcp.core.profiles import dollars
from kimi_mcp.swarm import prompts

Limit = Literal["steps", "agent_steps", "tool_calls", "tokens", "seconds", "usd", "context", "reasoning"]
"""Why an agent had to conclude."""

SWARM_WIDE: frozenset[Limit] = frozenset(("tool_calls", "tokens", "seconds", "usd"))
"""The limits that all agents share: where one of them is reached, the swarm is incomplete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmLimits:
    """What one swarm may use."""

    steps: int = 15
    """Requests of the main agent (arXiv 2602.02276, appendix)."""
    agent_steps: int = 100
    """Requests of a sub-agent (the same)."""
    agents: int = 100
    """Tasks assigned (arXiv 2602.02276: up to 100 sub-agents)."""
    tool_calls: int = 1_500
    """Calls of the sub-agents' tools, together (the same)."""
    tokens: int = 50_000_000
    """Tokens of all requests, prompts included: 1,500 requests of 33,000 each."""
    step_tokens: int = 16_000
    """Reasoning and answer of one step at first, as few as ``thinking-budget`` allows: rate limits count them all."""
    seconds: float = 4 * 3600
    """Wall time, all the servers together that it ran in, one after the other."""
    usd: float | None = None
    """US dollars; None: no limit."""
    usd_set_by: str = "KIMI_BUDGET_USD_PER_SWARM"
    """The argument or variable that set it."""
    launch_burst: int = 5
    """Agents that begin at once (MoonshotAI/kimi-code, features/swarm)."""
    launch_interval_s: float = 0.7
    """Seconds between two that follow (the same); 0: all begin at once."""

    def shown(self) -> dict[str, float | None]:
        """What all its agents together may use, for people who look at it; None: no limit."""
        return {"usd": self.usd, "tokens": self.tokens, "tool_calls": self.tool_calls, "steps": self.steps}

    def conclude_reason(self, limit: Limit) -> str:
        """Why an agent is to conclude, one sentence for it."""
        return self._text(limit, "reason")

    def error(self, limit: Limit) -> BudgetExceeded:
        """The caller's error for a limit, with how to go on."""
        return BudgetExceeded(self._text(limit, "message"), fix=self._text(limit, "fix"))

    def _text(self, limit: Limit, kind: str) -> str:
        by_operator = "Raise KIMI_BUDGET_USD_PER_SWARM, which only the operator can"
        return prompts.render(
            f"limits.{limit}.{kind}",
            steps=f"{self.steps} step{'s' if self.steps > 1 else ''}",
            agent_steps=f"{self.agent_steps} step{'s' if self.agent_steps > 1 else ''}",
            tool_calls=f"{self.tool_calls:,}",
            tokens=f"{self.tokens:,}",
            minutes=f"{self.seconds / 60:g}",
            usd=dollars(self.usd or 0.0),
            raise_usd=by_operator if self.usd_set_by.isupper() else f"Raise `{self.usd_set_by}`",
        )


class SwarmConcurrency:
    """One swarm's share of the server's slots for requests, one of which it leaves for other calls; and its clock.

    ``slots``: a function where their number changes, with that of the replicas which share them.
    A few agents begin at once, then one at a time, as in Kimi Code. A rate limit halves what may run at once, each
    request that succeeds gives a little of it back.
    """

    def __init__(
        self,
        slots: int | Callable[[], int],
        limits: SwarmLimits = SwarmLimits(),
        *,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.sleep, self.clock = sleep, clock
        """How to wait, and the time in seconds."""
        self._slots = slots
        self._most = self.capacity = self._share()
        """Requests that may run at once; a fraction is what successes have given back of the next one."""
        self.slots = anyio.CapacityLimiter(int(self.capacity))
        """Slots for requests."""
        self._limits = limits
        self._due = -math.inf
        self.generation = 0
        """How often the rate was limited so far; a request passes the one it began in to ``rate_limited``."""

    async def wait_for_launch(self) -> None:
        """Return once the next agent may begin."""
        now, interval = self.clock(), self._limits.launch_interval_s
        self._due = max(now, self._due) + interval
        wait = self._due - self._limits.launch_burst * interval - now
        if wait > 0.001:
            await self.sleep(wait)

    def rate_limited(self, generation: int) -> None:
        """Halve the capacity after a rate limit, once for all requests that began in the same generation."""
        if generation == self.generation:
            self.generation += 1
            self.capacity = max(1.0, self.capacity / 2)
            self.slots.total_tokens = int(self.capacity)

    def _share(self) -> float:
        return float(max(1, (self._slots if isinstance(self._slots, int) else self._slots()) - 1))

    def succeeded(self) -> None:
        """Allow one more request at once, after as many successes as may run now."""
        before, self._most = self._most, self._share()
        larger = self.capacity + max(1 / self.capacity, self._most - before)
        self.capacity = min(self._most, larger)
        self.slots.total_tokens = int(self.capacity)
