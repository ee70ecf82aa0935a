"""``DayLimit``: what the runs of a day may cost, and the error of who reaches it. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from kimi_mcp.core.errors import BudgetExceeded
from kimi_mcp.core.profiles import dollars

DAY_S = 86_400.0
"""Seconds of a day; UTC days begin at its multiples."""


def midnight(now: float) -> float:
    """When the day (UTC) of a time began; both in seconds since 1970."""
    return now - now % DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class DayLimit:
    """A spending limit of a day (UTC), as the runs of one caller meet it."""

    usd: float
    """US dollars."""
    variable: str
    """What sets it."""
    caller: str | None = None
    """Whose runs count; None: everybody's, on every server of the same data."""
    of_principal: bool = False
    """Whether a principal of the HTTP server meets it, who can't set a variable and learns of its own runs only."""

    @property
    def shows_amounts(self) -> bool:
        """Whether its error may name what was spent."""
        return self.caller is not None or not self.of_principal

    def error(self, spent_usd: float, now: float, following_usd: float | None = None) -> BudgetExceeded:
        """The error where it is reached, or where the next request, which begins at ``following_usd``, would do so."""
        whose = "Today's" if not self.of_principal else "The server's" if self.caller is None else "Your"
        reached = f"{whose} spending limit{' of today' if self.of_principal else ''} is reached"
        if not self.shows_amounts:
            sums = ""
        elif following_usd is None:
            sums = f": {dollars(spent_usd, estimated=True)} of {dollars(self.usd)}"
        else:
            sums = (
                f": {dollars(spent_usd)} of {dollars(self.usd)} are spent, and the next request would start at "
                f"{dollars(following_usd, estimated=True)}"
            )
        if not self.of_principal:
            return BudgetExceeded(f"{reached}{sums}.", fix=f"Raise {self.variable}, or call again tomorrow (UTC).")
        return BudgetExceeded(
            f"{reached}{sums}.",
            fix=f"Call again tomorrow (UTC), or ask the operator to raise {self.variable}.",
            retry_after_s=ceil(midnight(now) + DAY_S - now),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is held for a run beside what is counted for it."""

    usd: float
    """US dollars."""
    limit: DayLimit
    """The limit of which the least is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedBudget:
    """What is to be held for a run that goes on."""

    usd: float
    """US dollars beside what is counted for it."""
    limits: Sequence[DayLimit]
    """What they count for."""
    day: float
    """When the day began that it counts for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBudget:
    """What a run may cost until more is held for it."""

    usd: float = inf
    """US dollars, all that is counted for it included; infinite: nothing is held."""
    reached: BudgetExceeded | None = None
    """Why it ends there; None: more may be held."""
