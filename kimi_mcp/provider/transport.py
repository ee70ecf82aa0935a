"""httpx2's transport to the providers, over connections of ours. Does I/O; imported on first use.

Of an error's body it reads the beginning, and no redirect leaves it. A connection with anything left over is closed.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from functools import partial
from operator import attrgetter
from time import monotonic
from typing import cast

import anyio
import httpcore2
import httpx2

from kimi_mcp.provider.connections import PacedBackend

POOL = 12
"""Requests at once in one pool: before and after each request, httpcore2 looks at every connection of its pool."""

ERROR_BODY = 65_536
"""Bytes of an error's body that are read."""


class _Pool(httpx2.AsyncHTTPTransport):
    """httpx2's transport, over a pool whose connections are ours."""

    def __init__(self, trusted: ssl.SSLContext | None, proxy: httpcore2.Proxy | None, keep_idle_s: float) -> None:
        # Not super().__init__(): it takes no network backend.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted,
            proxy=proxy,
            max_connections=None,  # our own limiter counts the requests
            keepalive_expiry=keep_idle_s,
            network_backend=PacedBackend(),
        )
        self.under_way = 0
        """Requests whose response is not closed."""
        self.used_at = monotonic()
        """When the last of them ended."""

    def end(self) -> None:
        """A request of it has ended."""
        self.under_way -= 1
        self.used_at = monotonic()

    @property
    def connections(self) -> list[httpcore2.AsyncConnectionInterface]:
        """What is open."""
        return self._pool.connections


class _Body(httpx2.AsyncByteStream):
    """The body of a response. Its connection is closed with it where it can't be used again."""

    def __init__(self, response: httpx2.Response, pool: _Pool, transport: Transport) -> None:
        self._stream = cast(httpx2.AsyncByteStream, response.stream)
        self._connection: httpcore2.AsyncNetworkStream = response.extensions["network_stream"]
        self._pool: _Pool | None = pool
        self._transport = transport

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        """Give the connection back where the body was read to its end and nothing came behind it, else close it."""
        if self._pool is None:
            return
        self._pool.end()
        self._pool = None
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


class Transport(httpx2.AsyncBaseTransport):
    """Requests to one host. Of an error's body it reads the beginning, and no redirect leaves it.

    ``trusted`` is for https; ``keep_idle_s`` the seconds for which an idle connection is kept.
    """

    def __init__(self, *, trusted: ssl.SSLContext | None, proxy: httpcore2.Proxy | None, keep_idle_s: float) -> None:
        self._open = partial(_Pool, trusted, proxy, keep_idle_s)
        self._keep_idle_s = keep_idle_s
        self._pools: list[_Pool] = []
        self.closed = False
        """Whether everything was closed: what is still open goes with its response."""

    @property
    def connections(self) -> list[httpcore2.AsyncConnectionInterface]:
        """What is open."""
        return [connection for pool in self._pools for connection in pool.connections]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request, by the first pool that has room, so that few at once use few connections."""
        await self._close_unused()
        pool = next((pool for pool in self._pools if pool.under_way < POOL), None)
        if pool is None:
            self._pools.append(pool := self._open())
        pool.under_way += 1
        try:
            response = await pool.handle_async_request(request)
        except BaseException:
            pool.end()
            raise
        response.stream = _Body(response, pool, self)
        if response.is_success:
            return response
        headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _NOT_OF_AN_ERROR]
        return httpx2.Response(response.status_code, headers=headers, content=await _beginning(response.stream))

    async def close_idle(self) -> None:
        """Close the connections that wait for a request."""
        with anyio.CancelScope(shield=True):
            for connection in self.connections:
                if connection.is_idle():
                    await connection.aclose()

    async def _close_unused(self) -> None:
        """Close the pools without a request for long; of the others, each request closes what is idle for long."""
        before = monotonic() - self._keep_idle_s
        unused = [pool for pool in self._pools if not pool.under_way and pool.used_at < before]
        # All of them leave the list before the first await: another request must neither close nor use one of them.
        self._pools = [pool for pool in self._pools if pool not in unused]
        with anyio.CancelScope(shield=True):
            for pool in unused:
                await pool.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        self.closed = True
        for pool in list(self._pools):
            await pool.aclose()


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
