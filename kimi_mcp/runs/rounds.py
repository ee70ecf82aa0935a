"""What a run of several requests has brought so far, and what it reports at once. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import anyio

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.profiles import Price
from kimi_mcp.core.types import Adjustment, Completion, Usage, add_usage, joined_reasoning


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What the requests before the running one have brought together."""

    reasoning: str | None
    """All of it."""
    usage: Usage | None
    """Tokens; None where any are unknown."""
    cost_usd: float | None
    """Cost of the tokens; None where any is unknown."""

    def and_then(self, completion: Completion, cost_usd: float | None) -> Rounds:
        """With one more."""
        return Rounds(
            reasoning=joined_reasoning(self.reasoning, completion.reasoning),
            usage=add_usage(self.usage, completion.usage),
            cost_usd=None if self.cost_usd is None or cost_usd is None else self.cost_usd + cost_usd,
        )


class Reports:
    """Lines for those who wait for a run. Mutable."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        """All so far."""
        self._scopes: set[anyio.CancelScope] = set()

    def add(self, line: str) -> None:
        """Add one, and wake those who wait."""
        self.lines.append(line)
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def waking(self, scope: anyio.CancelScope) -> Generator[None]:
        """Cancel a waiter's scope as soon as there is one more."""
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)


def with_note(policy: tuple[Adjustment, ...], notes: tuple[Adjustment, ...]) -> tuple[Adjustment, ...]:
    """Adjustments with others behind them; of a rule that warns of the whole run the latest entry counts."""
    return (*(each for each in policy if each.rule not in {note.rule for note in notes}), *notes)


class ArrivingText(NamedTuple):
    """The text of the request that is running, or ran last."""

    request: int
    """Which of the run's requests it is, from 0."""
    pieces: int
    """How many have arrived: as long as this is the same, so is the text."""
    has_answer: bool
    """Whether no more reasoning comes."""
    texts: Callable[[], tuple[str, str]]
    """Returns the reasoning and the answer so far."""


class RunProgress(Protocol):
    """The state of a run of many requests, as a swarm is."""

    @property
    def attempts(self) -> int:
        """Upstream requests sent so far."""
        ...

    def phase(self) -> str:
        """What it is doing, in a line."""
        ...

    def arriving(self) -> ArrivingText | None:
        """The text that is the run's answer so far; None: none has begun."""
        ...

    def so_far(self, outcome: Outcome) -> Outcome:
        """The run's outcome, with what the requests have brought."""
        ...

    def stopped(self, outcome: Outcome) -> Outcome:
        """The outcome of a run that was stopped, with what its requests had finished by then."""
        ...

    def counted_usd(self, highest_price: Price | None) -> float:
        """What spending limits count for it so far; ``highest_price`` counts where a price is unknown."""
        ...
