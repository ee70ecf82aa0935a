"""How much of a provider's own words may be shown: its error read, the key taken out. Pure, no I/O."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, quote_plus

from kimi_mcp.core.bounds import LONGEST_MESSAGE, LONGEST_NAME

LONGEST_QUOTE = 300
"""Characters of a provider's message that are shown."""

_SHORTEST_SECRET = 8
"""A key under so many characters (``EMPTY``, ``x``) is taken out as it stands and sought in no other form."""

_RUN = 12
"""So many of a key's letters and digits in a row give it away."""

_KEY_LIKE = re.compile(r"\b(?:sk|nvapi|hf|fw|tgp|key)[-_][\w*.…-]{6,}|\bBearer\s+\S+", re.IGNORECASE)
"""What looks like a key, whole or masked, whoever's it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderError:
    """What a provider's error body says."""

    kind: str = ""
    """``error.type`` and ``error.code``, in lower case, with a blank between them."""
    message: str = ""
    """Its message: foreign text."""


def read_error(body: bytes) -> ProviderError:
    """The error in a body of any content type; empty where none can be read.

    Reads ``{"error": {…}}`` (OpenAI's form), ``{"error": "…"}`` (Hugging Face), ``{"object": "error", …}`` (vLLM) and
    ``{"title", "detail"}`` (NIM).
    """
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ProviderError()
    if not isinstance(found, dict):
        return ProviderError()
    outer = cast(dict[str, Any], found)
    inner: Any = outer.get("error", outer)
    if isinstance(inner, str):
        kind = _words(outer.get("type"), outer.get("code"), outer.get("error_type"))
        return ProviderError(kind=kind, message=inner[:LONGEST_MESSAGE])
    if not isinstance(inner, dict):
        return ProviderError()
    error = cast(dict[str, Any], inner)
    texts = (error.get(name) for name in ("message", "detail", "title"))
    return ProviderError(
        kind=_words(error.get("type"), error.get("code")),
        message=next((text for text in texts if isinstance(text, str) and text), "")[:LONGEST_MESSAGE],
    )


def _words(*values: Any) -> str:
    return " ".join(value[:LONGEST_NAME] for value in values if isinstance(value, str)).lower()


def scrub(message: str, key: str | None) -> str:
    """A provider's message, fit to be shown: no key in any form, no control characters, at most ``LONGEST_QUOTE`` long.

    Empty where the key can't be taken out with certainty.
    """
    text = "".join(_printable(char) for char in message)
    if key:
        for form in sorted(_forms(key), key=len, reverse=True):
            text = re.sub(re.escape(form), "[key]", text, flags=re.IGNORECASE if len(form) > _SHORTEST_SECRET else 0)
        if _gives_away(text, key):
            return ""
    text = " ".join(_KEY_LIKE.sub("[key]", text).split())
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"


def _printable(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    return "" if category in ("Cf", "Cs", "Co", "Cn") else char


def _forms(key: str) -> set[str]:
    """A key as it may be written down."""
    if len(key) < _SHORTEST_SECRET:
        return {key}
    raw = key.encode("utf-8", "surrogatepass")
    forms = {key, quote(key, safe=""), quote_plus(key), raw.hex(), key[::-1], json.dumps(key)[1:-1]}
    for lead in range(3):  # inside a longer text the key may start at any of base64's three places
        coded = base64.b64encode(b"\0" * lead + raw)
        inner = coded[(0, 2, 3)[lead] : len(coded) - (0, 2, 3)[-(lead + len(raw)) % 3]]
        for form in (inner, inner.translate(bytes.maketrans(b"+/", b"-_"))):
            forms.add(form.decode("ascii"))
    forms.add(base64.b64encode(raw).decode("ascii"))
    return forms


def _gives_away(text: str, key: str) -> bool:
    """Whether a part of the key is still there once blanks, stops and the like are left out."""
    if len(key) < _SHORTEST_SECRET:
        return key in text
    bare = _bare(text)
    for form in _forms(key):
        secret = _bare(form)
        run = min(_RUN, len(secret))
        if run and any(secret[at : at + run] in bare for at in range(len(secret) - run + 1)):
            return True
    return False


def _bare(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())
