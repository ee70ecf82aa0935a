"""What must never be read by others, and how it is taken out of a text before that leaves. Pure, no I/O.

Nobody has to remember to call this for secrets: ``Outcome`` and ``KimiError`` are made without any.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, cast

from kimi_mcp.core.key_spellings import (
    LONGEST_OPEN,
    WIDEST_LETTER,
    Forms,
    bare,
    encodings,
    is_marked,
    prefix_at_end,
    spellings,
    views,
    without_half,
)

HIDDEN: Final = "[hidden]"
"""What replaces a secret."""

SHORTEST: Final = 8
"""Characters; anything shorter is no secret, it would hide ordinary words."""

FEWEST_DIFFERENT: Final = 5
"""Different characters; ``00000000`` is no secret."""

_PLACEHOLDER: Final = re.compile(
    "any|anything|api|apikey|auth|bearer|blank|change|changeme|default|demo|dummy|empty|example|fake|"
    "foo|bar|baz|here|hf|ignore|ignored|insert|is|key|lm|local|localhost|me|my|needed|no|nokey|none|not|"
    "nothing|null|nvapi|ollama|open|openai|password|placeholder|replace|required|sample|studio|secret|set|"
    "sglang|sk|test|testing|todo|token|undefined|unneeded|unset|unused|value|vllm|x|your"
)
"""Words of which keys are made that protect nothing: engines on one's own machine often want any key at all."""

SHORTEST_CUT: Final = 8
"""Letters and digits; a secret that is cut off after as many is hidden too. Providers' own prefixes are shorter."""

SHORTEST_SPELLED: Final = 10
"""Letters and digits; a secret with fewer is found only unchanged and in its usual encodings."""

SHORTEST_NUMBER: Final = 5
"""Digits; with fewer, such as those of a year, a number makes no secret of a placeholder."""

SHORTEST_ROW: Final = 3
"""Letters that follow one another."""

CHARS_AT_ONCE: Final = 65_536
"""Characters of a text that are looked at closely at once: each takes some 200 bytes meanwhile."""


def is_secret(value: str) -> bool:
    """Whether a value protects anything, so that it has to be hidden everywhere.

    It does if it has at least ``SHORTEST`` characters, at least ``FEWEST_DIFFERENT`` different ones, and is not made
    of such words as ``no``, ``key`` and ``test`` and of letters or digits in a row (``1234567890``) alone. Anything
    else that a model or a person writes by the way would be hidden as if it were a key.
    """
    if len(value) < SHORTEST or len(set(value.lower())) < FEWEST_DIFFERENT:
        return False
    words = re.findall(r"[a-z]+|[0-9]+|[^\W\d_]+", value.lower())
    return not words or any(_PLACEHOLDER.fullmatch(word) is None and not _in_a_row(word) for word in words)


def _in_a_row(word: str) -> bool:
    """``1234567890``, ``987654``, ``aaaa``, ``xyz``; a short number too."""
    if len(word) < (SHORTEST_NUMBER if word.isdigit() else SHORTEST_ROW):
        return word.isdigit()
    steps = {ord(after) - ord(before) for before, after in itertools.pairwise(word)}
    if word.isdigit():
        steps = {step % 10 for step in steps}  # a 0 follows the 9
    return len(steps) == 1 and steps <= {0, 1, 9, -1}


class Secrets:
    """A set of secrets and the spellings in which they are recognised.

    A secret is found whatever is between its letters and digits, in any case and width: itself, backwards, in hex, in
    base64 (of UTF-16 too) and base32 at any alignment; and with any of their characters escaped for a URL, for JSON or
    source code, or for HTML, several times if need be. A short secret may be ordinary words: it is found by its exact
    encodings alone. Adding and scrubbing may happen in different threads: the tuples of forms are replaced, never
    changed.
    """

    __slots__ = ("_exact", "_forms")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget every secret; for tests."""
        self._exact: tuple[str, ...] = ()
        self._forms = Forms((), ())

    def add(self, *secrets: str) -> None:
        """From now on each of ``secrets`` is hidden, unless it is none by ``is_secret``."""
        exact, plain, spelled = set(self._exact), set(self._forms.plain), set(self._forms.spelled)
        for text in {text for secret in secrets for text in (secret, secret.strip()) if is_secret(text)}:
            letters = bare(text)
            if len(letters) < SHORTEST_SPELLED:
                exact |= encodings(text)
            else:
                plain.add(text)
                spelled |= {form for form in map(bare, spellings(text)) if len(form) >= SHORTEST_SPELLED}
        self._exact = tuple(sorted(exact, key=lambda form: (-len(form), form)))
        self._forms = Forms(plain, spelled)

    def scrub(self, text: str) -> str:
        """``text`` with every secret in every spelling replaced by ``HIDDEN``; the same object where there is none."""
        spans = sorted(self._spans(text)) if len(text) >= SHORTEST else []
        if not spans:
            return text
        pieces: list[str] = []
        done = 0
        for start, end in spans:
            if start >= done:
                pieces += (text[done:start], HIDDEN)
            done = max(done, end)
        return "".join((*pieces, text[done:]))

    def scrub_cut(self, text: str) -> str:
        """Likewise for a text that may have been cut off within a secret."""
        text = self.scrub(text)
        size = self.open_end(text)
        # By the letters that the end means: those of an escape such as \\u4e2d begin no secret.
        if size and min(len(view.letters) for view in views(text[-size:])) >= SHORTEST_CUT:
            return text[:-size] + HIDDEN
        return text

    def scrub_growing(self, text: str) -> str:
        """Likewise for a text whose rest is still to come: what may be half a secret is held back until it is none."""
        return self.scrub(text[: len(text) - self.open_end(text)])

    def open_end(self, text: str) -> int:
        """How many characters at the end of ``text`` may begin a secret whose rest is still to come; 0: none do.

        A secret that is whole is never parted: where its last letters may begin another one, all of it counts.
        """
        cut = len(text) - self._begun(text)
        if cut == len(text):
            return 0
        start = max(0, len(text) - LONGEST_OPEN)
        spans = [(start + first, start + last) for first, last in self._spans(text[start:])]
        while crossed := [first for first, last in spans if first < cut < last]:
            cut = min(crossed)
        return len(text) - cut

    def _begun(self, text: str) -> int:
        most = max((prefix_at_end(text[1 - len(form) :], form) for form in self._exact), default=0)
        forms, tail = self._forms, text[-LONGEST_OPEN:]
        if not forms.spelled:
            return most
        letters = max(
            forms.begun(each) for view in views(tail) for each in (view.letters, bare(without_half(view.text)))
        )
        if not letters and not is_marked(tail[-WIDEST_LETTER:]):
            return most
        tail = tail[-WIDEST_LETTER * (letters + 1) :]
        return max(most, *(len(tail) - forms.opens(view) for view in views(tail)))

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        for form in (*self._exact, *self._forms.plain):
            at = text.find(form)
            while at >= 0:
                yield at, at + len(form)
                at = text.find(form, at + 1)
        forms = self._forms
        step = max(CHARS_AT_ONCE, 3 * forms.overlap)
        for start in range(0, len(text) if forms.spelled else 0, step):
            part = text[start : start + step + forms.overlap]
            spans = (span for view in views(part) for span in forms.spans(view))
            yield from ((start + first, start + last) for first, last in spans)


# ── the process's own ─────────────────────────────────────────────────────────────────────────────────────────────


SECRETS: Final = Secrets()
"""The process's own secrets."""

hide, scrub, scrub_cut = SECRETS.add, SECRETS.scrub, SECRETS.scrub_cut
scrub_growing, open_end = SECRETS.scrub_growing, SECRETS.open_end


class GrowingText:
    """A text that grows, as it may be shown so far: what may be half a secret is held back until it is none."""

    __slots__ = ("_clean", "_seen")

    def __init__(self) -> None:
        self._seen = self._clean = ""

    def clean(self, whole: str) -> str:
        """What may be shown of a text by now; the same as before where it does not begin as it did then."""
        if whole.startswith(self._seen):
            more = whole[len(self._seen) :]
            more = more[: len(more) - open_end(more)]
            self._seen += more
            self._clean += scrub(more)
        return self._clean


# ── all that leaves ───────────────────────────────────────────────────────────────────────────────────────────────────


Destination = Literal["host", "terminal", "log", "model"]
"""Where a text leaves to."""

_ACTS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f"
"""C0 but for tab and line feed, DEL, C1, what separates lines, reorders or hides text, halves of surrogate pairs."""

_UNSAFE: Final[Mapping[Destination, re.Pattern[str]]] = {
    # Offsets count these characters. The marks and isolates that Arabic and Hebrew text is written with stay: they
    # change the direction of what is between them, and end with it.
    "host": re.compile("\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]"),
    "terminal": re.compile(f"[{_ACTS}]"),
    "log": re.compile(f"[\t\n{_ACTS}]"),
    "model": re.compile(f"\r\n?|[{_ACTS}]|<\\|(?=[A-Za-z0-9_]{{1,60}}\\|>)|<(?=/?think>)"),
}


def clean(text: str, destination: Destination) -> str:
    """A text as it may leave: without any secret, and without what acts on whoever shows it.

    For a host it is visible (``U+FFFD``), and no offset moves; for a terminal it is left out; in the log it is spelled
    out, so that a text is one line; for a model it is visible, and a control token of its template is parted.
    """
    return _UNSAFE[destination].sub(_SAFE[destination], scrub(text))


def clean_values(value: Any, destination: Destination) -> Any:
    """A JSON value of which every text, however deep, is cleaned."""
    replace, visible = _UNSAFE[destination].sub, _SAFE[destination]
    return scrub_values(value, lambda text: replace(visible, scrub(text)))


def scrub_values(value: Any, change: Callable[[str], str] = scrub) -> Any:
    """A JSON value of which every text, however deep, is without any secret, or changed otherwise."""
    match value:
        case str():
            return change(value)
        case dict():
            return {
                change(name) if isinstance(name, str) else name: inner if inner is None else scrub_values(inner, change)
                for name, inner in cast(dict[Any, Any], value).items()
            }
        case list() | tuple():
            return [scrub_values(inner, change) for inner in cast(list[Any], value)]
        case _:
            return value


def escaped_json(text: str) -> str:
    """A JSON text for a terminal: what would act on it is escaped, as JSON allows, so that no value changes."""
    return _UNSAFE["terminal"].sub(lambda found: json.dumps(found[0])[1:-1], text)


def _visible(found: re.Match[str]) -> str:
    if found[0][0] == "<":
        return f"<\u200b{found[0][1:]}"
    return "\n" if found[0][0] == "\r" else "\ufffd"


_SAFE: Final[Mapping[Destination, Callable[[re.Match[str]], str]]] = {
    "host": _visible,
    "terminal": lambda _: "",
    "log": lambda found: found[0].encode("unicode_escape").decode(),
    "model": _visible,
}
