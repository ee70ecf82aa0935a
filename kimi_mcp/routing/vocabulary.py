"""The words by which a request is known: ``signs.toml`` and the triggers of ``skill.md``. Reads the former."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, count
from math import inf
from operator import add, itemgetter
from pathlib import Path
from typing import Any, TypeVar

from kimi_mcp.routing.phrases import ANYWHERE, KEY, NUMBER, UNSPACED, Branch, Landmarks, is_unspaced, pattern
from kimi_mcp.skill import Skill, load_skill

_NUMBER = re.compile(NUMBER)

NAMES = ("kimi_", "run_")
"""Beginnings of words in which a ``_`` is itself."""

_UNSPACED = re.compile(f"[{UNSPACED}]")

_SPACED = re.compile(f"[^\\W{UNSPACED}]+")

_MARK = re.compile(r"\W")

_FOREIGN = re.compile(r"[^\W\x00-\x7f]")
"""A letter beyond ASCII."""

_BLANKED = {code: " " for code in range(128) if _MARK.match(chr(code))}
"""Makes every mark of ASCII a blank: to split there takes a tenth of a search for words."""

_COMMON = "zqxjkvwbpygfmucldrhsnioate "
"""Letters, the rarest of English texts first; what is none of them is rarer still."""

MOST_KNOWN = 20_000
"""How many words are remembered with what may begin at them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Words that speak for a tool."""

    phrase: str
    """The words, in the grammar above."""
    tool: str
    """The tool's name."""
    points: float
    """How strongly; below 0 it takes back what a part of the words gave."""
    opening: bool
    """Whether it counts at the beginning of a text alone."""
    weight: tuple[str, float]
    """Its tool and its points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Words that say that something is not wanted."""

    reach: int
    """How many characters of the same clause it denies; 0: it only looks like a denial."""
    behind: bool
    """Whether it denies what stands before it, not what comes after it."""


Meaning = TypeVar("Meaning", Sign, Denial)


@dataclass(frozen=True, slots=True)
class Entry:
    """A first word, and what can follow it."""

    word: str
    """The word, or the beginning of one."""
    stem: bool
    """Whether it may have any ending."""
    signs: Branch[Sign] | None
    """What may speak for a tool."""
    denials: Branch[Denial] | None
    """What may deny something."""

    def letters(self, found: str) -> int:
        """How many letters of what was found it takes up; 0: that depends on the text around."""
        if is_unspaced(found[0]):
            return len(self.word) if found.startswith(self.word) else 0
        return len(found) if found == self.word or (self.stem and found.startswith(self.word)) else 0

    def may_begin(self, pair: str) -> bool:
        """Whether something can follow it, where it is the first of two letters of an unspaced language."""
        if len(self.word) > 1 or not is_unspaced(pair[0]) or not pair[1:].isalnum():
            return True
        return any(branch is not None and branch.may_go_on(pair[1]) for branch in (self.signs, self.denials))

    def ends(self, text: str, start: int, stop: int) -> int:
        """Where it ends, if it stands in the text where a word begins at ``start`` and ends at ``stop``; else 0."""
        word = self.word
        if word == "#":
            number = _NUMBER.match(text, start)
            return number.end() if number else 0
        if word[0] == ".":
            start -= 1
        if start < 0 or not text.startswith(word, start):
            return 0
        end = start + len(word)
        if self.stem:
            return max(end, stop)
        if word[-1] > "\u2fff" or end == len(text) or not (text[end].isalnum() or text[end] == "_"):
            return end
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a tool that works on something needs to be chosen before the others."""

    points: float
    """So many points."""
    gives_way_to: float
    """It gives way all the same to a tool with so many times its points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """All of it."""

    skill: Skill
    """The skill that it is for."""
    named_by: Sequence[tuple[str, str]]
    """The triggers of the skill, each behind that letter of it which is the rarest in texts."""
    plain: bool
    """Whether they are of ASCII alone."""
    triggers: Mapping[str, Sequence[tuple[str, str]]]
    """The triggers of each tool, and the same in small letters."""
    single: Set[str]
    """The letters of unspaced languages at which a first word or a landmark may begin."""
    known: _Known
    """What may begin at a word, in an unspaced language at two letters, and the bits of its landmarks."""
    needed: Mapping[str, Need]
    """Tools that are chosen before the others as soon as they have so many points."""
    attached: Mapping[str, tuple[str, float]]
    """What an attached medium speaks for, and how strongly."""
    lengths: Sequence[tuple[float, str, float]]
    """Up to so many letters a text speaks for that tool so strongly; the shortest first."""
    matter_from: float
    """What stands after the colon of an opening of so many points is its matter, and asks for nothing."""
    polite: re.Pattern[str]
    """What may stand before the beginning of a request: polite words, or nothing."""

    def named(self, text: str) -> tuple[str, ...]:
        """The triggers of the skill that a text holds, in small letters: AIMS's own rule."""
        if self.plain and not text.isascii():  # small letters of ASCII are found ten times as fast
            text = text.encode("ascii", "replace").decode("ascii")
        text = text.lower()
        return tuple(trigger for rare, trigger in self.named_by if rare in text and trigger in text)

    def polite_until(self, text: str, start: int) -> int:
        """How far polite words reach from there."""
        found = self.polite.match(text, start)
        return found.end() if found else start

    def begun(self, text: str) -> tuple[Sequence[_Begun], int]:
        """Each word of a text with which a phrase may begin, and the bits of the landmarks that the text holds."""
        if not text.isascii() and not _FOREIGN.search(text):
            text = text.encode("ascii", "replace").decode("ascii")  # nothing but marks is lost
        found = self._mixed(text) if not text.isascii() and _UNSPACED.search(text) else self._spaced(text)
        held = ANYWHERE
        for _, _, (_, bits) in found:
            held |= bits
        return [each for each in found if each[2][0]], held

    def _spaced(self, text: str) -> Sequence[_Begun]:
        """Each word of a text that parts its words, if a phrase may begin with it or it is a landmark."""
        words = text.translate(_BLANKED).split(" ") if text.isascii() else _MARK.split(text)
        ends = map(add, accumulate(map(len, words)), count())
        known = map(self.known.__getitem__, words)
        return [(end - len(word), end, what) for end, word, what in zip(ends, words, known, strict=False) if what]

    def _mixed(self, text: str) -> Sequence[_Begun]:
        """The same of a text with letters of unspaced languages, each of which is a word."""
        known, single = self.known, self.single
        spaced = [(*word.span(), what) for word in _SPACED.finditer(text) if (what := known[word[0]])]
        letters = [
            (at, at + 1, what)
            for at, letter in enumerate(text)
            if letter in single and (what := known[text[at : at + 2]])
        ]
        return sorted(spaced + letters, key=itemgetter(0)) if spaced else letters


_What = tuple["Sequence[tuple[int, Branch[Sign] | None, Branch[Denial] | None, Entry]]", int]
"""What may begin at a word: for each how many letters it takes (0: the text around tells), what may speak for a tool
and what may deny behind it, and the entry; then the bits of the landmarks in the word."""

_Begun = tuple[int, int, _What]
"""Where a word begins and ends, and what is known of it."""


class _Known(dict[str, _What | None]):
    """Words that were met before, with what is known of them; a new one is looked up. Remembered for speed alone."""

    def __init__(
        self, whole: Mapping[str, Sequence[Entry]], stems: Mapping[str, Sequence[Entry]], landmarks: Landmarks
    ) -> None:
        self._whole = whole
        self._stems = stems
        self._landmarks = landmarks

    def __missing__(self, word: str) -> _What | None:
        """What may begin at a word, the longest first; in an unspaced language at a letter and the next one."""
        if not word:
            found, bits = [], 0
        elif is_unspaced(word[0]):
            found = [entry for entry in self._whole.get(word[0], ()) if entry.word.startswith(word[: len(entry.word)])]
            bits = self._landmarks.at_letter(word[0])
        else:
            stems = self._stems.get(word[:KEY], ())
            found = [*self._whole.get(word, ()), *(entry for entry in stems if word.startswith(entry.word))]
            found += self._whole["#"] if _NUMBER.fullmatch(word) else ()
            bits = self._landmarks.in_word(word)
        if len(self) > MOST_KNOWN:
            self.clear()
        entries = tuple(
            (entry.letters(word), entry.signs, entry.denials, entry) for entry in found if entry.may_begin(word)
        )
        self[word] = known = (entries, bits) if entries or bits else None
        return known


@cache
def read_vocabulary(skill: Skill | None = None) -> Vocabulary:
    """The vocabulary for the tools that the skill lists (without one: the package's own), read once."""
    if skill is None:
        return read_vocabulary(load_skill())
    rows: dict[str, Any] = tomllib.loads((Path(__file__).parent / "signs.toml").read_text("utf-8"))
    listed = {tool.name for tool in skill.tools}
    landmarks = Landmarks()
    signs = [*_signs(rows["tools"], listed), *_triggers(skill, rows["trigger_points"])]
    whole, stems = _index(signs, list(_denials(rows["denials"])), landmarks)
    single = landmarks.letters | {key for key in whole if is_unspaced(key)}
    polite = "|".join(pattern(phrase, first=True) for phrase in rows["denials"]["polite"])
    return Vocabulary(
        skill=skill,
        named_by=[(min(trigger, key=_COMMON.find), trigger) for trigger in skill.triggers],
        plain=all(trigger.isascii() and "?" not in trigger for trigger in skill.triggers),
        triggers={tool.name: [(trigger, trigger.lower()) for trigger in tool.triggers] for tool in skill.tools},
        single=single,
        known=_Known(whole, stems, landmarks),
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


def _signs(tools: Mapping[str, Any], listed: set[str]) -> Iterator[tuple[str, Sign]]:
    """The rows of the listed tools, the strongest first."""
    rows = [
        (float(points), tool, phrase)
        for tool in tools
        if tool in listed
        for points, phrases in tools[tool]["signs"].items()
        for phrase in phrases
    ]
    for points, tool, said in sorted(rows, key=lambda row: -row[0]):
        phrase = said.removeprefix("^")
        yield phrase, Sign(phrase=phrase, tool=tool, points=points, opening=said != phrase, weight=(tool, points))


def _triggers(skill: Skill, points: float) -> Iterator[tuple[str, Sign]]:
    for tool in skill.tools:
        for trigger in tool.triggers:
            phrase = trigger.lower() if is_unspaced(trigger[-1]) else f"{trigger.lower()}*"
            yield phrase, Sign(phrase=phrase, tool=tool.name, points=points, opening=False, weight=(tool.name, points))


def _denials(rows: Mapping[str, Any]) -> Iterator[tuple[str, Denial]]:
    for phrase in rows["none"]:
        yield phrase, Denial(reach=0, behind=False)
    for row in rows["rows"]:
        for phrase in row["words"]:
            yield phrase, Denial(reach=row["reach"], behind=row.get("behind", False))


# ── the index ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _index(
    signs: list[tuple[str, Sign]], denials: list[tuple[str, Denial]], landmarks: Landmarks
) -> tuple[Mapping[str, Sequence[Entry]], Mapping[str, Sequence[Entry]]]:
    saying, denying = _by_first_word(signs), _by_first_word(denials)
    whole: dict[str, list[Entry]] = {"#": []}
    stems: dict[str, list[Entry]] = {}
    for first in sorted({*saying, *denying}, key=len, reverse=True):
        word, stem = first.removesuffix("*"), first.endswith("*")
        word = word if word.startswith(NAMES) else word.replace("_", " ")
        entry = Entry(
            word=word,
            stem=stem,
            signs=Branch(first, saying[first], landmarks) if first in saying else None,
            denials=Branch(first, denying[first], landmarks) if first in denying else None,
        )
        if is_unspaced(word[0]):
            whole.setdefault(word[0], []).append(entry)
        elif stem and re.fullmatch(r"\w{3,}", word):
            stems.setdefault(word[:KEY], []).append(entry)
        else:
            whole.setdefault((re.match(r"\.?(\w+)", word) or [word, word])[1], []).append(entry)
    return whole, stems


def _by_first_word(phrases: list[tuple[str, Meaning]]) -> dict[str, list[tuple[str, Meaning]]]:
    """For each first word what may follow it, and what that means."""
    found: dict[str, list[tuple[str, Meaning]]] = {}
    for phrase, meaning in phrases:
        first, _, rest = phrase.partition(" ")
        for word in first.split("|"):
            found.setdefault(word, []).append((rest, meaning))
    return found
