"""A provider's error body: how it is parsed, and how much of its message may be quoted. Pure, no I/O."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, cast

from kimi_mcp.core.bounds import LONGEST_MESSAGE, LONGEST_NAME
from kimi_mcp.core.redaction import HIDDEN, clean, scrub_cut

LONGEST_QUOTE = 300
"""Characters of a provider's message that are shown."""

_KEY_LIKE = re.compile(r"\b(?:sk|nvapi|hf|fw|tgp|key)[-_][\w*.…-]{6,}|\bBearer\s+\S+", re.IGNORECASE)
"""Anybody's key, whole or masked."""

_PIECE = re.compile(r"(?:[^\s*….]|\.(?!\.))+")
"""A word, or what stands before or behind the mask in one: a key may be cut off at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderError:
    """What a provider's error body holds."""

    kind: str = ""
    """``error.type`` and ``error.code``, in lower case, separated by a blank."""
    message: str = ""
    """Foreign text: pass it through :func:`quote` before showing it."""


def read_error(body: bytes) -> ProviderError:
    """Parse a body of any content type; the error is empty if nothing can be parsed.

    Reads ``{"error": {…}}`` (OpenAI's form), ``{"error": "…"}`` (Hugging Face), ``{"object": "error", …}`` (vLLM) and
    ``{"title", "detail"}`` (NIM).
    """
    try:
        parsed: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ProviderError()
    if not isinstance(parsed, dict):
        return ProviderError()
    outer = cast(dict[str, Any], parsed)
    inner: Any = outer.get("error", outer)
    if isinstance(inner, str):
        kind = _kind(outer.get("type"), outer.get("code"), outer.get("error_type"))
        return ProviderError(kind=kind, message=inner[:LONGEST_MESSAGE])
    if not isinstance(inner, dict):
        return ProviderError()
    error = cast(dict[str, Any], inner)
    texts = (error.get(name) for name in ("message", "detail", "title"))
    return ProviderError(
        kind=_kind(error.get("type"), error.get("code")),
        message=next((text for text in texts if isinstance(text, str) and text), "")[:LONGEST_MESSAGE],
    )


def _kind(*values: Any) -> str:
    return " ".join(value[:LONGEST_NAME] for value in values if isinstance(value, str)).lower()


def quote(message: str) -> str:
    """A provider's message without keys and control characters, on one line, at most ``LONGEST_QUOTE`` long."""
    visible = "".join(char for char in message if unicodedata.category(char) != "Cf")
    text = clean(visible, "model").replace("\ufffd", " ")
    text = " ".join(_PIECE.sub(lambda found: scrub_cut(found[0]), _KEY_LIKE.sub(HIDDEN, text)).split())
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"
