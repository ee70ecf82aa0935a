"""HTTP/1.1 on a socket: requests parsed by h11, responses written byte by byte so that they can be cut. I/O."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from http.client import responses
from typing import Literal

import anyio
import anyio.lowlevel
import h11

from kimi_mcp.simulator.refusals import Refused
from kimi_mcp.simulator.shapes import JsonObject, as_object

Cut = Literal["truncate", "reset", "stall"]
"""How a response is cut off."""

Framing = Literal["chunked", "length", "close"]
"""How the client recognises the end of the body."""

RequestOutcome = Literal["answered", "cut", "client_gone", "open"]
"""How a response ended: complete, cut by its scenario, abandoned by its client, or not yet."""


class ClientGone(Exception):
    """The client closed its connection before the response was complete."""


class CutOff(Exception):
    """The response reached the byte after which its scenario cuts it."""

    def __init__(self, how: Cut) -> None:
        super().__init__(how)
        self.how: Cut = how


class Connection:
    """One client's connection, which carries one request after the other.

    On asyncio's streams, because their transport can abort (RST) and reports at once that the client has gone.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._parser = h11.Connection(h11.SERVER)
        writer.transport.set_write_buffer_limits(0)  # a write is over when the kernel has the bytes

    @property
    def gone(self) -> bool:
        """Whether the client closed its side."""
        return self._reader.at_eof() or self._reader.exception() is not None

    async def next_request(self) -> ReceivedRequest | None:
        """The next request, or None when the client has gone; raises h11.RemoteProtocolError."""
        unread = self._parser.trailing_data[0]
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
        if unread:
            self._parser.receive_data(unread)
        event = await self.next_event()
        return ReceivedRequest(event, self) if isinstance(event, h11.Request) else None

    async def next_event(self) -> h11.Event:
        """The next part of a request; raises h11.RemoteProtocolError."""
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Event):
                return event
            if self._parser.they_are_waiting_for_100_continue:
                self.push(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._parser.send(h11.InformationalResponse(status_code=100, headers=[]))
            data = await self._receive()
            if not data:
                return h11.ConnectionClosed()
            self._parser.receive_data(data)

    async def _receive(self) -> bytes:
        """Bytes of the client; none when it has gone."""
        try:
            return await self._reader.read(65_536)
        except OSError:
            return b""

    async def wait_until_gone(self) -> None:
        """Return once the client has gone; what it sends after its request belongs to the next one."""
        while data := await self._receive():
            if self._parser.their_state is h11.DONE:
                self._parser.receive_data(data)

    def push(self, data: bytes) -> bool:
        """Write bytes; whether the kernel has them all. Raises ClientGone."""
        if self._writer.is_closing():
            raise ClientGone
        self._writer.write(data)
        return not self._writer.transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Wait until the kernel has what was written; raises ClientGone."""
        await anyio.lowlevel.checkpoint()
        try:
            await self._writer.drain()
        except OSError:
            raise ClientGone from None
        if self._writer.is_closing():
            raise ClientGone

    async def finish(self) -> None:
        """Send FIN, then read on for a while: a client that still sends would not receive the response."""
        if not self._writer.is_closing():
            self._writer.write_eof()
            with anyio.move_on_after(1):
                while await self._receive():
                    pass

    def close(self) -> None:
        """End the connection with a FIN."""
        self._writer.close()

    def reset(self) -> None:
        """End the connection with an RST."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class ReceivedRequest:
    """One request: its head, its body as it arrives, and how its response ended."""

    def __init__(self, head: h11.Request, connection: Connection) -> None:
        self.method = head.method.decode("ascii")
        target = head.target.decode("latin-1")
        self.path, _, self.query = target.partition("?")
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers}
        """Names in lower case."""
        self.http_version = head.http_version.decode("ascii")
        self.keeps_alive = self.http_version == "1.1" and "close" not in self.headers.get("connection", "").lower()
        self.raw = 0
        """Bytes of the body that have arrived."""
        self.complete = False
        self.content: object = None
        """The parsed JSON of the body, or its bytes where it is none; None before it was read."""
        self.at = 0.0
        """Seconds of the event loop's monotonic clock."""
        self.ignored: tuple[str, ...] = ()
        """Top-level fields that the provider takes without any effect."""
        self.outcome: RequestOutcome = "open"
        self.status: int | None = None
        """Of the response; None before its head."""
        self._connection = connection

    @property
    def body(self) -> JsonObject | None:
        """The parsed JSON object, where the body is one."""
        return as_object(self.content)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's pieces; raises ClientGone."""
        while not self.complete:
            event = await self._connection.next_event()
            if isinstance(event, h11.Data):
                self.raw += len(event.data)
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.complete = True
            else:
                raise ClientGone

    async def read(self, limit: int) -> bytes:
        """The whole body; raises Refused beyond the limit, and ClientGone."""
        announced = self.headers.get("content-length", "")
        size, pieces = int(announced) if announced.isdigit() else 0, list[bytes]()
        if size <= limit:
            async for piece in self.chunks():
                pieces.append(piece)
                if self.raw > limit:
                    break
        if max(size, self.raw) > limit:
            raise Refused(413, "invalid_request_error", "Invalid request: the request body is too large")
        return b"".join(pieces)


class ResponseWriter:
    """Writes the response to one request, and cuts it where a scenario wants that."""

    def __init__(
        self,
        connection: Connection,
        *,
        keep_alive: bool = True,
        chunks: bool = True,
        cut: tuple[int, Cut] | None = None,
        over: Literal["body", "raw"] = "body",
    ) -> None:
        self._connection = connection
        self._chunks = chunks
        self._cut = cut
        self._over = over
        self._sent = 0
        self._framing: Framing = "length"
        self.keep_alive = keep_alive
        self.status: int | None = None
        self.complete = False
        """Whether the kernel has all of it: a client that closes now has left nothing unread."""

    async def start(
        self, status: int, headers: Mapping[str, str], *, framing: Framing = "length", length: int = 0
    ) -> None:
        """Write the status line and the headers; raises CutOff."""
        self.status = status
        self._framing = "close" if framing == "chunked" and not self._chunks else framing
        self.keep_alive = self.keep_alive and self._framing != "close"
        lines = dict(headers)
        if self._framing == "length":
            lines["content-length"] = str(length)
        elif self._framing == "chunked":
            lines["transfer-encoding"] = "chunked"
        lines["connection"] = "keep-alive" if self.keep_alive else "close"
        head = f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self._send(head.encode("latin-1", "replace") + b"\r\n")
        _, cut = self._clip(b"", "body")
        if cut:
            raise CutOff(cut)

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Write a part of the body in one TCP write, the last one together with what ends it. Raises CutOff.

        Together, because clients hang up as soon as they have read `[DONE]`.
        """
        data, cut = self._clip(data, "body")
        if self._framing == "chunked":
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data += b"0\r\n\r\n" if last and not cut else b""
        await self._send(data, last=last and not cut)
        if cut:
            raise CutOff(cut)

    async def _send(self, data: bytes, *, last: bool = False) -> None:
        data, cut = self._clip(data, "raw")
        if data:
            self.complete = self._connection.push(data) and last and not cut
            await self._connection.drain()
        if cut:
            raise CutOff(cut)
        self.complete = last

    def _clip(self, data: bytes, layer: Literal["body", "raw"]) -> tuple[bytes, Cut | None]:
        """What of the data comes before the cut, and the cut where it is reached."""
        if self._cut is None or self._over != layer:
            return data, None
        data = data[: self._cut[0] - self._sent]
        self._sent += len(data)
        return data, self._cut[1] if self._sent >= self._cut[0] else None
