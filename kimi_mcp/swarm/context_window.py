"""What an agent does when its context fills: a stated strategy, the same in every replay. Pure, no I/O.

The results of tools make an agent's context long, so they go first: from the oldest on, each is replaced by a line that
says so and how to get it back, but for those of the last turn; those are then shortened, head and tail kept. Turns of
the assistant stay as they are, reasoning and calls byte for byte, and so do the system prompt and the task: the
conversation stays one that every provider takes. Room is made for a while, not for one step, so that the provider's
prompt cache is not spoilt at each step. Where all this is not enough, the agent concludes.
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
    """As many tokens as turns and definitions of tools have, rather too many than too few."""
    return ample(likely_tokens(turns, tools))


def fit_turns(turns: Sequence[Turn], room: int) -> tuple[Turn, ...]:
    """The turns where they fit into ``room`` tokens; else with as much of the tools' results gone as makes room."""
    if estimate_tokens(turns) <= room:
        return tuple(turns)
    made, target = list(turns), int(room * TARGET_SHARE)
    for place in _results(made):
        if estimate_tokens(made) <= target:
            break
        made[place] = _without(made[place])
    over = estimate_tokens(made) - target
    latest = [place for place in _last_results(made) if len(made[place].text) > MIN_REMOVABLE_CHARS]
    if over > 0 and latest:
        whole = sum(len(made[place].text) for place in latest)
        share = max(MIN_REMOVABLE_CHARS, (whole - chars_in(over)) // len(latest))
        for place in latest:
            made[place] = _saying(made[place], shortened(made[place].text, share))
    return tuple(made)


def _results(turns: Sequence[Turn]) -> list[int]:
    """Where the results of earlier turns stand that are worth removing, the oldest first."""
    latest = set(_last_results(turns))
    return [
        place
        for place, turn in enumerate(turns)
        if turn.role == "tool" and place not in latest and len(turn.text) > MIN_REMOVABLE_CHARS
    ]


def _last_results(turns: Sequence[Turn]) -> list[int]:
    calling = max((place for place, turn in enumerate(turns) if turn.tool_calls), default=len(turns))
    return [place for place in range(calling + 1, len(turns)) if turns[place].role == "tool"]


def _without(turn: Turn) -> Turn:
    return _saying(turn, prompts.render("notes.removed", chars=f"{len(turn.text):,}"))


def _saying(turn: Turn, text: str) -> Turn:
    return replace(turn, parts=(TextPart(text=text),))
