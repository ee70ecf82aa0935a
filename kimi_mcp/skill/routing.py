"""Which tool a request means, and whether it means this skill at all. Pure, but for the package's own data.

``route`` adds up the points of signs: phrases (``signs.toml``, and the triggers of ``skill.md``), attachments, the
length of the text. Quoted text counts nothing; denied phrases ("no video", 不要) count against their tool. A tool that
works on something (a video, an image, many items, an earlier run) is chosen as soon as its points suffice; of the
others the one with the most points. ``why`` lists the words of every point.

A phrase is a regular expression over the text in lower case. Four things in it mean more than usual: a space is up to
three characters that are no letters, ``.*`` stays within 30 characters of a sentence, ``#`` is a number of two to four
digits and the blank after it, and ``^`` is the beginning of the text or the end of its polite words. A phrase matches
whole words, unless it is Chinese, Japanese or Korean.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kimi_mcp.skill.document import Skill, load_skill

HEAD_CHARS = 200
"""How much of a long text's beginning is searched for a request, in code points; half as many of Chinese."""

TAIL_CHARS = 100
"""How much of its end, where the end was read at all."""

PRIORITY_POINTS: Mapping[str, int] = {"critical": 100, "high": 10, "medium": 5, "low": 1}
"""What AIMS adds to a skill's score for its priority."""

LEAST_POINTS = 2
"""With how many points a tool that works on something is chosen where nothing speaks for any other."""

_LENGTH_CHARS = 111  # how much of a text is read to decide that it is short
_QUOTED = re.compile(
    r"[“「『«„\"‘\x27](?:"  # the mark comes first: that is faster
    r"(?<=[“「『«„])[^“「『«„”」』»]{1,2000}[”」』»“]"
    r"|(?<=\")[^\"\n]{1,400}\""
    r"|(?<=[‘\x27])(?<!\w.)[^\x27’\n]{1,400}[\x27’](?!\w))"
)
_CLAUSE_END = re.compile(r"[.,;:!?\n。，；：！？、—–](?:(?<!\.)|\s|$)")
_COLON = re.compile("[:：]")
_UNSPACED = "\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3"  # letters that stand without spaces between words
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]").search
_BORDER = re.compile(rf"(?<=[{_UNSPACED}])(?=[^\W{_UNSPACED}])|(?<=[^\W{_UNSPACED}])(?=[{_UNSPACED}])")
_GAP = r"[^.!?。！？\n]{0,30}?\W{0,3}"
_NUMBER = r"\d{2,4}(?!\d|[.,:]\d)[ -]?"  # neither a year with a day nor a part of a longer number
_WIDE = re.compile("[\u3000-\uffff]")  # letters that count twice


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
    """What spoke for the tool, in a sentence, and why a tool with more points was not chosen."""
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
    skill = skill or load_skill()
    vocabulary = read_vocabulary(skill)
    text = text[: skill.routed_chars]
    if not text.isascii():  # the only two letters beyond ASCII whose small ones are of ASCII
        text = text.replace("\u212a", "k").replace("\u0130", "i\u0307")
    small = text.lower()
    triggers = tuple(trigger for trigger in skill.triggers if trigger in small)  # AIMS's own rule
    score = sum(map(len, triggers)) + PRIORITY_POINTS.get(skill.priority, 0) if triggers else 0

    request = _request_in(text, skill.routed_chars)
    signs = _signs_in(_BORDER.sub(" ", request), vocabulary)
    evidence = [*_attached(images, videos, vocabulary), *signs, *_length(request, vocabulary)]
    points: dict[str, float] = {}
    for each in evidence:
        points[each.tool] = points.get(each.tool, 0) + each.points
    tool = _chosen(points, vocabulary)
    own = next((each.triggers for each in skill.tools if each.name == tool), ())
    matched = dict.fromkeys((*triggers, *(trigger for trigger in own if trigger.lower() in request)))
    why = _why(tool, evidence, points, vocabulary)
    return Routing(tool=tool, score=score, matched=tuple(matched), why=why, points=points)


def _request_in(text: str, most: int) -> str:
    """The part of a text that is an instruction, in lower case: before or after its material, and not quoted."""
    if "Σ" in text:
        text = text.lower()  # as a whole: its small letter depends on the letters around it
    head, tail = HEAD_CHARS, TAIL_CHARS
    if len(_WIDE.findall(text[:64])) > 16:
        head, tail = head // 2, tail // 2
    if len(text) > head + tail:
        whole = len(text) < most
        first = text.find("\n\n", 0, head + 2)
        last = text.rfind("\n\n", len(text) - head - 2) + 2 if whole else len(text)
        paragraphs = (text[: max(first, 0)], text[last:] if last > 1 else "")
        text = "\n".join(filter(None, paragraphs)) or f"{text[:head]}\n{text[-tail:] if whole else ''}"
    return _QUOTED.sub(" … ", text.lower())


# ── evidence ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Evidence(NamedTuple):
    tool: str
    points: float
    words: str


def _attached(images: int, videos: int, vocabulary: Vocabulary) -> Iterator[_Evidence]:
    for kind, number in (("image", images), ("video", videos)):
        row = vocabulary.attached[kind]
        if number > 0 and row["tool"] in vocabulary.needed:
            yield _Evidence(row["tool"], row["points"], f"{number} {kind}{'s' if number > 1 else ''} attached")


def _signs_in(text: str, vocabulary: Vocabulary) -> Iterator[_Evidence]:
    """The signs in the order of the text, each phrase once; of those that begin at one place the longest."""
    polite = vocabulary.polite.match(text)
    longest: dict[int, tuple[int, Sign]] = {}
    for start, end, sign in _found(vocabulary.signs, text):
        if sign.opening and polite and start > polite.end():
            continue
        best = longest.get(start)
        if best is None or (end, abs(sign.points)) > (best[0], abs(best[1].points)):
            longest[start] = (end, sign)
    denied = list(_denied(text, vocabulary))
    counted: set[tuple[str, str]] = set()
    matter = len(text)
    for start, (end, sign) in sorted(longest.items()):
        if start >= matter:
            break  # what a text is about is no request
        if sign.opening and sign.points >= vocabulary.matter_from and (colon := _COLON.search(text, end)):
            matter = colon.start()
        if (sign.tool, sign.phrase.pattern) in counted:
            continue  # a request is not stronger for being repeated
        counted.add((sign.tool, sign.phrase.pattern))
        words = f"“{' '.join(text[start:end].split())}”"
        against = any(first <= start < last and end <= whole for first, last, whole in denied)
        points = -sign.points if against else sign.points
        yield _Evidence(sign.tool, points, words if points > 0 else f"against it {words}")


def _found(phrases: Iterable[_Phrase], text: str) -> Iterator[tuple[int, int, _Phrase]]:
    """Every place of a text where a phrase is found: start, end, phrase."""
    for each in phrases:
        for match in each.phrase.finditer(text):
            yield *match.span(), each


def _denied(text: str, vocabulary: Vocabulary) -> Iterator[tuple[int, int, int]]:
    """Stretches of a text: what begins between the first two places and ends before the third is denied.

    What only looks like a denial hides those within it.
    """
    seen = 0
    for start, end, denial in sorted(_found(vocabulary.denials, text), key=lambda found: (found[0], -found[1])):
        if start < seen:
            continue
        if denial.behind:
            first = max(0, start - denial.reach)
            first = max((clause.end() for clause in _CLAUSE_END.finditer(text, first, start)), default=first)
            yield first, start, start  # a sign that holds the denial itself means it
        elif denial.reach:
            clause = _CLAUSE_END.search(text, end, end + denial.reach + 2)
            yield start + 1, min(end + denial.reach, clause.start() if clause else len(text)), len(text)
        else:
            seen = end


def _length(text: str, vocabulary: Vocabulary) -> Iterator[_Evidence]:
    head = text[:_LENGTH_CHARS].strip()
    letters = len(head) + len(_WIDE.findall(head))
    if head and (row := next(row for row in vocabulary.lengths if letters <= row.get("up_to", inf)))["points"]:
        yield _Evidence(row["tool"], row["points"], "its length")


# ── the choice ────────────────────────────────────────────────────────────────────────────────────────────────────


def _chosen(points: Mapping[str, float], vocabulary: Vocabulary) -> str:
    """The tool with the most points among those that have what they need, else among the others, else at all."""
    needed = vocabulary.needed
    rest = {tool: most for tool, most in points.items() if most > 0 and tool not in needed}
    most = max(rest.values(), default=0)
    over = {
        tool: points[tool] - need.points
        for tool, need in needed.items()
        if points.get(tool, 0) >= need.points and points[tool] * need.gives_way_to > most
    }
    among = over or rest or {tool: points[tool] for tool in needed if points.get(tool, 0) >= LEAST_POINTS}
    return max(among, key=among.__getitem__, default=vocabulary.default_tool)


def _why(tool: str, evidence: Sequence[_Evidence], points: Mapping[str, float], vocabulary: Vocabulary) -> str:
    """What spoke for a tool, and why each one with more points was not chosen."""
    passed_over = [
        _why_not(other, most, tool, vocabulary.needed)
        for other, most in sorted(points.items(), key=lambda pair: (-pair[1], pair[0]))
        if most > max(points.get(tool, 0), 0)
    ]
    spoke = [f"{each.words} ({each.points:+g})" for each in evidence if each.tool == tool]
    if spoke:
        sentence = f"For {tool}: {', '.join(spoke)}."
    elif passed_over:
        sentence = f"Nothing speaks for {tool}: it is the default."
    else:
        sentence = f"Nothing speaks for another tool: {tool} is the default."
    return " ".join((sentence, *passed_over))


def _why_not(other: str, points: float, tool: str, needed: Mapping[str, Need]) -> str:
    """Why a tool with more points than the chosen one was not chosen."""
    if other in needed and points < needed[other].points:
        return f"{other} has {points:g}, of {needed[other].points:g} that it needs."
    if other in needed:
        return f"{other} has {points:g}, but {tool} is further above what it needs."
    times = needed[tool].gives_way_to
    unless = "wherever it is meant" if times == inf else f"unless another has {times:g} times its points"
    return f"{other} has {points:g}, but {tool} goes first {unless}."


# ── the vocabulary ────────────────────────────────────────────────────────────────────────────────────────────────


class Sign(NamedTuple):
    """A phrase that speaks for a tool."""

    phrase: re.Pattern[str]
    tool: str
    points: float
    """How strongly; below 0 it takes back the points of a part of its words."""
    opening: bool
    """Whether it counts at the beginning of a text alone."""


class Denial(NamedTuple):
    """A phrase by which something is excluded."""

    phrase: re.Pattern[str]
    reach: int
    """How many characters of the same clause it denies; 0: it only looks like a denial."""
    behind: bool
    """Whether it denies what is before it, not what comes after it."""


class Need(NamedTuple):
    """What a tool that works on something needs to be chosen before the others."""

    points: float
    """So many points."""
    gives_way_to: float
    """A tool with so many times its points is chosen instead."""


_Phrase = TypeVar("_Phrase", Sign, Denial)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What decides the routing: the rows of ``signs.toml``, for the tools of a skill."""

    signs: Sequence[Sign]
    denials: Sequence[Denial]
    needed: Mapping[str, Need]
    attached: Mapping[str, Mapping[str, Any]]
    lengths: Sequence[Mapping[str, Any]]
    matter_from: float
    polite: re.Pattern[str]
    default_tool: str


@cache
def read_vocabulary(skill: Skill) -> Vocabulary:
    """The vocabulary for the tools that a skill lists, read once."""
    rows: dict[str, Any] = tomllib.loads(Path(__file__).with_name("signs.toml").read_text("utf-8"))
    listed = {tool.name for tool in skill.tools}
    tools = {name: row for name, row in rows["tools"].items() if name in listed}
    signs = [
        Sign(phrase_pattern(phrase.removeprefix("^")), tool, float(points), phrase.startswith("^"))
        for tool, row in tools.items()
        for points, phrases in row["signs"].items()
        for phrase in phrases
    ]
    signs.sort(key=lambda sign: -sign.points)
    signs += [
        Sign(_trigger_pattern(trigger.lower()), tool.name, rows["trigger_points"], opening=False)
        for tool in skill.tools
        for trigger in tool.triggers
    ]
    denials = [Denial(phrase_pattern(phrase), 0, behind=False) for phrase in rows["denials"]["none"]]
    for row in rows["denials"]["rows"]:
        denials += [Denial(phrase_pattern(phrase), row["reach"], row.get("behind", False)) for phrase in row["words"]]
    polite = "|".join(phrase_pattern(phrase).pattern for phrase in rows["denials"]["polite"])
    return Vocabulary(
        signs=signs,
        denials=denials,
        needed={
            name: Need(row["needs"], row.get("gives_way_to", inf)) for name, row in tools.items() if "needs" in row
        },
        attached=rows["attached"],
        lengths=rows["lengths"],
        matter_from=rows["matter_from"],
        polite=re.compile(rf"(?:\W{{0,3}}(?:{polite})){{0,6}}[\W_]{{0,6}}"),
        default_tool=skill.default_tool,
    )


def phrase_pattern(phrase: str) -> re.Pattern[str]:
    """A phrase as it is searched for."""
    edge = "" if _IS_UNSPACED(phrase) else r"\b"
    written = phrase.replace(" ", r"(?:\W{1,3})").replace(".*", edge + _GAP).replace("#", _NUMBER)
    return re.compile(f"{edge}(?:{written}){edge}")


def _trigger_pattern(trigger: str) -> re.Pattern[str]:
    """A trigger of the skill document in any form that begins so."""
    words = " ".join(map(re.escape, trigger.split()))
    return phrase_pattern(words if _IS_UNSPACED(words) else rf"{words}\w*")
