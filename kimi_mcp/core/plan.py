"""``Plan``: a request and what was decided for it. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from kimi_mcp.core.profiles import Price, Profile
from kimi_mcp.core.types import Adjustment, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Request):
    """One upstream request, decided: what is open in a request is chosen here, or left out of the body."""

    profile: Profile
    """The model and the provider it goes to."""
    max_tokens: int = 0
    """Limit on reasoning plus answer, in tokens; 0 only while the policy decides."""
    adjustments: tuple[Adjustment, ...] = ()
    """What the policy changed and warned of on the way."""

    @property
    def price(self) -> Price | None:
        """What its tokens cost; None: unknown."""
        return self.price_of(None)

    def price_of(self, answered: str | None) -> Price | None:
        """The same where a model of that name answered; None: the requested one."""
        price = self.profile.price_of(answered)
        return None if price is None else price.written_for(self.cache_ttl)
