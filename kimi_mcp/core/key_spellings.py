r"""How a secret may be spelled, and where a spelling is found in a text. Pure, no I/O.

A secret and a text are compared by their letters and digits alone, in any case and width. Characters that are written
as several (``%73``, ``\u0073``, ``&#115;``) are read as what they mean, several times over if need be.
"""

from __future__ import annotations

import base64
import itertools
import json
import operator
import re
import unicodedata
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from typing import Final, cast
from urllib.parse import quote, quote_plus

SHORTEST_INNER: Final = 6
"""Characters of base64 that are distinguished from ordinary words."""

WIDEST_GAP: Final = 32
"""Characters between two letters of a secret at most: line breaks, blanks, dashes, invisible ones."""

WIDEST_LETTER: Final = 64
"""Characters that a letter of a secret may take, escaped and with what follows it."""

LONGEST_OPEN: Final = 2048
"""Characters at the end of a growing text that are looked at for the beginning of a secret."""

MOST_LEVELS: Final = 3
"""How often an escaped text is unescaped: ``%2573`` is ``%73`` is ``s``."""

LARGEST_BLOCK: Final = 32
"""Letters of a secret that are looked up at once."""

_NO_LETTERS: Final = bytes(byte for byte in range(128) if not chr(byte).isalnum())
_IS_LETTER: Final = bytes(byte < 128 and chr(byte).isalnum() for byte in range(256))
_LOWER: Final = bytes(range(256)).lower()

_ESCAPED: Final = re.compile(
    r"((?<!\\)\\+ud[89ab][0-9a-f]{2}\\+ud[c-f][0-9a-f]{2}"
    r"|(?<!\\)\\+(?:(?-i:U)[0-9a-f]{8}|u[0-9a-f]{4}|u\{[0-9a-f]{1,8}\}|x[0-9a-f]{2}|[01][0-7]{2})|%[0-9a-f]{2}"
    r"|&(?:\#\d{1,7};?|\#x[0-9a-f]{1,6};?|[a-z]{2,8};)"
    r"|\x1b\[[0-?]{0,24}[ -/]{0,4}[@-~])",
    re.IGNORECASE,
)
"""A character that is written as several, or several that a terminal does not show (a colour, say). Backslashes are
taken from the first of a run on: from each of them on, a run of thousands would take minutes."""

_PAIR: Final = re.compile(r"\\+u(d[89ab]..)\\+u(d[c-f]..)", re.IGNORECASE)
"""A character beyond the first 65,536, as JSON escapes it."""

_BLANK_ESCAPE: Final = re.compile(r"(\\[nrt])")
"""Line ends and tabs as JSON and source code write them."""

_OTHER_WIDTH: Final = re.compile(
    "([\u00aa\u00b2\u00b3\u00b9\u00ba\u1d2c-\u1d6a\u2070-\u209f\u2100-\u2149\u2460-\u24ff\uff10-\uff5a"
    "\U0001d400-\U0001d7ff\U0001fbf0-\U0001fbf9])"
)
"""Letters and digits of another width or style that may be one of ours."""

_HALF_ESCAPED: Final = re.compile(
    r"(?:\\+(?:u\{?[0-9a-f]{0,8}|x[0-9a-f]?|[01][0-7]?)?|%[0-9a-f]?|\x1b(?:\[[0-?]{0,24}[ -/]{0,4})?|&\#?\w{0,8})\Z",
    re.IGNORECASE,
)
"""What may become one."""


_in_usual_width = partial(unicodedata.normalize, "NFKC")


class View:
    """A text as it may be read, with the place of each of its characters in the original text."""

    def __init__(self, text: str, before: View | None = None, old: Sequence[str] = (), new: Sequence[str] = ()) -> None:
        """``text`` is ``before.text`` with each of the pieces ``old`` written as the one of ``new``."""
        self.text = text
        self.letters = _letters(text)
        """Its letters and digits, those of ASCII alone, in lower case."""
        self._before, self._old, self._new = before, old, new
        self._old_starts = self._new_starts = list[int]()

    @cached_property
    def places(self) -> array[int]:
        """Which character of ``text`` each of ``letters`` is."""
        are_letters = self.text.encode("ascii", "replace").translate(_IS_LETTER)
        return array("L", itertools.compress(range(len(self.text)), are_letters))

    def together(self, first: int, end: int) -> bool:
        """Whether those of ``letters`` are so close together that they may be one secret."""
        places = self.places[first:end]
        return max(map(operator.sub, places[1:], places), default=0) <= WIDEST_GAP

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The span of the characters ``first`` to ``last`` of ``text`` in the original text."""
        view = self
        while view._before is not None:
            first, last = view._old_place(first, end=False), view._old_place(last, end=True)
            view = view._before
        return first, last + 1

    def _old_place(self, at: int, *, end: bool) -> int:
        if not self._new_starts:
            self._old_starts = list(itertools.accumulate(map(len, self._old), initial=0))
            self._new_starts = list(itertools.accumulate(map(len, self._new), initial=0))
        piece = bisect_right(self._new_starts, at, hi=len(self._new)) - 1
        start, size = self._old_starts[piece], len(self._old[piece])
        if size == len(self._new[piece]):
            return start + at - self._new_starts[piece]
        return start + size - 1 if end else start

    def rewritten(self, pattern: re.Pattern[str], meaning: Callable[[str], str]) -> View:
        """The same text with whatever ``pattern`` (one group, around it all) matches read as ``meaning`` says."""
        old = pattern.split(self.text)
        if len(old) == 1:
            return self
        new = old.copy()
        new[1::2] = map({found: meaning(found) for found in set(old[1::2])}.__getitem__, old[1::2])
        return self if new == old else View("".join(new), self, old, new)


def views(text: str) -> Iterator[View]:
    """The text as it is, and unescaped as often as that changes it."""
    view = View(text)
    yield _of_usual_width(view)
    if not is_marked(text):
        return
    if "\\" in text:
        view = view.rewritten(_BLANK_ESCAPE, lambda _: " ")
        yield _of_usual_width(view)
    for _ in range(MOST_LEVELS):
        following = view.rewritten(_ESCAPED, _meant)
        if following is view:
            return
        view = following
        yield _of_usual_width(view)


def _of_usual_width(view: View) -> View:
    return view if view.text.isascii() else view.rewritten(_OTHER_WIDTH, _in_usual_width)


class Forms:
    """Secrets and their spellings, sought by letters and digits alone."""

    __slots__ = ("_blocks", "_size", "overlap", "plain", "spelled")

    def __init__(self, plain: Iterable[str], spelled: Iterable[bytes]) -> None:
        self.plain = tuple(sorted(plain, key=lambda form: (-len(form), form)))
        self.spelled = tuple(sorted(spelled, key=lambda form: (-len(form), form)))
        self.overlap = WIDEST_LETTER * max(map(len, self.spelled), default=0)
        # Cut a text into blocks of this size: one of them begins in the first half of any form and is within it. So
        # one look-up for each block finds every form, and which part of the form the block is.
        self._size = min(LARGEST_BLOCK, (min(map(len, self.spelled), default=1) + 1) // 2)
        self._blocks: dict[bytes, list[tuple[bytes, int]]] = {}
        for form in self.spelled:
            for at in range(self._size):
                self._blocks.setdefault(form[at : at + self._size], []).append((form, at))

    def begun(self, letters: bytes) -> int:
        """How many letters at the end may begin a form."""
        return max((prefix_at_end(letters, form) for form in self.spelled), default=0)

    def spans(self, view: View) -> Iterator[tuple[int, int]]:
        """The span of each secret in the original text. The cost grows with the text's length alone."""
        letters, size = view.letters, self._size
        blocks = [letters[at : at + size] for at in range(0, len(letters), size)]
        if self._blocks.keys().isdisjoint(blocks):
            return  # as nearly always
        for number, block in enumerate(blocks):
            for form, at in self._blocks.get(block, ()):
                first = number * size - at
                if first >= 0 and letters.startswith(form, first):
                    last = first + len(form) - 1
                    if view.together(first, last + 1):
                        yield view.span(view.places[first], view.places[last])

    def opens(self, view: View) -> int:
        """Where in the original text a secret may begin that has not ended yet; its length where none may."""
        size = len(view.text)
        whole = len(without_half(view.text))
        found = self._begins(view, size)
        return found if whole == size else min(found, view.span(whole, whole)[0], self._begins(view, whole))

    def _begins(self, view: View, size: int) -> int:
        """Likewise for the first ``size`` characters of a view."""
        places = view.places[: bisect_left(view.places, size)]
        letters, most = view.letters[: len(places)], 0
        if places and size - places[-1] <= WIDEST_GAP:
            for form in self.spelled:
                length = prefix_at_end(letters, form)
                while length > most and not view.together(len(places) - length, len(places)):
                    length = prefix_at_end(letters[1 - length :], form) if length > 1 else 0
                most = max(most, length)
        first = places[-most] if most else len(view.text) - 1
        return view.span(first, first)[0 if most else 1]


def without_half(text: str) -> str:
    """The text without an escape at its end that has only begun."""
    half = _HALF_ESCAPED.search(text, max(0, len(text) - WIDEST_LETTER))
    return text[: half.start()] if half else text


def bare(text: str) -> bytes:
    """The letters and digits of a text, in lower case and usual width."""
    return _letters(text if text.isascii() else _OTHER_WIDTH.sub(lambda found: _in_usual_width(found[0]), text))


def _letters(text: str) -> bytes:
    return text.encode("ascii", "ignore").translate(_LOWER, _NO_LETTERS)


def is_marked(text: str) -> bool:
    """Whether anything in a text may be escaped."""
    return "%" in text or "\\" in text or "&" in text or "\x1b" in text


@lru_cache(maxsize=1024)
def _meant(escape: str) -> str:
    """The one character that is written as several, a blank for what is not shown; what means none as it is."""
    if escape[0] == "\x1b":
        return " "
    if escape[0] == "&":
        import html  # its table of names is seldom needed

        entity = escape if escape[-1] == ";" else f"{escape};"
        meant = html.unescape(entity)
        return escape if meant == entity else meant[:1]
    if pair := _PAIR.fullmatch(escape):
        return chr(0x10000 + (int(pair[1], 16) - 0xD800 << 10) + int(pair[2], 16) - 0xDC00)
    digits = escape.lstrip("\\%").strip("uUxX{}")
    octal = escape[0] == "\\" and escape.lstrip("\\")[0] in "01"
    code = int(digits, 8 if octal else 16)
    return chr(code) if code < 0x110000 else escape


def prefix_at_end(text: bytes | str, form: bytes | str) -> int:
    """How many characters at the end of ``text`` begin ``form`` without being all of it."""
    text = cast(str, text)  # the same for both
    form = cast(str, form)
    head, at = form[:2], max(0, len(text) - len(form) + 1)
    while (at := text.find(head, at)) >= 0:
        if form.startswith(text[at:]):
            return len(text) - at
        at += 1
    return 1 if text.endswith(form[:1]) else 0


# ── encodings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def spellings(secret: str) -> Iterator[str]:
    """Encodings of a secret that differ by more than case, escapes and separators."""
    raw = secret.encode("utf-8", "replace")
    yield secret
    yield secret[::-1]
    yield raw.hex()
    yield from _aligned(raw, base64.b64encode, bytes_at_once=3, bits=6)
    yield from _aligned(secret.encode("utf-16-le", "replace"), base64.b64encode, bytes_at_once=3, bits=6)
    yield from _aligned(raw, base64.b32encode, bytes_at_once=5, bits=5)


def _aligned(raw: bytes, encode: Callable[[bytes], bytes], *, bytes_at_once: int, bits: int) -> Iterator[str]:
    """A secret within a longer text that is encoded: the characters whose bits are all the secret's own."""
    for offset in range(bytes_at_once):
        encoded = encode(bytes(offset) + raw).decode()
        yield encoded[-(-8 * offset // bits) : 8 * (offset + len(raw)) // bits]


def encodings(secret: str) -> set[str]:
    """The exact forms in which a short secret is looked for."""
    raw = secret.encode("utf-8", "replace")
    every_byte_quoted = "".join(f"%{byte:02x}" for byte in raw)
    escaped = (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    forms = {
        secret,
        every_byte_quoted,
        every_byte_quoted.upper(),
        raw.hex(),
        raw.hex().upper(),
        *escaped,
        *(form.replace("/", "\\/") for form in escaped),
    }
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        forms |= {quoted, re.sub("%..", lambda found: found[0].lower(), quoted)}
    for inner in _aligned(raw, base64.b64encode, bytes_at_once=3, bits=6):
        if len(inner) >= SHORTEST_INNER:
            forms |= {inner, inner.replace("+", "-").replace("/", "_"), inner.replace("/", "\\/")}
    return forms
