"""The tree of our errors, drawn below. Pure, no I/O.

Everything that can go wrong in a call becomes one of these before it leaves the package where it happened. A leaf has
the contract's ``code``, says what happened in the caller's words (``message``), which variable or argument to change
(``fix``), and whether the same call may work later (``retryable``). No leaf ever carries a key, a foreign exception's
text or a path outside the roots: keys are taken out where an error is made.

::

    KimiError
    ├── CallRefused     nothing was sent, nothing was paid for: InvalidArguments, PolicyRefused, NotConfigured,
    │                   CatalogueError, PathRefused (TooManyFiles), UrlRefused, MediaRejected, BudgetExceeded,
    │                   RunNotFound
    ├── UpstreamFailed  the provider answered with an error, or not at all: AuthFailed, QuotaExhausted, RateLimited,
    │                   Overloaded, ModelNotServed, ContextTooLong, ContentFiltered, RequestRejected,
    │                   UpstreamTimeout, UpstreamBroken, UpstreamUnreachable, AnswerCutOff
    ├── Cancelled
    └── Internal
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from kimi_mcp.core.redaction import scrub


class KimiError(Exception):
    """Anything this server reports as an error. Only its leaves are raised."""

    code: ClassVar[str] = "internal"
    """The contract's name for this kind of error."""

    retryable: ClassVar[bool] = False
    """Whether the very same call may work later without any change."""

    def __init_subclass__(cls, *, code: str | None = None, retryable: bool | None = None) -> None:
        cls.code = cls.code if code is None else code
        cls.retryable = cls.retryable if retryable is None else retryable

    def __init__(self, message: str, *, fix: str, rule: str | None = None, retry_after_s: int | None = None) -> None:
        message, fix = scrub(message), scrub(fix)
        super().__init__(message)
        self.message = message
        """What happened, in the caller's words; one or two sentences."""
        self.fix = fix
        """Which variable or argument to change, and to what."""
        self.rule = rule
        """The id of the policy rule that refused the call, if one did."""
        self.retry_after_s = retry_after_s
        """Seconds after which the same call may be taken, where a limit of the HTTP server refused it."""

    def as_json(self) -> dict[str, Any]:
        """The error as a result has it."""
        names = ("code", "message", "fix", "retryable", "rule")
        found = {name: getattr(self, name) for name in names}
        return found if self.retry_after_s is None else found | {"retry_after_s": self.retry_after_s}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """How a field of this type goes to and from JSON (``json_values``)."""
        from pydantic_core import core_schema

        to_json = core_schema.plain_serializer_function_ser_schema(KimiError.as_json)
        return core_schema.no_info_plain_validator_function(_from_json, serialization=to_json)


class CallRefused(KimiError):
    """The call was refused before anything was sent: nothing was paid for."""


class InvalidArguments(CallRefused, code="invalid_arguments"):
    """An argument is unknown, ill-typed, empty or contradicts another one."""


class PolicyRefused(CallRefused, code="policy_refused"):
    """A rule of the policy refused the call; ``rule`` is its id."""


class NotConfigured(CallRefused, code="not_configured"):
    """A setting is missing or can't be read; ``fix`` names the variable."""


class CatalogueError(CallRefused, code="not_configured"):
    """A file of the catalogue is wrong; the message names the file, the key and what is allowed."""

    def __init__(self, found: str, *, of_user: bool = False) -> None:
        """``found``: the file, the key and what is allowed there, no full stop; ``of_user``: the file is the user's."""
        whose = "KIMI_CATALOGUE" if of_user else "A file of the catalogue"
        super().__init__(
            f"{whose} is wrong: {found}" + ("" if found.endswith("?") else "."),
            fix="Correct that file in the folder that KIMI_CATALOGUE names, or unset KIMI_CATALOGUE."
            if of_user
            else "Correct that file; one of the package's own comes back by installing kimi-mcp again.",
        )
        self.found = found


class PathRefused(CallRefused, code="path_refused"):
    """A path is outside the roots, or may not be read."""


class TooManyFiles(PathRefused, retryable=True):
    """The process, or the machine, has no file descriptor left; the file itself may be read."""


class UrlRefused(CallRefused, code="url_refused"):
    """A URL is of a kind, or leads to an address, that is not fetched."""


class MediaRejected(CallRefused, code="media_rejected"):
    """An image or a video is truncated, mislabelled, too large or of an unsupported format."""


class BudgetExceeded(CallRefused, code="budget_exceeded"):
    """A spending limit is reached; ``fix`` names the variable that raises it."""


class RunNotFound(CallRefused, code="run_not_found"):
    """No run of that id is known here."""


class UpstreamFailed(KimiError):
    """The provider answered with an error or not at all, or this server has as many requests as it takes."""


class AuthFailed(UpstreamFailed, code="auth_failed"):
    """401 or 403: the key is missing, wrong, or belongs to another platform."""


class QuotaExhausted(UpstreamFailed, code="quota_exhausted"):
    """The account's balance or quota is used up; never retried."""


class RateLimited(UpstreamFailed, code="rate_limited", retryable=True):
    """A limit is reached: the account's, of requests or tokens a minute; or of calls to the HTTP server."""


class Overloaded(UpstreamFailed, code="overloaded", retryable=True):
    """The provider has no capacity just now, or this server; topping up does not help."""


class ModelNotServed(UpstreamFailed, code="model_not_served"):
    """The provider does not serve this model (404, 410), or no longer."""


class ContextTooLong(UpstreamFailed, code="context_too_long"):
    """The request is longer than the model's context."""


class ContentFiltered(UpstreamFailed, code="content_filtered"):
    """The provider's content filter stopped the request or the answer."""


class RequestRejected(UpstreamFailed, code="invalid_arguments"):
    """The provider refused the request as malformed (400 without a better name)."""


class UpstreamTimeout(UpstreamFailed, code="upstream_timeout", retryable=True):
    """A deadline of ours passed: first token, idle or total."""


class UpstreamBroken(UpstreamFailed, code="upstream_broken", retryable=True):
    """The provider's answer can't be read: a 5xx, HTML, bad JSON, a reset, an end without a finish."""


class UpstreamUnreachable(UpstreamFailed, code="upstream_unreachable", retryable=True):
    """No connection to the provider could be made."""


class AnswerCutOff(UpstreamFailed, code="answer_cut_off"):
    """The answer ended before it was complete; what arrived is kept."""


class Cancelled(KimiError, code="cancelled"):
    """The caller cancelled the run; what had arrived is kept."""


class Internal(KimiError, code="internal"):
    """A mistake in this program, or a broken installation. The details are in the log, never in the result."""


def internal_error(fault: BaseException | None = None) -> Internal:
    """The error for a mistake in this program; or for its installation, where what failed is an import."""
    if isinstance(fault, ImportError | SyntaxError):
        return Internal(
            "kimi-mcp's installation is broken: a package that this call needs can't be loaded.",
            fix="Install kimi-mcp again; the log of the server says what is missing.",
        )
    return Internal(
        "The server made a mistake; nothing of what you sent is at fault.",
        fix="Call again; if it happens again, report it with the log lines of the server.",
    )


def server_stopped() -> AnswerCutOff:
    """The error of a run that ends with its server, since no other one can continue it."""
    return AnswerCutOff(
        "The server was stopped before the answer was complete; what had arrived is kept.",
        fix="Call again if you still need the rest.",
    )


def _from_json(record: Mapping[str, Any]) -> KimiError:
    """A recorded error by its code; ``Internal`` for a code that is no longer known."""
    leaves = (leaf for branch in KimiError.__subclasses__() for leaf in (*branch.__subclasses__(), branch))
    kind = next((leaf for leaf in leaves if leaf.code == record["code"]), Internal)
    return kind(record["message"], fix=record["fix"], rule=record["rule"])


def caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether an exception was raised from, or while handling, one of that kind."""
    cause = error.__cause__ or error.__context__
    return cause is not None and (isinstance(cause, kind) or caused_by(cause, kind))
