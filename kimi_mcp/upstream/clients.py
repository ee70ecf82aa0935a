"""The OpenAI clients, one per endpoint, and the way out that each one takes. Does I/O; imported on first use.

Decided here: redirects are not followed, cookies are not kept, and of the environment only the usual proxy variables
(HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY) and SSL_CERT_FILE count. A loopback address is never reached by a proxy:
no variable may send its key elsewhere.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from functools import cached_property, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import httpcore2
import httpx2
from openai import AsyncOpenAI, AsyncStream, Omit

from kimi_mcp import __version__
from kimi_mcp.inlining import Streamed
from kimi_mcp.upstream.transport import Connection, PacedBackend, PacedStream, Transport

CONNECT_S = 10.0
"""Seconds for a connection, and again for its TLS handshake."""

KEEP_IDLE_S = 15.0
"""Seconds that an idle connection is kept."""

_SAID = {
    "Accept": "text/event-stream, application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"kimi-mcp/{__version__}",
}
"""What every request says."""

Method = Literal["GET", "POST", "DELETE"]
"""Methods that a provider's API knows."""

Trouble = Literal["name", "certificate", "proxy", "connect", "slow-connect", "broken", "ours"]
"""What went wrong below HTTP: the name is not known, the certificate is not trusted, the proxy refused, nobody
answers, nobody answers in time, the connection broke, or it is no fault of the network at all."""


class Answer:
    """A response whose body has not been read yet."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._pieces: AsyncGenerator[bytes] | None = None
        stream: Any = response.extensions.get("network_stream")
        self.socket: PacedStream | None = stream.pace if isinstance(stream, Connection) else None
        """The socket it comes through; None where a proxy hides it."""
        self.compressed: bool = response.headers.get("content-encoding", "identity").strip().lower() != "identity"
        """Whether the body is compressed, though that was not asked for."""

    def pieces(self) -> AsyncGenerator[bytes]:
        """The body as it comes."""
        self._pieces = cast(AsyncGenerator[bytes], aiter(cast(httpx2.AsyncByteStream, self._response.stream)))
        return self._pieces

    async def aclose(self) -> None:
        """Give the connection back where the body was read to its end, else close it. Takes no time."""
        if self.socket is not None:
            self.socket.live = False
        with anyio.CancelScope(shield=True):
            if self._pieces is not None:
                await self._pieces.aclose()  # left to the collector, it would close the socket some time later
            await self._response.aclose()


class Client:
    """Requests to one endpoint."""

    def __init__(self, base_url: str, key: str | None, way: httpx2.AsyncClient) -> None:
        self._openai = _OpenAI(
            api_key=key or "none",
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            http_client=way,
        )
        self._base_url, self._key, self._way = base_url, key, way
        self._headers: dict[str, str | Omit] = {"X-Stainless-Retry-Count": Omit()}
        if not key:
            self._headers["Authorization"] = Omit()

    async def post(self, path: str, content: bytes | Streamed) -> Answer:
        """Send a JSON body; hand out the answer once its headers are there. The caller closes it."""
        headers = self._headers
        if isinstance(content, Streamed):
            headers = {**headers, "Content-Length": str(content.length)}
        return Answer(
            await self._openai.post(
                path,
                cast_to=httpx2.Response,
                content=content if isinstance(content, bytes) else _sent(content),
                options={"headers": headers},
                stream=True,
                stream_cls=cast(Any, AsyncStream),
            )
        )

    async def send(
        self,
        method: Method,
        path: str,
        *,
        content: AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any other request, its body sent piece by piece; hand out the answer once its headers are there."""
        # Not by openai's client: it refuses a multipart body that is sent piece by piece.
        login = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        named = {**_SAID, **login, **(headers or {})}
        url, patience = f"{self._base_url}/{path}", httpx2.Timeout(None, connect=CONNECT_S)
        request = self._way.build_request(method, url, content=content, headers=named, timeout=patience)
        return Answer(await self._way.send(request, stream=True))


async def _sent(body: Streamed) -> AsyncGenerator[bytes]:
    for piece in body.pieces():
        yield piece


class Clients:
    """The clients that are open, over one HTTP client per way out: directly, or by a proxy."""

    def __init__(self, most_connections: int) -> None:
        self._most = most_connections
        self._ways: dict[tuple[bool, str | None], httpx2.AsyncClient] = {}
        self._clients: dict[tuple[str, str | None], Client] = {}

    def get(self, base_url: str, key: str | None) -> Client:
        """The client for an endpoint."""
        client = self._clients.get((base_url, key))
        if client is None:
            client = self._clients[base_url, key] = Client(base_url, key, self._way(base_url))
        return client

    async def aclose(self) -> None:
        """Close every socket. A later call opens new ones."""
        ways = list(self._ways.values())
        self._ways.clear()
        self._clients.clear()
        for way in ways:
            await way.aclose()

    def _way(self, base_url: str) -> httpx2.AsyncClient:
        secure, proxy = base_url.lower().startswith("https:"), proxy_for(base_url)
        way = self._ways.get((secure, proxy))
        if way is None:
            open_pool = partial(
                httpcore2.AsyncConnectionPool,
                ssl_context=httpx2.create_ssl_context() if secure else None,
                proxy=None if proxy is None else _proxy(proxy),
                max_connections=None,  # our own limiter counts the requests
                max_keepalive_connections=self._most,
                keepalive_expiry=KEEP_IDLE_S,
                network_backend=PacedBackend(),
            )
            way = self._ways[secure, proxy] = httpx2.AsyncClient(
                transport=Transport(open_pool),
                trust_env=False,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        return way


def proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names for a URL; None: go there directly. Loopback is always reached directly."""
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


def trouble(error: Exception) -> Trouble:
    """What kind of trouble an exception of the libraries below stands for."""
    match error:
        case httpcore2.ConnectTimeout():
            return "slow-connect"
        case httpcore2.ProxyError():
            return "proxy"
        case httpcore2.ConnectError():
            causes = _causes(error)
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
                return "certificate"
            return "name" if any(isinstance(cause, socket.gaierror) for cause in causes) else "connect"
        case httpcore2.NetworkError() | httpcore2.ProtocolError() | httpcore2.TimeoutException():
            return "broken"
        case _:
            return "ours"


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found


class _OpenAI(AsyncOpenAI):
    """OpenAI's client with headers of our own.

    Of itself it adds what stands in OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID and OPENAI_PROJECT_ID, meant for another
    company, and describes this machine to the provider.
    """

    @cached_property
    def default_headers(self) -> dict[str, str | Omit]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {
            **_SAID,
            "Authorization": f"Bearer {self.api_key}",
            "Content-Type": "application/json",
        }
