"""``RequestState``: one upstream request and its answer, while they are under way. Pure, no I/O.

It is where an answer grows: whoever wants to know how far it is reads it at any moment, nobody is told piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable

from kimi_mcp.core.plan import Plan
from kimi_mcp.core.tokens import ample, likely_tokens
from kimi_mcp.provider.decoding import StreamAccumulator


class RequestState:
    """One request. Mutable: it grows as its answer does."""

    def __init__(self, on_first: Callable[[], None] | None = None) -> None:
        self.accumulator = StreamAccumulator(on_first=on_first)
        """What has arrived. It knows nothing of this object: a circle would keep an answer long after its end."""
        self.plan: Plan | None = None
        """What is sent; None as long as nothing was decided."""
        self.attempts = 0
        """How often it was sent so far."""
        self._waits_for = "the provider"
        self._counted: tuple[Plan, int] | None = None

    @property
    def waits_for(self) -> str | None:
        """What it waits for, for progress; None: tokens are coming."""
        return None if self.accumulator.pieces else self._waits_for

    @waits_for.setter
    def waits_for(self, what: str) -> None:
        self._waits_for = what

    @property
    def prompt_tokens(self) -> int:
        """About how many tokens are sent, rather too many than too few; 0 as long as nothing was decided."""
        if self.plan is None:
            return 0
        if self._counted is None or self._counted[0] is not self.plan:
            self._counted = (
                self.plan,
                ample(likely_tokens(self.plan.turns)),
            )  # a long prompt takes a while: counted once
        return self._counted[1]

    def begin(self, plan: Plan) -> None:
        """The policy has decided, or what it decided has changed on the way."""
        self.plan = plan
        self.waits_for = "a free place"

    def attempted(self, number: int) -> None:
        """It goes out, for the ``number``-th time."""
        del number  # of one request; media that vanished are sent with a second one
        self.attempts += 1
        self.waits_for = "the first token"

    def waits(self, seconds: float, code: str) -> None:
        """An attempt failed and another one will be made."""
        self.waits_for = f"another attempt in {seconds:.0f} s, after {code}"

    def doing(self) -> str:
        """What it is at, in two or three words."""
        if self.waits_for is not None:
            return f"waiting for {self.waits_for}"
        return "answering" if self.accumulator.has_answer else "thinking"
