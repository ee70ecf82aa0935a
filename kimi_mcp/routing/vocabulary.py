"""The words by which a request is known: ``signs.toml`` and the triggers of ``skill.md``. Reads the former.

A phrase is words with a space between them, in lower case. ``a|b`` is either; ``stem*`` any ending, ``*`` any word;
``word?`` may be left out; ``#`` is a number of two to four digits; ``..`` up to 30 characters of the same sentence;
``.png`` the ending of a name; ``new_york`` two words where one stands; a ``^`` in front means the beginning of a text.
Chinese, Japanese and Korean, which don't part their words, match anywhere.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, Generic, TypeVar

from kimi_mcp.skill import Skill, load_skill

UNSPACED = "\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3"
"""Letters of languages that don't part their words, or that glue endings to them: each is a word of its own."""

KEY = 3
"""By how many of its first letters a word with any ending is looked up."""

NUMBER = r"\d{2,4}(?!\d|[.,:]\d)"
"""What ``#`` stands for: neither a digit nor a year with a day, nor a part of a longer number."""

_NUMBER = re.compile(NUMBER)

NAMES = ("kimi_", "run_")
"""Beginnings of words in which a ``_`` is itself."""

OPENING_CHARS = 120
"""How far into a text the beginning of a request is looked for: polite words and denials come before it."""

_BLANK = re.compile(r"\W{0,3}")

_UNSPACED = re.compile(f"[{UNSPACED}]")

_SPACED = re.compile(r"(\w+)")
"""The words of a text that parts them: to split there is twice as fast as to search for what may begin."""

MOST_KNOWN = 20_000
"""How many words are remembered with what may begin at them."""

_GAP = r"[^.!?。！？\n]{0,30}?"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Words that say that something is not wanted."""

    reach: int
    """How many characters of the same clause it denies; 0: it only looks like a denial."""
    behind: bool
    """Whether it denies what stands before it, not what comes after it."""


Meaning = TypeVar("Meaning", Sign, Denial)


class Branch(Generic[Meaning]):
    """All that can follow one first word, by the next word; the longest phrase is found first.

    Patterns are compiled by the first text that needs them: there are hundreds, and most texts need a handful.
    """

    def __init__(self, first: str, phrases: Sequence[tuple[str, Meaning]]) -> None:
        self._after_number = first == "#"
        self._alone = next((meaning for rest, meaning in phrases if not rest), None)
        self._rest = sorted(
            ((rest, meaning) for rest, meaning in phrases if rest),
            key=lambda row: (-len(row[0].split()), "*" in row[0].split()),
        )
        self._keys = [_next_keys(rest) for rest, _ in self._rest]
        self._listed = {key for keys in self._keys for key in keys or ()}
        self._early: dict[str, _Compiled[Meaning] | None] = {}
        self._late: dict[str, _Compiled[Meaning] | None] = {}

    def at(self, text: str, end: int) -> tuple[Meaning, int] | None:
        """What is said where the first word ended, and where that ends."""
        if self._rest:
            start = end + 1 if text.startswith(" ", end) else end
            key = text[start : start + 2]
            if key not in self._listed and not key.isalnum():
                start = _BLANK.match(text, end).end()  # pyright: ignore[reportOptionalMemberAccess] -- it may be empty
                key = text[start : start + 2]
            key = key if key in self._listed else ""
            compiled = self._late if end > OPENING_CHARS else self._early
            known = compiled[key] if key in compiled else self._compile(key, compiled)
            if known is not None and (found := known[0].match(text, end)):
                return known[1][(found.lastindex or 1) - 1], found.end()
        return None if self._alone is None else (self._alone, end)

    def _compile(self, key: str, compiled: dict[str, _Compiled[Meaning] | None]) -> _Compiled[Meaning] | None:
        rows = [
            (rest, meaning)
            for (rest, meaning), keys in zip(self._rest, self._keys, strict=True)
            if (keys is None or key in keys) and (compiled is self._early or not _opens(meaning))
        ]
        pattern = re.compile("|".join(f"({_pattern(rest, after_number=self._after_number)})" for rest, _ in rows))
        compiled[key] = made = (pattern, [meaning for _, meaning in rows]) if rows else None
        return made


_Compiled = tuple[re.Pattern[str], Sequence[Meaning]]
"""A pattern, and what each of its groups means."""


def _opens(meaning: Sign | Denial) -> bool:
    return isinstance(meaning, Sign) and meaning.opening


def _next_keys(rest: str) -> set[str] | None:
    """The two letters with which a phrase can go on; None where anything may come."""
    keys: set[str] = set()
    for slot in rest.split():
        words = slot.removesuffix("?").split("|")
        if slot == ".." or any(word[0] in "#*" or len(word.rstrip("*")) < 2 for word in words):
            return None
        keys |= {word[:2] for word in words}
        if not slot.endswith("?"):
            return keys
    return None


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
        if _is_unspaced(found[0]):
            return len(self.word) if found.startswith(self.word) else 0
        return len(found) if found == self.word or (self.stem and found.startswith(self.word)) else 0

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
    words: re.Pattern[str]
    """Where something may begin; its group is the letter after one of an unspaced language."""
    whole: Mapping[str, Sequence[Entry]]
    """What may begin at a word, by that word; in an unspaced language by its first letter."""
    stems: Mapping[str, Sequence[Entry]]
    """What may begin at a word with such an ending, by its first letters."""
    needed: Mapping[str, Need]
    """Tools that are chosen before the others as soon as they have so many points."""
    attached: Mapping[str, tuple[str, float]]
    """What an attached medium speaks for, and how strongly."""
    lengths: Sequence[tuple[float, str, float]]
    """Up to so many letters a text speaks for that tool so strongly; the shortest first."""
    matter_from: float
    """What stands after the colon of an opening of so many points is its matter, and asks for nothing."""
    known: dict[str, Sequence[tuple[Entry, int]]]
    """What may begin at words that were met before; it is there for speed alone."""
    polite: re.Pattern[str]
    """What may stand before the beginning of a request: polite words, or nothing."""

    def polite_until(self, text: str, start: int) -> int:
        """How far polite words reach from there."""
        found = self.polite.match(text, start)
        return found.end() if found else start

    def entries(self, text: str) -> Iterator[tuple[int, int, Entry]]:
        """Each first word that stands in the text: where it begins and ends, and what may follow it."""
        known = self.known
        for start, stop, word in self._words(text):
            if (entries := known.get(word)) is None:
                entries = self._entries(word)
            for entry, letters in entries:
                if end := start + letters if letters else entry.ends(text, start, stop):
                    yield start, end, entry

    def _words(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Where something may begin: from, to, and the word, or a letter of an unspaced language and the next one."""
        if not text.isascii() and _UNSPACED.search(text):
            for found in self.words.finditer(text):
                start, stop = found.span()
                yield start, stop, found[0] if found.lastindex is None else found[0] + found[1]
            return
        end = 0
        pieces = iter(_SPACED.split(text))
        for between, word in zip(pieces, pieces, strict=False):  # what is behind the last word is no pair
            start = end + len(between)
            end = start + len(word)
            yield start, end, word

    def _entries(self, word: str) -> Sequence[tuple[Entry, int]]:
        """What may begin at a word, the longest first, and its letters, where the word tells them already."""
        if word[0] > "\u2fff":
            found = [entry for entry in self.whole.get(word[0], ()) if entry.word.startswith(word[: len(entry.word)])]
        else:
            stems = self.stems.get(word[:KEY], ())
            found = [*self.whole.get(word, ()), *(entry for entry in stems if word.startswith(entry.word))]
        found += self.whole["#"] if _NUMBER.fullmatch(word) else ()
        if len(self.known) > MOST_KNOWN:
            self.known.clear()
        self.known[word] = entries = tuple((entry, entry.letters(word)) for entry in found)
        return entries


@cache
def read_vocabulary(skill: Skill | None = None) -> Vocabulary:
    """The vocabulary for the tools that the skill lists (without one: the package's own), read once."""
    if skill is None:
        return read_vocabulary(load_skill())
    rows: dict[str, Any] = tomllib.loads((Path(__file__).parent / "signs.toml").read_text("utf-8"))
    listed = {tool.name for tool in skill.tools}
    whole, stems = _index(
        [*_signs(rows["tools"], listed), *_triggers(skill, rows["trigger_points"])], list(_denials(rows["denials"]))
    )
    single = "".join(sorted({key[0] for key in whole if _is_unspaced(key[0])}))
    polite = "|".join(_pattern(phrase, first=True) for phrase in rows["denials"]["polite"])
    return Vocabulary(
        skill=skill,
        words=re.compile(f"[{single}](?=(.?))|[^\\W{UNSPACED}]+", re.DOTALL),
        whole=whole,
        stems=stems,
        needed={
            name: Need(points=row["needs"], gives_way_to=row.get("gives_way_to", inf))
            for name, row in rows["tools"].items()
            if name in listed and "needs" in row
        },
        attached={kind: (row["tool"], row["points"]) for kind, row in rows["attached"].items()},
        lengths=tuple((row.get("up_to", inf), row["tool"], row["points"]) for row in rows["lengths"]),
        matter_from=rows["matter_from"],
        known={},
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
        yield phrase, Sign(phrase=phrase, tool=tool, points=points, opening=said != phrase)


def _triggers(skill: Skill, points: float) -> Iterator[tuple[str, Sign]]:
    for tool in skill.tools:
        for trigger in tool.triggers:
            phrase = trigger.lower() if _is_unspaced(trigger[-1]) else f"{trigger.lower()}*"
            yield phrase, Sign(phrase=phrase, tool=tool.name, points=points, opening=False)


def _denials(rows: Mapping[str, Any]) -> Iterator[tuple[str, Denial]]:
    for phrase in rows["none"]:
        yield phrase, Denial(reach=0, behind=False)
    for row in rows["rows"]:
        for phrase in row["words"]:
            yield phrase, Denial(reach=row["reach"], behind=row.get("behind", False))


# ── the index ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _index(
    signs: list[tuple[str, Sign]], denials: list[tuple[str, Denial]]
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
            signs=Branch(first, saying[first]) if first in saying else None,
            denials=Branch(first, denying[first]) if first in denying else None,
        )
        if _is_unspaced(word[0]):
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


def _is_unspaced(char: str) -> bool:
    return _UNSPACED.match(char) is not None


# ── the grammar ───────────────────────────────────────────────────────────────────────────────────────────────────


def _pattern(phrase: str, *, first: bool = False, after_number: bool = False) -> str:
    """A phrase as a regular expression; unless it is the ``first`` of a text, a blank goes before it."""
    made, counted = "", after_number
    for number, slot in enumerate(phrase.split()):
        if slot == "..":
            made += _GAP
            continue
        words = "|".join(_word(word) for word in slot.removesuffix("?").split("|"))
        blank = "" if first and number == 0 else "[ -]?" if counted else "\\W{0,3}"
        part = f"{blank}(?:{words})"
        counted = slot == "#"  # what is counted follows its number: "in 15. The" counts nothing
        made += f"(?:{part})?" if slot.endswith("?") else part
    return made


def _word(word: str) -> str:
    if word == "#":
        return NUMBER
    stem = word.endswith("*")
    text = re.escape(word.removesuffix("*")).replace("_", "\\W{1,3}")
    return f"{text}\\w{{{0 if text else 1},14}}" if stem else text if _is_unspaced(word[-1]) else f"{text}\\b"
