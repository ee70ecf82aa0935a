r"""How a secret may be spelled, and where a spelling stands in a text. Pure, no I/O.

A secret and a text are compared by their letters and digits alone, in any case and width, so that nothing that stands
between them hides a secret: line breaks, blanks, dashes, invisible characters. Characters that are written as several
(``%73``, ``\u0073``, ``&#115;``) are read as what they mean, several times over if need be.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple, cast
from urllib.parse import quote, quote_plus

SHORTEST_INNER: Final = 6
"""Characters of base64 that are told from ordinary words."""

WIDEST_GAP: Final = 32
"""Characters that may stand between two letters of a secret: line breaks, blanks, dashes, invisible ones."""

WIDEST_LETTER: Final = 64
"""Characters that a letter of a secret may take, escaped and with what stands behind it."""

LONGEST_OPEN: Final = 2048
"""Characters at the end of a growing text that are looked at for the beginning of a secret."""

MOST_LEVELS: Final = 3
"""How often an escaped text is unescaped: ``%2573`` is ``%73`` is ``s``."""

_NO_LETTERS: Final = bytes(byte for byte in range(128) if not chr(byte).isalnum())

_ESCAPED: Final = re.compile(
    r"(?<!\\)\\+ud[89ab][0-9a-f]{2}\\+ud[c-f][0-9a-f]{2}"
    r"|(?<!\\)\\+(?:(?-i:U)[0-9a-f]{8}|u[0-9a-f]{4}|u\{[0-9a-f]{1,8}\}|x[0-9a-f]{2}|[01][0-7]{2})|%[0-9a-f]{2}"
    r"|&(?:\#\d{1,7};?|\#x[0-9a-f]{1,6};?|[a-z]{2,8};)"
    r"|\x1b\[[0-?]{0,24}[ -/]{0,4}[@-~]",
    re.IGNORECASE,
)
"""A character that is written as several, or several that a terminal does not show (a colour, say). Backslashes are
taken from the first of a run on: from each of them on, a run of thousands would take minutes."""

_PAIR: Final = re.compile(r"\\+u(d[89ab]..)\\+u(d[c-f]..)", re.IGNORECASE)
"""A character beyond the first 65,536, as JSON escapes it."""

_BLANK_ESCAPES: Final = ("\\n", "\\r", "\\t")
"""Line ends and tabs as JSON and source code write them."""

_BLANK_ESCAPE: Final = re.compile(r"\\[nrt]")

_OTHER_WIDTH: Final = re.compile(
    "[\u00aa\u00b2\u00b3\u00b9\u00ba\u1d2c-\u1d6a\u2070-\u209f\u2100-\u2149\u2460-\u24ff\uff10-\uff5a"
    "\U0001d400-\U0001d7ff\U0001fbf0-\U0001fbf9]"
)
"""Letters and digits of another width or style that may be one of ours."""

_HALF_ESCAPED: Final = re.compile(
    r"(?:\\+(?:u\{?[0-9a-f]{0,8}|x[0-9a-f]?|[01][0-7]?)?|%[0-9a-f]?|\x1b(?:\[[0-?]{0,24}[ -/]{0,4})?|&\#?\w{0,8})\Z",
    re.IGNORECASE,
)
"""What may become one."""


class _Character(NamedTuple):
    """One character of a text that was unescaped, and where it stood in the text as it is."""

    text: str
    start: int
    end: int


class _Letters(NamedTuple):
    """The letters and digits of a text, and the number of the character of each."""

    text: bytes
    places: list[int]


class Forms:
    """Secrets and their spellings, sought by letters and digits alone."""

    __slots__ = ("_grams", "_size", "overlap", "plain", "spelled")

    def __init__(self, plain: Iterable[str], spelled: Iterable[bytes]) -> None:
        self.plain = tuple(sorted(plain, key=lambda form: (-len(form), form)))
        self.spelled = tuple(sorted(spelled, key=lambda form: (-len(form), form)))
        self.overlap = WIDEST_LETTER * max(map(len, self.spelled), default=0)
        # Wherever a form stands, one of the text's blocks of this size lies within it: one look-up for each block.
        self._size = (min(map(len, self.spelled), default=1) + 1) // 2
        self._grams = frozenset(
            form[at : at + self._size] for form in self.spelled for at in range(len(form) - self._size + 1)
        )

    def may_be_in(self, letters: bytes) -> bool:
        """Whether it is worth looking closely; cheap, since nearly always it is not."""
        size = self._size
        blocks = [letters[at : at + size] for at in range(0, len(letters), size)]
        return not self._grams.isdisjoint(blocks) and any(form in letters for form in self.spelled)

    def begun(self, letters: bytes) -> int:
        """How many letters at the end may begin a form."""
        return max((begun(letters, form) for form in self.spelled), default=0)

    def spans(self, level: list[_Character]) -> Iterator[tuple[int, int]]:
        """From where to where each secret goes."""
        letters = _letters(level)
        for form in self.spelled:
            at = letters.text.find(form)
            while at >= 0:
                places = letters.places[at : at + len(form)]
                if _close_together(places):
                    yield level[places[0]].start, level[places[-1]].end
                at = letters.text.find(form, at + 1)

    def opens(self, level: list[_Character], nowhere: int) -> int:
        """Where a secret may begin that has not ended yet; ``nowhere`` where none may."""
        found = self._begins(level, nowhere)
        whole = level[: len(without_half("".join(character.text for character in level)))]
        if len(whole) == len(level):
            return found
        return min(found, level[len(whole)].start, self._begins(whole, nowhere))

    def _begins(self, level: list[_Character], nowhere: int) -> int:
        letters = _letters(level)
        if not letters.text or len(level) - letters.places[-1] > WIDEST_GAP:
            return nowhere
        most = 0
        for form in self.spelled:
            length = begun(letters.text, form)
            while length > most and not _close_together(letters.places[-length:]):
                length = begun(letters.text[1 - length :], form) if length > 1 else 0
            most = max(most, length)
        return level[letters.places[-most]].start if most else nowhere


def without_half(text: str) -> str:
    """The text without an escape at its end that has only begun."""
    half = _HALF_ESCAPED.search(text, max(0, len(text) - WIDEST_LETTER))
    return text[: half.start()] if half else text


def _close_together(places: list[int]) -> bool:
    return all(after - before <= WIDEST_GAP for before, after in itertools.pairwise(places))


def bare(text: str) -> bytes:
    """The letters and digits of a text, in lower case and usual width."""
    if not text.isascii():
        text = _OTHER_WIDTH.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return text.encode("ascii", "ignore").translate(None, _NO_LETTERS).lower()


_bare: Final = lru_cache(maxsize=1024)(bare)


def _letters(level: list[_Character]) -> _Letters:
    found = bytearray()
    places: list[int] = []
    for place, character in enumerate(level):
        own = _bare(character.text)
        found += own
        places += [place] * len(own)
    return _Letters(bytes(found), places)


def is_marked(text: str) -> bool:
    """Whether anything in a text may be escaped."""
    return "%" in text or "\\" in text or "&" in text or "\x1b" in text


def unescaped(text: str) -> Iterator[str]:
    """The text as it is, and unescaped as often as that changes it."""
    yield text
    if "\\" in text:
        for blank in _BLANK_ESCAPES:
            text = text.replace(blank, " ")
        yield text
    for _ in range(MOST_LEVELS):
        if not is_marked(text):
            return
        before, text = text, _ESCAPED.sub(lambda found: _meant(found[0]), text)
        if text == before:
            return
        yield text


def levels(text: str) -> Iterator[list[_Character]]:
    """Likewise, each character with its place in ``text``."""
    level = [_Character(character, at, at + 1) for at, character in enumerate(text)]
    yield level
    if "\\" in text:
        level = _decoded(level, _BLANK_ESCAPE, lambda _: " ")
        yield level
    for _ in range(MOST_LEVELS):
        following = _decoded(level, _ESCAPED, _meant)
        if len(following) == len(level):
            return
        level = following
        yield level


def _decoded(level: list[_Character], escaped: re.Pattern[str], meant: Callable[[str], str]) -> list[_Character]:
    following, done = list[_Character](), 0
    for found in escaped.finditer("".join(character.text for character in level)):
        if (character := meant(found[0])) != found[0]:
            following += level[done : found.start()]
            following.append(_Character(character, level[found.start()].start, level[found.end() - 1].end))
            done = found.end()
    return following + level[done:]


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


def begun(text: bytes | str, form: bytes | str) -> int:
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
