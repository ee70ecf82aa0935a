"""The sockets to the providers: paced reads, and requests over a pool of them. Does I/O; imported on first use.

Nobody watches tokens one by one, and a read costs far more than the token in it: while an answer is streaming, a
``PacedStream`` lets the kernel gather for a while between two reads. Whoever reads the answer says when that holds
(``live``): not before the first token and not at the end; and it never holds while reads come back large.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, cast

import anyio
import httpcore2
import httpx2

LARGE_READ = 16_384
"""A read of so many bytes says that more is waiting: the next one is not put off."""

ERROR_BODY = 65_536
"""Bytes of an error's body that are read."""


class Refusal(Exception):
    """An answer whose status is not 2xx."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


class PacedStream(httpcore2.AsyncNetworkStream):
    """A socket whose reads are put off while an answer is streaming through it."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner
        self._last_read = 0.0
        self._last_size = 0
        self._pace_s = 0.0
        self._fd: int | None = None
        self.live = False
        """Whether an answer is streaming, so that reads may be put off."""
        self.reads = 0
        """Reads so far: two looks at the same number lie within one gulp."""

    def live_at(self, pace_s: float) -> None:
        """From now on an answer is streaming: leave so many seconds between two reads."""
        self.live, self._pace_s = True, pace_s

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's own
        """Read what is there, at least one byte; empty at the end."""
        if self.live and self._last_size < LARGE_READ:
            left = self._last_read + self._pace_s - time.monotonic()
            if left > 0:
                await anyio.sleep(left)
        data = await self._inner.read(max_bytes, timeout)
        self._last_read = time.monotonic()
        self._last_size = len(data)
        self.reads += 1
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's own
        """Write all of it."""
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the socket at once."""
        self._fd = -1
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own
    ) -> httpcore2.AsyncNetworkStream:
        """The same socket with TLS over it, paced in turn."""
        return PacedStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """What httpcore2 asks about the socket."""
        if info != "is_readable":
            return self._inner.get_extra_info(info)
        # Before each request the pool asks every idle connection whether the other end has closed it. Going through
        # anyio's attributes each time was half of what a small call cost.
        if self._fd is None:
            raw: socket.socket | None = self._inner.get_extra_info("socket")
            self._fd = -1 if raw is None else raw.fileno()
        return self._fd < 0 or _is_readable(self._fd)


def _is_readable(fd: int) -> bool:
    if sys.platform == "win32":
        return bool(select.select([fd], [], [], 0)[0])
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


class PacedBackend(httpcore2.AsyncNetworkBackend):
    """Opens paced sockets."""

    def __init__(self) -> None:
        self._inner = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection by TCP."""
        return PacedStream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


class Body(httpx2.AsyncByteStream):
    """The body of an answer, as httpcore2 hands it out."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        await self._stream.aclose()


class Transport(httpx2.AsyncBaseTransport):
    """Requests over one pool of paced sockets. An answer that is not 2xx is raised as ``Refusal``, its body cut."""

    def __init__(self, pool: httpcore2.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; httpcore2's errors pass as they are."""
        url = request.url
        response = await self._pool.handle_async_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        body = Body(response.stream)
        if 200 <= response.status < 300:
            extensions = cast(dict[str, Any], response.extensions)  # pyright: ignore[reportUnknownMemberType]
            return httpx2.Response(response.status, headers=response.headers, stream=body, extensions=extensions)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        raise Refusal(response.status, headers, await _beginning(body))

    async def aclose(self) -> None:
        """Close every socket."""
        await self._pool.aclose()


async def _beginning(body: Body) -> bytes:
    """The first bytes of an error's body; what breaks off before is as good as it is."""
    found = b""
    try:
        async for piece in body:
            found += piece
            if len(found) >= ERROR_BODY:
                break
    except (httpcore2.NetworkError, httpcore2.ProtocolError):
        pass
    finally:
        with anyio.CancelScope(shield=True):
            await body.aclose()
    return found[:ERROR_BODY]
