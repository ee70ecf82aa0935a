"""The clients, one per endpoint, and the way out that each one takes. Does I/O; imported on first use.

Decided here: redirects are not followed, cookies are not kept (an answer that is not 2xx is a ``Refusal``), and of the
environment only the usual proxy variables (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY) and SSL_CERT_FILE count. A
loopback address is never reached by a proxy: no variable may send its key elsewhere.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from functools import cached_property
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import httpcore2
import httpx2
from openai import Omit, OpenAI

from kimi_mcp import __version__
from kimi_mcp.inlining import Streamed
from kimi_mcp.upstream.transport import Body, Connection, PacedBackend, PacedStream, Sockets

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

    def __init__(self, response: httpcore2.Response, body: Body) -> None:
        self._body = body
        self._pieces: AsyncGenerator[bytes] | None = None
        stream = cast(Mapping[str, Any], response.extensions).get("network_stream")  # pyright: ignore[reportUnknownMemberType]
        self.socket: PacedStream | None = stream.pace if isinstance(stream, Connection) else None
        """The socket it comes through; None where a proxy hides it."""
        self.compressed: bool = any(
            name.lower() == b"content-encoding" and value.strip().lower() != b"identity"
            for name, value in response.headers
        )
        """Whether the body is compressed, though that was not asked for."""

    def pieces(self) -> AsyncGenerator[bytes]:
        """The body as it comes."""
        self._pieces = self._body.pieces()
        return self._pieces

    async def aclose(self) -> None:
        """Give the connection back where the body was read to its end, else close it. Takes no time."""
        if self.socket is not None:
            self.socket.live = False
        with anyio.CancelScope(shield=True):
            if self._pieces is not None:
                await self._pieces.aclose()  # left to the collector, it would close the socket some time later
            await self._body.aclose()


class Client:
    """Requests to one endpoint."""

    def __init__(self, base_url: str, key: str | None, sockets: Sockets) -> None:
        self._base = httpx2.URL(base_url)
        self._headers = _headers(base_url, key)
        self._sockets = sockets

    async def send(
        self, method: Method, path: str, content: bytes | Streamed | None = None, content_type: str = "application/json"
    ) -> Answer:
        """Send a request; hand out the answer once its headers are there. The caller closes it.

        ``path`` follows the base URL. Raises ``Refusal`` where the answer is not 2xx; httpcore2's errors pass.
        """
        base, headers = self._base, self._headers
        sent: bytes | AsyncGenerator[bytes] = b""
        if content is not None:
            sent, size = (content, len(content)) if isinstance(content, bytes) else (_sent(content), content.length)
            headers = [*headers, (b"Content-Type", content_type.encode()), (b"Content-Length", b"%d" % size)]
        target = b"%b/%b" % (base.raw_path.rstrip(b"/"), path.encode())
        url = httpcore2.URL(scheme=base.raw_scheme, host=base.raw_host, port=base.port, target=target)
        request = httpcore2.Request(method, url, headers=headers, content=sent, extensions=_EXTENSIONS)
        return Answer(*await self._sockets.send(request))


_EXTENSIONS = {"timeout": {"connect": CONNECT_S}}


async def _sent(body: Streamed) -> AsyncGenerator[bytes]:
    for piece in body.pieces():
        yield piece


def _headers(base_url: str, key: str | None) -> list[tuple[bytes, bytes]]:
    """What each request to an endpoint says of itself, but for its body: as openai's client prepares it.

    It is asked once: the client takes as long over a request as all below it together.
    """
    caught = _Caught()
    with httpx2.Client(transport=caught, trust_env=False) as way:
        openai = _OpenAI(api_key=key or "none", base_url=base_url, timeout=None, max_retries=0, http_client=way)
        unsaid = {"X-Stainless-Retry-Count": Omit(), **({} if key else {"Authorization": Omit()})}
        openai.get("", cast_to=httpx2.Response, options={"headers": unsaid})
    return caught.headers


class _Caught(httpx2.BaseTransport):
    """Keeps what would have been sent."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.headers = list(request.headers.raw)
        return httpx2.Response(204)


class Clients:
    """The clients that are open, over the sockets to each host."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str | None], Client] = {}
        self._sockets: dict[tuple[str, str, str | None], Sockets] = {}

    def get(self, base_url: str, key: str | None) -> Client:
        """The client for an endpoint."""
        client = self._clients.get((base_url, key))
        if client is None:
            client = self._clients[base_url, key] = Client(base_url, key, self._sockets_to(base_url))
        return client

    async def aclose(self) -> None:
        """Close every socket. A later call opens new ones."""
        self._clients.clear()
        while self._sockets:
            await self._sockets.popitem()[1].aclose()

    def _sockets_to(self, base_url: str) -> Sockets:
        parts, proxy = urlsplit(base_url), proxy_for(base_url)
        host = parts.scheme, parts.netloc, proxy
        if host not in self._sockets:
            factory = httpcore2.AsyncConnectionPool(
                ssl_context=self._trusted if parts.scheme == "https" else None,
                proxy=None if proxy is None else _proxy(proxy),
                keepalive_expiry=KEEP_IDLE_S,
                network_backend=PacedBackend(),
            )
            self._sockets[host] = Sockets(factory)
        return self._sockets[host]

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context()


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


class _OpenAI(OpenAI):
    """OpenAI's client with headers of our own.

    Of itself it adds what stands in OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID and OPENAI_PROJECT_ID, meant for another
    company, and describes this machine to the provider.
    """

    @cached_property
    def default_headers(self) -> dict[str, str | Omit]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {**_SAID, "Authorization": f"Bearer {self.api_key}"}
