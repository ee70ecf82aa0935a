"""What tokens cost, by a price of the catalogue. Pure, no I/O."""

from __future__ import annotations

from kimi_mcp.core.profiles import Price
from kimi_mcp.core.types import Usage

MILLION = 1_000_000
"""Prices are for so many tokens."""


def cost_usd(usage: Usage | None, price: Price | None) -> float | None:
    """US dollars of a request: cached input at its own price, reasoning as output; None where anything is unknown."""
    if usage is None or price is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
    fresh = usage.prompt_tokens - cached
    return rounded((fresh * price.input + cached * price.cached + usage.completion_tokens * price.output) / MILLION)


def rounded(usd: float) -> float:
    """An amount to the hundred millionth of a US dollar; the cheapest token of the catalogue costs a ten millionth."""
    return round(usd, 8)


def dollars(usd: float | None, *, estimated: bool = False) -> str:
    """An amount for people, the same everywhere; ``unknown`` where it is None. One that is ``estimated`` says so."""
    if usd is None:
        return "unknown"
    if 0 < usd < 0.0001:
        return "under 0.0001 USD"
    about = "about " if estimated else ""
    return f"{about}{usd:,.2f} USD" if usd >= 1 or usd == 0 else f"{about}{usd:.4f} USD"


def counted_usd(prompt_tokens: int, completion_tokens: int, price: Price) -> float:
    """US dollars that a limit counts for so many tokens, none of them cached."""
    return (prompt_tokens * price.input + completion_tokens * price.output) / MILLION
