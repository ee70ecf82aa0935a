"""The labelled sentences, and how many of them go where a careful reader would send them. Reads ``sentences/``.

``blind*.jsonl`` were written by somebody who had not seen a trigger or a sign; nobody looked at
``blind_held_out.jsonl`` while the signs were settled; ``own_fresh.jsonl`` was written
before the signs that it asks for. Sentences for a tool that the skill does not list are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kimi_mcp.core.types import user
from kimi_mcp.skill.document import Skill, load_skill
from kimi_mcp.skill.routing import Routing, route
from tests.policy.requests import planned, profile, request_of

FOLDER = Path(__file__).with_name("sentences")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One labelled request."""

    text: str
    images: int
    videos: int
    tool: str
    """Where a careful reader would send it."""
    lang: str
    kind: str
    """plain, mixed, negated, indirect, attached or long."""
    file: str
    """The file it stands in, without its ending."""

    def routed(self, skill: Skill | None = None) -> Routing:
        return route(self.text, self.images, self.videos, skill=skill)


def sentences(skill: Skill | None = None) -> list[Sentence]:
    """All of them, for the tools that the skill lists."""
    listed = {tool.name for tool in (skill or load_skill()).tools}
    read = (
        Sentence(**json.loads(line), file=path.stem)
        for path in sorted(FOLDER.glob("*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    )
    return [sentence for sentence in read if sentence.tool in listed]


@cache
def right(sentence: Sentence, skill: Skill | None = None) -> bool:
    return sentence.routed(skill).tool == sentence.tool


def share(among: Iterable[Sentence], skill: Skill | None = None) -> float:
    """How many of them are routed right, from 0 to 1."""
    held = [right(sentence, skill) for sentence in among]
    return sum(held) / len(held)


def table(among: Sequence[Sentence], by: Callable[[Sentence], str], skill: Skill | None = None) -> str:
    """A line for each group: right, all, percent."""
    groups: dict[str, list[Sentence]] = {}
    for sentence in among:
        groups.setdefault(by(sentence), []).append(sentence)
    lines: list[str] = []
    for name, group in sorted(groups.items()):
        held = sum(right(sentence, skill) for sentence in group)
        lines.append(f"  {name:<16} {held:>5} of {len(group):>5}  {held / len(group):>6.1%}")
    return "\n".join(lines)


GROUPS: Mapping[str, Callable[[Sentence], str]] = {
    "file": lambda each: each.file,
    "tool": lambda each: each.tool,
    "language": lambda each: each.lang,
    "kind": lambda each: each.kind,
}
"""What the table can be grouped by."""


def warned(sentence: Sentence) -> bool:
    """Whether the policy warns where the sentence is asked of instant mode."""
    plan = planned(request_of(mode="instant", turns=(user(sentence.text),)), profile("simulator", "kimi-k2.5"))
    return any(entry.rule == "instant-multistep" for entry in plan.adjustments)


def false_alarms(among: Iterable[Sentence]) -> tuple[list[Sentence], int]:
    """What is for instant mode and warned of all the same, and how many sentences are for instant mode."""
    instant = [sentence for sentence in among if sentence.tool == "kimi_instant"]
    return [sentence for sentence in instant if warned(sentence)], len(instant)


def noticed(among: Iterable[Sentence]) -> tuple[int, int]:
    """Of how many sentences that want thought the policy would warn in instant mode, and how many they are."""
    hard = [sentence for sentence in among if sentence.tool == "kimi_think"]
    return sum(map(warned, hard)), len(hard)
