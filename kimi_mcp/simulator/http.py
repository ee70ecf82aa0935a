"""Owns HTTP/1.1 on a socket: requests parsed by h11, responses written byte by byte so that they can be cut. I/O."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Literal, cast

import anyio
import anyio.lowlevel
import h11

Cut = Literal["truncate", "reset", "stall"]
"""How a response is cut off."""

Framing = Literal["chunked", "length", "close"]
"""What tells the client where the body ends."""

_MOST_WAITING = 262_144
"""Bytes that may wait to be read before the client is slowed down."""


class ClientGone(Exception):
    """The client closed its connection before the response was whole."""


class CutOff(Exception):
    """The response reached the byte after which its scenario cuts it."""

    def __init__(self, how: Cut) -> None:
        super().__init__(how)
        self.how: Cut = how


class BodyTooLarge(Exception):
    """The request's body passed the limit."""


class HttpRequest:
    """One request: its head, and its body as it arrives."""

    def __init__(self, head: h11.Request, events: Callable[[], Awaitable[h11.Event]]) -> None:
        self.method = head.method.decode("ascii")
        target = head.target.decode("latin-1")
        self.path, _, self.query = target.partition("?")
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers}
        self.http_version = head.http_version.decode("ascii")
        self.keeps_alive = self.http_version == "1.1" and "close" not in self.headers.get("connection", "").lower()
        self.received = 0
        self.complete = False
        self._events = events

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's pieces; raises ClientGone."""
        while not self.complete:
            event = await self._events()
            if isinstance(event, h11.Data):
                data = bytes(event.data)
                self.received += len(data)
                yield data
            elif isinstance(event, h11.EndOfMessage):
                self.complete = True
            else:
                raise ClientGone

    async def body(self, limit: int) -> bytes:
        """The whole body; raises BodyTooLarge beyond the limit."""
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise BodyTooLarge
        found = bytearray()
        async for piece in self.chunks():
            found += piece
            if len(found) > limit:
                raise BodyTooLarge
        return bytes(found)


class Wire(asyncio.Protocol):
    """One client's socket: asyncio's transport, because it can abort (RST) and tells at once when the client goes."""

    def __init__(self, connected: Callable[[Wire], None]) -> None:
        self._connected = connected
        self._read = bytearray()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self.gone = False
        self.on_gone: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: a client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)  # a write is over when the kernel has the bytes
        self._writable.set()
        self._connected(self)

    def data_received(self, data: bytes) -> None:
        """Asyncio: bytes came; reading pauses while too many wait."""
        self._read += data
        self._readable.set()
        if len(self._read) > _MOST_WAITING and self._transport:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Asyncio: the client closed its side. Counts as gone; our side stays open until the reader has seen it."""
        self._lost()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio: the connection is over."""
        self._writable.set()
        self._lost()

    def _lost(self) -> None:
        self.gone = True
        self._readable.set()
        if self.on_gone:
            self.on_gone()

    def pause_writing(self) -> None:
        """Asyncio: the kernel takes no more for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Asyncio: the kernel has taken all."""
        self._writable.set()

    async def receive(self) -> bytes:
        """The bytes that wait, or empty when the client has gone."""
        while not self._read and not self.gone:
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._read)
        self._read.clear()
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()
        return data

    def push(self, data: bytes) -> bool:
        """Write bytes; whether the kernel has them all. Raises ClientGone."""
        if self._transport is None or self._transport.is_closing():
            raise ClientGone
        self._transport.write(data)
        return self._writable.is_set()

    async def drain(self) -> None:
        """Wait until the kernel has what was written; raises ClientGone."""
        if self._writable.is_set():
            await anyio.lowlevel.checkpoint()
        else:
            await self._writable.wait()
        if self._transport is None or self._transport.is_closing():
            raise ClientGone

    def finish(self) -> None:
        """Close our side (FIN): the client may still talk."""
        if self._transport and self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """End the connection cleanly (FIN)."""
        if self._transport:
            self._transport.close()

    def reset(self) -> None:
        """End the connection with an RST."""
        if self._transport:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()


class HttpConnection:
    """One client's connection, carrying one request after the other."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._parser = h11.Connection(h11.SERVER)

    async def request(self) -> HttpRequest | None:
        """The next request, or None when the client has left; raises h11.RemoteProtocolError."""
        left = bytes(self._parser.trailing_data[0])
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
        if left:
            self._parser.receive_data(left)
        event = await self._event()
        return HttpRequest(event, self._event) if isinstance(event, h11.Request) else None

    async def _event(self) -> h11.Event:
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Event):
                return event
            if self._parser.they_are_waiting_for_100_continue:
                self.wire.push(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._parser.send(h11.InformationalResponse(status_code=100, headers=[]))
            data = await self.wire.receive()
            if not data:
                return h11.ConnectionClosed()
            self._parser.receive_data(data)

    async def linger(self) -> None:
        """After a refusal whose request was not read to its end: read on for a while, so that the client hears it."""
        with anyio.move_on_after(1):
            while await self.wire.receive():
                pass


class Reply:
    """The response to one request: writes it, counts its bytes, cuts it where a scenario wants that."""

    def __init__(
        self,
        wire: Wire,
        *,
        keep_alive: bool = True,
        chunks: bool = True,
        cut: tuple[int, Cut] | None = None,
        over: Literal["body", "raw"] = "body",
    ) -> None:
        self._wire = wire
        self._chunks = chunks
        self._cut = cut
        self._over = over
        self._sent = 0
        self._framing: Framing = "length"
        self.keep_alive = keep_alive
        self.status: int | None = None
        self.whole = False
        """Whether the kernel has all of it: a client that closes now has left nothing unread."""

    async def head(
        self, status: int, headers: Mapping[str, str], *, framing: Framing = "length", length: int = 0
    ) -> None:
        """Write the status line and the headers."""
        if framing == "chunked" and not self._chunks:
            framing = "close"
        self._framing = framing
        self.status = status
        lines = dict(headers)
        if framing == "length":
            lines["content-length"] = str(length)
        elif framing == "chunked":
            lines["transfer-encoding"] = "chunked"
        if framing == "close":
            self.keep_alive = False
        lines["connection"] = "keep-alive" if self.keep_alive else "close"
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Client Closed Request" if status == 499 else "Unknown"
        text = f"HTTP/1.1 {status} {phrase}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self._write_raw(text.encode("latin-1", "replace") + b"\r\n")
        if self._cut and self._cut[0] == 0 and self._over == "body":
            raise CutOff(self._cut[1])

    async def write(self, payloads: Sequence[bytes], *, last: bool = False) -> None:
        """Write pieces of the body in one TCP write; the last ones together with what ends it.

        Together, because clients hang up as soon as they have read `[DONE]`.
        """
        ended = False
        if self._cut and self._over == "body":
            room = self._cut[0] - self._sent
            kept: list[bytes] = []
            for payload in payloads:
                kept.append(payload[:room])
                room -= len(kept[-1])
            self._sent += sum(map(len, kept))
            payloads, ended = kept, room == 0
        data = self._framed(payloads)
        if last and not ended and self._framing == "chunked":
            data += b"0\r\n\r\n"
        await self._write_raw(data, last=last and not ended)
        if ended and self._cut:
            raise CutOff(self._cut[1])

    def _framed(self, payloads: Sequence[bytes]) -> bytes:
        if self._framing == "chunked":
            return b"".join([b"%x\r\n%b\r\n" % (len(one), one) for one in payloads if one])
        return b"".join(payloads)

    async def _write_raw(self, data: bytes, *, last: bool = False) -> None:
        ended = False
        if self._cut and self._over == "raw":
            data = data[: self._cut[0] - self._sent]
            self._sent += len(data)
            ended = self._sent >= self._cut[0]
        if data:
            self.whole = self._wire.push(data) and last and not ended
            await self._wire.drain()
        if ended and self._cut:
            raise CutOff(self._cut[1])
        self.whole = last
