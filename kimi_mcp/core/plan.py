"""``Plan``: what will be sent, after the policy has decided. Pure, no I/O.

``policy.decide`` makes it, ``provider.encoding`` turns it into a body, ``policy.judge`` checks the answer against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.types import Adjustment, Mode, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One upstream request, decided."""

    profile: Profile
    """The model and the provider it goes to."""
    mode: Mode
    """The mode it will be answered in."""
    turns: tuple[Turn, ...]
    """The messages, in order."""
    sampling: Mapping[str, float]
    """Sampling values in the request body; all others are left out."""
    max_tokens: int
    """Limit on reasoning plus answer, in tokens."""
    effort: str | None
    """``reasoning_effort``; None: left out."""
    tools: tuple[Mapping[str, Any], ...]
    """Function definitions."""
    tool_choice: str | Mapping[str, Any] | None
    """``tool_choice``; None: left out."""
    response_schema: Mapping[str, Any] | None
    """JSON schema of the answer."""
    limits: Mapping[str, int]
    """Steps that a swarm may take, by argument name."""
    model_asked: str
    """The ``model`` argument, or the setting ``KIMI_MODEL``."""
    adjustments: tuple[Adjustment, ...]
    """What the policy changed and warned of on the way."""
