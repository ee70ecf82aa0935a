"""Who calls, as every package knows it. No I/O."""

from __future__ import annotations

from contextvars import ContextVar

LOCAL = "local"
"""The caller of every run on this machine: over stdio, over HTTP without authentication, or in a shell.

Every other caller is a principal of the HTTP server."""

OWN_ISSUER = "kimi-mcp"
"""The issuer of the server's own tokens; a principal is its issuer, ``#`` and its subject."""

CURRENT: ContextVar[str] = ContextVar("caller", default=LOCAL)
"""The caller whose run the current task works for; a run sets it, and tasks that it starts have it too."""


def name_of(caller: str) -> str:
    """A caller for people: the name of its token, or its subject with the issuer."""
    issuer, mark, subject = caller.partition("#")
    if not mark:
        return caller
    return subject if issuer == OWN_ISSUER else f"{subject} ({issuer})"
