"""``RequestState``: one request and its answer while it arrives; progress is read from it. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Callable

from kimi_mcp.core.plan import Plan
from kimi_mcp.core.tokens import estimated_tokens
from kimi_mcp.provider.decoding import StreamAccumulator


class RequestState:
    """One request. Mutable."""

    def __init__(
        self, on_first: Callable[[], None] | None = None, *, answer: str = "", reasoning: str | None = None
    ) -> None:
        """``answer`` and ``reasoning``: what earlier requests have brought, where this one continues them."""
        self.accumulator = StreamAccumulator(on_first=on_first, answer=answer, reasoning=reasoning)
        """What has arrived. It must not refer back: a cycle would keep the answer in memory."""
        self.plan: Plan | None = None
        """What is sent; None until it is decided."""
        self.prompt_tokens = 0
        """About how many tokens are sent; 0 until it is decided."""
        self.attempts = 0
        """How often it was sent."""
        self.waits_for = "the provider"
        """What it waits for until tokens arrive."""

    def begin(self, plan: Plan) -> None:
        """Set the plan, or a changed one."""
        self.plan, self.waits_for = plan, "a slot"
        self.prompt_tokens = estimated_tokens(plan.turns, plan.tools)

    def attempted(self, _number: int) -> None:
        """Count an attempt."""
        self.attempts += 1
        self.waits_for = "the first token"

    def waits(self, seconds: float, code: str) -> None:
        """An attempt failed and is retried after a wait."""
        self.waits_for = f"another attempt in {seconds:.0f} s, after {code}"

    def doing(self) -> str:
        """What it is doing, in two or three words."""
        if self.plan is None:
            return "preparing the request"
        if not self.accumulator.pieces:
            return f"waiting for {self.waits_for}"
        return "answering" if self.accumulator.has_answer else "thinking"
