"""The connections to the providers: paced reads, and writes that listen. Does I/O; imported on first use.

A read costs far more than the token in it: while an answer is streaming, a ``PacedStream`` lets the kernel gather for a
while between two reads. A refusal is noticed while a large body is still being sent: httpcore2 reads an answer only
after all of it, or after a write that failed, so the write fails.
"""

from __future__ import annotations

import re
import select
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import anyio
import anyio.abc
import anyio.lowlevel
import httpcore2
from anyio.streams.tls import TLSAttribute, TLSStream

LARGE_READ = 16_384
"""A read of so many bytes says that more is waiting: the next one is not put off."""

LARGEST_READ = 1_048_576
"""Bytes that are read at most: more than asyncio takes from a socket at once, so that it keeps none back."""

LARGE_WRITE = 65_536
"""A write of more bytes may wait for the other end, which may refuse the request meanwhile."""

LARGEST_RECORD = 16_384
"""Bytes that a record of TLS holds at most."""

SHORTEST_PACE_S = 1 / 32
"""Seconds between two reads of an answer that has only begun; doubled as it goes on."""

LATE = 1 / 10
"""The part of its own time by which an answer may come later for being read in gulps."""

HEARD_EARLY = 65_536
"""Bytes of an answer that are read while its request is still being sent."""


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
        """Read what is there, at least one byte and at times more than ``max_bytes``."""
        if self.live and self._last_size < LARGE_READ:
            await self._gather()
        data = await self._inner.receive(LARGEST_READ)
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
        """Anyio's attributes of the socket."""
        return cast(Mapping[Any, Callable[[], Any]], self._inner.extra_attributes)  # pyright: ignore[reportUnknownMemberType]


class StaleConnection(httpcore2.ReadError):
    """A connection that had served a request before broke at once, without a byte in answer to the next one."""


class StaleBeforeSent(StaleConnection):
    """It broke before the whole request was sent, which therefore can't have been carried out."""


class ProviderConnection(httpcore2.AsyncNetworkStream):
    """A connection as httpcore2 wants it: by TCP, or by TLS over it. It listens while it sends."""

    def __init__(self, stream: anyio.abc.ByteStream, pace: PacedStream, stale_s: float) -> None:
        self._stream = stream
        self._stale_s = stale_s
        self._fd: int = stream.extra(anyio.abc.SocketAttribute.raw_socket).fileno()  # noqa: S610 - anyio, not Django
        if sys.platform != "win32":
            self._poll = select.poll()  # made once: httpcore2 checks every idle connection before each request
            self._poll.register(self._fd, select.POLLIN)
        self._tls = stream.extra(TLSAttribute.ssl_object, None)  # noqa: S610 - the same
        self._chunks = Chunks()
        self._head: bytes | None = None  # of a request, until its body comes; None: the next write begins one
        self._unread = b""  # what came while the request was still being sent, or more than was requested
        self._listening = False
        self._refused = False
        self._requests = 0
        self._unanswered = False
        self._begun_at = self._sent_at = 0.0
        self._all_sent = False
        self.pace = pace
        """The TCP connection below."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's own
        """Read what is there; empty at the end. Raises ``StaleConnection`` too."""
        self._head = None
        data, self._unread = self._unread, b""
        try:
            if not data:
                with _within(timeout):
                    data = await self._receive()
        except anyio.EndOfStream:
            if self._stale:
                raise self._broken() from None
            return b""
        except TimeoutError as error:
            raise httpcore2.ReadTimeout from error
        except (*_BROKEN, ssl.SSLError) as error:
            raise self._broken() from error
        self._unanswered = False
        data, self._unread = data[:max_bytes], data[max_bytes:]
        return self._chunks.take(data)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's own
        """Write all of it; the head of a request waits for the first piece of its body, if it says that one comes.

        Raises ``WriteError``, upon which httpcore2 reads the answer, where the request is refused before it is sent.
        """
        if self._head is None:
            self._requests += 1
            self._unanswered, self._begun_at = True, time.monotonic()
            if _BODY_FOLLOWS.search(buffer):
                self._head = buffer  # one packet then, and one turn of the event loop
                return
        if not buffer:
            return
        later = self._head == b""
        self._head, buffer = b"", (self._head or b"") + buffer
        self._chunks.expect()
        self._all_sent = False
        try:
            with _within(timeout):
                if later or len(buffer) > LARGE_WRITE:
                    await self._send_and_listen(buffer)
                else:
                    await self._stream.send(buffer)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout from error
        except (*_BROKEN, ssl.SSLError) as error:
            raise httpcore2.WriteError from error
        self._all_sent, self._sent_at = True, time.monotonic()

    async def _send_and_listen(self, buffer: bytes) -> None:
        """Send, until the request is refused. A write to a closed connection would lose the refusal: listen first."""
        broken: Exception | None = None
        self._listening, self._refused = True, False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, tasks.cancel_scope)
            while self._listening and self._readable():
                await anyio.lowlevel.checkpoint()
            try:
                await self._stream.send(buffer)
            except (*_BROKEN, ssl.SSLError) as error:
                broken = error  # what had come before is still to be read: the listener ends by itself
            else:
                tasks.cancel_scope.cancel()
        if broken is not None or self._refused:
            raise anyio.BrokenResourceError from broken

    async def _listen(self, sending: anyio.CancelScope) -> None:
        """Take what comes while a request is sent; end the sending once it is an error's status, or the end."""
        try:
            while len(self._unread) < HEARD_EARLY and not self._refused:
                self._unread += await self._receive()
                self._refused = _REFUSAL.match(self._unread) is not None
        except (*_BROKEN, anyio.EndOfStream, ssl.SSLError):
            self._refused = True  # the next read finds it again
        finally:
            self._listening = False
        if self._refused:
            sending.cancel()

    async def _receive(self) -> bytes:
        data = await self._stream.receive(LARGEST_READ)
        return data if self._tls is None else _with_waiting_records(self._tls, data)

    def _readable(self) -> bool:
        if self._fd < 0:
            return True
        if sys.platform == "win32":
            return bool(select.select([self._fd], [], [], 0)[0])
        return bool(self._poll.poll(0))

    @property
    def _stale(self) -> bool:
        at_once = time.monotonic() - (self._sent_at if self._all_sent else self._begun_at) < self._stale_s
        return self._requests > 1 and self._unanswered and at_once

    def _broken(self) -> httpcore2.ReadError:
        if not self._stale:
            return httpcore2.ReadError()
        return StaleConnection() if self._all_sent else StaleBeforeSent()

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
            with _within(timeout):
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
        return ProviderConnection(secure, self.pace, self._stale_s)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore2 wants to know of the connection."""
        if info == "is_readable":
            return bool(self._unread) or self._readable()
        return self._tls if info == "ssl_object" else None


def _within(timeout: float | None) -> AbstractContextManager[object]:
    """Raises ``TimeoutError`` after so many seconds; None: never, and at no cost."""
    return nullcontext() if timeout is None else anyio.fail_after(timeout)


_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_LONGEST_SIZE, _LONGEST_HEAD = 10, 65_536
_BODY_FOLLOWS = re.compile(rb"\r\nContent-Length: *[1-9][0-9]*\r\n(?:.*\r\n)?\r\n\Z", re.DOTALL)
_REFUSAL = re.compile(rb"(?:HTTP/1\.[01] 1\d\d[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n)*HTTP/1\.[01] [3-5]\d\d")
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)


class Chunks:
    """Merges the many small chunks of a chunked body that one read brings into one. Pure.

    A provider sends a chunk for each token, and parsing a chunk costs more than the token in it. The body and its
    framing stay the same; whatever is not plainly a run of whole chunks passes unchanged.
    """

    __slots__ = ("_begun", "_head", "_left")

    def __init__(self) -> None:
        self.expect()

    def expect(self) -> None:
        """A request has been sent: the next read begins a response."""
        self._head: bytes | None = b""
        self._left: int | None = None
        self._begun = b""

    def take(self, data: bytes) -> bytes:
        """The bytes of a read, with each run of whole chunks merged."""
        if self._left is not None:
            return self._merged(data)
        if self._head is None:
            return data
        whole = self._head + data
        end = whole.find(b"\r\n\r\n") + 4
        if end < 4:
            self._head = whole if len(whole) < _LONGEST_HEAD else None
            return data
        known, self._head = len(self._head), None
        if whole.startswith(b"HTTP/1.1 200") and _CHUNKED.search(whole, 0, end - 2):
            self._left = 0
            return data[: end - known] + self._merged(data[end - known :])
        return data

    def _merged(self, data: bytes) -> bytes:
        assert self._left is not None
        if self._begun and not self._resume(data):
            return data
        if self._left >= len(data):
            self._left -= len(data)
            return data
        start = at = self._left
        self._left = 0
        found: list[bytes] = []
        while size := _SIZE.match(data, at):
            begin = size.end()
            end = begin + int(size[1], 16)
            if end == begin:
                self._left = None  # the last one: what follows are trailers
                break
            if end + 2 > len(data):
                self._left = end + 2 - len(data)
                break
            if data[end : end + 2] != b"\r\n":
                self._left = None
                break
            found.append(data[begin:end])
            at = end + 2
        else:
            self._begun = data[at:]
            if len(self._begun) >= _LONGEST_SIZE:
                self._left, self._begun = None, b""  # an extension, or no chunk at all
        if len(found) < 2:
            return data
        body = b"".join(found)
        return b"%b%x\r\n%b\r\n%b" % (data[:start], len(body), body, data[at:])

    def _resume(self, data: bytes) -> bool:
        """Complete the size in which the last read ended; False while it is incomplete, or if it is none."""
        whole = self._begun + data
        size = _SIZE.match(whole)
        if size is not None and (length := int(size[1], 16)):
            self._left, self._begun = size.end() + length + 2 - len(self._begun), b""
            return True
        self._begun = whole
        if size is not None or len(whole) >= _LONGEST_SIZE:
            self._left, self._begun = None, b""
        return False


def _with_waiting_records(tls: ssl.SSLObject, data: bytes) -> bytes:
    """A read over TLS brings one record, often one token; this adds the others that came with it."""
    records = [data]
    try:
        while record := tls.read(LARGEST_RECORD):
            records.append(record)
    except ssl.SSLError:
        pass  # no whole one is left; an end or a fault is found again by the next read
    return b"".join(records)


class PacedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections whose reads can be paced."""

    def __init__(self, stale_s: float) -> None:
        self._stale_s = stale_s

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection by TCP; no socket options are ever given."""
        try:
            with _within(timeout):
                stream = await anyio.connect_tcp(host, port, local_host=local_address)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout from error
        except (OSError, anyio.BrokenResourceError) as error:
            raise httpcore2.ConnectError from error
        pace = PacedStream(stream)
        return ProviderConnection(pace, pace, self._stale_s)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)
