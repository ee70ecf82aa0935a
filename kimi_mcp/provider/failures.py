"""Failures without an HTTP status: deadlines, network, unreadable answers. Reads ``errors.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kimi_mcp.core import errors
from kimi_mcp.core.errors import KimiError, UpstreamTimeout
from kimi_mcp.provider.endpoint import Endpoint

Counted = Literal["requests", "tokens", "at-once"]
"""What an account's limit counts: requests a minute, tokens a minute, concurrent requests."""

NamedLimit = tuple[Counted, int]
"""What an account's limit counts, and its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailure:
    """Why an attempt failed."""

    error: KimiError
    """What the caller gets if there is no further attempt."""
    retry: bool = False
    """Whether another attempt makes sense."""
    wait_s: float | None = None
    """Seconds to wait, where the provider names them."""
    limit: NamedLimit | None = None
    """The account's limit that the provider names, if any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long an answer may take. Comments, keep-alive lines and empty deltas extend no deadline."""

    first_token_s: float = 120
    """Seconds until the first token of an attempt, or the response to an upload. Each piece of a body that the provider
    accepts starts them again (KIMI_FIRST_TOKEN_TIMEOUT_S)."""
    idle_s: float = 60
    """Seconds between two tokens (KIMI_IDLE_TIMEOUT_S)."""
    total_s: float = 1800
    """Seconds of all attempts and the waits between them; waiting for a slot is not counted (KIMI_TOTAL_TIMEOUT_S)."""
    after_finish_s: float = 5
    """Seconds to wait for usage and the end of the stream after the finish reason."""
    models_s: float = 5
    """Seconds for ``GET /models``."""
    files_s: float = 20
    """Seconds for listing or removing files at the provider, and for listing the functions of a formula."""
    formula_s: float = 60
    """Seconds for a run of one of the provider's own tools."""
    connect_s: float = 10
    """Seconds for a connection, and again for its TLS handshake."""
    keep_idle_s: float = 15
    """Seconds that an idle connection is kept."""
    stale_s: float = 0.5
    """Seconds after which it is too late to learn that a connection was closed before a request was sent: that takes
    one round trip. What breaks later had been at work on the request."""


Deadline = Literal["first", "idle", "total", "upload", "whole upload"]
"""Which deadline passed."""

FailureKind = Literal[
    "name", "certificate", "proxy", "connect", "slow-connect", "broken", "json", "empty", "markup", "large",
    "compressed", "ours",
]  # fmt: skip
"""What went wrong without a status: below HTTP, or with the body of a 200."""


class Unreadable(Exception):
    """The body of a 200 is not what was requested."""

    def __init__(self, kind: FailureKind) -> None:
        super().__init__(kind)
        self.kind: FailureKind = kind


@cache
def error_table() -> dict[str, Any]:
    """``errors.toml``, with the texts that its rows name in their place and the errors as classes."""
    table = tomllib.loads(Path(__file__).with_name("errors.toml").read_text("utf-8"))
    for row in (*table["responses"], *table["failures"].values()):
        row["error"] = getattr(errors, row["error"])
        for name in ("message", "fix"):
            row[name] = table["texts"][row[name][1:]] if row[name].startswith("@") else row[name]
    return table


def failure(kind: FailureKind, endpoint: Endpoint, *, what: str = "") -> AttemptFailure:
    """The failure of that kind; ``what`` names what was too ``large``."""
    row = error_table()["failures"][kind]
    names = {"provider": endpoint.provider.id, "host": endpoint.host, "what": what}
    error = row["error"](row["message"].format_map(names), fix=row["fix"].format_map(names))
    return AttemptFailure(error=error, retry=row.get("retry", False))


def timed_out(deadline: Deadline, deadlines: Deadlines, endpoint: Endpoint) -> AttemptFailure:
    """The failure of a deadline that passed; it is never retried."""
    row = error_table()["timeouts"][deadline]
    message = row["message"].format_map({**asdict(deadlines), "provider": endpoint.provider.id})
    fix = f"Raise {row['setting']}, try again, or choose another provider."
    return AttemptFailure(error=UpstreamTimeout(message, fix=fix))
