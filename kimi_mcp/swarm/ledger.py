"""What a swarm has used, and the ledger that permits each of its requests. Waits for requests; no I/O.

Before a limit is reached an agent goes on; then it may make one last request, to conclude with what it has; and where
not even that fits, none. What a running step may use at most is held under its key, until it is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import anyio

from kimi_mcp.runs.store.records import Used
from kimi_mcp.swarm.limits import SWARM_WIDE, Limit, SwarmLimits

if TYPE_CHECKING:
    from kimi_mcp.swarm.budget_raise import BudgetRaise


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A request for which an agent wants permission."""

    usd: float
    """What it may cost at most."""
    then: float
    """What one that concludes would cost after it."""
    reserved: float
    """What must be left for another agent."""
    limit: Limit | None = None
    """A limit of the agent's own that it has reached."""
    begins: bool = False
    """Whether the agent has nothing yet to conclude with."""


Permission = tuple[bool, Limit | None]
"""Whether a request may be sent, and the limit for which it must be the agent's last, if it must."""


class Ledger(Protocol):
    """What the steps of a swarm have used so far, replayed or new, and may still use."""

    @property
    def limits(self) -> SwarmLimits:
        """What may be used."""
        ...

    async def request_permission(self, key: str, wanted: Wanted) -> Permission:
        """Permission for a step's request, whose cost is then held.

        Waits while only what is held for other steps prevents it, but not once the time is over.
        """
        ...

    async def request_tool_call(self, key: str) -> bool:
        """Whether a step may call a tool, which is then held."""
        ...

    def count(self, key: str, used: Used) -> None:
        """Count what a recorded step has used, and hold nothing for it any more."""
        ...

    async def release(self, key: str) -> None:
        """Hold nothing any more for a step that ended without being counted."""
        ...

    def used_up(self, usd: float, *, reserved: float) -> Limit | None:
        """The limit for which an agent that would use that much may not begin, by what is used up for certain."""
        ...

    async def total_usd(self) -> float:
        """US dollars of all steps that were counted."""
        ...


def reached(limits: SwarmLimits, used: Used, *, time_is_over: bool) -> Limit | None:
    """A limit on something else than money that is reached."""
    if used.tokens >= limits.tokens:
        return "tokens"
    if used.tool_calls >= limits.tool_calls:
        return "tool_calls"
    return "seconds" if time_is_over else None


def left_usd(limits: SwarmLimits, used: Used, reserved: float) -> float:
    """US dollars that are left beside what is reserved."""
    return math.inf if limits.usd is None else limits.usd - used.usd - reserved


def decide(limits: SwarmLimits, used: Used, held_usd: float, wanted: Wanted, limit: Limit | None) -> Permission | None:
    """The permission for a request; None: not while so much is held. ``limit``: one that is reached."""
    limit = wanted.limit or limit
    left = left_usd(limits, used, wanted.reserved)
    need = wanted.usd if limit else wanted.usd + wanted.then
    if (wanted.begins and limit in SWARM_WIDE) or (limit and need > left):
        return False, limit
    if need > left:
        return decide(limits, used, held_usd, wanted, "usd")
    return (True, limit) if need <= left - held_usd else None


def lacks_usd(limits: SwarmLimits, used: Used, wanted: Wanted, permission: Permission) -> bool:
    """Whether a larger budget would change a decision."""
    is_granted, limit = permission
    need = wanted.usd if wanted.limit else wanted.usd + wanted.then
    lacks = need > left_usd(limits, used, wanted.reserved)
    return lacks and (limit == "usd" or (not is_granted and limit not in SWARM_WIDE))


class BudgetLedger:
    """The ledger of a swarm in one process; ``elapsed_s``: the seconds before, in servers that died.

    ``raises``: how it asks for a larger budget; None: it asks nobody.
    """

    def __init__(
        self,
        limits: SwarmLimits,
        *,
        elapsed_s: float = 0.0,
        clock: Callable[[], float] = anyio.current_time,
        raises: BudgetRaise | None = None,
    ) -> None:
        self.limits = limits
        """What may be used."""
        self.used = Used()
        """What was counted so far."""
        self._clock = clock
        self._deadline = clock() + limits.seconds - elapsed_s
        self._held: dict[str, Used] = {}
        self._changed = anyio.Event()
        self._raises = raises

    async def request_permission(self, key: str, wanted: Wanted) -> Permission:
        """See ``Ledger``."""
        while True:
            held_usd, limits = sum(each.usd for each in self._held.values()), self.limits
            permission = decide(limits, self.used, held_usd, wanted, self._reached())
            if permission is None:
                if (left_s := self._deadline - self._clock()) <= 0:
                    return False, "seconds"
                with anyio.move_on_after(left_s):
                    await self._changed.wait()
                continue
            if self._raises is not None and lacks_usd(limits, self.used, wanted, permission):
                need_usd = wanted.usd + wanted.then + wanted.reserved
                with anyio.move_on_after(max(0.0, self._deadline - self._clock())):
                    if (raised := await self._raises.more(limits, self.used.usd, need_usd)) is not None:
                        self.limits = raised
                        self._wake()
                        continue
            if permission[0]:
                self._held[key] = Used(usd=wanted.usd)
            return permission

    async def request_tool_call(self, key: str) -> bool:
        """See ``Ledger``."""
        if self._tool_calls >= self.limits.tool_calls:
            return False
        self._held[key] = Used(tool_calls=1)
        return True

    def count(self, key: str, used: Used) -> None:
        """See ``Ledger``."""
        self.used += used
        self._release(key)

    async def release(self, key: str) -> None:
        """See ``Ledger``."""
        self._release(key)

    def used_up(self, usd: float, *, reserved: float) -> Limit | None:
        """See ``Ledger``."""
        return self._reached() or ("usd" if usd > left_usd(self.limits, self.used, reserved) else None)

    async def total_usd(self) -> float:
        """See ``Ledger``."""
        return self.used.usd

    def _release(self, key: str) -> None:
        if self._held.pop(key, None) is not None:
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _reached(self) -> Limit | None:
        used = replace(self.used, tool_calls=self._tool_calls)
        return reached(self.limits, used, time_is_over=self._clock() >= self._deadline)

    @property
    def _tool_calls(self) -> int:
        """Those that run, too."""
        return self.used.tool_calls + sum(each.tool_calls for each in self._held.values())
