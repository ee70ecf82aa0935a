"""``LinkAccess``: the page of one person on this machine, opened by a link that works once. I/O: reads ``/proc``.

Other programs and users of the machine can reach the port too. The link has 192 random bits and is exchanged for a
cookie with as many; both live as long as the process. A link stands in the arguments of the browser that it opens,
where others can read it: on Linux it is therefore taken from a connection of this user (or of root) alone.
"""

from __future__ import annotations

import hmac
import os
import secrets
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Router
from starlette.types import Scope

from kimi_mcp.view.web.access import AccessRefused, ViewAccess, signed_out
from kimi_mcp.view.web.cookies import cookies_named, session_cookie
from kimi_mcp.view.web.pages import message_page
from kimi_mcp.view.web.routes import Viewer

LOOPBACK: Final = ("127.0.0.1", "localhost")
"""How a browser on this machine, or at the other end of a tunnel, calls it."""

TOKEN_BYTES: Final = 24

_PARAMETER: Final = "once"
_AGAIN: Final = "Press Enter in the terminal of `kimi-mcp ui` for another link, or start it again."


class LinkAccess(ViewAccess):
    """Lets in who has the link, and then that browser."""

    def __init__(self, app: Router, port: int, base: str = "/ui") -> None:
        """``port``: where it is listened on, on 127.0.0.1; each has a cookie of its own, which browsers don't do."""
        super().__init__(app, base)
        self._port, self._cookie = port, f"kimi-ui-{port}"
        self._link: str | None = None
        self._session = secrets.token_urlsafe(TOKEN_BYTES)

    def new_link(self) -> str:
        """A link, which works once; the one before it works no longer."""
        self._link = secrets.token_urlsafe(TOKEN_BYTES)
        return f"http://{LOOPBACK[0]}:{self._port}{self._base}/start?{_PARAMETER}={self._link}"

    def has_host(self, host: str | None) -> bool:
        """At any port: that of a tunnel is another one."""
        name, _, port = (host or "").lower().partition(":")
        return name in LOOPBACK and (not port or (port.isdigit() and len(port) <= 5))

    def origins(self, host: str) -> Collection[str]:
        """The page is served without TLS."""
        return (f"http://{host}",)

    async def admit(self, scope: Scope) -> Viewer:
        """Raises ``AccessRefused`` without the cookie."""
        if not self._has_session(scope):
            message = "This page is open to the browser that `kimi-mcp ui` has opened."
            raise signed_out(message, "Open the link that `kimi-mcp ui` printed; it works once. " + _AGAIN)
        return Viewer(caller=None, may_cancel=True)

    async def answer_own(self, name: str, request: Request) -> Response | None:
        """The link."""
        if name != "/start" or request.method != "GET":
            return None
        if not self._has_session(request.scope):
            self._take_link(request)
        page = RedirectResponse(f"{self._base}", 303)
        page.headers["Set-Cookie"] = session_cookie(self._cookie, self._session, self._base)
        return page

    def refused_page(self, refused: AccessRefused) -> Response:
        """A sentence, and what to do."""
        return message_page(refused.status, "kimi-mcp", refused.message, refused.fix)

    def _take_link(self, request: Request) -> None:
        """Use up the link. Raises ``AccessRefused`` where it is not the one, or may not be used so."""
        shown = request.query_params.getlist(_PARAMETER)
        if "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", "")):
            raise AccessRefused(403, "prefetched", "The link is for who opens it.", "Open the link.")
        if len(shown) != 1 or self._link is None or not _same(shown[0], self._link):
            raise signed_out("This link was used already, or is not complete.", _AGAIN)
        if not _is_own_user(request):
            raise AccessRefused(
                403, "other_user", "This link belongs to another user of this machine.", "Start `kimi-mcp ui` yourself."
            )
        self._link = None  # nothing was awaited since it was compared: two cannot use it

    def _has_session(self, scope: Scope) -> bool:
        return any(_same(each, self._session) for each in cookies_named(self._cookie, scope))


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _is_own_user(request: Request) -> bool:
    """Whether a connection on this machine is this user's, or root's, as a tunnel's may be.

    Where the system does not say so, the secret of the link has to do.
    """
    client, server = request.client, request.scope.get("server")
    if client is None or server is None or sys.platform == "win32":
        return True
    theirs, ours = f":{client.port:04X}", f":{server[1]:04X}"
    sockets = [
        row
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for row in _rows(table)
        if row[1].endswith(theirs) and row[2].endswith(ours)
    ]
    # None: its other end is at no socket of this system. One that was closed on its side has no owner any more.
    return all(row[3] == _ESTABLISHED and int(row[7]) in (0, os.getuid()) for row in sockets)


_ESTABLISHED: Final = "01"


def _rows(table: str) -> Iterator[list[str]]:
    """The rows of a table of sockets; none where the system has no such."""
    try:
        lines = Path(table).read_text("ascii").splitlines()[1:]
    except (OSError, ValueError):
        return
    for line in lines:
        fields = line.split()
        if len(fields) > 7:
            yield fields
