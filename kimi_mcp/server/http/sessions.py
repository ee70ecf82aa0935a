"""``PortableSessions``: sessions of the handshake era (protocol up to 2025-11-25) that any replica takes. ASGI, no I/O.

The SDK keeps a session in the process that opened it, and answers 404 for the others; few clients then open a new one,
as the protocol asks. But nothing of ours is in a session beside how its client named itself, and whether it shows MCP
Apps. So the id that a client gets has that in it, and a replica that does not know the session opens one of its own for
it. It belongs to whoever shows the token, request by request: with the id of another caller's session nobody gets
anything of that caller.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, cast

import anyio
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kimi_mcp.server import apps, callers
from kimi_mcp.server.callers import Principal
from kimi_mcp.server.http.refusal import Refusal
from kimi_mcp.server.streams import SESSION

KNOWN = 4096
"""Sessions that are known by the ids that clients have; of more, those that were not used longest are opened again."""

OPEN_WITHIN_S = 5.0
"""Seconds for opening a session here."""

MOST_CHARS = 200
"""Characters of a client's name or version that its id holds."""

MOST_HELLO_BYTES = 64 * 1024
"""Bytes of a request that may open a session."""

_Owned = tuple[Principal | None, str]
"""A session as its client knows it, and whose that is."""

_ENDED = ""
"""The local id of a session that its client has ended here; other replicas can't know that."""

_Hello = tuple[str, str, str, bool]
"""Protocol version, name and version of a client, as it says, and whether it shows MCP Apps."""


class PortableSessions:
    """An ASGI app around the SDK's."""

    def __init__(self, app: ASGIApp, is_full: Callable[[Principal], bool]) -> None:
        """``is_full``: whether a principal has as many sessions as it may."""
        self._app, self._is_full = app, is_full
        self._local = OrderedDict[_Owned, str]()
        self._opening = anyio.Lock(fast_acquire=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises ``Refusal``."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        session = headers.get(MCP_SESSION_ID_HEADER)
        if callers.KEY not in scope or headers.get("mcp-protocol-version") in MODERN_PROTOCOL_VERSIONS:
            await self._app(scope, receive, send)
        elif session is None:
            await self._open(scope, receive, send)
        elif (hello := _hello_in(session)) is None:
            await self._app(scope, receive, send)  # which does not know it
        else:
            await self._use((scope[callers.KEY], session), hello, scope, receive, send)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that may open a session; what the client says of itself goes into its id."""
        first = await receive()
        hello = _hello_of(first.get("body", b"")) if not first.get("more_body") else None

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start" and hello is not None:
                headers = MutableHeaders(scope=message)
                if (local := headers.get(MCP_SESSION_ID_HEADER)) is not None:
                    headers[MCP_SESSION_ID_HEADER] = session = _with_hello(local, hello)
                    self._know((scope[callers.KEY], session), local)
            await send(message)

        await self._app(scope, _ReplayedBody(first, receive).replay(), send_named)

    async def _use(self, key: _Owned, hello: _Hello, scope: Scope, receive: Receive, send: Send) -> None:
        """A request of a session, here or elsewhere."""
        scope[SESSION], ends = key[1], scope["method"] == "DELETE"
        known = self._local.get(key)
        if known == _ENDED:
            await self._app(scope, receive, send)  # the SDK does not know that id
            return
        if ends:
            self._know(key, _ENDED)
        if ends and known is None:
            await Response()(scope, receive, send)
            return
        body = _ReplayedBody(await receive(), receive)
        if known is not None:
            response = _Named(send, key[1], body, holds_back=not ends)
            await self._app(_in_session(scope, known), body.replay(), response.send)
            if not response.is_held_back:
                return
            if self._local.get(key) == known:  # it was idle for so long that the SDK forgot it
                del self._local[key]
        local = await self._opened(key, hello, scope)
        await self._app(_in_session(scope, local), body.replay(), _Named(send, key[1], body).send)

    def _know(self, key: _Owned, local: str) -> None:
        self._local[key] = local
        self._local.move_to_end(key)
        while len(self._local) > KNOWN:
            self._local.popitem(last=False)

    async def _opened(self, key: _Owned, hello: _Hello, scope: Scope) -> str:
        """The id of a session here for one that was opened elsewhere."""
        async with self._opening:
            if known := self._local.get(key):
                return known
            if key[0] is not None and self._is_full(key[0]):
                message = "You have as many sessions open as you may: end those that you need no longer, or wait."
                raise Refusal(429, message, headers={"Retry-After": "60"})
            protocol, name, version, shows_apps = hello
            params = {
                "protocolVersion": protocol,
                "capabilities": {"extensions": apps.CLIENT} if shows_apps else {},
                "clientInfo": {"name": name, "version": version},
            }
            with anyio.move_on_after(OPEN_WITHIN_S):
                local = await self._post(scope, {"id": 0, "method": "initialize", "params": params}, {})
                if local is not None:
                    session = {MCP_SESSION_ID_HEADER: local, "mcp-protocol-version": protocol}
                    await self._post(scope, {"method": "notifications/initialized"}, session)
                    self._know(key, local)
                    return local
        raise Refusal(503, "The session can't be taken here just now: call again.", headers={"Retry-After": "5"})

    async def _post(self, scope: Scope, message: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
        """Send a message to the SDK's app on behalf of a request; the id of the session in its response."""
        body, found = json.dumps({"jsonrpc": "2.0", **message}).encode(), list[str | None]()
        sent = {"content-type": "application/json", "accept": "application/json, text/event-stream", **headers}

        async def receive() -> Message:
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                found.append(Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER))

        raw = [(name.encode(), value.encode()) for name, value in sent.items()]
        first: Message = {"type": "http.request", "body": body, "more_body": False}
        await self._app({**scope, "method": "POST", "headers": raw}, _ReplayedBody(first, receive).replay(), send)
        return found[0] if found else None


class _Named:
    """Sends a response, with the id of its session as its client has it; holds back that there is no such session."""

    def __init__(self, send: Send, session: str, body: _ReplayedBody, *, holds_back: bool = False) -> None:
        self._send, self._session, self._body, self._holds_back = send, session, body, holds_back
        self.is_held_back = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_held_back = self._holds_back and message["status"] == 404
            if not self.is_held_back:
                self._body.forget()
            headers = MutableHeaders(scope=message)
            if MCP_SESSION_ID_HEADER in headers:
                headers[MCP_SESSION_ID_HEADER] = self._session
        if not self.is_held_back:
            await self._send(message)


def _in_session(scope: Scope, local: str) -> Scope:
    name = MCP_SESSION_ID_HEADER.encode()
    headers = [each for each in scope["headers"] if each[0] != name]
    return {**scope, "headers": [*headers, (name, local.encode())]}


class _ReplayedBody:
    """The body of a request, which may have to be read twice, until its response has begun."""

    def __init__(self, first: Message, receive: Receive) -> None:
        """``first``: all of it, in one message."""
        self._first: Message | None = first
        self._receive = receive

    def replay(self) -> Receive:
        """What reads it."""
        is_read = False

        async def read() -> Message:
            nonlocal is_read
            if self._first is None or is_read:
                return await self._receive()
            is_read = True
            return self._first

        return read

    def forget(self) -> None:
        """Hold it no longer: a medium may be large, and its call long."""
        self._first = None


def _hello_of(body: bytes) -> _Hello | None:
    """What a client says of itself in a request that opens a session; None where it is no such request."""
    try:
        message: Any = json.loads(body) if len(body) <= MOST_HELLO_BYTES else None
        if message["method"] != "initialize":
            return None
        params = message["params"]
        client, shows_apps = params["clientInfo"], apps.are_shown(params["capabilities"].get("extensions"))
        return _checked([params["protocolVersion"], client["name"], client["version"], shows_apps])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _with_hello(local: str, hello: _Hello) -> str:
    return f"{local}.{urlsafe_b64encode(json.dumps(hello, separators=(',', ':')).encode()).decode()}"


def _hello_in(session: str) -> _Hello | None:
    """How the client of a session named itself; None where the id is none of ours."""
    _, dot, text = session.partition(".")
    try:
        return _checked(json.loads(urlsafe_b64decode(text))) if dot else None
    except (ValueError, RecursionError):
        return None


def _checked(hello: Any) -> _Hello | None:
    if not isinstance(hello, list) or len(cast("list[Any]", hello)) not in (3, 4):
        return None
    protocol, *client = cast("list[Any]", hello)[:3]
    shows_apps = cast("list[Any]", hello)[3:] == [True]  # a replica of an earlier version does not say it
    if not all(isinstance(each, str) for each in client) or not isinstance(protocol, str):
        return None
    if protocol not in HANDSHAKE_PROTOCOL_VERSIONS:
        protocol = HANDSHAKE_PROTOCOL_VERSIONS[-1]
    name, version = (each[:MOST_CHARS] for each in client)
    return protocol, name, version, shows_apps
