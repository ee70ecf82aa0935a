"""What a phrase of ``signs.toml`` is, and what may follow its first word. Pure.

A phrase is words with a space between them, in lower case. ``a|b`` is either; ``stem*`` any ending, ``*`` any word;
``word?`` may be left out; ``#`` is a number of two to four digits; ``..`` up to 30 characters of the same sentence;
``.png`` the ending of a name; ``new_york`` two words where one stands; a ``^`` in front means the beginning of a text.
Chinese, Japanese and Korean, which don't part their words, match anywhere.

To search for what comes behind a ``..`` or a ``*`` takes longer than all the rest. A phrase that has one is tried only
in a text that holds a word that it needs behind that: ``Landmarks`` knows these words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Generic, TypeVar

UNSPACED = "\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3"
"""Letters of languages that don't part their words, or that glue endings to them: each is a word of its own."""

KEY = 3
"""By how many of its first letters a word with any ending is looked up."""

NUMBER = r"\d{2,4}(?!\d|[.,:]\d)"
"""What ``#`` stands for: neither a digit nor a year with a day, nor a part of a longer number."""

OPENING_CHARS = 120
"""How far into a text the beginning of a request is looked for: polite words and denials come before it."""

ANYWHERE = 1
"""What a phrase needs that needs no landmark: a bit that every text holds."""

STOP = "\n\n"
"""What has to stand behind a text that a branch is asked about: no letter, so that it can be no part of a phrase."""

GUARDED_CHARS = 80
"""How far three words of any kind reach, with the blanks around them and the word that they lead to."""

_BLANK = re.compile(r"\W{0,3}")

_GAP = r"[^.!?。！？\n]{0,30}?"

_UNSPACED = re.compile(f"[{UNSPACED}]")

_SPACED_WORD = re.compile(f"[^\\W{UNSPACED}]+")

_TWO_DIGITS = re.compile(r"\d\d")

_LETTER = re.compile(r"\w")

_LANDMARK = re.compile(r"#|\w(?!\w?\*$)")
"""A word that can be a landmark: any but a stem of one or two letters, for stems are looked up by ``KEY`` letters."""

Meaning = TypeVar("Meaning")

_Match = Callable[[str, int], "re.Match[str] | None"]


def is_unspaced(char: str) -> bool:
    """Whether a letter is a word of its own."""
    return _UNSPACED.match(char) is not None


# ── the grammar ───────────────────────────────────────────────────────────────────────────────────────────────────


def pattern(phrase: str, *, first: bool = False, after_number: bool = False) -> str:
    """A phrase as a regular expression; unless it is the ``first`` of a text, a blank goes before it."""
    made, counted = "", after_number
    for number, slot in enumerate(phrase.split()):
        if slot == "..":
            made += _GAP
            continue
        words = _either([_atoms(word) for word in slot.removesuffix("?").split("|")])
        blank = "" if first and number == 0 else "[ -]?" if counted else r"\W{0,3}"
        part = f"{blank}{words}"
        counted = slot == "#"  # what is counted follows its number: "in 15. The" counts nothing
        made += f"(?:{part})?" if slot.endswith("?") else part
    return made


def _atoms(word: str) -> Sequence[str]:
    """A word as regular expressions, one for each letter, and one for what ends it."""
    if word == "#":
        return [NUMBER]
    core = word.removesuffix("*")
    letters = [r"\W{1,3}" if letter == "_" else re.escape(letter) for letter in core]
    if core != word:
        return [*letters, rf"\w{{{0 if core else 1},14}}"]
    return letters if is_unspaced(word[-1]) else [*letters, r"\b"]


def _either(words: Sequence[Sequence[str]]) -> str:
    """Any of the words, the first of them first; what several begin with is looked at once: ``th(?:at|is)``."""
    if len(words) == 1:
        return "".join(words[0])
    letters = all(word and len(word[0].lstrip("\\")) == 1 and word[0] != r"\b" for word in words)
    groups: list[tuple[str, list[Sequence[str]]]] = []
    known: dict[str, list[Sequence[str]]] = {}
    for first, *rest in (word or [""] for word in words):
        if not letters and (not groups or groups[-1][0] != first):
            known.clear()  # only letters never match where another one does, and may change places
        if first not in known:
            groups.append((first, known.setdefault(first, [])))
        known[first].append(rest)
    made = [first + (_either(rests) if any(rests) else "") for first, rests in groups]
    return made[0] if len(made) == 1 else f"(?:{'|'.join(made)})"


def _next_keys(rest: str) -> set[str] | None:
    """The two letters with which a phrase can go on, or the one that is a word; None where anything may come."""
    keys: set[str] = set()
    for slot in rest.split():
        words = slot.removesuffix("?").split("|")
        if slot == ".." or not all(map(_LETTER.match, words)):
            return None
        keys |= {word.rstrip("*")[:2] for word in words}
        if not slot.endswith("?"):
            return keys
    return None


# ── landmarks ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Landmarks:
    """The words that phrases need behind a gap: a bit for each place that one of several words must fill.

    The blank between two words of a phrase may be empty, so that one of its words may begin in the middle of a text's:
    a text is said to hold whatever its words end with ("screenshot" holds "shot").
    """

    def __init__(self) -> None:
        self._bits: dict[str, int] = {}
        self._whole: dict[str, int] = {}
        self._stems: dict[str, list[tuple[str, int]]] = {}
        self._letters: dict[str, int] = {}

    def needed_by(self, rest: str) -> int:
        """The bit of what the rest of a phrase must find behind a gap; ``ANYWHERE`` if there is no such thing."""
        gap = False
        for slot in rest.split():
            words = slot.removesuffix("?").split("|")
            if gap and slot != ".." and not slot.endswith("?") and all(map(_LANDMARK.match, words)):
                return self._bit(slot)
            gap = gap or slot == ".." or "*" in words
        return ANYWHERE

    def _bit(self, slot: str) -> int:
        if slot not in self._bits:
            self._bits[slot] = bit = ANYWHERE << (len(self._bits) + 1)
            for word in slot.split("|"):
                self._mark(word.replace("_", " "), bit)
        return self._bits[slot]

    def _mark(self, word: str, bit: int) -> None:
        if is_unspaced(word[0]):
            self._letters[word[0]] = self._letters.get(word[0], 0) | bit
        elif word.endswith("*") and len(word) > KEY and _SPACED_WORD.fullmatch(word, 0, len(word) - 1):
            self._stems.setdefault(word[:KEY], []).append((word[:-1], bit))
        else:  # "#" as well; of words with a mark between them the first
            begins = (_SPACED_WORD.match(word) or [word])[0]
            self._whole[begins] = self._whole.get(begins, 0) | bit

    def in_word(self, word: str) -> int:
        """The bits of what a word of a text ends with; of what may have any ending, of what it holds."""
        bits = self._whole.get("#", 0) if _TWO_DIGITS.search(word) else 0
        for at in range(len(word)):
            bits |= self._whole.get(word[at:], 0)
            for stem, bit in self._stems.get(word[at : at + KEY], ()):
                bits |= bit if word.startswith(stem, at) else 0
        return bits

    def at_letter(self, letter: str) -> int:
        """The bits of what begins with a letter of an unspaced language."""
        return self._letters.get(letter, 0)

    @property
    def letters(self) -> Set[str]:
        """The letters of unspaced languages with which a landmark begins."""
        return self._letters.keys()


# ── what follows a first word ─────────────────────────────────────────────────────────────────────────────────────


class Ways(Generic[Meaning]):
    """Phrases that go on behind one first word, the first of them first.

    They are compiled by the first text that may hold them: there are hundreds, and most texts need a handful.
    """

    __slots__ = ("_rows", "match", "meanings", "needs")

    def __init__(self, rows: Sequence[_Row[Meaning]]) -> None:
        self._rows = rows
        self.needs = rows[0].needs
        """The landmark without which none of them can stand in a text."""
        self.meanings = [row.meaning for row in rows]
        """What each group of the pattern says."""
        self.match: _Match = self._first_match
        """Holds the phrases against a text, from where the first word ended."""

    def _first_match(self, text: str, end: int) -> re.Match[str] | None:
        sources = (pattern(row.rest, after_number=row.after_number) for row in self._rows)
        match = re.compile("|".join(f"({source})" for source in sources)).match
        self.match = _guarded(match, self._rows[0].rest) if len(self._rows) == 1 else match
        return self.match(text, end)


def _guarded(match: _Match, rest: str) -> _Match:
    """A search that first looks for what two or three words of any kind lead to, if a phrase begins with such.

    Each of them has fourteen ends, and all would be tried in vain where what follows does not stand near.
    """
    words, _, led_to = rest.rpartition("*? ")
    if words not in ("*? ", "*? *? "):
        return match
    slot = led_to.split()[0]
    if slot == ".." or slot.endswith("?"):
        return match  # nothing that has to stand there
    leads = re.compile(_either([_atoms(word) for word in slot.split("|")])).search
    return lambda text, end: match(text, end) if leads(text, end, end + GUARDED_CHARS) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row(Generic[Meaning]):
    """How a phrase goes on."""

    rest: str
    """It, without the first word."""
    keys: Set[str] | None
    """What can come next; None: anything."""
    needs: int
    """The bit of its landmark."""
    after_number: bool
    """Whether its first word is a number."""
    meaning: Meaning
    """What it says."""


class _ByKey(Generic[Meaning]):
    """The ways to go on, by the two letters that come next, else by the next letter, else whatever comes."""

    def __init__(self, rows: Sequence[_Row[Meaning]], made: dict[tuple[int, ...], Ways[Meaning]]) -> None:
        """``made`` holds the ways that are there already, so that none is compiled twice."""

        def ways(rows: Iterable[_Row[Meaning]]) -> Sequence[Ways[Meaning]]:
            # Neighbours with one landmark share a pattern; to gather all of them would change which is found first.
            groups = [list(some) for _, some in groupby(rows, attrgetter("needs"))]
            return [made.setdefault(tuple(map(id, some)), Ways(some)) for some in groups]

        listed = {key for row in rows for key in row.keys or ()}
        self.firsts = {key[0] for key in listed}
        self.ways = {key: ways(row for row in rows if row.keys is None or {key, key[0]} & row.keys) for key in listed}
        self.rest = ways(row for row in rows if row.keys is None)


class Branch(Generic[Meaning]):
    """All that can follow one first word, by the next word; the longest phrase is found first."""

    def __init__(self, first: str, phrases: Sequence[tuple[str, Meaning]], landmarks: Landmarks) -> None:
        self._alone = next((meaning for rest, meaning in phrases if not rest), None)
        rows = sorted(
            ((rest, meaning) for rest, meaning in phrases if rest),
            key=lambda row: (-len(row[0].split()), "*" in row[0].split()),
        )
        self._rows = [
            _Row(
                rest=rest,
                keys=_next_keys(rest),
                needs=landmarks.needed_by(rest),
                after_number=first == "#",
                meaning=meaning,
            )
            for rest, meaning in rows
        ]
        self._made: dict[tuple[int, ...], Ways[Meaning]] = {}

    @cached_property
    def _early(self) -> _ByKey[Meaning]:
        return _ByKey(self._rows, self._made)

    @cached_property
    def _late(self) -> _ByKey[Meaning]:
        """The same where no request begins any more."""
        return _ByKey([row for row in self._rows if not getattr(row.meaning, "opening", False)], self._made)

    def may_go_on(self, letter: str) -> bool:
        """Whether the first word alone says something, or something can follow that begins with the letter."""
        return self._alone is not None or bool(self._early.rest) or letter in self._early.firsts

    def at(self, text: str, end: int, held: int) -> tuple[Meaning, int] | None:
        """What is said where the first word ended, and where that ends; the text itself ends with ``STOP``.

        ``held`` are the bits of the landmarks that it holds.
        """
        if self._rows:
            known = self._late if end > OPENING_CHARS else self._early
            start = end + 1 if text[end] == " " else end
            letter = text[start]
            if letter not in known.firsts and not letter.isalnum():
                start = _BLANK.match(text, end).end()  # pyright: ignore[reportOptionalMemberAccess] -- it may be empty
                letter = text[start : start + 1]
            ways = known.rest
            if letter in known.firsts:
                ways = known.ways.get(text[start : start + 2]) or known.ways.get(letter) or ways
            for some in ways:
                if some.needs & held and (found := some.match(text, end)):
                    return some.meanings[(found.lastindex or 1) - 1], found.end()
        return None if self._alone is None else (self._alone, end)
