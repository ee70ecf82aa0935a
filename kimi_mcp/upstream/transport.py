"""The sockets to the providers: paced reads, and requests over them. Does I/O; imported on first use.

Nobody watches tokens one by one, and a read costs far more than the token in it: while an answer is streaming, a
``PacedStream`` lets the kernel gather for a while between two reads. Whoever reads the answer says when that holds
(``live``): not before the first token and not at the end; and it never holds while reads come back large.
"""

from __future__ import annotations

import re
import select
import ssl
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import anyio
import anyio.abc
import httpcore2
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
        self._head: bytes | None = None  # of a request, until its body comes; None: the next write begins one
        self.pace = pace
        """The TCP connection below."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's own
        """Read what is there; empty at the end."""
        self._head = None
        try:
            with _within(timeout):
                data = await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except TimeoutError as error:
            raise httpcore2.ReadTimeout from error
        except (*_BROKEN, ssl.SSLError) as error:
            raise httpcore2.ReadError from error
        return self._chunks.take(data if self._tls is None else _with_waiting_records(self._tls, data))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's own
        """Write all of it; the head of a request waits for the first piece of its body, if it says that one comes."""
        if self._head is None and _BODY_FOLLOWS.search(buffer):
            self._head = buffer  # one packet then, and one turn of the event loop
            return
        if not buffer:
            return
        self._head, buffer = b"", (self._head or b"") + buffer
        self._chunks.expect()
        try:
            with _within(timeout):
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


def _within(seconds: float | None) -> AbstractContextManager[Any]:
    return nullcontext() if seconds is None else anyio.fail_after(seconds)


_BODY_FOLLOWS = re.compile(rb"\r\nContent-Length: *[1-9][0-9]*\r\n(?:.*\r\n)?\r\n\Z", re.DOTALL)
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


class Body:
    """The body of an answer, as httpcore2 hands it out."""

    def __init__(self, stream: Any, closed: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._closed = closed

    def pieces(self) -> AsyncGenerator[bytes]:
        """It, as it comes."""
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        """Give the connection back, or close it where the body was not read to its end. Once, and not cancelled."""
        try:
            await self._stream.aclose()
        finally:
            await self._closed()


class Sockets:
    """Connections to one host, each for one request at a time; kept open between them as ``factory`` says.

    ``factory`` makes them, directly or by its proxy. Its own pool is not used: that looks at each connection that it
    holds before and after each request, and asks the system about the idle ones.
    """

    def __init__(self, factory: httpcore2.AsyncConnectionPool) -> None:
        self._factory = factory
        self._busy: set[httpcore2.AsyncConnectionInterface] = set()
        self._idle: deque[httpcore2.AsyncConnectionInterface] = deque()

    async def send(self, request: httpcore2.Request) -> tuple[httpcore2.Response, Body]:
        """Send one request; its answer, and the body that is still to be read.

        Raises ``Refusal`` for an answer that is not 2xx, its body cut; httpcore2's errors pass as they are.
        """
        connection = await self._connection(request.url.origin)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await self._give_back(connection)
            raise
        body = Body(response.stream, partial(self._give_back, connection))
        if 200 <= response.status < 300:
            return response, body
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        raise Refusal(response.status, headers, await _beginning(body))

    async def aclose(self) -> None:
        """Close every socket."""
        for held in (self._busy, self._idle):
            while held:
                await held.pop().aclose()

    async def _connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        """The one that became idle last: few requests at once use few, and those long idle are found and closed."""
        while self._idle and self._idle[0].has_expired():
            await _close(self._idle.popleft())
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                break
            await _close(connection)
        else:
            connection = self._factory.create_connection(origin)
        self._busy.add(connection)
        return connection

    async def _give_back(self, connection: httpcore2.AsyncConnectionInterface) -> None:
        if connection not in self._busy:
            await _close(connection)  # everything was closed meanwhile: it too, unless it was only being opened
            return
        self._busy.discard(connection)
        if connection.is_available():  # else it has closed itself
            self._idle.append(connection)


async def _close(connection: httpcore2.AsyncConnectionInterface) -> None:
    with anyio.CancelScope(shield=True):
        await connection.aclose()


async def _beginning(body: Body) -> bytes:
    """The first bytes of an error's body; what breaks off before is as good as it is."""
    found = b""
    try:
        async for piece in body.pieces():
            found += piece
            if len(found) >= ERROR_BODY:
                break
    except (httpcore2.NetworkError, httpcore2.ProtocolError):
        pass
    finally:
        with anyio.CancelScope(shield=True):
            await body.aclose()
    return found[:ERROR_BODY]
