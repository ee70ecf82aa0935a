"""Matches paths against globs and git's ignore rules. Pure, no I/O.

A pattern becomes one regular expression, in which each wildcard but the last takes as little as it can and is never
retried. That suffices, and takes no longer than the lengths of pattern and path: with backtracking a hostile line of a
``.gitignore`` (``*a*a*a*a*a*b``) would hold the interpreter for half a minute per name.
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

DEEPEST: Final = 64
"""Names in the longest path that a glob matches."""

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


def braces_expanded(pattern: str, argument: str = "files") -> tuple[str, ...]:
    """The patterns to which ``{a,b}`` expands, in order.

    Raises ``InvalidArguments``, which names the ``argument``, if they are too many.
    """
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
                f"A pattern in `{argument}` expands to more than {MOST_BRACES} patterns.",
                fix="Use fewer braces, or name several patterns.",
            )
    return tuple(dict.fromkeys(done))


_NAME: Final = "[^/]+"
_VISIBLE: Final = rf"(?!\.){_NAME}"


def _name_expression(text: str) -> str:
    """The expression for one name of a pattern, in which a backslash escapes.

    Raises ``ValueError`` where git would not parse it.
    """
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
            between_stars[-1] += "[^/]"
        elif token["set"] is not None:
            between_stars[-1] += f"(?!/)[{'^' if token['negated'] else ''}{_MEMBER.sub(_member, token['set'])}]"
        else:
            between_stars[-1] += re.escape(token["escaped"] or token["char"])
    first, *rest = between_stars
    if rest:
        rest = [*(f"(?>[^/]*?{piece})" for piece in rest[:-1] if piece), f"[^/]*{rest[-1]}"]
    expression = "".join((first, *rest))
    try:
        re.compile(expression)
    except re.error:
        raise ValueError("a range that runs backwards, or an empty set") from None
    return expression


def _member(token: re.Match[str]) -> str:
    if token["range"]:
        return "-"
    return _CLASSES.get(token["name"], "") or re.escape(token["escaped"] or token[0])


def _path_expression(names: Iterable[str], folder: str) -> str:
    """The expression for a path; of its ``names``, ``**`` is any number of folders that match ``folder``."""
    runs: list[list[str]] = [[]]
    for name in names:
        if name != "**":
            runs[-1].append(name)
        elif runs[-1] or len(runs) == 1:
            runs.append([])
    first, *middle = ("/".join(run) for run in runs)
    if not middle:
        return first
    last = middle.pop()
    between = "".join(f"(?>(?:{folder}/)*?{run}/)" for run in middle)
    return f"{first and first + '/'}{between}(?:{folder}/)*{last or folder}"


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern such as ``src/**/*.py``. ``**`` matches any number of folders, and at the end everything below.

    No wildcard matches a hidden name: it has to be spelled out.
    """

    start: tuple[str, ...]
    """The folders before the first wildcard; never the last name."""
    matches: Callable[[str], object]
    """Whether the path of a file matches (truthy)."""
    leads_to: Callable[[str], object]
    """Whether something below the path of a folder may match (truthy)."""

    @classmethod
    def of(cls, parts: Sequence[str], *, plain: int = 0) -> Glob:
        """The glob of a pattern that was split into names, of which the first ``plain`` have no wildcard."""
        names = [re.escape(part) if at < plain else _glob_expression(part) for at, part in enumerate(parts)]
        names = [name for name, before in zip(names, ["", *names], strict=False) if not name == before == "**"]
        wild = (at for at, part in enumerate(parts) if at >= plain and _MAGIC.search(part))
        folders = names[: 2 * DEEPEST] if names[-1:] == ["**"] else names[: 2 * DEEPEST][:-1]
        above = (_path_expression(folders[: at + 1], _VISIBLE) for at in range(len(folders)))
        return cls(
            start=tuple(parts[: min(next(wild, len(parts)), max(len(parts) - 1, 0))]),
            matches=re.compile(_path_expression(names, _VISIBLE)).fullmatch,
            leads_to=re.compile("|".join(above) or "(?!)").fullmatch,
        )


def _glob_expression(text: str) -> str:
    if text == "**" or not _MAGIC.search(text):
        return text if text == "**" else re.escape(text)
    try:
        return r"(?!\.)" + _name_expression(text.replace("\\", "\\\\"))
    except ValueError:
        return re.escape(text)


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """One line of a .gitignore."""

    matches: Callable[[str], object]
    """Whether a path, relative to the folder of the .gitignore, matches (truthy); not what is below one."""
    ignores: bool
    """False for a line that begins with ``!``: what it matches is kept."""
    folders_only: bool
    """Whether the line ends with ``/``."""


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
    path = "/".join(parts)
    for rule in reversed(rules):
        if (folder or not rule.folders_only) and rule.matches(path):
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
        names = [text if text == "**" else _name_expression(text) for text in line.split("/")]
    except ValueError:
        return None
    expression = _path_expression(names if anchored else ["**", *names], _NAME)
    return IgnoreRule(re.compile(expression).fullmatch, ignores, folders_only)
