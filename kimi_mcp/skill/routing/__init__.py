"""Which tool a request means, and whether it means this skill at all. Pure, but for the package's own data.

``route`` adds up the points of signs: words (``signs.toml``, and the triggers of ``skill.md``), attachments, the length
of the text. Quoted text counts nothing; denied words ("no video", 不要) count against their tool. A tool that works on
something (a video, an image, many items, an earlier run) is chosen as soon as its points suffice; of the others the one
with the most points. ``why`` lists the words of every point.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from kimi_mcp.skill.document import Skill
from kimi_mcp.skill.routing.signs import Denial, Sign, Vocabulary, read_vocabulary

HEAD_CHARS = 200
"""How much of a long text's beginning is searched for a wish, in code points; half as many where letters are words."""

TAIL_CHARS = 100
"""How much of its end, where the end was read at all."""

LEAST_WISH_CHARS = 8
"""The least length of a first or last paragraph that alone is taken as the instruction of a long text."""

PRIORITY_POINTS: Mapping[str, int] = {"critical": 100, "high": 10, "medium": 5, "low": 1}
"""What AIMS adds to a skill's score for its priority."""

_QUOTED = re.compile(
    r"[“「『«„\"‘\x27](?:"
    r"(?<=[“「『«„])[^“「『«„”」』»]{1,2000}[”」』»“]"
    r"|(?<=\")[^\"\n]{1,400}\""
    r"|(?<=[‘\x27])(?<!\w.)[^\x27’\n]{1,400}[\x27’](?!\w))"
)
"""Quoted text is a topic, not an instruction. The mark comes first in the pattern: that is faster."""

_QUOTES = re.compile('[“「『«„"‘\x27]')

_CLAUSE_ENDS = re.compile(r"[.,;:!?\n。，；：！？、—–](?:(?<!\.)|\s|$)")

_WIDE = re.compile("[\u3000-\uffff]+")
"""Letters that count twice."""

_COLON = re.compile("[:：]")

MOST_OF_A_WEIGHT = 2
"""How many signs of one weight count for a tool: a wish is not stronger for being repeated."""

LEAST_POINTS = 2
"""With how many points a tool that works on something is chosen where nothing speaks for any other."""

LENGTH_CHARS = 111
"""How much of a text is read to decide that it is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Where a request goes."""

    tool: str
    """The tool's name."""
    score: int
    """The skill's score by AIMS's formula; 0: AIMS would not choose the skill."""
    matched: tuple[str, ...]
    """Triggers of ``skill.md`` that the text holds: the skill's, then the tool's."""
    why: str
    """One sentence: what spoke for the tool."""
    points: Mapping[str, float]
    """The points of each tool that has any."""

    @property
    def meant(self) -> bool:
        """Whether the skill is meant at all."""
        return self.score > 0

    def as_json(self) -> dict[str, Any]:
        """The routing as ``kimi-mcp route --json`` prints it."""
        return {
            "tool": self.tool,
            "score": self.score,
            "meant": self.meant,
            "matched": list(self.matched),
            "why": self.why,
            "points": dict(self.points),
        }


def route(text: str, images: int = 0, videos: int = 0, *, skill: Skill | None = None) -> Routing:
    """Which tool a request means, given what is attached to it. Reads the first 4,000 characters (``routed_chars``).

    ``skill`` is another skill document than the package's own.
    """
    known = read_vocabulary(skill)
    skill = known.skill
    text = text[: skill.routed_chars]
    if not text.isascii():  # the only two letters beyond ASCII whose small ones are of ASCII
        text = text.replace("\u212a", "k").replace("\u0130", "i\u0307")
    small = text.lower()
    triggers = tuple(trigger for trigger in skill.triggers if trigger in small)  # AIMS's own rule
    score = sum(map(len, triggers)) + PRIORITY_POINTS.get(skill.priority, 0) if triggers else 0

    scoring = _Scoring(known)
    scoring.count_attached(images, videos)
    wish = _wish(text, skill.routed_chars)
    scoring.count_words(wish)
    tool = scoring.chosen()
    own = next((each.triggers for each in skill.tools if each.name == tool), ())
    matched = dict.fromkeys((*triggers, *(trigger for trigger in own if trigger.lower() in wish)))
    return Routing(tool=tool, score=score, matched=tuple(matched), why=scoring.why(tool), points=scoring.points)


def _wish(text: str, most: int) -> str:
    """The part of a text that is an instruction, in lower case: before or after its material, and not quoted."""
    if "Σ" in text:
        text = text.lower()  # as a whole: its small letter depends on the letters around it
    head, tail = HEAD_CHARS, TAIL_CHARS
    if len(text) > (head + tail) // 2 and _wide(text[:64].lower()) > 16:
        head, tail = head // 2, tail // 2
    if len(text) > head + tail:
        whole = len(text) < most
        first = text.find("\n\n", 0, head + 2)
        last = text.rfind("\n\n", len(text) - head - 2) + 2 if whole else len(text)
        paragraphs = (text[: max(first, 0)], text[last:] if last > 1 else "")
        alone = [paragraph for paragraph in paragraphs if len(paragraph) >= LEAST_WISH_CHARS]
        text = "\n".join(alone or (text[:head], text[-tail:] if whole else ""))
    text = text.lower()
    return _QUOTED.sub(" … ", text) if _QUOTES.search(text) else text


def _wide(text: str) -> int:
    """How many letters count twice."""
    return 0 if text.isascii() else sum(map(len, _WIDE.findall(text)))


_Hit = tuple[int, int, Sign]
"""A sign, and where it begins and ends in the text."""

_Denied = tuple[int, int, int]
"""A stretch: what begins between the first two and ends before the third is denied."""


class _Scoring:
    """Points, and what they are for."""

    def __init__(self, known: Vocabulary) -> None:
        self._known = known
        self.points: dict[str, float] = {}
        """By tool."""
        self._reasons: list[tuple[str, float, str, int, int]] = []

    def count_attached(self, images: int, videos: int) -> None:
        for kind, number in (("image", images), ("video", videos)):
            tool, points = self._known.attached[kind]
            if number > 0 and tool in self._known.needed:
                self._count(tool, points, f"{number} {kind}{'s' if number > 1 else ''} attached")

    def count_words(self, text: str) -> None:
        denied = self._denied(text)
        opening = self._opening(text, denied)
        matter = len(text)
        counted: dict[tuple[str, float], list[str]] = {}
        for start, end, sign in self._hits(text, opening):
            if start >= matter:
                break
            if sign.opening and sign.points >= self._known.matter_from and (colon := _COLON.search(text, end)):
                matter = colon.start()
            row = counted.setdefault((sign.tool, sign.points), [])
            if len(row) == MOST_OF_A_WEIGHT or sign.phrase in row:
                continue
            row.append(sign.phrase)
            against = any(first <= start < last and end <= whole for first, last, whole in denied)
            self._count(sign.tool, -sign.points if against else sign.points, text, start, end)
        head = text[:LENGTH_CHARS].strip()
        letters = len(head) + _wide(head)
        tool, points = next((tool, points) for most, tool, points in self._known.lengths if letters <= most)
        if points and head:
            self._count(tool, points, "its length")

    def _hits(self, text: str, opening: int) -> list[_Hit]:
        """Every sign with its place, in the order of the text; of those that begin at one place the longest."""
        found: dict[int, _Hit] = {}
        for start, end, sign in self._known.signs.find(text):
            best = found.get(start)
            if sign.opening and start > opening:
                continue
            if best is None or (end, abs(sign.points)) > (best[1], abs(best[2].points)):
                found[start] = (start, end, sign)
        return [found[start] for start in sorted(found)]

    def _denied(self, text: str) -> list[_Denied]:
        """The stretches of text that are denied. What only looks like a denial hides those within it."""
        found = sorted(self._known.denials.find(text), key=lambda hit: (hit[0], -hit[1]))
        denied: list[_Denied] = []
        seen = 0
        for start, end, denial in found:
            if start < seen:
                continue
            if denial.reach:
                denied.append(_reach(text, start, end, denial))
            else:
                seen = end
        return denied

    def _opening(self, text: str, denied: Sequence[_Denied]) -> int:
        """How far the beginning of the text reaches: over polite words, and over what is denied first of all."""
        end = self._known.polite_until(text, 0)
        for first, last, _ in denied:
            if first - 1 <= end < last:
                end = self._known.polite_until(text, last)
        return end

    def _count(self, tool: str, points: float, reason: str, start: int = 0, end: int = -1) -> None:
        self.points[tool] = self.points.get(tool, 0) + points
        self._reasons.append((tool, points, reason, start, end))

    def chosen(self) -> str:
        """The tool with the most points among those that have what they need, else among the others, else at all."""
        needed, points = self._known.needed, self.points
        rest = {tool: most for tool, most in points.items() if most > 0 and tool not in needed}
        most = max(rest.values(), default=0)
        over = {
            tool: points[tool] - need.points
            for tool, need in needed.items()
            if points.get(tool, 0) >= need.points and points[tool] * need.gives_way_to > most
        }
        among = over or rest or {tool: points[tool] for tool in needed if points.get(tool, 0) >= LEAST_POINTS}
        return max(among, key=among.__getitem__, default=self._known.skill.default_tool)

    def why(self, tool: str) -> str:
        """One sentence for a person."""
        spoke = [
            f"{reason if end < 0 else _quoted(reason[start:end], points)} ({points:+g})"
            for name, points, reason, start, end in self._reasons
            if name == tool
        ]
        passed_over = [
            self._why_not(other, points, tool)
            for other, points in sorted(self.points.items(), key=lambda pair: (-pair[1], pair[0]))
            if points > max(self.points.get(tool, 0), 0)
        ]
        if spoke:
            sentence = f"For {tool}: {', '.join(spoke)}."
        elif passed_over:
            sentence = f"Nothing speaks for {tool}: it is the default."
        else:
            sentence = f"Nothing speaks for another tool: {tool} is the default."
        return " ".join((sentence, *passed_over))

    def _why_not(self, other: str, points: float, tool: str) -> str:
        """Why a tool with more points than the chosen one is not chosen, in a sentence."""
        needed = self._known.needed
        if other in needed and points < needed[other].points:
            return f"{other} has {points:g}, of {needed[other].points:g} that it needs."
        if other in needed and tool in needed:
            return f"{other} has {points:g}, but {tool} is further above what it needs."
        if tool in needed:
            times = needed[tool].gives_way_to
            unless = "wherever it is meant" if times == inf else f"unless another has {times:g} times its points"
            return f"{other} has {points:g}, but {tool} goes first {unless}."
        raise AssertionError(f"{other} has more points than {tool} and nothing against it")


def _quoted(words: str, points: float) -> str:
    return f"{'' if points > 0 else 'against it '}“{' '.join(words.split())}”"


def _reach(text: str, start: int, end: int, denial: Denial) -> _Denied:
    """The stretch that a denial denies: some characters before or after it, within its clause."""
    if denial.behind:
        first = max(0, start - denial.reach)
        for clause in _CLAUSE_ENDS.finditer(text, first, start):
            first = clause.end()
        return first, start, start  # a sign that holds the denial itself means it
    clause = _CLAUSE_ENDS.search(text, end, end + denial.reach + 2)
    return start + 1, min(end + denial.reach, clause.start() if clause else len(text)), len(text)
