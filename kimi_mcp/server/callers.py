"""Who makes a request. No I/O."""

from __future__ import annotations

from typing import Any

LOCAL = "local"
"""The caller of every run on this machine: over stdio, over HTTP without authentication, or in a shell."""


def caller_of(context: Any) -> str:
    """The caller of a request; nothing else decides it. What it starts and what it finds belongs to that caller.

    ``context.request`` is the HTTP request, None over stdio. HTTP has no authentication and is served on loopback
    alone, so its callers are this machine's too.
    """
    del context
    return LOCAL
