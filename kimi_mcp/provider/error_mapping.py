"""Parses a provider's error and maps it to one of ours, by the rows of ``errors.toml``. No I/O."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from kimi_mcp.core.bounds import LONGEST_MESSAGE, LONGEST_NAME
from kimi_mcp.core.errors import RateLimited, UpstreamFailed
from kimi_mcp.core.redaction import HIDDEN, clean, scrub_cut
from kimi_mcp.provider.endpoint import Endpoint, either
from kimi_mcp.provider.failures import AttemptFailure, error_table
from kimi_mcp.provider.retry import LONGEST_WAIT_S, limit_in

LONGEST_QUOTE = 300
"""Characters of a provider's message that are shown."""

_KEY_LIKE = re.compile(r"\b(?:sk|nvapi|hf|fw|tgp|key)[-_][\w*.…-]{6,}|\bBearer\s+\S+", re.IGNORECASE)
"""Anybody's key, whole or masked."""

_PIECE = re.compile(r"(?:[^\s*….]|\.(?!\.))+")
"""A word, or what is before or behind the mask in one: a key may be cut off at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderError:
    """What a provider's error body holds."""

    kind: str = ""
    """``error.type`` and ``error.code``, in lower case, separated by a blank."""
    message: str = ""
    """Foreign text: pass it through :func:`quote` before showing it."""
    status: int | None = None
    """``error.code``, where that is an HTTP status; the response's own status precedes it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Matches an error response; what is empty matches any."""

    statuses: frozenset[int | None] = frozenset()
    """HTTP statuses; None is an error inside a stream."""
    kinds: str = ""
    """Pattern searched in ``error.type`` and ``error.code``."""
    words: str = ""
    """Pattern searched in the provider's message."""

    def matches(self, status: int | None, error: ProviderError) -> bool:
        """Whether all three match."""
        return (
            (not self.statuses or status in self.statuses)
            and (not self.kinds or re.search(self.kinds, error.kind) is not None)
            and (not self.words or re.search(self.words, error.message, re.IGNORECASE) is not None)
        )


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One kind of error response. ``message`` and ``fix`` may name {provider}, {keys}, {host} and {status}."""

    when: tuple[Condition, ...]
    """The row counts if one of them matches."""
    error: type[UpstreamFailed]
    message: str
    fix: str
    retry: bool = False
    """Whether another attempt makes sense."""
    quotes: bool = False
    """Whether the provider's message is quoted: never where a key is refused, since such bodies echo keys."""


QUOTED = frozenset[int | None]((None, 400, 404, 410, 413, 422, 429, *range(500, 600)))
"""Statuses of which a message may be quoted at all."""


@cache
def _rows() -> tuple[ErrorRow, ...]:
    """Every known error response, the most specific first."""
    rows: list[dict[str, Any]] = [
        {**row, "when": (*map(_condition, row["when"]),)} for row in error_table()["responses"]
    ]
    return tuple(ErrorRow(**row) for row in rows)


def _condition(row: Mapping[str, Any]) -> Condition:
    statuses: list[int | None] = []
    for each in row.get("statuses", ()):
        if isinstance(each, int):
            statuses.append(each)
        elif each == "stream":
            statuses.append(None)
        else:  # such as 4xx
            statuses += range(int(each[0]) * 100, int(each[0]) * 100 + 100)
    return Condition(frozenset(statuses), row.get("kinds", ""), row.get("words", ""))


def response_failure(
    error: ProviderError, endpoint: Endpoint, *, status: int | None, wait_s: float | None = None
) -> AttemptFailure:
    """Map an error response (status None: it came inside a stream) to one of our errors."""
    row = next(row for row in _rows() if any(one.matches(status, error) for one in row.when))
    names = {
        "provider": endpoint.provider.id,
        "keys": either((*endpoint.provider.key_variables, "KIMI_API_KEY")),
        "host": endpoint.host,
        "status": "in a stream" if status is None else status,
    }
    message, fix, retry = row.message.format_map(names), row.fix.format_map(names), row.retry
    if row.quotes and status in QUOTED and (quoted := quote(error.message)):
        message += f" It says: “{quoted}”"
    if retry and wait_s is not None and wait_s >= 1:
        message += f" It asks to wait {wait_s:.0f} s."
        if wait_s > LONGEST_WAIT_S:
            retry = False
            fix = f"Try again after {wait_s:.0f} s: waits of more than {LONGEST_WAIT_S:.0f} s are not sat out. " + fix
    limit = limit_in(error.message) if row.error is RateLimited else None
    return AttemptFailure(error=row.error(message, fix=fix), retry=retry, wait_s=wait_s, limit=limit)


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
