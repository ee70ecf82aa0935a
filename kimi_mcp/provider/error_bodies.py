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
    status: int | None = None
    """``error.code``, where that is an HTTP status; the response's own status precedes it."""


def read_error(body: bytes) -> ProviderError:
    """Parse a body of any content type; the error is empty if nothing can be parsed."""
    try:
        return error_in(json.loads(body))
    except (ValueError, RecursionError):
        return ProviderError()


def error_in(parsed: Any) -> ProviderError:
    """The error in a parsed body or event; empty if there is none.

    Reads ``{"error": {…}}`` (OpenAI's form), ``{"error": "…"}`` (Hugging Face), ``{"object": "error", …}`` (vLLM) and
    ``{"title", "detail"}`` (NIM).
    """
    outer = cast(dict[str, Any], parsed) if isinstance(parsed, dict) else {}
    inner = outer.get("error") or outer
    error = cast(dict[str, Any], inner) if isinstance(inner, dict) else {**outer, "message": inner}
    code = error.get("code")
    texts = (error.get(name) for name in ("message", "detail", "title"))
    kinds = (error.get(name) for name in ("type", "code", "error_type"))
    return ProviderError(
        kind=" ".join(kind[:LONGEST_NAME] for kind in kinds if isinstance(kind, str)).lower(),
        message=next((text for text in texts if isinstance(text, str) and text), "")[:LONGEST_MESSAGE],
        status=code if isinstance(code, int) and 400 <= code <= 599 else None,
    )


def quote(message: str) -> str:
    """A provider's message without keys and control characters, on one line, at most ``LONGEST_QUOTE`` long."""
    visible = "".join(char for char in message if unicodedata.category(char) != "Cf")
    text = clean(visible, "model").replace("\ufffd", " ")
    text = " ".join(_PIECE.sub(lambda found: scrub_cut(found[0]), _KEY_LIKE.sub(HIDDEN, text)).split())
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"
