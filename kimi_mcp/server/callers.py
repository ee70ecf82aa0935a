"""Who makes a request. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kimi_mcp.core.callers import LOCAL

KEY = "kimi_mcp.principal"
"""Where the ASGI scope of a request has its ``Principal``, None without authentication; set for each request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whom an authenticated request comes from: an issuer, and a subject that is unique there."""

    issuer: str
    """Who vouches for it: an issuer's URL, or ``kimi-mcp`` for tokens of the server's own file. It has no ``#``."""
    subject: str
    """Its name there."""
    scopes: frozenset[str] = field(default=frozenset(), compare=False)
    """What its token allows."""

    @property
    def id(self) -> str:
        """The one text for it, which the store has as ``runs.caller``; two principals never have the same."""
        return f"{self.issuer}#{self.subject}"


def principal_of(context: Any) -> Principal | None:
    """Whom a request comes from; None over stdio, and over HTTP without authentication.

    ``context.request`` is the HTTP request, None over stdio. One that nobody let in has no entry: ``KeyError``.
    """
    return None if context.request is None else context.request.scope[KEY]


def caller_of(context: Any) -> str:
    """The caller of a request; nothing else decides it. What it starts and what it finds belongs to that caller."""
    principal = principal_of(context)
    return LOCAL if principal is None else principal.id
