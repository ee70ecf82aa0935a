"""Owns globs and git's ignore rules, as questions about names. Pure, no I/O.

A pattern is matched name by name from the outermost on, as a set of positions in it: time grows with the length of
pattern and path, whatever they are. A backtracking matcher would let a hostile ``.gitignore`` line
(``*a*a*a*a*a*b``) hold the interpreter for half a minute a name, and a thread can't be interrupted there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kimi_mcp.core.errors import InvalidArguments

MOST_BRACES: Final = 64
"""Patterns that one pattern with ``{a,b}`` may stand for."""

LONGEST_RULE: Final = 1000
"""Characters of a line in a .gitignore; a longer one names no file."""

_MAGIC: Final = re.compile(r"[*?\[]")
_BRACES: Final = re.compile(r"\{([^{}]*,[^{}]*)\}")
_TRAILING_SPACES: Final = re.compile(r"(?<!\\)((?:\\\\)*) +$")
_CLASS: Final = re.compile(r"\[:([a-z]+):\]")
_CLASSES: Final = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "space": r"\s",
    "xdigit": "0-9a-fA-F",
    "punct": re.escape("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~") + r"\\",
}


def has_magic(pattern: str) -> bool:
    """Whether a pattern is a glob rather than a name."""
    return bool(_MAGIC.search(pattern) or _BRACES.search(pattern))


def braces_expanded(pattern: str) -> tuple[str, ...]:
    """The patterns for which ``{a,b}`` stands, in order. Raises ``InvalidArguments`` if they are too many."""
    done: list[str] = []
    left = [pattern]
    while left:
        first = left.pop(0)
        found = _BRACES.search(first)
        if found is None:
            done.append(first)
        else:
            left[:0] = [first[: found.start()] + word + first[found.end() :] for word in found[1].split(",")]
        if len(done) + len(left) > MOST_BRACES:
            raise InvalidArguments(
                f"A pattern in `files` stands for more than {MOST_BRACES} patterns.",
                fix="Use fewer braces, or name several patterns.",
            )
    return tuple(dict.fromkeys(done))


@dataclass(frozen=True, slots=True)
class Segment:
    """One name of a pattern, or ``**``."""

    matches: Callable[[str], object] | None
    """Whether a name fits (truthy); None: ``**``, any number of names."""
    literal: str | None
    """The only name that fits, if there is only one."""


ANY_DEPTH: Final = Segment(None, None)
"""``**``."""


def _segment(text: str, *, escapes: bool) -> Segment:
    """One name of a pattern; with ``escapes`` a backslash takes the next character as it is.

    Raises ``ValueError`` for a set that is never closed, or whose range runs backwards.
    """
    if text == "**":
        return ANY_DEPTH
    if not _MAGIC.search(text) and not (escapes and "\\" in text):
        return Segment(text.__eq__, text)
    between_stars = [""]
    position = 0
    while position < len(text):
        letter = text[position]
        if letter == "*":
            between_stars.append("")
        elif letter == "?":
            between_stars[-1] += "."
        elif letter == "[":
            body, position = _set(text, position, escapes=escapes)
            between_stars[-1] += body
        else:
            if letter == "\\" and escapes:
                position += 1
                letter = text[position : position + 1]
                if not letter:
                    raise ValueError("ends with a backslash")
            between_stars[-1] += re.escape(letter)
        position += 1
    first, *rest = between_stars
    if rest:
        # Each star takes as little as it can and is never asked again: that is enough, and no backtracking is left.
        rest = [*(f"(?>.*?{piece})" for piece in rest[:-1] if piece), f".*{rest[-1]}"]
    return Segment(re.compile("".join((first, *rest)), re.DOTALL).fullmatch, None)


def _set(text: str, start: int, *, escapes: bool) -> tuple[str, int]:
    """A set such as ``[a-z]``, ``[!x]`` or ``[[:digit:]]`` as a regular expression, and where it ends."""
    position = start + 1
    negated = text[position : position + 1] in ("!", "^")
    position += negated
    first = position
    members: list[str] = []
    while position < len(text) and (text[position] != "]" or position == first):
        named = _CLASS.match(text, position)
        if named and named[1] in _CLASSES:
            members.append(_CLASSES[named[1]])
            position = named.end()
            continue
        low, position = _member(text, position, escapes=escapes)
        if text[position : position + 1] == "-" and text[position + 1 : position + 2] not in ("", "]"):
            high, position = _member(text, position + 1, escapes=escapes)
            if low > high:
                raise ValueError("a range that runs backwards")
            members.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            members.append(re.escape(low))
    if position >= len(text):
        raise ValueError("a set that is never closed")
    return f"[{'^' if negated else ''}{''.join(members)}]", position


def _member(text: str, position: int, *, escapes: bool) -> tuple[str, int]:
    if escapes and text[position] == "\\" and position + 1 < len(text):
        position += 1
    return text[position], position + 1


def _glob_segment(text: str) -> Segment:
    try:
        return _segment(text, escapes=False)
    except ValueError:
        return Segment(text.__eq__, text)


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern such as ``src/**/*.py``, names counted from the root down."""

    segments: tuple[Segment, ...]
    """``**`` stands for any number of folders, and at the end for everything below."""

    @classmethod
    def of(cls, parts: Sequence[str]) -> Glob:
        """The glob of a pattern that was split into names."""
        return cls(tuple(_glob_segment(part) for part in parts))

    @property
    def start(self) -> tuple[str, ...]:
        """The folders that the pattern names outright, before its first wildcard; never its last name."""
        names: list[str] = []
        for segment in self.segments[:-1]:
            if segment.literal is None:
                break
            names.append(segment.literal)
        return tuple(names)

    def positions(self, parts: Sequence[str]) -> frozenset[int]:
        """Where in the pattern one stands after these names; empty: nothing below can match."""
        positions = _closed({0}, self.segments)
        for name in parts:
            positions = self.step(positions, name)
        return positions

    def step(self, positions: Iterable[int], name: str) -> frozenset[int]:
        """Where one stands after one more name. A wildcard never takes a hidden name: it has to be spelled out."""
        return _step(positions, name, self.segments, hidden_too=False)

    def complete(self, positions: frozenset[int]) -> bool:
        """Whether the names so far are a whole match."""
        return len(self.segments) in positions


def _step(
    positions: Iterable[int], name: str, segments: tuple[Segment, ...], *, hidden_too: bool = True
) -> frozenset[int]:
    after: set[int] = set()
    wild = hidden_too or not name.startswith(".")
    for position in positions:
        if position == len(segments):
            continue
        segment = segments[position]
        if segment.matches is None:
            if wild:
                after.add(position)
        elif (wild or segment.literal is not None) and segment.matches(name):
            after.add(position + 1)
    return _closed(after, segments)


def _closed(positions: set[int], segments: tuple[Segment, ...]) -> frozenset[int]:
    """The positions, and those reached from them by letting ``**`` stand for nothing."""
    for position in tuple(positions):
        while position < len(segments) and segments[position].matches is None:
            position += 1
            positions.add(position)
    return frozenset(positions)


# ------------------------------------------------------------------------------------------------- .gitignore


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """One line of a .gitignore."""

    segments: tuple[Segment, ...]
    """Names counted from the folder of the .gitignore down."""
    ignores: bool
    """False for a line that begins with ``!``: what it matches is kept."""
    folders_only: bool
    """Whether the line ends with ``/``."""

    def matches(self, parts: Sequence[str], *, folder: bool) -> bool:
        """Whether the rule is about this path itself (what lies below an ignored folder is never asked for)."""
        if self.folders_only and not folder:
            return False
        if len(self.segments) == 2 and self.segments[0].matches is None and self.segments[1].matches is not None:
            return bool(self.segments[1].matches(parts[-1]))  # by far the most common: a last name, at any depth
        positions = _closed({0}, self.segments)
        for name in parts[:-1]:
            positions = _step(positions, name, self.segments)
            if not positions:
                return False
        last = len(self.segments) - 1
        if self.segments[last].matches is None:
            return last in positions  # `folder/**`: all below, not the folder itself
        return len(self.segments) in _step(positions, parts[-1], self.segments)


def ignore_rules(text: str, *, between: Callable[[], None] = lambda: None) -> tuple[IgnoreRule, ...]:
    """The rules of a .gitignore, in order (see git's ``gitignore`` page); lines that git can't read are left out.

    ``between`` is called before each line: it may raise to stop.
    """
    rules: list[IgnoreRule] = []
    for line in text.split("\n"):
        between()
        if rule := _rule(line.removesuffix("\r")):
            rules.append(rule)
    return tuple(rules)


def verdict(rules: Sequence[IgnoreRule], parts: Sequence[str], *, folder: bool) -> bool | None:
    """Whether the rules ignore a path, counted from their folder down; None: they say nothing about it."""
    for rule in reversed(rules):
        if rule.matches(parts, folder=folder):
            return rule.ignores
    return None


def _rule(line: str) -> IgnoreRule | None:
    if len(line) > LONGEST_RULE or line.startswith("#"):
        return None
    line = _TRAILING_SPACES.sub(r"\1", line)
    ignores = not line.startswith("!")
    line = line if ignores else line[1:]
    folders_only = line.endswith("/")
    line = line.removesuffix("/")
    anchored = "/" in line
    line = line.removeprefix("/")
    if not line:
        return None
    try:
        segments = [_segment(text, escapes=True) for text in line.split("/")]
    except ValueError:
        return None
    if not anchored:
        segments.insert(0, ANY_DEPTH)
    return IgnoreRule(tuple(segments), ignores, folders_only)
