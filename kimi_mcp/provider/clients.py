"""The client of an endpoint: openai's, over connections of our own. Does I/O; imported on first use.

Of the environment only the usual proxy variables and SSL_CERT_FILE count, and no proxy is used for a loopback address:
no variable may send its key elsewhere.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import cached_property, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from operator import attrgetter
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
import httpcore2
import httpx2
from openai import APIConnectionError, AsyncOpenAI, AsyncStream, Omit
from openai._models import FinalRequestOptions

from kimi_mcp.core.certificates import trusted_certificates
from kimi_mcp.core.errors import caused_by
from kimi_mcp.core.proxies import proxy_for
from kimi_mcp.core.redaction import hide
from kimi_mcp.core.version import __version__
from kimi_mcp.provider.connections import (
    PacedBackend,
    PacedStream,
    ProviderConnection,
    StaleBeforeSent,
    StaleConnection,
)
from kimi_mcp.provider.endpoint import ApiRequest, StreamedBody
from kimi_mcp.provider.failures import Deadlines, FailureKind

POOL = 12
"""Requests at once in one pool: before and after each request, httpcore2 looks at every connection of its pool."""

ERROR_BODY = 65_536
"""Bytes of an error's body that are read."""


class ProviderResponse:
    """A response whose body has not been read yet."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._pieces: AsyncGenerator[bytes] | None = None
        stream: Any = response.extensions.get("network_stream")
        self.socket: PacedStream | None = stream.pace if isinstance(stream, ProviderConnection) else None
        """The socket below; None behind a proxy."""
        self.compressed: bool = response.headers.get("content-encoding", "identity").strip().lower() != "identity"
        """Whether the body is compressed, though identity was requested."""

    def pieces(self) -> AsyncGenerator[bytes]:
        """The body as it comes."""
        self._pieces = self._response.aiter_raw()
        return self._pieces

    async def aclose(self) -> None:
        """Release the connection if the body was read to its end, else close it. Takes no time."""
        if self.socket is not None:
            self.socket.live = False
        with anyio.CancelScope(shield=True):
            if self._pieces is not None:
                await self._pieces.aclose()  # the garbage collector would close it some time later
            await self._response.aclose()


class Client:
    """Requests to one endpoint."""

    def __init__(self, base_url: str, key: str | None, deadlines: Deadlines) -> None:
        self.transport = Transport(base_url, deadlines)
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._openai = _OpenAI(
            api_key=key or "none",
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=deadlines.connect_s),
            http_client=httpx2.AsyncClient(
                transport=self.transport, trust_env=False, follow_redirects=False, cookies=no_cookies
            ),
        )
        self._headers: dict[str, str | Omit] = {"X-Stainless-Retry-Count": Omit()}
        if key:
            hide(key)  # providers echo keys in their errors
        else:
            self._headers["Authorization"] = Omit()

    async def send(self, request: ApiRequest) -> ProviderResponse:
        """Send a request; returns the response once its headers are there. The caller closes it.

        Raises openai's and httpx2's errors. If an idle connection turns out to be dead, the
        others are closed too, and the request is sent once more on a new one.
        """
        try:
            return await self._send(request)
        except APIConnectionError as error:
            repeatable = request.repeatable or request.method != "POST"
            if not caused_by(error, StaleConnection if repeatable else StaleBeforeSent):
                raise
        await self.transport.close_idle()
        return await self._send(request)

    async def _send(self, request: ApiRequest) -> ProviderResponse:
        content: Any = request.content
        headers = self._headers
        if content is not None:
            headers = {**headers, _CONTENT_TYPE: request.content_type}
        if isinstance(content, StreamedBody):
            headers = {**headers, "Content-Length": str(content.length)}
            content = _streamed(content, request.on_sent)
        options = FinalRequestOptions.construct(
            method=request.method.lower(), url=request.path, headers=headers, content=content
        )
        response = await self._openai.request(httpx2.Response, options, stream=True, stream_cls=cast(Any, AsyncStream))
        return ProviderResponse(cast(httpx2.Response, response))

    async def aclose(self) -> None:
        """Close every socket."""
        await self._openai.close()


async def _streamed(body: StreamedBody, on_sent: Callable[[int], None]) -> AsyncGenerator[bytes]:
    """A body in pieces, each read and encoded in a worker thread."""
    pieces, sent = body.pieces(), 0
    while (piece := await anyio.to_thread.run_sync(next, pieces, None, abandon_on_cancel=True)) is not None:
        yield piece
        sent += len(piece)
        on_sent(sent)


class _Pool(httpx2.AsyncHTTPTransport):
    """httpx2's transport, over a pool whose connections are ours."""

    def __init__(self, trusted: ssl.SSLContext | None, proxy: str | None, deadlines: Deadlines) -> None:
        # Not super().__init__(): it takes no network backend.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted,
            proxy=None if proxy is None else _proxy(proxy),
            max_connections=None,  # our own limiter counts the requests
            keepalive_expiry=deadlines.keep_idle_s,
            network_backend=PacedBackend(deadlines.stale_s),
        )
        self.under_way = 0
        """Requests whose response is not closed."""

    @property
    def connections(self) -> list[httpcore2.AsyncConnectionInterface]:
        """What is open."""
        return [connection for connection in self._pool.connections if not connection.is_closed()]


class Transport(httpx2.AsyncBaseTransport):
    """Requests to one endpoint, over connections of ours; no redirect leaves it."""

    def __init__(self, base_url: str, deadlines: Deadlines) -> None:
        trusted = trusted_certificates() if base_url.startswith("https:") else None
        self._open_pool = partial(_Pool, trusted, proxy_for(base_url), deadlines)
        self._pools: list[_Pool] = []
        self.closed = False
        """Whether everything was closed: what is still open goes with its response."""

    @property
    def connections(self) -> list[httpcore2.AsyncConnectionInterface]:
        """What is open."""
        return [connection for pool in self._pools for connection in pool.connections]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request, by the first pool with a free connection, so that few at once use few connections."""
        unused = [pool.connections for pool in self._pools if not pool.under_way]
        for connections in unused:  # asking each connection before every request would cost more than the request
            if connections and connections[0].has_expired():
                await _close([connection for connection in connections if connection.has_expired()])
        pool = next((pool for pool in self._pools if pool.under_way < POOL), None)
        if pool is None:
            self._pools.append(pool := self._open_pool())
        pool.under_way += 1
        try:
            response = await pool.handle_async_request(request)
        except BaseException:
            pool.under_way -= 1
            raise
        response.stream = _Body(response, pool, self)
        if response.is_success:
            return response
        headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _NOT_OF_AN_ERROR]
        return httpx2.Response(response.status_code, headers=headers, content=await _beginning(response.stream))

    async def close_idle(self) -> None:
        """Close the connections that wait for a request."""
        await _close([connection for connection in self.connections if connection.is_idle()])

    async def aclose(self) -> None:
        """Close every connection."""
        self.closed = True
        for pool in self._pools:
            await pool.aclose()


async def _close(connections: list[httpcore2.AsyncConnectionInterface]) -> None:
    with anyio.CancelScope(shield=True):
        for connection in connections:
            await connection.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of a response. Its connection is closed with it where it can't be used again."""

    def __init__(self, response: httpx2.Response, pool: _Pool, transport: Transport) -> None:
        self._stream = cast(httpx2.AsyncByteStream, response.stream)
        self._connection: httpcore2.AsyncNetworkStream = response.extensions["network_stream"]
        self._pool, self._transport = pool, transport

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        """Give the connection back where the body was read to its end and nothing came behind it, else close it."""
        self._pool.under_way -= 1
        if self._transport.closed or _left_over(self._stream):
            await self._connection.aclose()  # which httpcore2 finds, and drops it
        await self._stream.aclose()


_BEHIND = attrgetter("_httpcore_stream._stream._connection._h11_state.trailing_data")


def _left_over(stream: httpx2.AsyncByteStream) -> bool:
    """Whether bytes came behind a response: h11 keeps them, and would take them for the answer to the next request.

    httpcore2 has no public way to ask; where the private one is gone, nothing is used again.
    """
    try:
        data, _ = _BEHIND(stream)
    except AttributeError:
        return True
    return bool(data)


_NOT_OF_AN_ERROR = (b"content-encoding", b"content-length", b"transfer-encoding", b"location")


async def _beginning(body: httpx2.AsyncByteStream) -> bytes:
    """The first bytes of an error's body, as they came; what breaks off before is as good as it is."""
    found = b""
    try:
        async for piece in body:
            found += piece
            if len(found) >= ERROR_BODY:
                break
    except (httpx2.NetworkError, httpx2.ProtocolError):
        pass
    finally:
        with anyio.CancelScope(shield=True):
            await body.aclose()
    return found[:ERROR_BODY]


def _proxy(url: str) -> httpcore2.Proxy:
    parts = urlsplit(url)
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return httpcore2.Proxy(bare, auth=auth)


def connection_failure(error: Exception) -> FailureKind:
    """The kind of failure that an exception of the libraries below stands for."""
    if isinstance(error, APIConnectionError) and isinstance(error.__cause__, httpx2.HTTPError):
        error = error.__cause__
    match error:
        case httpx2.ConnectTimeout():
            return "slow-connect"
        case httpx2.ProxyError():
            return "proxy"
        case httpx2.ConnectError():
            if caused_by(error, ssl.SSLCertVerificationError):
                return "certificate"
            return "name" if caused_by(error, socket.gaierror) else "connect"
        case httpx2.NetworkError() | httpx2.ProtocolError() | httpx2.TimeoutException():
            return "broken"
        case _:
            return "ours"


_CONTENT_TYPE = "X-Content-Type"


class _OpenAI(AsyncOpenAI):
    """OpenAI's client with our own headers only.

    Its own would add OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID and OPENAI_PROJECT_ID, meant for another company, and
    describe this machine.
    """

    @cached_property
    def default_headers(self) -> dict[str, str | Omit]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"kimi-mcp/{__version__}",
            "Authorization": f"Bearer {self.api_key}",
        }

    async def _prepare_request(self, request: httpx2.Request) -> None:
        """Set the body's type: openai refuses a multipart body that is streamed."""
        if (content_type := request.headers.pop(_CONTENT_TYPE, None)) is not None:
            request.headers["Content-Type"] = content_type
