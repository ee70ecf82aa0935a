"""``Gate``: what every request passes before the SDK's app sees it, and what watches over its response. ASGI, I/O.

The SDK alone would answer some mistakes without a word, or with the text of an exception; it would parse any number of
values, and would not tell a closed stream from an answered one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Literal, cast

import anyio
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER, check_accept_headers
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import HEADER_MISMATCH, JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse, RequestId
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kimi_mcp.server import callers, tasks
from kimi_mcp.server.callers import Principal
from kimi_mcp.server.http.allowed_names import AllowedNames
from kimi_mcp.server.http.auth.authentication import Authentication
from kimi_mcp.server.http.auth.scopes import CALL, OF_TOOLS, USE
from kimi_mcp.server.http.auth.scopes import Scope as TokenScope
from kimi_mcp.server.http.bodies import Bodies, Gone, HttpLimits
from kimi_mcp.server.http.refusal import Refusal
from kimi_mcp.server.stdio.framing import Framer, RejectedLine, encode
from kimi_mcp.server.streams import KEY, ResponseStream
from kimi_mcp.server.tools import TOOLS, RunArguments

ENDPOINT: Final = "/mcp"
"""Where MCP is spoken."""

HEALTH: Final = ("/healthz", "/readyz")
"""What probes ask, under whatever name they reach the process."""

METRICS: Final = "/metrics"
"""What Prometheus reads."""

UI: Final = "/ui"
"""Where the live page is, and below it all that belongs to it."""

CARDS: Final = ("/mcp/server-card", "/.well-known/ai-catalog.json", "/.well-known/mcp/catalog.json")
"""Public documents, for any page."""

_METHODS: Final = ("POST", "GET", "DELETE", "OPTIONS")
_CLOSE: Final = {"Connection": "close"}
_MAX_HEADERS: Final = 200

_SessionKey = tuple[Principal | None, str, str]

_Answered = Literal["call", "message", "other"]
"""What is being answered: a call that sends something upstream, another message, or no message."""


class Gate:
    """An ASGI app around the SDK's."""

    def __init__(
        self,
        app: ASGIApp,
        access: AllowedNames,
        limits: HttpLimits,
        authentication: Authentication,
        sessions: Callable[[Principal], int],
        *,
        speaks: bool = True,
        ui: ASGIApp | None = None,
    ) -> None:
        """``sessions``: how many a principal has open; ``speaks``: whether MCP is spoken here at all.

        ``ui``: the live page, which checks names, sites and tokens by itself; None: there is none.
        """
        self._speaks, self._ui = speaks, ui
        self._app, self._access, self._limits, self._authentication = app, access, limits, authentication
        self._sessions = sessions
        self._for_pages = CORSMiddleware(
            self._answer_at_endpoint,
            allow_origin_regex=access.origins.pattern,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Mcp-Session-Id", "WWW-Authenticate"],
        )
        self._bodies = Bodies(limits)
        self._open: dict[anyio.CancelScope, _Answered] = {}
        self._open_of = Counter[Principal]()
        self._openings: list[Principal] = []
        self._keys: dict[_SessionKey, anyio.Event] = {}
        self.joining = False
        """Whether calls are refused since the server is not ready yet."""
        self.leaving = False
        """Whether it is not ready any more; it may still take calls."""
        self.draining = False
        """Whether new calls are refused: the server ends."""
        self.on_drain: Callable[[], None] = lambda: None
        """Ends what clients only listen to, once that is so."""

    @property
    def answering(self) -> bool:
        """Whether a message is being answered; a stream that a client only listens to does not count."""
        return self.calling or "message" in self._open.values()

    @property
    def calling(self) -> bool:
        """Whether a call that sends something upstream is being answered, even if its run is not begun yet."""
        return "call" in self._open.values()

    def drain(self) -> None:
        """Take no new calls from here on."""
        self.draining = True
        self.on_drain()

    def end(self) -> None:
        """End every response that is still open."""
        for scope in self._open:
            scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
        except Gone:
            pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, headers = scope["path"].rstrip("/") or "/", Headers(scope=scope)
        _check_framing(scope, headers)
        if path in HEALTH or (path == METRICS and self._authentication.required):  # its token protects it
            await self._app(scope, receive, send)
            return
        if self._ui is not None and (path == UI or path.startswith(f"{UI}/")):
            await self._serve(self._ui, scope, receive, send, None, "other")
            return
        self._access.check_host(headers.get("host"))
        if path in CARDS or path in self._authentication.public_paths:
            scope["path"] = path
            await self._app(scope, receive, send)
            return
        self._access.check_origin(headers.get("origin"))
        if path == METRICS:
            await self._app(scope, receive, send)
            return
        if not self._speaks:
            raise Refusal(404, "This server is a worker of a cluster and speaks no MCP: ask one of another role.")
        if path != ENDPOINT:
            raise Refusal(404, f"There is nothing at that path: MCP is spoken at {ENDPOINT}.")
        scope["path"] = path
        _check_method(scope, headers)
        answer = self._answer_at_endpoint if headers.get("origin") is None else self._for_pages
        await answer(scope, receive, send)

    async def _answer_at_endpoint(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            is_post = scope["method"] == "POST"
            await self._authentication.admit(scope, () if is_post else USE)
            principal: Principal | None = scope[callers.KEY]
            with self.counted(principal):
                if is_post:
                    await self._answer_post(scope, receive, send, principal)
                else:
                    await self._serve(self._app, scope, receive, send, b"", "other")
        except Refusal as refusal:  # here, so that a page may read it
            await refusal.response()(scope, receive, send)

    async def _answer_post(self, scope: Scope, receive: Receive, send: Send, principal: Principal | None) -> None:
        headers = Headers(scope=scope)
        _check_types(scope, headers)
        body = await self._bodies.read(headers, receive, principal)
        try:
            content, kind, key, opener = self._checked(body.content, scope, headers)
            body.content = b""
            async with self._alone(key):
                with self._opening(principal, opener, send) as send_opened:
                    await self._serve(self._app, scope, receive, send_opened, content, kind)
        finally:
            body.release()

    @contextmanager
    def counted(self, principal: Principal | None) -> Generator[None]:
        """An open request of a principal. Raises ``Refusal`` where that has as many as it may."""
        if principal is None:
            yield
            return
        most = self._limits.max_principal_requests
        if self._open_of[principal] >= most:
            message = f"You have {most} requests open, as many as you may: send this one again once another has ended."
            raise Refusal(429, message, headers={"Retry-After": "5"})
        self._open_of[principal] += 1
        try:
            yield
        finally:
            self._open_of[principal] -= 1
            if not self._open_of[principal]:
                del self._open_of[principal]

    def _checked(
        self, content: bytes, scope: Scope, headers: Headers
    ) -> tuple[bytes, _Answered, _SessionKey | None, RequestId | None]:
        """The message as the SDK gets it, its kind, what tells a request of a session apart, and the id of an opener.

        Raises ``Refusal``.
        """
        received = Framer(self._limits.message).decode(content)
        if isinstance(received, RejectedLine):
            raise Refusal(400, received.message, code=received.code, request_id=received.id)
        needed, request_id = _needed_by(received), received.id if isinstance(received, JSONRPCRequest) else None
        self._authentication.check(scope, needed, request_id)
        if (self.draining or self.joining) and needed != USE:
            does = "about to stop and takes no new calls" if self.draining else "starting and takes no calls yet"
            message = f"The server is {does}: call again in a moment."
            raise Refusal(503, message, request_id=request_id, headers={"Retry-After": "5"})
        _check_task_header(received, headers)
        # Broken text was replaced in what was received, which only escapes and bytes beyond ASCII can hold.
        is_plain = content.isascii() and b"\\u" not in content
        whole = is_plain or isinstance(received, JSONRPCResponse | JSONRPCError)
        opener = request_id if isinstance(received, JSONRPCRequest) and received.method == "initialize" else None
        kind = "message" if needed == USE else "call"
        return content if whole else encode(received), kind, _key(received, scope, headers), opener

    @asynccontextmanager
    async def _alone(self, key: _SessionKey | None) -> AsyncGenerator[None]:
        """Raises ``Refusal`` where the id is that of another open request: the SDK would never answer that one."""
        if key is None:
            yield
            return
        if key in self._keys:
            with anyio.move_on_after(self._limits.same_id_s):
                while (other := self._keys.get(key)) is not None:
                    await other.wait()
        if key in self._keys:
            message = "Another open request of this session has that `id`: give each its own."
            raise Refusal(400, message, request_id=key[-1])
        self._keys[key] = ended = anyio.Event()
        try:
            yield
        finally:
            del self._keys[key]
            ended.set()

    @contextmanager
    def _opening(self, principal: Principal | None, opener: RequestId | None, send: Send) -> Generator[Send]:
        """What sends the response to a request that opens a session, which is open by the first of it.

        A principal may not have every session that there may be. Raises ``Refusal``.
        """
        if principal is None or opener is None:
            yield send
            return
        most = self._limits.max_principal_sessions
        if self._sessions(principal) + self._openings.count(principal) >= most:
            message = f"You have {most} sessions open: end those that you need no longer (DELETE), or wait."
            raise Refusal(429, message, request_id=opener, headers={"Retry-After": "60"})
        self._openings.append(principal)
        is_open = False

        def opened() -> None:
            nonlocal is_open
            if not is_open:
                self._openings.remove(principal)
            is_open = True

        async def send_opened(message: Message) -> None:
            opened()
            await send(message)

        try:
            yield send_opened
        finally:
            opened()

    async def _serve(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, content: bytes | None, kind: _Answered
    ) -> None:
        """Let an app answer; ``content``: the body, where that was read already."""
        stream = scope[KEY] = ResponseStream()
        pending = [] if content is None else [_body(content)]
        del content
        state = _WatchedResponse(send)

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        try:
            with anyio.CancelScope() as ended:
                self._open[ended] = kind
                try:
                    await app(scope, replay, state.send)
                finally:
                    del self._open[ended]
            if ended.cancelled_caught:
                await state.finish(scope, receive)
        finally:
            stream.end(delivered=state.complete)


class _WatchedResponse:
    """What was sent of a response."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.complete = False
        self._started = False

    async def send(self, message: Message) -> None:
        await self._send(message)
        if message["type"] == "http.response.start":
            self._started = True
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True

    async def finish(self, scope: Scope, receive: Receive) -> None:
        """End it from outside."""
        if not self._started:
            refusal = Refusal(503, "The server has stopped: call again in a moment.", headers={"Retry-After": "5"})
            await refusal.response()(scope, receive, self._send)
        elif not self.complete:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _body(content: bytes) -> Message:
    return {"type": "http.request", "body": content, "more_body": False}


def _check_framing(scope: Scope, headers: Headers) -> None:
    """A request that a proxy may have understood otherwise, and what may follow it, is not for us."""
    version = scope["http_version"]
    if not version.startswith("1."):
        raise Refusal(505, "HTTP/1.1 is spoken here.", headers=_CLOSE)
    if len(headers) > _MAX_HEADERS:
        raise Refusal(431, f"A request has {_MAX_HEADERS} headers at most.", headers=_CLOSE)
    if "transfer-encoding" in headers and ("content-length" in headers or version == "1.0"):
        message = "The length of the body is not clear: send `Content-Length`, or over HTTP/1.1 `Transfer-Encoding`."
        raise Refusal(400, message, headers=_CLOSE)


def _check_method(scope: Scope, headers: Headers) -> None:
    modern = _is_modern(headers)
    allowed = ("POST", "OPTIONS") if modern else _METHODS
    if scope["method"] not in allowed:
        which = " at this protocol version" if modern else ""
        message = f"{ENDPOINT} takes {', '.join(allowed)}{which}: MCP requests are sent by POST."
        raise Refusal(405, message, headers={"Allow": ", ".join(allowed)})


def _check_types(scope: Scope, headers: Headers) -> None:
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Refusal(415, "`Content-Type` must be application/json.")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "A compressed request is not read: send it without `Content-Encoding`.")
    if not all(check_accept_headers(Request(scope))):
        raise Refusal(406, "`Accept` must have both application/json and text/event-stream.")


def _key(received: JSONRPCMessage, scope: Scope, headers: Headers) -> _SessionKey | None:
    """None for what is no request of a session; to the SDK the ids 1 and "1" are the same."""
    session = headers.get(MCP_SESSION_ID_HEADER)
    if session is None or not isinstance(received, JSONRPCRequest) or _is_modern(headers):
        return None
    return scope[callers.KEY], session, str(received.id)


def _is_modern(headers: Headers) -> bool:
    return headers.get("mcp-protocol-version") in MODERN_PROTOCOL_VERSIONS


def _check_task_header(received: JSONRPCMessage, headers: Headers) -> None:
    """A header that names a task must name the body's, as SEP-2663 asks; the SDK checks those of the core protocol."""
    if isinstance(received, JSONRPCRequest) and received.method in tasks.METHODS and MCP_NAME_HEADER in headers:
        task = (received.params or {}).get("taskId")
        if task is not None and decode_header_value(headers[MCP_NAME_HEADER]) != task:
            message = "`Mcp-Name` must be the `taskId` of the request."
            raise Refusal(400, message, code=HEADER_MISMATCH, request_id=received.id)


def _needed_by(received: JSONRPCMessage) -> tuple[TokenScope, ...]:
    """The scopes of which a message needs one: a certain one for a call that sends something upstream, else ``USE``."""
    if not isinstance(received, JSONRPCRequest) or received.method != "tools/call":
        return USE
    name: Any = (received.params or {}).get("name")
    tool = TOOLS.get(name) if isinstance(name, str) else None
    if tool is None:
        return USE
    arguments: Any = (received.params or {}).get("arguments")
    if tool.arguments is RunArguments:
        continues = isinstance(arguments, dict) and cast("dict[str, Any]", arguments).get("action") == "continue"
        return (CALL,) if continues else USE
    return (OF_TOOLS.get(tool.name, CALL),)
