"""``RequestState``: one request and its answer while it arrives; progress is read from it. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Callable

from kimi_mcp.core.plan import Plan
from kimi_mcp.core.tokens import estimated_tokens, with_margin
from kimi_mcp.provider.decoding import StreamAccumulator


class RequestState:
    """One request. Mutable."""

    def __init__(self, on_first: Callable[[], None] | None = None) -> None:
        self.accumulator = StreamAccumulator(on_first=on_first)
        """What has arrived. It must not refer back: a cycle would keep the answer in memory."""
        self.plan: Plan | None = None
        """What is sent; None until it is decided."""
        self.attempts = 0
        """How often it was sent."""
        self._waits_for = "the provider"
        self._counted: tuple[Plan, int] | None = None

    @property
    def waits_for(self) -> str | None:
        """What it waits for; None: tokens are arriving."""
        return None if self.accumulator.pieces else self._waits_for

    @waits_for.setter
    def waits_for(self, what: str) -> None:
        self._waits_for = what

    @property
    def prompt_tokens(self) -> int:
        """About how many tokens are sent, rather too many than too few; 0 until it is decided."""
        if self.plan is None:
            return 0
        if self._counted is None or self._counted[0] is not self.plan:
            # Once: a long prompt takes a while.
            self._counted = (self.plan, with_margin(estimated_tokens(self.plan.turns, self.plan.tools)))
        return self._counted[1]

    def begin(self, plan: Plan) -> None:
        """Set the plan, or a changed one."""
        self.plan = plan
        self.waits_for = "a slot"

    def attempted(self, _number: int) -> None:
        """Count an attempt."""
        # a request whose media vanished is followed by a second one, which counts on
        self.attempts += 1
        self.waits_for = "the first token"

    def waits(self, seconds: float, code: str) -> None:
        """An attempt failed and is retried after a wait."""
        self.waits_for = f"another attempt in {seconds:.0f} s, after {code}"

    def doing(self) -> str:
        """What it is doing, in two or three words."""
        if self.plan is None:
            return "preparing the request"
        if self.waits_for is not None:
            return f"waiting for {self.waits_for}"
        return "answering" if self.accumulator.has_answer else "thinking"
