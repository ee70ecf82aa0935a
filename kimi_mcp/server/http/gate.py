"""``Gate``: what every request passes before the SDK's app sees it, and what watches over its response. ASGI, I/O.

The SDK alone would answer some mistakes without a word, or with the text of an exception; it would parse any number of
values, and would not tell a closed stream from an answered one.
"""

from __future__ import annotations

from typing import Any, Final, cast

import anyio
from mcp.server.streamable_http import check_accept_headers
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import HEADER_MISMATCH, JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kimi_mcp.server import tasks
from kimi_mcp.server.http.allowed_names import AllowedNames
from kimi_mcp.server.http.bodies import Bodies, Gone, HttpLimits
from kimi_mcp.server.http.refusal import Refusal
from kimi_mcp.server.stdio.framing import Framer, RejectedLine, encode
from kimi_mcp.server.streams import KEY, ResponseStream
from kimi_mcp.server.tools import TOOLS, RunArguments

ENDPOINT: Final = "/mcp"
"""Where MCP is spoken."""

HEALTH: Final = ("/healthz", "/readyz")
"""What probes ask, under whatever name they reach the process."""

CARDS: Final = ("/mcp/server-card", "/.well-known/ai-catalog.json", "/.well-known/mcp/catalog.json")
"""Public documents, for any page."""

_METHODS: Final = ("POST", "GET", "DELETE", "OPTIONS")


class Gate:
    """An ASGI app around the SDK's."""

    def __init__(self, app: ASGIApp, access: AllowedNames, limits: HttpLimits) -> None:
        self._app, self._access, self._limits = app, access, limits
        self._for_pages = CORSMiddleware(
            app,
            allow_origin_regex=access.origins.pattern,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Mcp-Session-Id"],
        )
        self._bodies = Bodies(limits)
        self._open: dict[anyio.CancelScope, str] = {}
        self.draining = False
        """Whether new calls are refused: the server ends."""

    @property
    def answering(self) -> bool:
        """Whether a message is being answered; a stream that a client only listens to does not count."""
        return "POST" in self._open.values()

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
        if path in HEALTH:
            await self._app(scope, receive, send)
            return
        self._access.check_host(headers.get("host"))
        if path in CARDS:
            await self._app(scope, receive, send)
            return
        self._access.check_origin(headers.get("origin"))
        if path != ENDPOINT:
            raise Refusal(404, f"There is nothing at that path: MCP is spoken at {ENDPOINT}.")
        scope["path"] = path
        _check_method(scope, headers)
        if scope["method"] != "POST":
            await self._serve(scope, receive, send, b"")
            return
        _check_types(scope, headers)
        body = await self._bodies.read(headers, receive)
        try:
            content = self._checked(body.content, headers)
            body.content = b""
            await self._serve(scope, receive, send, content)
        finally:
            body.release()

    def _checked(self, content: bytes, headers: Headers) -> bytes:
        """The message as the SDK gets it. Raises ``Refusal``."""
        received = Framer(self._limits.message).decode(content)
        if isinstance(received, RejectedLine):
            raise Refusal(400, received.message, code=received.code, request_id=received.id)
        if self.draining and _starts_work(received):
            assert isinstance(received, JSONRPCRequest)
            message = "The server is about to stop and takes no new calls: call again in a moment."
            raise Refusal(503, message, request_id=received.id, headers={"Retry-After": "5"})
        _check_task_header(received, headers)
        # Broken text was replaced in what was received, which only escapes and bytes beyond ASCII can hold.
        is_plain = content.isascii() and b"\\u" not in content
        return content if is_plain or isinstance(received, JSONRPCResponse | JSONRPCError) else encode(received)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, content: bytes) -> None:
        stream = scope[KEY] = ResponseStream()
        pending: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]
        del content
        state = _WatchedResponse(send)

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        try:
            with anyio.CancelScope() as ended:
                self._open[ended] = scope["method"]
                try:
                    app = self._app if Headers(scope=scope).get("origin") is None else self._for_pages
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


def _check_method(scope: Scope, headers: Headers) -> None:
    modern = headers.get("mcp-protocol-version") in MODERN_PROTOCOL_VERSIONS
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


def _check_task_header(received: JSONRPCMessage, headers: Headers) -> None:
    """A header that names a task must name the body's, as SEP-2663 asks; the SDK checks those of the core protocol."""
    if isinstance(received, JSONRPCRequest) and received.method in tasks.METHODS and MCP_NAME_HEADER in headers:
        task = (received.params or {}).get("taskId")
        if task is not None and decode_header_value(headers[MCP_NAME_HEADER]) != task:
            message = "`Mcp-Name` must be the `taskId` of the request."
            raise Refusal(400, message, code=HEADER_MISMATCH, request_id=received.id)


def _starts_work(received: JSONRPCMessage) -> bool:
    """Whether it is a call that sends something upstream."""
    if not isinstance(received, JSONRPCRequest) or received.method != "tools/call":
        return False
    name: Any = (received.params or {}).get("name")
    tool = TOOLS.get(name) if isinstance(name, str) else None
    if tool is None or tool.arguments is not RunArguments:
        return tool is not None
    arguments: Any = (received.params or {}).get("arguments")
    return isinstance(arguments, dict) and cast("dict[str, Any]", arguments).get("action") == "continue"
