"""Matches names against globs and git's ignore rules. Pure, no I/O.

A pattern is matched name by name, as a set of positions in it, in time linear in its length. With backtracking a
hostile ``.gitignore`` line (``*a*a*a*a*a*b``) would hold the interpreter for half a minute per name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kimi_mcp.core.errors import InvalidArguments

MOST_BRACES: Final = 64
"""Patterns to which one pattern with ``{a,b}`` may expand."""

LONGEST_RULE: Final = 1000
"""Characters of a line in a .gitignore; a longer one is ignored."""

_MAGIC: Final = re.compile(r"[*?\[]")
_BRACES: Final = re.compile(r"\{([^{}]*,[^{}]*)\}")
_TRAILING_SPACES: Final = re.compile(r"(?<!\\)((?:\\\\)*) +$")
_TOKEN: Final = re.compile(
    r"(?P<star>\*)|(?P<any>\?)|\[(?P<negated>[!^])?(?P<set>\]?(?:\[:[a-z]+:\]|\\.|[^\]\\])*)\]"
    r"|\\(?P<escaped>.)|(?P<char>[^\\\[])",
    re.DOTALL,
)
_MEMBER: Final = re.compile(r"\[:(?P<name>[a-z]+):\]|\\(?P<escaped>.)|(?P<range>(?<=[^-])-(?=[^-]))|.", re.DOTALL)
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
    """The patterns to which ``{a,b}`` expands, in order. Raises ``InvalidArguments`` if they are too many."""
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
                f"A pattern in `files` expands to more than {MOST_BRACES} patterns.",
                fix="Use fewer braces, or name several patterns.",
            )
    return tuple(dict.fromkeys(done))


@dataclass(frozen=True, slots=True)
class Segment:
    """One name of a pattern, or ``**``."""

    matches: Callable[[str], object] | None
    """Whether a name matches (truthy); None: ``**``, any number of names."""
    literal: str | None
    """The only name that matches, if there is only one."""


ANY_DEPTH: Final = Segment(None, None)
"""``**``."""


def _segment(text: str) -> Segment:
    """One name of a pattern, in which a backslash escapes. Raises ``ValueError`` where git would not parse it."""
    if text == "**":
        return ANY_DEPTH
    if not _MAGIC.search(text) and "\\" not in text:
        return Segment(text.__eq__, text)
    between_stars = [""]
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError("a set that is never closed, or a backslash at the end")
        position = token.end()
        if token["star"]:
            between_stars.append("")
        elif token["any"]:
            between_stars[-1] += "."
        elif token["set"] is not None:
            between_stars[-1] += f"[{'^' if token['negated'] else ''}{_MEMBER.sub(_member, token['set'])}]"
        else:
            between_stars[-1] += re.escape(token["escaped"] or token["char"])
    first, *rest = between_stars
    if rest:
        # Each star takes as little as it can, and is never retried: that suffices, and nothing backtracks.
        rest = [*(f"(?>.*?{piece})" for piece in rest[:-1] if piece), f".*{rest[-1]}"]
    try:
        return Segment(re.compile("".join((first, *rest)), re.DOTALL).fullmatch, None)
    except re.error:
        raise ValueError("a range that runs backwards, or an empty set") from None


def _member(token: re.Match[str]) -> str:
    if token["range"]:
        return "-"
    return _CLASSES.get(token["name"], "") or re.escape(token["escaped"] or token[0])


def _glob_segment(text: str) -> Segment:
    try:
        return _segment(text.replace("\\", "\\\\"))
    except ValueError:
        return Segment(text.__eq__, text)


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern such as ``src/**/*.py``, names counted from the root down."""

    segments: tuple[Segment, ...]
    """``**`` matches any number of folders, and at the end everything below."""

    @classmethod
    def of(cls, parts: Sequence[str]) -> Glob:
        """The glob of a pattern that was split into names."""
        return cls(tuple(_glob_segment(part) for part in parts))

    @property
    def start(self) -> tuple[str, ...]:
        """The folders before the first wildcard; never the last name."""
        names: list[str] = []
        for segment in self.segments[:-1]:
            if segment.literal is None:
                break
            names.append(segment.literal)
        return tuple(names)

    def positions(self, parts: Sequence[str]) -> frozenset[int]:
        """The positions in the pattern after these names; empty: nothing below can match."""
        positions = _closed({0}, self.segments)
        for name in parts:
            positions = self.step(positions, name)
        return positions

    def step(self, positions: Iterable[int], name: str) -> frozenset[int]:
        """The positions after one more name. No wildcard matches a hidden name: it has to be spelled out."""
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
    """The positions, and those reached from them where ``**`` matches nothing."""
    for position in tuple(positions):
        while position < len(segments) and segments[position].matches is None:
            position += 1
            positions.add(position)
    return frozenset(positions)


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """One line of a .gitignore."""

    segments: tuple[Segment, ...]
    """Names relative to the folder of the .gitignore."""
    ignores: bool
    """False for a line that begins with ``!``: what it matches is kept."""
    folders_only: bool
    """Whether the line ends with ``/``."""

    def matches(self, parts: Sequence[str], *, folder: bool) -> bool:
        """Whether the rule matches this path itself (nothing below an ignored folder is matched)."""
        if self.folders_only and not folder:
            return False
        if len(self.segments) == 2 and self.segments[0].matches is None and self.segments[1].matches is not None:
            return bool(self.segments[1].matches(parts[-1]))  # the usual rule: a last name, at any depth
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
    """The rules of a .gitignore, in order (see git's ``gitignore`` page), without lines that git can't parse.

    ``between`` is called before each line, and may raise to stop.
    """
    rules: list[IgnoreRule] = []
    for line in text.split("\n"):
        between()
        if rule := _rule(line.removesuffix("\r")):
            rules.append(rule)
    return tuple(rules)


def verdict(rules: Sequence[IgnoreRule], parts: Sequence[str], *, folder: bool) -> bool | None:
    """Whether the rules ignore a path, relative to their folder; None: no rule matches."""
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
        segments = [_segment(text) for text in line.split("/")]
    except ValueError:
        return None
    if not anchored:
        segments.insert(0, ANY_DEPTH)
    return IgnoreRule(tuple(segments), ignores, folders_only)
