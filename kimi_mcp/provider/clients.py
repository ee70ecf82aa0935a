"""The openai clients, one per endpoint, and the proxy each one uses. Does I/O; imported on first use.

Redirects are not followed, cookies are not kept, and of the environment only the usual proxy variables (HTTPS_PROXY,
HTTP_PROXY, ALL_PROXY, NO_PROXY) and SSL_CERT_FILE count. No proxy is used for a loopback address: no variable may send
its key elsewhere.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import anyio.to_thread
import httpcore2
import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, AsyncStream, Omit
from openai._models import FinalRequestOptions

from kimi_mcp.core.errors import caused_by
from kimi_mcp.core.redaction import hide
from kimi_mcp.core.version import __version__
from kimi_mcp.provider.connections import Connection, PacedStream, StaleBeforeSent, StaleConnection
from kimi_mcp.provider.failures import FailureKind
from kimi_mcp.provider.inline_media import StreamedBody
from kimi_mcp.provider.transport import Transport

CONNECT_S = 10.0
"""Seconds for a connection, and again for its TLS handshake."""

KEEP_IDLE_S = 15.0
"""Seconds that an idle connection is kept."""

Method = Literal["GET", "POST", "DELETE"]


class ErrorResponse(Exception):
    """A response whose status is not 2xx."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


class ProviderResponse:
    """A response whose body has not been read yet."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._pieces: AsyncGenerator[bytes] | None = None
        stream: Any = response.extensions.get("network_stream")
        self.socket: PacedStream | None = stream.pace if isinstance(stream, Connection) else None
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
    """Requests to one endpoint, by openai's client over the connections to its host."""

    def __init__(self, base_url: str, key: str | None, http: httpx2.AsyncClient, transport: Transport) -> None:
        timeout = httpx2.Timeout(None, connect=CONNECT_S)
        self._openai = _OpenAI(
            api_key=key or "none", base_url=base_url, max_retries=0, timeout=timeout, http_client=http
        )
        self._transport = transport
        self._headers: dict[str, str | Omit] = {"X-Stainless-Retry-Count": Omit()}
        if not key:
            self._headers["Authorization"] = Omit()

    async def send(
        self,
        method: Method,
        path: str,
        content: bytes | StreamedBody | None = None,
        content_type: str = "application/json",
        on_sent: Callable[[int], None] | None = None,
        *,
        repeatable: bool = False,
    ) -> ProviderResponse:
        """Send a request; returns the response once its headers are there. The caller closes it.

        ``path`` follows the base URL. ``on_sent`` gets the number of bytes of a streamed body sent, after each piece.
        Raises ``ErrorResponse``; openai's and httpx2's errors pass. If an idle connection turns out to be dead, the
        others are closed too, and the request is sent once more on a new one. A POST that was sent whole may have been
        carried out: only if ``repeatable`` is it sent once more then.
        """
        try:
            return await self._send(method, path, content, content_type, on_sent)
        except APIConnectionError as error:
            if not caused_by(error, StaleConnection if repeatable or method != "POST" else StaleBeforeSent):
                raise
        await self._transport.close_idle()
        return await self._send(method, path, content, content_type, on_sent)

    async def _send(
        self,
        method: Method,
        path: str,
        content: bytes | StreamedBody | None,
        content_type: str,
        on_sent: Callable[[int], None] | None,
    ) -> ProviderResponse:
        headers = self._headers
        if isinstance(content, StreamedBody):
            headers = {**headers, "Content-Length": str(content.length)}
        if content is not None:
            headers = {**headers, _CONTENT_TYPE: content_type}
        options = FinalRequestOptions.construct(
            method=method.lower(),
            url=path,
            headers=headers,
            content=_streamed(content, on_sent) if isinstance(content, StreamedBody) else content,
        )
        try:
            response = await self._openai.request(
                httpx2.Response, options, stream=True, stream_cls=cast(Any, AsyncStream)
            )
        except APIStatusError as error:
            found = error.response
            raise ErrorResponse(found.status_code, dict(found.headers), found.content) from None
        return ProviderResponse(cast(httpx2.Response, response))


async def _streamed(body: StreamedBody, on_sent: Callable[[int], None] | None) -> AsyncGenerator[bytes]:
    """A body in pieces, each read and encoded in a worker thread."""
    pieces, sent = body.pieces(), 0
    while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
        yield piece
        sent += len(piece)
        if on_sent is not None:
            on_sent(sent)


class Clients:
    """The open clients, and the connections to each host."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str | None], Client] = {}
        self._hosts: dict[tuple[str, str, str | None], tuple[httpx2.AsyncClient, Transport]] = {}

    def get(self, base_url: str, key: str | None) -> Client:
        """The client for an endpoint."""
        client = self._clients.get((base_url, key))
        if client is None:
            if key:
                hide(key)  # providers echo keys in their errors
            client = self._clients[base_url, key] = Client(base_url, key, *self._host(base_url))
        return client

    async def aclose(self) -> None:
        """Close every socket. A later call opens new ones."""
        self._clients.clear()
        while self._hosts:
            http, _ = self._hosts.popitem()[1]
            await http.aclose()

    def _host(self, base_url: str) -> tuple[httpx2.AsyncClient, Transport]:
        parts, proxy = urlsplit(base_url), proxy_for(base_url)
        host = parts.scheme, parts.netloc, proxy
        if host not in self._hosts:
            transport = Transport(
                trusted=self._trusted if parts.scheme == "https" else None,
                proxy=None if proxy is None else _proxy(proxy),
                keep_idle_s=KEEP_IDLE_S,
            )
            no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
            http = httpx2.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, cookies=no_cookies)
            self._hosts[host] = http, transport
        return self._hosts[host]

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context()


def proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names for a URL; None: none, as always for loopback."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost" or host.endswith(".localhost")
    if loopback:
        return None
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


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
