"""What must never be read by others, and how it is taken out of a text. Pure, no I/O.

A secret is found in every form in which it is likely to be echoed: plain, quoted for a URL, escaped for JSON, in
hex and in base64 at any alignment. The registry ``SECRETS`` is the process's own; logs, results and error texts
pass through :func:`scrub`.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final, cast
from urllib.parse import quote, quote_plus

HIDDEN: Final = "[hidden]"
"""What stands where a secret stood."""

SHORTEST: Final = 6
"""Characters; anything shorter is no secret, it would blot out ordinary words."""


class Secrets:
    """A set of secrets and the forms in which they are recognised.

    Adding and scrubbing may happen in different threads: the tuple of forms is replaced, never changed.
    """

    __slots__ = ("_forms",)

    def __init__(self) -> None:
        self._forms: tuple[str, ...] = ()

    def add(self, *secrets: str) -> None:
        """From now on each of ``secrets`` is hidden; one shorter than ``SHORTEST`` characters is ignored."""
        forms = set(self._forms)
        for secret in secrets:
            for text in {secret, secret.strip()}:
                if len(text) >= SHORTEST:
                    forms |= _forms_of(text)
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))

    def scrub(self, text: str) -> str:
        """``text`` with every form of every secret replaced by ``HIDDEN``; one substring search a form."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, HIDDEN)
        return text

    def open_end(self, text: str) -> int:
        """How many characters at the end of ``text`` may begin a secret whose rest is still to come; 0: none do."""
        forms = self._forms  # the longest first
        tail, most = text[1 - len(forms[0]) :] if forms else "", 0
        for form in forms:
            head, at = form[:2], max(0, len(tail) - len(form) + 1)
            while (at := tail.find(head, at)) >= 0 and not form.startswith(tail[at:]):
                at += 1
            if at < 0 and tail.endswith(form[0]):
                at = len(tail) - 1
            if at >= 0:
                most = max(most, len(tail) - at)
        return most


def _forms_of(secret: str) -> set[str]:
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
        forms |= {quoted, _lower_quotes(quoted)}
    for offset in range(3):
        # Only characters whose six bits all belong to the secret are the same wherever it stands.
        encoded = base64.b64encode(bytes(offset) + raw).decode()
        inner = encoded[-(-8 * offset // 6) : 8 * (offset + len(raw)) // 6]
        if len(inner) >= SHORTEST:
            forms |= {inner, inner.replace("+", "-").replace("/", "_"), inner.replace("/", "\\/")}
    return forms


def _lower_quotes(quoted: str) -> str:
    """The same URL quoting with lower-case hex digits."""
    head, *rest = quoted.split("%")
    return head + "".join(f"%{piece[:2].lower()}{piece[2:]}" for piece in rest)


SECRETS: Final = Secrets()
"""The process's own registry."""


def hide(*secrets: str) -> None:
    """Add to the process's registry."""
    SECRETS.add(*secrets)


def scrub(text: str) -> str:
    """``text`` without any secret of the process's registry."""
    return SECRETS.scrub(text)


def open_end(text: str) -> int:
    """How many characters at the end of ``text`` may begin a secret of the process's registry."""
    return SECRETS.open_end(text)


def scrub_values(value: Any) -> Any:
    """A JSON value of which every text, however deep, is without any secret of the process's registry."""
    match value:
        case str():
            return SECRETS.scrub(value)
        case dict():
            return {SECRETS.scrub(name): scrub_values(inner) for name, inner in cast(dict[str, Any], value).items()}
        case list():
            return [scrub_values(inner) for inner in cast(list[Any], value)]
        case _:
            return value
