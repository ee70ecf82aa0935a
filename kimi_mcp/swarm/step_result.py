"""``StepResult``: the result of one request of an agent, as it is used and as it is recorded. Pure, no I/O.

Whatever an agent decides, it decides by these values alone, as read back from their JSON: so a swarm that is replayed
from its record takes the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.json_values import from_json, to_json
from kimi_mcp.core.types import Adjustment, Completion
from kimi_mcp.swarm.limits import Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The result of one request."""

    completion: Completion
    """What arrived, whole or cut; empty where nothing did."""
    error: KimiError | None = None
    """Why it is not whole; None: it ended with a finish reason."""
    limit: Limit | None = None
    """The limit for which it was the agent's last; None: the agent goes on."""
    attempts: int = 0
    """Upstream requests that it took; 0: it was refused before one was sent, and so is no step."""
    pieces: int = 0
    """Pieces of reasoning and answer that arrived: about the number of tokens."""
    waited_s: float = 0.0
    """Seconds that it waited for its turn before it was sent."""
    took_s: float = 0.0
    """Seconds from being sent to its end."""
    cost_usd: float | None = 0.0
    """Its cost; None where the price or the tokens are not known."""
    counted_usd: float = 0.0
    """The cost that limits count: at the highest price where the true one is not known."""
    counted_tokens: int = 0
    """The tokens that limits count: estimated where the provider gave none."""
    sent: str | None = None
    """The model's id on the wire; None: nothing was sent."""
    policy: tuple[Adjustment, ...] = ()
    """What the policy changed and warned of."""

    def as_json(self) -> dict[str, Any]:
        """The record of it: plain JSON, with the completion's fields beside its own."""
        value = to_json(self)
        return value.pop("completion") | value

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StepResult:
        """Read a record; fields that only a newer version knows are ignored."""
        return from_json(cls, {**record, "completion": record})
