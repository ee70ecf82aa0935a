"""Connections to a host: what goes out in one piece, and which of them are kept."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.abc
import httpcore2
import pytest

from kimi_mcp.simulator import Simulator
from kimi_mcp.upstream.transport import Connection, PacedBackend, PacedStream, Sockets
from tests.upstream.asking import KEY

HEAD = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n"
SAID = [("Host", "x"), ("Authorization", f"Bearer {KEY}")]


class Line(anyio.abc.ByteStream):
    """The other end of nothing: keeps what it is sent, piece by piece."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, item: bytes) -> None:
        self.sent.append(item)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    async def send_eof(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        pass


def connection(line: Line) -> Connection:
    pace = PacedStream(line)
    return Connection(pace, pace)


async def test_the_head_of_a_request_goes_out_with_the_first_piece_of_its_body() -> None:
    line = Line()
    to = connection(line)
    for _ in range(2):  # a connection takes one request after the other
        for piece in (HEAD, b"a" * 20, b"b" * 20, b""):
            await to.write(piece)
        await to.read(65_536)
    assert line.sent == 2 * [HEAD + b"a" * 20, b"b" * 20]


async def test_a_head_without_a_body_goes_out_at_once() -> None:
    line = Line()
    to = connection(line)
    for head in (HEAD.replace(b"40", b"0"), b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"):
        await to.write(head)
        await to.read(65_536)
    assert len(line.sent) == 2


@pytest.mark.parametrize("body", [[HEAD], [b"a", HEAD], [HEAD, b"a"]])
async def test_a_body_that_looks_like_a_head_is_held_back_by_nothing(body: list[bytes]) -> None:
    line = Line()
    to = connection(line)
    for piece in (HEAD, *body):
        await to.write(piece)
    assert b"".join(line.sent) == b"".join((HEAD, *body))


def request(sim: Simulator) -> httpcore2.Request:
    return httpcore2.Request("GET", f"{sim.base_url}/models", headers=SAID)


async def ask_at_once(sockets: Sockets, sim: Simulator, count: int) -> None:
    """That many requests that are all under way before the first of them ends."""
    answers = [await sockets.send(request(sim)) for _ in range(count)]
    for _, body in answers:
        async for _ in body.pieces():
            pass
        await body.aclose()


def made_by(factory: httpcore2.AsyncConnectionPool, made: list[httpcore2.AsyncConnectionInterface]) -> Sockets:
    class Counted:
        def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
            made.append(factory.create_connection(origin))
            return made[-1]

    return Sockets(Counted())  # type: ignore[arg-type]


async def test_a_connection_serves_one_request_after_the_other_and_few_are_used_where_few_are_needed(
    sim: Simulator,
) -> None:
    made: list[httpcore2.AsyncConnectionInterface] = []
    sockets = made_by(httpcore2.AsyncConnectionPool(keepalive_expiry=60, network_backend=PacedBackend()), made)
    await ask_at_once(sockets, sim, 3)
    for _ in range(5):
        await ask_at_once(sockets, sim, 1)
    assert len(made) == 3
    assert made[2].info().endswith("Request Count: 6"), "the one that became idle last"
    assert {one.info()[-1] for one in made[:2]} == {"1"}
    await sockets.aclose()
    assert all(one.is_closed() for one in made)


async def test_connections_that_nobody_needed_for_long_are_closed_by_the_next_request(sim: Simulator) -> None:
    made: list[httpcore2.AsyncConnectionInterface] = []
    sockets = made_by(httpcore2.AsyncConnectionPool(keepalive_expiry=0, network_backend=PacedBackend()), made)
    await ask_at_once(sockets, sim, 4)
    assert not any(one.is_closed() for one in made)
    await ask_at_once(sockets, sim, 1)
    assert [one.is_closed() for one in made] == [True] * 4 + [False]
    await sockets.aclose()


async def test_a_request_that_is_cancelled_leaves_no_connection_behind(sim: Simulator) -> None:
    sim.play({"gate": "never"})
    made: list[httpcore2.AsyncConnectionInterface] = []
    sockets = made_by(httpcore2.AsyncConnectionPool(network_backend=PacedBackend()), made)
    body = b'{"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hello."}], "stream": true}'
    headers = [*SAID, ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    asked = httpcore2.Request("POST", f"{sim.base_url}/chat/completions", headers=headers, content=body)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sockets.send, asked)
            await sim.until(lambda: sim.waiting_at("never") == 1)
            tasks.cancel_scope.cancel()
    (one,) = made
    assert one.is_closed()
    assert not sockets._busy
    assert not sockets._idle


async def test_a_connection_that_was_being_opened_while_all_were_closed_is_closed_with_its_answer(
    sim: Simulator,
) -> None:
    opening, opened = anyio.Event(), anyio.Event()

    class Slow(PacedBackend):
        async def connect_tcp(self, *where: Any, **how: Any) -> httpcore2.AsyncNetworkStream:
            opening.set()
            await opened.wait()
            return await super().connect_tcp(*where, **how)

    made: list[httpcore2.AsyncConnectionInterface] = []
    sockets = made_by(httpcore2.AsyncConnectionPool(network_backend=Slow()), made)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_at_once, sockets, sim, 1)
            await opening.wait()
            await sockets.aclose()
            opened.set()
    (one,) = made
    assert one.is_closed()
