"""``ViewAccess``: what every request for the live page passes, and the headers of every response. ASGI, no I/O.

A page of another site can make a browser send requests here, with the reader's cookie or under the name of this
machine, and it can put this page into a frame. So a request is refused unless its ``Host`` is ours, its ``Origin`` is
the page's own and the browser does not say that another site made it (``Sec-Fetch-Site``). Only then is asked who sends
it, and only then does it reach a route.

The document holds no data, and neither do its scripts: both are given to a link on another site too, since a browser
leaves the cookie out there. What they show they ask for from the page itself.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, cast

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from kimi_mcp.core.errors import KimiError, RunNotFound
from kimi_mcp.view.web.routes import Viewer

log = logging.getLogger(__name__)

VIEWER: Final = "kimi_mcp.viewer"
"""Where the ASGI scope of a request that was let in has its ``Viewer``."""

OWN_HEADER: Final = "x-kimi-view"
"""The header of requests that change something: no page of another origin can send it without being asked first."""

CHECK_EVERY_S: Final = 10.0
"""Seconds between two looks at whether the reader of an open stream may still read it."""

MAX_BODY_BYTES: Final = 32 * 1024
"""Of a request: a form with a token of 16 KiB, encoded, is the largest."""

BODY_WITHIN_S: Final = 10.0

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""The Content-Security-Policy of what has none of its own."""

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
"""Headers of every response that does not set them itself."""

_FRAMES: Final = frozenset(("iframe", "frame", "embed", "object", "fencedframe"))
_SECRETS: Final = frozenset((b"cookie", b"authorization", b"proxy-authorization"))


class AccessRefused(Exception):
    """A request for the live page is refused."""

    def __init__(
        self, status: int, code: str, message: str, fix: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """``message``: what is wrong; ``fix``: what to do. Neither quotes anything of the request."""
        super().__init__(message)
        self.status = status
        """The HTTP status."""
        self.code = code
        """One word for scripts, such as ``signed_out``."""
        self.message, self.fix = message, fix
        self.headers = dict(headers or {})
        """More headers of the response."""

    def response(self) -> Response:
        """The answer to a script."""
        error = {"code": self.code, "message": self.message, "fix": self.fix}
        return JSONResponse({"error": error}, self.status, self.headers)


def signed_out(message: str, fix: str) -> AccessRefused:
    """The error of who has not shown yet who they are."""
    return AccessRefused(401, "signed_out", message, fix)


def not_found() -> AccessRefused:
    """The error of a path that there is not."""
    return AccessRefused(404, "not_found", "There is nothing at that path.", "Open the page itself.")


async def viewer_of(request: Request) -> Viewer:
    """Who sends a request that was let in; for ``view_routes``. Raises ``AccessRefused``: nobody was."""
    viewer: Viewer | None = request.scope.get(VIEWER)
    if viewer is None:
        raise signed_out("Only a reader who is known sees that.", "Reload the page.")
    return viewer


class ViewAccess(ABC):
    """An ASGI app around the routes of the page. What it checks beyond this says the place that serves the page."""

    def __init__(self, app: Router, base: str) -> None:
        """``app``: the routes; ``base``: the path that all of them are below."""
        self._app, self._base = app, base
        self.routes: Final = tuple(app.routes)
        """What is behind it."""
        self._streams = set[anyio.CancelScope]()

    @abstractmethod
    def has_host(self, host: str | None) -> bool:
        """Whether this server is called by that ``Host``."""

    @abstractmethod
    def origins(self, host: str) -> Collection[str]:
        """The origins of the page itself, in lower case, where it was reached by that ``Host``."""

    @abstractmethod
    async def admit(self, scope: Scope) -> Viewer:
        """Who sends a request. Raises ``AccessRefused``."""

    @abstractmethod
    async def answer_own(self, name: str, request: Request) -> Response | None:
        """The response to a path below the base that needs no ``Viewer``, such as a form to sign in; None: no such.

        ``name``: the path behind the base, "" for the base itself. Raises ``AccessRefused``.
        """

    @abstractmethod
    def refused_page(self, refused: AccessRefused) -> Response:
        """What a person sees instead of the page."""

    def counted(self, scope: Scope, *, is_stream: bool) -> AbstractContextManager[None]:
        """Around each request that was let in. Raises ``AccessRefused`` where its reader has too many open."""
        return nullcontext()

    @property
    def streams(self) -> int:
        """How many streams of events are open."""
        return len(self._streams)

    def end_streams(self) -> None:
        """End every stream of events; who reads it asks again, maybe elsewhere."""
        for scope in tuple(self._streams):
            scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        response, path = _WatchedView(send), scope["path"]
        try:
            await self._answer(self._name(path), scope, receive, response)
        except Exception as fault:
            if response.started:
                log.exception("a response of the live page was cut off")
                raise
            await self._refusal(path, _refused(fault))(scope, receive, response.send)

    async def _answer(self, name: str, scope: Scope, receive: Receive, response: _WatchedView) -> None:
        headers, method = Headers(scope=scope), scope["method"]
        scope["path"] = self._base + name
        self._check_names(headers)
        is_foreign = self._is_foreign(name, method, headers)
        if method not in ("GET", "POST"):
            fix = "Read with GET, change with POST."
            raise AccessRefused(405, "wrong_method", "That method is not taken here.", fix, {"Allow": "GET, POST"})
        if method == "POST":
            receive = await _read_body(headers, receive)
        own = await self.answer_own(name, Request(scope, receive))
        if own is not None:
            await own(scope, receive, response.send)
            return
        if name.startswith("/assets/") or is_foreign:
            scope["headers"] = _without_secrets(scope)
            await self._app(scope, receive, response.send)
            return
        if method == "POST":
            check_own_header(headers)
        shown = dict(scope)
        scope[VIEWER] = await self.admit(scope)
        scope["headers"] = _without_secrets(scope)
        is_stream = name.endswith("/events")
        with self.counted(scope, is_stream=is_stream):
            if is_stream:
                await self._stream(shown, scope, receive, response)
            else:
                await self._app(scope, receive, response.send)

    def _name(self, path: str) -> str:
        """A path behind the base. Raises ``AccessRefused``: it is none of ours, or spelled in another way."""
        if path in (self._base, f"{self._base}/"):
            return ""
        base, name = path[: len(self._base)], path[len(self._base) :]
        first, *parts = name.split("/")
        strange = any(part in ("", ".", "..") for part in parts) or not name.isprintable() or "\\" in name
        if base != self._base or first or strange:
            raise not_found()
        return name

    def _check_names(self, headers: Headers) -> None:
        host, origin = headers.get("host"), headers.get("origin")
        if len(headers.getlist("host")) != 1 or host is None or not self.has_host(host):
            fix = "Use the address that the server prints; behind a proxy its operator sets KIMI_HTTP_URL."
            raise AccessRefused(421, "wrong_host", "This server is not called by that name.", fix)
        if origin is not None and origin.strip().lower() not in self.origins(host.strip().lower()):
            raise _foreign()

    def _is_foreign(self, name: str, method: str, headers: Headers) -> bool:
        """Whether another site opened the document; raises ``AccessRefused`` for all else that one makes."""
        if headers.get("sec-fetch-dest") in _FRAMES:
            fix = "Open it in a tab of its own."
            raise AccessRefused(403, "framed", "This page is shown in no frame.", fix)
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return False
        opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if method != "GET" or not opens or name.startswith(("/api/", "/assets/")):
            raise _foreign()
        return name == ""

    async def _stream(self, shown: Scope, scope: Scope, receive: Receive, response: _WatchedView) -> None:
        with anyio.CancelScope() as ended:
            self._streams.add(ended)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._end_once_shut_out, shown, ended)
                    await self._app(scope, receive, response.send)
                    tasks.cancel_scope.cancel()
            finally:
                self._streams.discard(ended)
        if ended.cancelled_caught:
            await response.finish()

    async def _end_once_shut_out(self, shown: Scope, ended: anyio.CancelScope) -> None:
        """End a stream whose reader may read it no longer: the token was revoked, or has expired."""
        while True:
            await anyio.sleep(CHECK_EVERY_S)
            try:
                await self.admit(dict(shown))
            except AccessRefused as refused:
                if refused.status in (401, 403):
                    ended.cancel()
                    return

    def _refusal(self, path: str, refused: AccessRefused) -> Response:
        if path.startswith((f"{self._base}/api/", f"{self._base}/assets/")):
            return refused.response()
        page = self.refused_page(refused)
        page.headers.update(refused.headers)
        return page


class _WatchedView:
    """Sends a response, with the headers that each has, and knows how far it is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self._complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if headers.get("content-type", "").startswith("text/event-stream"):
                headers["X-Accel-Buffering"] = "no"  # nginx would collect events
            # No cache and no other site gets what is meant for one reader.
            headers.add_vary_header("Cookie, Sec-Fetch-Site")
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True
        await self._send(message)

    async def finish(self) -> None:
        """End it from outside."""
        if not self.started:
            await self.send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"1")]})
        if not self._complete:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def _without_secrets(scope: Scope) -> list[tuple[bytes, bytes]]:
    return [each for each in scope["headers"] if each[0].lower() not in _SECRETS]


def _foreign() -> AccessRefused:
    fix = "Open the page itself, by the address that the server prints."
    return AccessRefused(403, "other_site", "Pages of other sites may not use this one.", fix)


def check_own_header(headers: Headers) -> None:
    """Raises ``AccessRefused`` for what changes something and does not come from a script of the page."""
    if headers.get(OWN_HEADER) != "1":
        message = "Nothing is changed without the header X-Kimi-View."
        raise AccessRefused(403, "header_missing", message, "Send `X-Kimi-View: 1`.")
    content_type = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json":
        message = "What changes something is sent as JSON."
        raise AccessRefused(415, "wrong_type", message, "Send `Content-Type: application/json`, or no body.")


async def _read_body(headers: Headers, receive: Receive) -> Receive:
    """Read a body, and return what gives it again. Raises ``AccessRefused``: too large, or too slow."""
    content = bytearray()
    announced = headers.get("content-length", "0")
    with anyio.move_on_after(BODY_WITHIN_S):
        more = announced.isdigit() and len(announced) < 9 and int(announced) <= MAX_BODY_BYTES
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            content += message.get("body", b"")
            if len(content) > MAX_BODY_BYTES:
                break
            if not message.get("more_body", False):
                return _Replayed(bytes(content), receive)
    fix = "Send less, in one go."
    raise AccessRefused(413, "too_large", "The request is too large, or came too slowly.", fix, {"Connection": "close"})


class _Replayed:
    """A body that was read, for who reads it again."""

    def __init__(self, content: bytes, receive: Receive) -> None:
        self._message: Message | None = {"type": "http.request", "body": content, "more_body": False}
        self._receive = receive

    async def __call__(self) -> Message:
        message, self._message = self._message, None
        return message or await self._receive()


def _refused(fault: Exception) -> AccessRefused:
    """What a reader gets for a fault."""
    # A task group wraps the one exception that it ends by.
    while len(inner := cast("tuple[Exception, ...]", getattr(fault, "exceptions", ()))) == 1:
        fault = inner[0]
    if isinstance(fault, AccessRefused):
        return fault
    if isinstance(fault, KimiError):
        return AccessRefused(404 if isinstance(fault, RunNotFound) else 503, fault.code, fault.message, fault.fix)
    if isinstance(fault, HTTPException):
        return AccessRefused(fault.status_code, "refused", "The request can't be taken.", "Reload the page.")
    log.error("a request for the live page failed", exc_info=fault)
    fix = "Try again; if it happens again, report it with the log lines of the server."
    return AccessRefused(500, "internal", "The server made a mistake.", fix)
