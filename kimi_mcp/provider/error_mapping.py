"""Parses a provider's error and maps it to one of ours: one table of status, type and message. Pure, no I/O."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, cast

from kimi_mcp.core.bounds import LONGEST_MESSAGE, LONGEST_NAME
from kimi_mcp.core.errors import (
    AuthFailed,
    ContentFiltered,
    ContextTooLong,
    ModelNotServed,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    RequestRejected,
    UpstreamBroken,
    UpstreamFailed,
)
from kimi_mcp.core.redaction import HIDDEN, clean, scrub_cut
from kimi_mcp.provider.endpoint import Endpoint, either
from kimi_mcp.provider.failures import AttemptFailure
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

    statuses: tuple[int | None, ...] = ()
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

    conditions: tuple[Condition, ...]
    """The row counts if one of them matches."""
    error: type[UpstreamFailed]
    message: str
    fix: str
    retry: bool = False
    """Whether another attempt makes sense."""
    quotes: bool = False
    """Whether the provider's message is quoted: never where a key is refused, since such bodies echo keys."""


def _on(*statuses: int | None, kinds: str = "", words: str = "") -> Condition:
    return Condition(statuses, kinds, words)


def _refused(words: str, kinds: str = "") -> Condition:
    return _on(400, 413, 422, None, kinds=kinds, words=words)


def _rejected(words: str, message: str, fix: str) -> ErrorRow:
    return ErrorRow((_refused(words),), RequestRejected, message, fix, quotes=True)


_KEYS = (
    "Set {keys} to a key of {provider} itself. Keys belong to one platform: a key made for api.moonshot.ai is refused "
    "by api.moonshot.cn and the other way round. The request went to {host}: KIMI_PROVIDER and KIMI_BASE_URL say where."
)
_TOP_UP = "Top up the account of {provider} or raise its quota, or choose another provider with KIMI_PROVIDER."
_SLOWER = (
    "Wait a little, lower KIMI_MAX_CONCURRENCY or `max_tokens` (the limit counts what was asked for), or raise the "
    "account's tier at {provider}."
)
_LATER = "Try again in a little while, or choose another provider with KIMI_PROVIDER; topping up does not help."
_AGAIN = "Try again; if it stays, choose another provider with KIMI_PROVIDER."
_SHORTER = "Send less: a shorter prompt, fewer or smaller files, a new conversation, or a smaller `max_tokens`."
_OTHER_MODEL = (
    "Set KIMI_MODEL (or the argument `model`) to a model that {provider} serves, or leave it at `auto`; `kimi-mcp "
    "doctor` lists what is served. If every model is missing, KIMI_BASE_URL ({host}) is not the API's base URL."
)

_NO_QUOTA = "The account at {provider} is out of balance or quota."
_TOO_FAST = "The account's rate limit at {provider} is reached."
_FAILED = "{provider} failed with an error of its own ({status})."
_FILTERED = "The content filter of {provider} stopped the request."
_REWORD = "Reword the prompt, or leave out the file, picture or clip that the filter may take offence at."

QUOTED = frozenset[int | None]((None, 400, 404, 410, 413, 422, 429, *range(500, 600)))
"""Statuses of which a message may be quoted at all."""

ROWS: tuple[ErrorRow, ...] = (
    ErrorRow(
        (_on(*range(300, 400)),), UpstreamBroken,
        "{provider} answered with a redirect ({status}), which is not followed: the key would go along.",
        "Set KIMI_BASE_URL to the address that the API really has; {host} only points elsewhere.",
    ),
    ErrorRow(
        (_on(kinds=r"invalid_authentication|incorrect_api_key|invalid_api_key|authentication_?error"), _on(401)),
        AuthFailed, "{provider} does not accept the key.", _KEYS,
    ),
    ErrorRow((_on(400, 403, None, kinds=r"content_filter|content_policy"),), ContentFiltered, _FILTERED, _REWORD),
    ErrorRow(
        (_on(kinds=r"permission_?denied"),), AuthFailed,
        "{provider} accepts the key, but does not let it do this.",
        "Give the key the right to use this model, or another one: " + _KEYS,
    ),
    ErrorRow(
        (_on(403),), AuthFailed,
        "{provider} forbids the request (403): the key may not do this, or requests from here are refused.", _KEYS,
    ),
    ErrorRow(
        (_on(kinds=r"exceeded_current_quota|insufficient_quota|insufficient_balance|billing"), _on(402)),
        QuotaExhausted, _NO_QUOTA, _TOP_UP,
    ),
    ErrorRow(
        (_on(kinds=r"overloaded|server_?unavailable|service_?unavailable|no_capacity"),), Overloaded,
        "{provider} has no capacity just now.", _LATER, retry=True, quotes=True,
    ),
    ErrorRow(
        (_on(kinds=r"rate_limit|too_?many_?requests"),), RateLimited, _TOO_FAST, _SLOWER, retry=True, quotes=True,
    ),
    ErrorRow(
        (_on(429, words=r"insufficient balance|billing|account .{0,80}suspended|exceeded your current"),),
        QuotaExhausted, _NO_QUOTA, _TOP_UP, quotes=True,
    ),
    ErrorRow((_on(429),), RateLimited, _TOO_FAST, _SLOWER, retry=True, quotes=True),
    ErrorRow(
        (
            _refused("", kinds=r"context_length"),
            _refused(
                r"exceeded model token limit|context (length|window)|max_model_len|maximum (input|prompt|model) length"
                r"|(prompt|input|request)s? (is|are) too long|longer than the (model|maximum)"
                r"|too many (input |prompt )?tokens"
            ),
        ),
        ContextTooLong, "The request is longer than the model's context.", _SHORTER, quotes=True,
    ),
    ErrorRow(
        (
            _on(404),
            _on(410, None, kinds=r"resource_not_found|model_not_found|not_?found|gone"),
            _on(400, 422, kinds=r"model_not_found|model_not_supported"),
            _on(400, 422, words=r"\bmodel\b.{0,120}(does not exist|not found|not supported|no longer|unknown)"),
        ),
        ModelNotServed, "{provider} does not serve this model.", _OTHER_MODEL, quotes=True,
    ),
    ErrorRow((_on(410),), ModelNotServed, "{provider} no longer serves this model (410).", _OTHER_MODEL, quotes=True),
    ErrorRow(
        (_refused(r"considered high risk|content (filter|policy|management)"),), ContentFiltered, _FILTERED, _REWORD,
    ),
    _rejected(
        r"temperature|top_p|penalty|\binvalid n\b", "{provider} does not allow a sampling value that was sent.",
        "Leave `temperature` out: this model fixes its sampling values. If you did not set it, this provider differs "
        "from the catalogue: run `kimi-mcp doctor --probe`.",
    ),
    _rejected(
        r"reasoning_content is missing|reasoning.{0,40}missing",
        "{provider} wants the reasoning of an earlier turn, and it was not sent.",
        "Start a new conversation: leave `conversation_id` out.",
    ),
    _rejected(
        r"tool_choice", "{provider} does not allow this tool choice while thinking.",
        "Use `kimi_instant`, or leave the choice of a tool to the model.",
    ),
    _rejected(
        r"invalid thinking|\bthinking\b|reasoning_effort", "{provider} does not take this mode for this model.",
        "Use the other tool (`kimi_think` or `kimi_instant`), or another `model`.",
    ),
    _rejected(
        r"max_(completion_)?tokens", "{provider} does not allow this `max_tokens`.",
        "Lower `max_tokens`, or leave it out.",
    ),
    _rejected(
        r"schema|response_format", "{provider} refused the schema of the answer or of a tool.",
        "Simplify `response_schema`: no `type` beside `anyOf` or `$ref`, a `type` beside `enum`.",
    ),
    ErrorRow(
        (_refused(r"at most [\d,]+ files|too many files|(number|count) of files|\bfiles? (count|number|quota)"),),
        QuotaExhausted, "The account at {provider} holds as many files as it may.",
        "Remove what is no longer needed there: `kimi-mcp files prune` removes what was uploaded from here.",
        quotes=True,
    ),
    _rejected(
        r"image|video|media|base64", "{provider} refused a picture or a clip.",
        "Send it as PNG, JPEG, WebP or MP4, smaller, or choose a provider that takes it with KIMI_PROVIDER.",
    ),
    ErrorRow(
        (_on(413),), RequestRejected,
        "The request is too large for {provider} (413).",
        "Send fewer or smaller files, pictures or clips.", quotes=True,
    ),
    ErrorRow(
        (_on(408, 409),), UpstreamBroken,
        "{provider} dropped the request ({status}): it came too slowly, or another one was in the way.",
        _AGAIN, retry=True,
    ),
    ErrorRow(
        (_on(499),), UpstreamBroken,
        "{provider} reports that we closed the connection (499): something on the way did.",
        "Try again; if it stays, look at the proxy between this machine and {host}.",
    ),
    ErrorRow(
        (_on(500, 502, 504, None, kinds=r"unexpected_output"),), UpstreamBroken,
        "The model at {provider} produced output that could not be read.", _AGAIN, retry=True, quotes=True,
    ),
    ErrorRow(
        (_on(503, 529),), Overloaded,
        "{provider} has no capacity just now ({status}).", _LATER, retry=True, quotes=True,
    ),
    ErrorRow(
        (_on(500, 502, 504), _on(None, kinds=r"server_?error|internal|unexpected|timeout")), UpstreamBroken,
        _FAILED, _AGAIN, retry=True, quotes=True,
    ),
    ErrorRow((_on(*range(500, 600)),), UpstreamBroken, _FAILED, _AGAIN, quotes=True),
    ErrorRow(
        (_on(400, 422), _on(None, kinds=r"invalid_request|bad_?request|invalid_|validation")), RequestRejected,
        "{provider} refused the request ({status}).",
        "Change what its words name; `kimi-mcp policy` lists the rules that are known.", quotes=True,
    ),
    ErrorRow(
        (_on(None),), UpstreamBroken, "{provider} reported an error in place of an answer.", _AGAIN, quotes=True,
    ),
    ErrorRow(
        (_on(*range(400, 500)),), RequestRejected,
        "{provider} refused the request ({status}).",
        "Look at KIMI_BASE_URL ({host}) and KIMI_PROVIDER: this answer is none that an API of this kind gives.",
    ),
    ErrorRow(
        (_on(),), UpstreamBroken,
        "{provider} answered in a way that can't be read ({status}).",
        "Look at KIMI_BASE_URL ({host}): is it the base URL of an API?",
    ),
)  # fmt: skip
"""Every known error response, the most specific first (Moonshot's help center, error codes; OpenAI; vLLM)."""


def response_failure(
    error: ProviderError, endpoint: Endpoint, *, status: int | None, wait_s: float | None = None
) -> AttemptFailure:
    """Map an error response (status None: it came inside a stream) to one of our errors."""
    row = next(row for row in ROWS if any(one.matches(status, error) for one in row.conditions))
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
