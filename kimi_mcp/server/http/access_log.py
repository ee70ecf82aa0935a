"""``AccessLog``: names each HTTP request, takes over its caller's trace, and logs and counts its response. ASGI.

What is logged is the method, the path, the status, the milliseconds until the end of the response, and the principal.
A path is named where it is one of ours; any other one may hold anything, as a query may.
"""

from __future__ import annotations

import logging
import random
import re
from typing import Final, cast

import anyio
from opentelemetry.context import attach, detach
from opentelemetry.propagate import extract
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from kimi_mcp.core import observing
from kimi_mcp.server.callers import KEY, Principal
from kimi_mcp.server.http.auth.authentication import METADATA
from kimi_mcp.server.http.gate import CARDS, ENDPOINT, HEALTH, METRICS, UI, Gate

GONE: Final = 499
"""What stands for the status where the client left before there was one, as in the logs of nginx."""

REQUEST_ID: Final = "x-request-id"
"""The header in which a proxy may name a request, and in which each response does."""

OTHER: Final = "(another)"
"""What stands for a path that the server does not have, or for such a method."""

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"))
_OURS: Final = frozenset((ENDPOINT, METRICS, *HEALTH, *CARDS, METADATA, METADATA + ENDPOINT))
_OF_UI: Final = re.compile(
    rf"{UI}(?:/sign-in|/sign-out|/assets|/api/(?:runs|facets|costs|session|events))?"
    rf"|(?P<run>{UI}/api/runs)/[A-Za-z0-9_]{{1,64}}(?P<what>/cancel|/events|/steps)?(?:/.*)?|(?P<asset>{UI}/assets)/.*"
)
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACE: Final = ("traceparent", "tracestate")

log = logging.getLogger(__name__)


class AccessLog:
    """An ASGI app around the gate."""

    def __init__(self, gate: Gate, *, unknown: str | None) -> None:
        """``unknown``: whose requests those are that no token names; None: nobody's."""
        self._gate, self._unknown = gate, unknown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._gate(scope, receive, send)
            return
        headers, began, status = Headers(scope=scope), anyio.current_time(), GONE
        request_id = headers.get(REQUEST_ID, "")
        if not _ID.fullmatch(request_id):
            request_id = f"req_{random.getrandbits(64):016x}"

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [(REQUEST_ID.encode(), request_id.encode())]
                if self._gate.draining:  # who balances loads would go on using the connection
                    added.append((b"connection", b"close"))
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        trace = {name: headers[name] for name in _TRACE if name in headers}
        token = attach(extract(trace)) if trace else None
        with observing.with_ids(request_id=request_id):
            try:
                await self._gate(scope, receive, send_named)
            finally:
                if token is not None:
                    detach(token)
                observing.emit(observing.Responded(status=status))
                if log.isEnabledFor(logging.INFO):
                    self._log(scope, status, anyio.current_time() - began)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        path, principal = scope["path"].rstrip("/"), cast("Principal | None", scope.get(KEY))
        fields = {
            "method": scope["method"] if scope["method"] in _METHODS else OTHER,
            "path": _shown(path),
            "status": status,
            "ms": round(seconds * 1000, 1),
            "principal": self._unknown if principal is None else principal.id,
        }
        log.info("%(method)s %(path)s %(status)s", fields, extra=fields)


def _shown(path: str) -> str:
    """A path as a line has it: what of it is not ours is left out."""
    if path in _OURS:
        return path
    found = _OF_UI.fullmatch(path)
    if found is None:
        return OTHER
    if found["run"] is not None:
        return f"{found['run']}/ID{found['what'] or ''}"
    return found["asset"] or path
