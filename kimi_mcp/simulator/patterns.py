"""Owns texts that fit a regular expression, where a schema asks for one. Pure, no I/O.

The expression itself is never run: it may be one that takes for ever.
"""

from __future__ import annotations

import re
import string

_MOST = 1000
"""Characters of a text, and of each repetition in it, at most."""

_CANDIDATES = "a0A" + string.printable + "é一"
_ONE = re.compile(r"\\x..|\\u....|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
"""What stands for one character or for a place."""
_PLACES = ("^", "$", r"\b", r"\B", r"\A", r"\Z", r"\z")
_GROUP = re.compile(r"\((?:\?:|\?P?<\w+>)?(?!\?)")
_REPEAT = re.compile(r"(?:([*+?])|\{(\d+)(,)?\d*\})[?+]?")


def matching_text(pattern: str, least: int) -> str | None:
    """A text that fits, of that many characters where it can grow; None where the expression is not understood."""
    try:
        made = _PatternReader(pattern, 1).whole()
        return made if len(made) >= least else _PatternReader(pattern, least).whole()
    except (ValueError, re.error, RecursionError):
        return None


class _PatternReader:
    def __init__(self, pattern: str, times: int) -> None:
        self.left = pattern
        self.times = times
        """How often what may be repeated without end is."""

    def whole(self) -> str:
        made = self.branches()
        if self.left:
            raise ValueError(self.left)
        return made

    def branches(self) -> str:
        """The first of the alternatives."""
        first = self.sequence()
        while self.left.startswith("|"):
            self.left = self.left[1:]
            self.sequence()
        return first

    def sequence(self) -> str:
        made = ""
        while self.left and self.left[0] not in "|)":
            one = self.group() if self.left[0] == "(" else self.character()
            if found := _REPEAT.match(self.left):
                self.left = self.left[found.end() :]
                one *= min(self.count(*found.groups()), _MOST)
            made = (made + one)[:_MOST]
        return made

    def count(self, sign: str | None, low: str | None, open_end: str | None) -> int:
        if sign == "?" or (low and not open_end):
            return int(low or 1)
        return max(int(low or 1), self.times)

    def group(self) -> str:
        opening = _GROUP.match(self.left)
        if opening is None:
            raise ValueError(self.left)
        self.left = self.left[opening.end() :]
        made = self.branches()
        if not self.left.startswith(")"):
            raise ValueError(self.left)
        self.left = self.left[1:]
        return made

    def character(self) -> str:
        found = _ONE.match(self.left)
        if found is None or found[0] in ("[", "\\"):
            raise ValueError(self.left)
        self.left = self.left[found.end() :]
        if found[0] in _PLACES:
            return ""
        one = re.compile(found[0])
        return next((each for each in _CANDIDATES + found[0] if one.fullmatch(each)), "")
