"""``StepResult``: what one request of an agent brought, as it is used and as it is recorded. Pure, no I/O.

Whatever an agent decides, it decides by these values alone, and always by what was read back from their JSON: a swarm
that is replayed from its record can't take another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from kimi_mcp.core.errors import KimiError, remembered
from kimi_mcp.core.types import Adjustment, Completion, ToolCall, Usage, from_record
from kimi_mcp.swarm.limits import Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one request brought."""

    completion: Completion
    """What arrived, whole or cut; empty where nothing did."""
    error: KimiError | None = None
    """Why it is not whole; None: it ended with a finish reason."""
    limit: Limit | None = None
    """The limit for which it was the agent's last; None: the agent goes on."""
    attempts: int = 0
    """Upstream requests that it took; 0: it was refused before one was sent."""
    pieces: int = 0
    """Pieces of reasoning and answer that arrived: about the number of tokens."""
    waited_s: float = 0.0
    """Seconds that it waited for its turn before it was sent."""
    took_s: float = 0.0
    """Seconds from being sent to its end."""
    cost_usd: float | None = 0.0
    """What it cost; None where the price or the tokens are not known."""
    counted_usd: float = 0.0
    """What a limit counts for it: at the dearest price where the true one is not known."""
    counted_tokens: int = 0
    """The same of its tokens."""
    sent: str | None = None
    """The model's id on the wire; None: nothing was sent."""
    policy: tuple[Adjustment, ...] = ()
    """What the policy changed and warned of."""

    @property
    def was_sent(self) -> bool:
        """Whether anything went upstream: what was refused before that is no step."""
        return self.attempts > 0

    def as_json(self) -> dict[str, Any]:
        """The record of it: plain JSON."""
        error = self.error
        return {
            "answer": self.completion.answer,
            "reasoning": self.completion.reasoning,
            "reasoning_field": self.completion.reasoning_field,
            "tool_calls": [_plain(call) for call in self.completion.tool_calls],
            "malformed_calls": self.completion.malformed_calls,
            "finish_reason": self.completion.finish_reason,
            "model": self.completion.model,
            "usage": None if self.completion.usage is None else _plain(self.completion.usage),
            "error": error and {"code": error.code, "message": error.message, "fix": error.fix, "rule": error.rule},
            "limit": self.limit,
            "attempts": self.attempts,
            "pieces": self.pieces,
            "waited_s": round(self.waited_s, 4),
            "took_s": round(self.took_s, 4),
            "cost_usd": self.cost_usd,
            "counted_usd": self.counted_usd,
            "counted_tokens": self.counted_tokens,
            "sent": self.sent,
            "policy": [adjustment.as_json() for adjustment in self.policy],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StepResult:
        """What was recorded."""
        usage: Mapping[str, Any] | None = record["usage"]
        calls = cast(list[Mapping[str, Any]], record["tool_calls"])
        completion = Completion(
            answer=record["answer"],
            reasoning=record["reasoning"],
            reasoning_field=record["reasoning_field"],
            tool_calls=tuple(from_record(ToolCall, call) for call in calls),
            malformed_calls=record["malformed_calls"],
            finish_reason=record["finish_reason"],
            model=record["model"],
            usage=None if usage is None else from_record(Usage, usage),
        )
        error: Mapping[str, Any] | None = record["error"]
        names = (
            *("limit", "attempts", "pieces", "waited_s", "took_s", "cost_usd", "counted_usd", "counted_tokens"),
            "sent",
        )
        return cls(
            completion=completion,
            error=None
            if error is None
            else remembered(error["code"], error["message"], fix=error["fix"], rule=error["rule"]),
            policy=tuple(from_record(Adjustment, entry) for entry in record["policy"]),
            **{name: record[name] for name in names},
        )


def _plain(value: ToolCall | Usage) -> dict[str, Any]:
    """A flat value's fields; ``asdict`` copies each one deeply."""
    return {name: getattr(value, name) for name in value.__slots__}
