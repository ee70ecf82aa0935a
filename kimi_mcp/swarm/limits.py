"""What a swarm may use, the ledger that grants each request, and how many run at once. Waits for requests; no I/O.

Before a limit is reached an agent goes on; then it may make one last request, to conclude with what it has; and where
not even that fits, none.
"""

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


class BudgetLedger:
    """What has been used so far, replayed or new; ``elapsed_s``: the seconds before, in servers that died."""

    def __init__(
        self, limits: SwarmLimits, *, elapsed_s: float = 0.0, clock: Callable[[], float] = anyio.current_time
    ) -> None:
        self.limits = limits
        """What may be used."""
        self.usd = 0.0
        """Counted so far, at the highest price where the true one is not known."""
        self.tokens = 0
        """Prompt and completion of all requests that ended."""
        self.tool_calls = 0
        """Tools that ran."""
        self._clock = clock
        self._deadline = clock() + limits.seconds - elapsed_s
        self._held_usd: list[float] = []
        self._changed = anyio.Event()

    async def request_permission(
        self, usd: float, *, then: float, reserved: float, limit: Limit | None = None, begins: bool = False
    ) -> tuple[bool, Limit | None]:
        """Whether a request may be sent, and the limit for which it must be the agent's last, if it must.

        ``usd``: what it may cost at most; ``then``: what one that concludes would cost after it; ``reserved``: what
        must be left for another agent; ``limit``: one of the agent's own that it has reached; ``begins``: the agent has
        nothing yet to conclude with. Waits while only what is held for running requests prevents it. ``usd`` is held.
        """
        while True:
            limit = limit or self.reached()
            left = self._left_usd(reserved)
            need = usd if limit else usd + then
            if (begins and limit in SWARM_WIDE) or (limit and need > left):
                return False, limit
            if need > left:
                limit = "usd"
            elif need <= left - sum(self._held_usd):
                self._held_usd.append(usd)
                return True, limit
            else:
                await self._changed.wait()

    def release(self, usd: float) -> None:
        """Hold no more what was held for a request, once it is counted."""
        self._held_usd.remove(usd)
        self._changed.set()
        self._changed = anyio.Event()

    def used_up(self, usd: float, *, reserved: float) -> Limit | None:
        """The limit for which an agent that would use that much may not begin, by what is used up for certain."""
        return self.reached() or ("usd" if usd > self._left_usd(reserved) else None)

    def reached(self) -> Limit | None:
        """A limit on something else than money that is reached."""
        if self.tokens >= self.limits.tokens:
            return "tokens"
        if self.tool_calls >= self.limits.tool_calls:
            return "tool_calls"
        return "seconds" if self._clock() >= self._deadline else None

    def _left_usd(self, reserved: float) -> float:
        return math.inf if self.limits.usd is None else self.limits.usd - self.usd - reserved


class SwarmConcurrency:
    """One swarm's share of the server's slots for requests, one of which it leaves for other calls; and its clock.

    A few agents begin at once, then one at a time, as in Kimi Code. A rate limit halves what may run at once, each
    request that succeeds gives a little of it back.
    """

    def __init__(
        self,
        slots: int,
        limits: SwarmLimits = SwarmLimits(),
        *,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.sleep, self.clock = sleep, clock
        """How to wait, and the time in seconds."""
        self.capacity = float(max(1, slots - 1))
        """Requests that may run at once; a fraction is what successes have given back of the next one."""
        self._most = self.capacity
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

    def succeeded(self) -> None:
        """Allow one more request at once, after as many successes as may run now."""
        self.capacity = min(self._most, self.capacity + 1 / self.capacity)
        self.slots.total_tokens = int(self.capacity)
