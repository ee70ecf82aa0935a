"""Failures without an HTTP status: deadlines, network, unreadable answers. Pure, no I/O."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from kimi_mcp.core.errors import Internal, KimiError, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
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


_AGAIN = "Try again; if it stays, choose another provider with KIMI_PROVIDER."
_WHERE = "Look at KIMI_BASE_URL ({host}): is it the base URL of the API, such as https://api.moonshot.ai/v1?"
_NETWORK = "Look at the network of this machine, at HTTPS_PROXY and NO_PROXY, and at KIMI_BASE_URL ({host})."

_FAILURES: dict[FailureKind, tuple[type[KimiError], bool, str, str]] = {
    "name": (UpstreamUnreachable, True, "The name of {provider}'s host is not known.", _NETWORK),
    "certificate": (
        UpstreamUnreachable, False, "The certificate of {provider}'s host is not trusted.",
        "Set SSL_CERT_FILE to the certificates to be trusted (a company's proxy), or look at KIMI_BASE_URL ({host}).",
    ),
    "proxy": (
        UpstreamUnreachable, True, "The proxy does not let the request through to {provider}.",
        "Look at HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or name {host} in NO_PROXY.",
    ),
    "connect": (UpstreamUnreachable, True, "Nobody answers at {provider}'s address.", _NETWORK),
    "slow-connect": (UpstreamUnreachable, True, "{provider}'s host does not answer in time.", _NETWORK),
    "broken": (UpstreamBroken, True, "The connection to {provider} broke off.", _AGAIN),
    "json": (UpstreamBroken, True, "{provider} sent an event that can't be read.", _AGAIN),
    "empty": (UpstreamBroken, True, "{provider} ended its answer without a token and without a finish reason.", _AGAIN),
    "markup": (UpstreamBroken, True, "{provider} sent a web page in place of an answer.", _WHERE),
    "large": (UpstreamBroken, False, "{provider} sent {what}: more than any answer has.", _WHERE),
    "compressed": (
        UpstreamBroken, False, "{provider} compressed its answer, though it was asked not to.",
        "Look at the proxy between this machine and {host}: it must pass `Accept-Encoding: identity` on.",
    ),
    "ours": (Internal, False, "The request to {provider} failed by a fault of this server.", "Please report it."),
}  # fmt: skip
"""Per kind: the error, whether another attempt makes sense, the message, the fix."""


def failure(kind: FailureKind, endpoint: Endpoint, *, what: str = "") -> AttemptFailure:
    """The failure of that kind; ``what`` names what was too ``large``."""
    leaf, retry, message, fix = _FAILURES[kind]
    names = {"provider": endpoint.provider.id, "host": endpoint.host, "what": what}
    return AttemptFailure(error=leaf(message.format_map(names), fix=fix.format_map(names)), retry=retry)


_TIMEOUTS: dict[Deadline, tuple[str, str]] = {
    "first": (
        "{provider} sent no token within {first_token_s:g} s; keep-alive lines do not count.",
        "KIMI_FIRST_TOKEN_TIMEOUT_S",
    ),
    "idle": ("{provider} fell silent in the middle of its answer, for {idle_s:g} s.", "KIMI_IDLE_TIMEOUT_S"),
    "total": (
        "The answer of {provider} was incomplete after {total_s:g} s, all attempts included.", "KIMI_TOTAL_TIMEOUT_S",
    ),
    "upload": (
        "{provider} took nothing more of the file, or did not answer to it, for {first_token_s:g} s.",
        "KIMI_FIRST_TOKEN_TIMEOUT_S",
    ),
    "whole upload": ("The file was not uploaded to {provider} after {total_s:g} s.", "KIMI_TOTAL_TIMEOUT_S"),
}  # fmt: skip
"""Per deadline: the message, and the setting that raises it."""


def timed_out(deadline: Deadline, deadlines: Deadlines, endpoint: Endpoint) -> AttemptFailure:
    """The failure of a deadline that passed; it is never retried."""
    message, setting = _TIMEOUTS[deadline]
    message = message.format_map({**asdict(deadlines), "provider": endpoint.provider.id})
    return AttemptFailure(
        error=UpstreamTimeout(message, fix=f"Raise {setting}, try again, or choose another provider.")
    )
