"""What a request costs, worked out by hand."""

from __future__ import annotations

import pytest

from kimi_mcp.core.profiles import Price, cost_usd
from kimi_mcp.core.types import Usage

PRICE = Price(input=0.60, cached=0.10, output=3.00)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(prompt_tokens=1_000_000, completion_tokens=0), 0.60),
        (Usage(prompt_tokens=0, completion_tokens=1_000_000, reasoning_tokens=900_000), 3.00),
        (Usage(prompt_tokens=1_000_000, completion_tokens=0, cached_tokens=1_000_000), 0.10),
        (Usage(prompt_tokens=500_000, completion_tokens=100_000, cached_tokens=100_000), 0.24 + 0.01 + 0.30),
        (Usage(prompt_tokens=10, completion_tokens=0, cached_tokens=1_000_000), 10 * 0.10 / 1e6),
        (Usage(prompt_tokens=0, completion_tokens=0), 0.0),
    ],
)
def test_tokens_cost_their_price(usage: Usage, cost: float) -> None:
    assert cost_usd(usage, PRICE) == pytest.approx(cost)


@pytest.mark.parametrize(
    ("usage", "price"),
    [
        (None, PRICE),
        (Usage(prompt_tokens=1, completion_tokens=1), None),
        (Usage(prompt_tokens=1), PRICE),
        (Usage(completion_tokens=1), PRICE),
    ],
)
def test_what_is_not_known_costs_nothing_known(usage: Usage | None, price: Price | None) -> None:
    assert cost_usd(usage, price) is None
