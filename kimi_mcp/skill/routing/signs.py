"""The words that decide the routing: ``signs.toml`` and the triggers of ``skill.md``. Reads the former.

A phrase is words with a space between them, in lower case. ``a|b`` is either; ``stem*`` any ending, ``*`` any word;
``word?`` may be left out; ``#`` is a number of two to four digits; ``..`` up to 30 characters of the same sentence;
``.png`` the ending of a name; ``new_york`` two words in the place of one; a ``^`` in front is the beginning of a text.
Chinese, Japanese and Korean, which don't part their words, match anywhere. Each phrase is one regular expression,
compiled when a text first holds a word of each of its slots.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import inf
from pathlib import Path
from typing import Any, Generic, TypeVar

from kimi_mcp.skill.document import Skill, load_skill

UNSPACED = "\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3"
"""Letters of languages that don't part their words, or that attach endings to them: each is a word of its own."""

NUMBER = r"\d{2,4}(?!\d|[.,:]\d)"
"""What ``#`` stands for: neither a digit nor a year with a day, nor a part of a longer number."""

NAMES = ("kimi_", "run_")
"""Beginnings of words in which a ``_`` is itself."""

_GAP = r"[^.!?。！？\n]{0,30}?"
_IS_UNSPACED = re.compile(f"[{UNSPACED}]").match
_BEFORE_WORD = f"(?<![^\\W{UNSPACED}])"
_AFTER_WORD = f"(?![^\\W{UNSPACED}])"


Meaning = TypeVar("Meaning")


class Phrases(Generic[Meaning]):
    """Phrases of the grammar above, and what each means."""

    def __init__(self, rows: Iterable[tuple[str, Meaning]]) -> None:
        self._by_first: dict[str, list[_Row[Meaning]]] = {}
        for phrase, meaning in rows:
            row = _Row(phrase, meaning)
            for word in row.slots[0]:
                self._by_first.setdefault(word, []).append(row)

    def find(self, text: str) -> list[tuple[int, int, Meaning]]:
        """Every place in a text in small letters where a phrase is found: start, end, meaning."""
        near = {row: None for word, rows in self._by_first.items() if word in text for row in rows}
        return [
            (*match.span(), row.meaning) for row in near if row.may_stand_in(text) for match in row.regex.finditer(text)
        ]


class _Row(Generic[Meaning]):
    """One phrase."""

    def __init__(self, phrase: str, meaning: Meaning) -> None:
        self.meaning = meaning
        self.slots = [_needed(slot) for slot in phrase.split() if slot != ".." and not slot.endswith("?")]
        self._phrase = phrase

    def may_stand_in(self, text: str) -> bool:
        """Whether a text holds a word of each slot: then it is worth compiling the phrase."""
        return all(any(word in text for word in slot) for slot in self.slots)

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(pattern(self._phrase))


def pattern(phrase: str) -> str:
    """A phrase as a regular expression."""
    made, after_number = "", False
    for number, slot in enumerate(phrase.split()):
        if slot == "..":
            made += _GAP
            continue
        words = "|".join(_word(word, first=number == 0) for word in slot.removesuffix("?").split("|"))
        blank = "" if number == 0 else "[ -]?" if after_number else r"\W{0,3}"
        after_number = slot == "#"  # what is counted follows its number: "in 15. The" counts nothing
        made += f"(?:{blank}(?:{words}))" + ("?" if slot.endswith("?") else "")
    return made


def _word(word: str, *, first: bool) -> str:
    if word == "#":
        return (_BEFORE_WORD if first else "") + NUMBER
    core = word.removesuffix("*")
    letters = re.escape(core) if word.startswith(NAMES) else r"\W{1,3}".join(map(re.escape, core.split("_")))
    if first and core and not _IS_UNSPACED(core[0]) and core[0] != ".":
        letters = _BEFORE_WORD + letters
    if core != word:
        return letters + rf"\w{{{0 if core else 1},14}}"
    if _IS_UNSPACED(word[-1]):
        return letters
    return letters + (_AFTER_WORD if first else r"\b")


def _needed(slot: str) -> tuple[str, ...]:
    """Texts of which one is present wherever the slot is filled; an empty one always is."""
    return tuple(
        "" if word[0] in "#*" else word.removesuffix("*") if word.startswith(NAMES) else word.rstrip("*").split("_")[0]
        for word in slot.split("|")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Words that speak for a tool."""

    phrase: str
    """The words."""
    tool: str
    """The tool's name."""
    points: float
    """How strongly; below 0 it takes back the points of a part of the words."""
    opening: bool
    """Whether it counts at the beginning of a text alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Words by which something is excluded."""

    reach: int
    """How many characters of the same clause it denies; 0: it only looks like a denial."""
    behind: bool
    """Whether it denies what is before it, not what comes after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a tool that works on something needs to be chosen before the others."""

    points: float
    """So many points."""
    gives_way_to: float
    """A tool with so many times its points is chosen all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """All of it."""

    skill: Skill
    """The skill that it is for."""
    signs: Phrases[Sign]
    """Words that speak for tools."""
    denials: Phrases[Denial]
    """Words by which something is excluded."""
    needed: Mapping[str, Need]
    """Tools that are chosen before the others as soon as they have so many points."""
    attached: Mapping[str, tuple[str, float]]
    """What an attached medium speaks for, and how strongly."""
    lengths: Sequence[tuple[float, str, float]]
    """Up to so many letters a text speaks for that tool so strongly; the shortest first."""
    matter_from: float
    """Text after the colon of an opening of so many points is its material, and counts nothing."""
    polite: re.Pattern[str]
    """What may precede a request: polite words, or nothing."""

    def polite_until(self, text: str, start: int) -> int:
        """How far polite words reach from there."""
        found = self.polite.match(text, start)
        return found.end() if found else start


@cache
def read_vocabulary(skill: Skill | None = None) -> Vocabulary:
    """The vocabulary for the tools that the skill lists (without one: the package's own), read once."""
    if skill is None:
        return read_vocabulary(load_skill())
    rows: dict[str, Any] = tomllib.loads((Path(__file__).parent / "signs.toml").read_text("utf-8"))
    listed = {tool.name for tool in skill.tools}
    polite = "|".join(map(pattern, rows["denials"]["polite"]))
    return Vocabulary(
        skill=skill,
        signs=Phrases(
            (sign.phrase, sign) for sign in (*_signs(rows["tools"], listed), *_triggers(skill, rows["trigger_points"]))
        ),
        denials=Phrases(_denials(rows["denials"])),
        needed={
            name: Need(points=row["needs"], gives_way_to=row.get("gives_way_to", inf))
            for name, row in rows["tools"].items()
            if name in listed and "needs" in row
        },
        attached={kind: (row["tool"], row["points"]) for kind, row in rows["attached"].items()},
        lengths=tuple((row.get("up_to", inf), row["tool"], row["points"]) for row in rows["lengths"]),
        matter_from=rows["matter_from"],
        polite=re.compile(f"(?:\\W{{0,3}}(?:{polite})){{0,6}}[\\W_]{{0,6}}"),
    )


def _signs(tools: Mapping[str, Any], listed: set[str]) -> Iterator[Sign]:
    """The rows of the listed tools, the strongest first."""
    rows = [
        (float(points), tool, phrase)
        for tool in tools
        if tool in listed
        for points, phrases in tools[tool]["signs"].items()
        for phrase in phrases
    ]
    for points, tool, phrase in sorted(rows, key=lambda row: -row[0]):
        words = phrase.removeprefix("^")
        yield Sign(phrase=words, tool=tool, points=points, opening=words != phrase)


def _triggers(skill: Skill, points: float) -> Iterator[Sign]:
    for tool in skill.tools:
        for trigger in tool.triggers:
            phrase = trigger.lower() if _IS_UNSPACED(trigger[-1]) else f"{trigger.lower()}*"
            yield Sign(phrase=phrase, tool=tool.name, points=points, opening=False)


def _denials(rows: Mapping[str, Any]) -> Iterator[tuple[str, Denial]]:
    for phrase in rows["none"]:
        yield phrase, Denial(reach=0, behind=False)
    for row in rows["rows"]:
        for phrase in row["words"]:
            yield phrase, Denial(reach=row["reach"], behind=row.get("behind", False))
