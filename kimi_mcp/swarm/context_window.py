"""What an agent does when its context fills: a fixed strategy, the same in every replay. Pure, no I/O.

The results of tools make an agent's context long, so they go first: from the oldest on, each is replaced by a note that
says how to get it back, except those of the last turn; those are then shortened, head and tail kept. Turns of the
assistant stay as they are, reasoning and calls byte for byte, and so do the system prompt and the task: the
conversation stays one that every provider takes. More room is made than one step needs, so that the provider's prompt
cache is not lost at each step. Where all this is not enough, the agent concludes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kimi_mcp.core.outcome import shortened
from kimi_mcp.core.tokens import ample, chars_in, likely_tokens
from kimi_mcp.core.types import TextPart, Turn
from kimi_mcp.swarm import prompts

TARGET_SHARE = 0.7
"""The share of the room that is used at most once room was made."""

MIN_REMOVABLE_CHARS = 400
"""A tool result that is no longer than this stays: its note would save nothing."""


def estimate_tokens(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]] = ()) -> int:
    """The tokens of turns and definitions of tools, rather too many than too few."""
    return ample(likely_tokens(turns, tools))


def fit_turns(turns: Sequence[Turn], room: int) -> tuple[Turn, ...]:
    """The turns where they fit into ``room`` tokens; else with tool results removed or shortened to make room."""
    if estimate_tokens(turns) <= room:
        return tuple(turns)
    fitted, target = list(turns), int(room * TARGET_SHARE)
    last_calls = max((at for at, turn in enumerate(turns) if turn.tool_calls), default=len(turns))
    long = [at for at, turn in enumerate(turns) if turn.role == "tool" and len(turn.text) > MIN_REMOVABLE_CHARS]
    for at in long:
        if at > last_calls or estimate_tokens(fitted) <= target:
            break
        note = prompts.render("notes.removed", chars=f"{len(turns[at].text):,}")
        fitted[at] = replace(turns[at], parts=(TextPart(text=note),))
    latest = [at for at in long if at > last_calls]
    excess = estimate_tokens(fitted) - target
    if excess > 0 and latest:
        chars = sum(len(turns[at].text) for at in latest)
        share = max(MIN_REMOVABLE_CHARS, (chars - chars_in(excess)) // len(latest))
        for at in latest:
            fitted[at] = replace(turns[at], parts=(TextPart(text=shortened(turns[at].text, share)),))
    return tuple(fitted)
