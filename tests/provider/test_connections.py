"""Connections to a host: what goes out in one piece."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.abc import SocketAttribute

from kimi_mcp.provider.connections import PacedStream, ProviderConnection

HEAD = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n"


class Line(anyio.abc.ByteStream):
    """Keeps what it is sent, piece by piece; whoever waits for an answer before ``answers`` is set waits for ever."""

    def __init__(self, silent: socket.socket) -> None:
        self.sent: list[bytes] = []
        self.answers = False
        self._silent = silent

    async def send(self, item: bytes) -> None:
        self.sent.append(item)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        if not self.answers:
            await anyio.sleep_forever()
        self.answers = False
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    async def send_eof(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        pass

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {SocketAttribute.raw_socket: lambda: self._silent}


@pytest.fixture
def line() -> Iterator[Line]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Line(ours)


def connection(line: Line) -> ProviderConnection:
    pace = PacedStream(line)
    return ProviderConnection(pace, pace, 0.5)


async def answered(to: ProviderConnection, line: Line) -> None:
    line.answers = True
    await to.read(65_536)


async def test_the_head_of_a_request_goes_out_with_the_first_piece_of_its_body(line: Line) -> None:
    to = connection(line)
    for _ in range(2):  # a connection takes one request after the other
        for piece in (HEAD, b"a" * 20, b"b" * 20, b""):
            await to.write(piece)
        await answered(to, line)
    assert line.sent == 2 * [HEAD + b"a" * 20, b"b" * 20]


async def test_a_head_without_a_body_goes_out_at_once(line: Line) -> None:
    to = connection(line)
    for head in (HEAD.replace(b"40", b"0"), b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"):
        await to.write(head)
        await answered(to, line)
    assert len(line.sent) == 2


@pytest.mark.parametrize("body", [[HEAD], [b"a", HEAD], [HEAD, b"a"]])
async def test_a_body_that_looks_like_a_head_is_held_back_by_nothing(body: list[bytes], line: Line) -> None:
    to = connection(line)
    for piece in (HEAD, *body):
        await to.write(piece)
    assert b"".join(line.sent) == b"".join((HEAD, *body))
