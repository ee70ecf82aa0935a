"""Which of our errors a failure without a status is: deadlines, network, unreadable answers. Pure, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kimi_mcp.core.errors import Internal, KimiError, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable

NamedLimit = tuple[Literal["requests", "tokens", "at-once"], int]
"""What a limit counts (requests a minute, tokens a minute, requests under way), and how many it allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailure:
    """Why an attempt brought no answer."""

    error: KimiError
    """What the caller is told if it stays at that."""
    retry: bool = False
    """Whether another attempt makes sense."""
    wait_s: float | None = None
    """Seconds that the provider asks to wait; None: it asks for nothing."""
    limit: NamedLimit | None = None
    """The account's limit that the provider names; None: it names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long an answer may take. Comments, keep-alives and empty deltas count for nothing in any of them."""

    first_token_s: float = 120
    """Seconds of one attempt until its first token, and of an upload until its answer; while media are sent, each piece
    that is taken begins them anew (KIMI_FIRST_TOKEN_TIMEOUT_S)."""
    idle_s: float = 60
    """Seconds between two tokens (KIMI_IDLE_TIMEOUT_S)."""
    total_s: float = 1800
    """Seconds of all attempts and the waits between them; waiting for a slot is not counted (KIMI_TOTAL_TIMEOUT_S)."""


Deadline = Literal["first", "idle", "total", "upload", "whole upload"]
"""Which deadline passed."""

FailureKind = Literal[
    "name", "certificate", "proxy", "connect", "slow-connect", "broken", "json", "empty", "markup", "large",
    "compressed", "ours",
]  # fmt: skip
"""What went wrong without a status: below HTTP, or with the body of a 200."""

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
"""Per failure: the leaf, whether another attempt makes sense, what happened, what mends it."""


def failure(kind: FailureKind, *, provider: str, host: str, what: str = "") -> AttemptFailure:
    """What a failure without a status is with us; ``what``: of a ``large`` one, what was sent."""
    leaf, retry, message, fix = _FAILURES[kind]
    names = {"provider": provider, "host": host, "what": what}
    return AttemptFailure(error=leaf(message.format_map(names), fix=fix.format_map(names)), retry=retry)


def timed_out(which: Deadline, deadlines: Deadlines, *, provider: str) -> AttemptFailure:
    """What a deadline that passed is with us; never tried again."""
    match which:
        case "first":
            message = f"{provider} sent no token within {deadlines.first_token_s:g} s; keep-alives do not count."
            name = "KIMI_FIRST_TOKEN_TIMEOUT_S"
        case "idle":
            message = f"{provider} fell silent in the middle of its answer, for {deadlines.idle_s:g} s."
            name = "KIMI_IDLE_TIMEOUT_S"
        case "total":
            message = f"The answer of {provider} was not whole after {deadlines.total_s:g} s, all attempts included."
            name = "KIMI_TOTAL_TIMEOUT_S"
        case "upload":
            message = (
                f"{provider} took nothing more of the file, or did not answer to it, for {deadlines.first_token_s:g} s."
            )
            name = "KIMI_FIRST_TOKEN_TIMEOUT_S"
        case "whole upload":
            message = f"The file was not uploaded to {provider} after {deadlines.total_s:g} s."
            name = "KIMI_TOTAL_TIMEOUT_S"
    return AttemptFailure(error=UpstreamTimeout(message, fix=f"Raise {name}, try again, or choose another provider."))
