"""A tool server behind a URL: streamable HTTP as MCP streams, bounded, each failure that of one request. Does I/O.

No redirect is followed, no cookie is kept, nothing compressed is unpacked, and this machine is never reached through a
proxy.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import httpx2

from kimi_mcp.core.certificates import trusted_certificates
from kimi_mcp.core.proxies import proxy_for
from kimi_mcp.core.version import __version__
from kimi_mcp.swarm.tools.stdio_client import FREE_BYTES, MAX_MESSAGE_BYTES, SLOWDOWN_S

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

CONNECT_S: Final = 10.0
"""Seconds for a connection; the call's own deadline bounds its answer."""


@asynccontextmanager
async def http_streams(
    url: str, headers: Mapping[str, str], *, on_response: Callable[[int | None], None]
) -> AsyncGenerator[TransportStreams]:
    """The streams of an MCP session; ``on_response`` gets the status of each response, None: nobody answered."""
    from mcp.client.streamable_http import streamable_http_client

    # In a thread: reading the trusted certificates, and the proxies of some systems, takes a while.
    transport = await anyio.to_thread.run_sync(_BoundedTransport, url, on_response, abandon_on_cancel=True)
    async with (
        httpx2.AsyncClient(
            transport=transport,
            headers={"User-Agent": f"kimi-mcp/{__version__}", **headers, "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        ) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams,
    ):
        yield streams


class _BoundedTransport(httpx2.AsyncHTTPTransport):
    """Requests to one server; a failure of the network becomes a status, which ends one request and no session."""

    def __init__(self, url: str, on_response: Callable[[int | None], None]) -> None:
        super().__init__(verify=trusted_certificates(), proxy=proxy_for(url))
        self._on_response = on_response

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await super().handle_async_request(request)
        except httpx2.TransportError:
            self._on_response(None)
            return httpx2.Response(503, request=request)
        self._on_response(response.status_code)
        response.headers.pop("content-encoding", None)  # not requested: it is not unpacked, and so can't be read
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        response.stream = _BoundedBody(response.stream, events=events)
        return response


class _BoundedBody(httpx2.AsyncByteStream):
    """A body up to a limit. A fault in it is a ``StreamError``, with which the SDK fails the one request."""

    def __init__(self, inner: httpx2.AsyncByteStream, *, events: bool) -> None:
        self._inner, self._events = inner, events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size, most = 0, 2 * MAX_MESSAGE_BYTES if self._events else MAX_MESSAGE_BYTES
        try:
            async for piece in self._inner:
                size += len(piece)
                if size > most:
                    raise httpx2.StreamError("too large")
                yield piece
                if self._events and size > FREE_BYTES:
                    await anyio.sleep(SLOWDOWN_S)
        except httpx2.TransportError:
            raise httpx2.StreamError("broken") from None

    async def aclose(self) -> None:
        await self._inner.aclose()
