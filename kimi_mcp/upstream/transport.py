"""The sockets to the providers: paced reads, and requests over a pool of them. Does I/O; imported on first use.

Nobody watches tokens one by one, and a read costs far more than the token in it: while an answer is streaming, a
``PacedStream`` lets the kernel gather for a while between two reads. Whoever reads the answer says when that holds
(``live``): not before the first token and not at the end; and it never holds while reads come back large.
"""

from __future__ import annotations

import select
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, cast

import anyio
import anyio.abc
import httpcore2
import httpx2
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

from kimi_mcp.upstream.chunks import Chunks

LARGE_READ = 16_384
"""A read of so many bytes says that more is waiting: the next one is not put off."""

LARGEST_RECORD = 16_384
"""Bytes that a record of TLS holds at most."""

SHORTEST_PACE_S = 1 / 32
"""Seconds between two reads of an answer that has only begun; doubled as it goes on."""

LATE = 1 / 10
"""The part of its own time by which an answer may come later for being read in gulps."""

ERROR_BODY = 65_536
"""Bytes of an error's body that are read."""


class Refusal(Exception):
    """An answer whose status is not 2xx."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


class PacedStream(anyio.abc.ByteStream):
    """The bytes of a TCP connection, whose reads are put off while an answer is streaming through it.

    It sits below TLS: above it, each token is a record and a read of its own, and putting those off would let the
    answer fall behind.
    """

    def __init__(self, inner: anyio.abc.ByteStream) -> None:
        self._inner = inner
        self._last_size = 0
        self._live_since = 0.0
        self._most_s = 0.0
        self._pace_s = 0.0
        self.live = False
        """Whether an answer is streaming, so that reads may be put off."""
        self.reads = 0
        """Reads so far: two looks at the same number lie within one gulp."""

    def live_at(self, most_s: float) -> None:
        """From now on an answer is streaming: leave at most so many seconds between two reads."""
        self.live, self._most_s, self._pace_s, self._live_since = True, most_s, SHORTEST_PACE_S, time.monotonic()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Read what is there, at least one byte."""
        if self.live and self._last_size < LARGE_READ:
            await self._gather()
        data = await self._inner.receive(max_bytes)
        self._last_size = len(data)
        self.reads += 1
        return data

    async def _gather(self) -> None:
        """Wait for the next tick. Streams of one pace share their ticks: one turn of the loop serves them all."""
        now = time.monotonic()
        while 2 * self._pace_s <= min(self._most_s, (now - self._live_since) * LATE):
            self._pace_s *= 2
        await anyio.sleep(self._pace_s - now % self._pace_s)

    async def send(self, item: bytes) -> None:
        """Write all of it."""
        await self._inner.send(item)

    async def send_eof(self) -> None:
        """End our half."""
        await self._inner.send_eof()

    async def aclose(self) -> None:
        """Close the socket at once."""
        await self._inner.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What anyio tells about the socket."""
        return cast(Mapping[Any, Callable[[], Any]], self._inner.extra_attributes)  # pyright: ignore[reportUnknownMemberType]


class Connection(httpcore2.AsyncNetworkStream):
    """A connection as httpcore2 wants it: by TCP, or by TLS over it."""

    def __init__(self, stream: anyio.abc.ByteStream, pace: PacedStream) -> None:
        self._stream = stream
        self._tls = stream.extra(TLSAttribute.ssl_object, None)  # noqa: S610 - anyio, not Django
        self._chunks = Chunks()
        self._fd: int | None = None
        self.pace = pace
        """The TCP connection below."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's own
        """Read what is there; empty at the end."""
        try:
            if timeout is None:
                data = await self._stream.receive(max_bytes)
            else:
                with anyio.fail_after(timeout):
                    data = await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except TimeoutError as error:
            raise httpcore2.ReadTimeout from error
        except (*_BROKEN, ssl.SSLError) as error:
            raise httpcore2.ReadError from error
        return self._chunks.take(data if self._tls is None else _with_waiting_records(self._tls, data))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's own
        """Write all of it."""
        if not buffer:
            return
        self._chunks.expect()
        try:
            with anyio.fail_after(timeout):
                await self._stream.send(buffer)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout from error
        except (*_BROKEN, ssl.SSLError) as error:
            raise httpcore2.WriteError from error

    async def aclose(self) -> None:
        """Close the connection at once."""
        self._fd = -1
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own
    ) -> httpcore2.AsyncNetworkStream:
        """The same connection with TLS over it; closed where that fails."""
        try:
            with anyio.fail_after(timeout):
                secure = await TLSStream.wrap(
                    self._stream, hostname=server_hostname, ssl_context=ssl_context, standard_compatible=False
                )
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self.aclose()
            if isinstance(error, TimeoutError):
                raise httpcore2.ConnectTimeout from error
            if isinstance(error, (*_BROKEN, anyio.EndOfStream, ssl.SSLError)):
                raise httpcore2.ConnectError from error
            raise
        return Connection(secure, self.pace)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore2 asks about the connection."""
        if info == "is_readable":
            # Asked of every idle connection before each request: whether the other end has closed it.
            if self._fd is None:
                self._fd = self._stream.extra(SocketAttribute.raw_socket).fileno()  # noqa: S610 - anyio, not Django
            return self._fd < 0 or _is_readable(self._fd)
        return self._stream.extra(_INFO[info], None) if info in _INFO else None  # noqa: S610 - anyio, not Django


_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)
_INFO: Mapping[str, Any] = {
    "ssl_object": TLSAttribute.ssl_object,
    "client_addr": SocketAttribute.local_address,
    "server_addr": SocketAttribute.remote_address,
    "socket": SocketAttribute.raw_socket,
}


def _with_waiting_records(tls: ssl.SSLObject, data: bytes) -> bytes:
    """A read over TLS brings one record, often one token; this adds the others that came with it."""
    records = [data]
    try:
        while record := tls.read(LARGEST_RECORD):
            records.append(record)
    except ssl.SSLError:
        pass  # no whole one is left; an end or a fault is found again by the next read
    return b"".join(records)


def _is_readable(fd: int) -> bool:
    if sys.platform == "win32":
        return bool(select.select([fd], [], [], 0)[0])
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


class PacedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections whose reads can be paced."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection by TCP; no socket options are ever asked for."""
        try:
            with anyio.fail_after(timeout):
                stream = await anyio.connect_tcp(host, port, local_host=local_address)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout from error
        except (OSError, anyio.BrokenResourceError) as error:
            raise httpcore2.ConnectError from error
        pace = PacedStream(stream)
        return Connection(pace, pace)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


class Body(httpx2.AsyncByteStream):
    """The body of an answer, as httpcore2 hands it out."""

    def __init__(self, stream: Any, lane: Lane) -> None:
        self._stream = stream
        self._lane: Lane | None = lane

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.under_way -= 1
        await self._stream.aclose()


class Lane:
    """A pool of paced sockets, and how many requests are under way in it."""

    def __init__(self, pool: httpcore2.AsyncConnectionPool) -> None:
        self.pool = pool
        self.under_way = 0


LANE = 12
"""Requests at once in one pool: it looks at each of its connections before and after each request."""


class Transport(httpx2.AsyncBaseTransport):
    """Requests over pools of paced sockets. An answer that is not 2xx is raised as ``Refusal``, its body cut.

    ``open_pool`` makes one pool; the next one is made where all that are there have ``LANE`` requests under way.
    """

    def __init__(self, open_pool: Callable[[], httpcore2.AsyncConnectionPool]) -> None:
        self._open_pool = open_pool
        self._lanes: list[Lane] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; httpcore2's errors pass as they are."""
        url, lane = request.url, self._lane()
        lane.under_way += 1
        try:
            response = await lane.pool.handle_async_request(
                httpcore2.Request(
                    method=request.method,
                    url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except BaseException:
            lane.under_way -= 1
            raise
        body = Body(response.stream, lane)
        if 200 <= response.status < 300:
            extensions = cast(dict[str, Any], response.extensions)  # pyright: ignore[reportUnknownMemberType]
            return httpx2.Response(response.status, headers=response.headers, stream=body, extensions=extensions)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        raise Refusal(response.status, headers, await _beginning(body))

    async def aclose(self) -> None:
        """Close every socket."""
        for lane in self._lanes:
            await lane.pool.aclose()

    def _lane(self) -> Lane:
        """The first lane that has room: few requests at once use few connections, again and again."""
        lane = next((lane for lane in self._lanes if lane.under_way < LANE), None)
        if lane is None:
            lane = Lane(self._open_pool())
            self._lanes.append(lane)
        return lane


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
