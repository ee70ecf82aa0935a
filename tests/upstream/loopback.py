"""A server that says exactly the bytes it is told, for answers that no upstream should give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.upstream.asking import close_all


def response(body: bytes, *, status: str = "200 OK", kind: str = "text/event-stream", more: str = "") -> bytes:
    """A whole response, its connection closed afterwards."""
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n"
    ).encode() + body


class Says:
    """Answers every request with the same bytes."""

    def __init__(self, *pieces: bytes, hold: bool = False) -> None:
        self.pieces = pieces
        self.hold = hold
        self.requests: list[bytes] = []
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")),
                0,
            )
            self.requests.append(head + await reader.readexactly(length))
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if self.hold:
                await reader.read()  # until the client goes
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def saying(*pieces: bytes, hold: bool = False) -> AsyncIterator[Says]:
    says = Says(*pieces, hold=hold)
    server = await asyncio.start_server(says.serve, "127.0.0.1", 0)
    says.port = server.sockets[0].getsockname()[1]
    try:
        yield says
    finally:
        await close_all()
        server.close()
        await server.wait_closed()
