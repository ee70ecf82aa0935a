"""A server that sends exactly the bytes it is given, for answers that no upstream should give."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.provider.requests import close_all


def response(body: bytes, *, status: str = "200 OK", kind: str = "text/event-stream", more: str = "") -> bytes:
    """A whole response, its connection closed afterwards."""
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n"
    ).encode() + body


class Says:
    """Answers every request with the same bytes."""

    def __init__(
        self, *pieces: bytes, hold: bool, cuts: bool, reset: bool, pause_s: float, reads_mb_every_s: float | None
    ) -> None:
        self.pieces = pieces
        self.hold = hold
        self.cuts = cuts
        self.reset = reset
        self.pause_s = pause_s
        self.reads_mb_every_s = reads_mb_every_s
        self.scheme = "http"
        self.requests: list[bytes] = []
        self.taken_mb = 0
        """Of bodies that are read slowly: the megabytes so far."""
        self.over = asyncio.Event()
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            request = head + await self._read(reader, int(length[1]) if length else 0)
            self.requests.append(request)
            cut = re.search(rb"<(\d+)>", request) if self.cuts else None
            for piece in self.pieces:
                writer.write(piece[: int(cut[1])] if cut else piece)
                await writer.drain()
                await asyncio.sleep(self.pause_s)
            if self.hold:
                await reader.read()  # until the client goes
        if self.reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader, length: int) -> bytes:
        """The body; by a slow line where one is asked for."""
        if self.reads_mb_every_s is None:
            return await reader.readexactly(length)
        left = length
        while left:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), self.reads_mb_every_s)
                raise ConnectionError
            left -= len(await reader.readexactly(min(left, 1_000_000)))
            self.taken_mb += 1
        return b""


@asynccontextmanager
async def saying(
    *pieces: bytes,
    hold: bool = False,
    cuts: bool = False,
    reset: bool = False,
    pause_s: float = 0,
    reads_mb_every_s: float | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Says]:
    """A server that says these pieces, then ends the connection.

    ``hold``: waits for the client to go. ``cuts``: of its piece only as many bytes as a prompt ``<N>`` asks for.
    ``reset``: ends by RST. ``pause_s``: seconds after each piece. ``reads_mb_every_s``: seconds before each megabyte
    of a body is taken, as by a slow line.
    """
    says = Says(*pieces, hold=hold, cuts=cuts, reset=reset, pause_s=pause_s, reads_mb_every_s=reads_mb_every_s)
    server = await asyncio.start_server(says.serve, "127.0.0.1", 0, backlog=1_000, ssl=tls)
    says.scheme = "https" if tls else "http"
    says.port = server.sockets[0].getsockname()[1]
    try:
        yield says
    finally:
        await close_all()
        says.over.set()
        server.close()
        await server.wait_closed()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
"""Serves one connection: its two ends, and its number, from 1."""


@asynccontextmanager
async def serving(handle: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server of which a test has each connection; yields its base URL."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer, count)
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1_000, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        await close_all()
        server.close()
        await server.wait_closed()


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """The next request on a connection, whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    return head + await reader.readexactly(int(length[1]) if length else 0)


def kept_open(body: bytes, *, status: str = "200 OK", kind: str = "text/event-stream", chunked: bool = False) -> bytes:
    """A whole response, after which the connection stays open."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n".encode()
    if chunked:
        return b"%btransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body)
    return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
