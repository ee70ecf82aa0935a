"""Connections that are used again, and those that must not be."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import openai
import pytest

from kimi_mcp.core.errors import KimiError
from kimi_mcp.provider import Deadlines, Endpoint, Upstream
from kimi_mcp.simulator import Simulator
from tests.provider.certificates import certificate
from tests.provider.loopback import kept_open, request_of, serving
from tests.provider.requests import KEY, SHORT, CallOutcome, Clock, ask, connections, endpoint, upstream
from tests.provider.test_files import upload


def answer(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    return f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode()


HONEST = kept_open(answer("honest"))
FALSE = kept_open(answer("false"))
LARGE = kept_open(answer("x" * 300_000))


async def test_each_request_is_sent_by_openai(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome: list[str] = []
    request = openai.AsyncOpenAI.request

    async def seen(self: Any, cast_to: Any, options: Any, **more: Any) -> Any:
        outcome.append(options.url)
        return await request(self, cast_to, options, **more)

    monkeypatch.setattr(openai.AsyncOpenAI, "request", seen)
    assert (await ask(upstream(), sim)).error is None
    assert outcome == ["chat/completions"]


async def test_the_head_of_a_request_says_what_is_needed_and_nothing_else() -> None:
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            requests.append(await request_of(reader))
            writer.write(HONEST.replace(b"\r\n", b"\r\nset-cookie: a=b\r\n", 1))

    async with serving(handle) as url:
        up = upstream()
        for _ in range(2):
            assert (await ask(up, url)).error is None
    first, second = (
        {line.partition(b":")[0].lower() for line in one.split(b"\r\n\r\n")[0].splitlines()} for one in requests
    )
    assert first == second
    assert first == {
        *(b"post /v1/chat/completions http/1.1", b"host", b"connection", b"user-agent", b"authorization"),
        *(b"accept", b"accept-encoding", b"content-type", b"content-length"),
    }


async def test_a_connection_serves_one_request_after_the_other(sim: Simulator) -> None:
    sim.play({**SHORT, "times": "always", "gate": "three"})
    up = upstream()
    async with anyio.create_task_group() as calls:
        for _ in range(3):
            calls.start_soon(ask, up, sim)
        await sim.until(lambda: sim.waiting_at("three") == 3)
        sim.open_gate("three")
    sim.reset()
    sim.play({**SHORT, "times": "always"})
    for _ in range(5):
        assert (await ask(up, sim)).error is None
    assert len(connections(up)) == 3
    assert all(connection.is_idle() for connection in connections(up))


async def used_by_thirty(sim: Simulator) -> Upstream:
    """After thirty requests at once: it keeps their connections."""
    sim.play({**SHORT, "times": 30, "gate": "thirty"}, {**SHORT, "times": "always"})
    up = upstream(max_concurrency=30)
    async with anyio.create_task_group() as calls:
        for _ in range(30):
            calls.start_soon(ask, up, sim)
        await sim.until(lambda: sim.waiting_at("thirty") == 30)
        sim.open_gate("thirty")
    return up


def nobody_asks_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the clock by which httpcore2 closes idle connections."""
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + Deadlines().keep_idle_s)
    monkeypatch.setattr("httpcore2._async.http11.time", later)


async def test_connections_that_nobody_needed_for_long_are_closed_by_the_next_request(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = await used_by_thirty(sim)
    assert (await ask(up, sim)).error is None
    assert len(before := connections(up)) == 30
    nobody_asks_for_long(monkeypatch)
    assert (await ask(up, sim)).error is None
    assert len(connections(up)) == 1
    assert all(connection.is_closed() for connection in before)


async def test_requests_at_once_close_what_nobody_needed_for_long_together(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = await used_by_thirty(sim)
    before = connections(up)
    nobody_asks_for_long(monkeypatch)
    answers: list[CallOutcome] = []

    async def one() -> None:
        answers.append(await ask(up, sim))

    async with anyio.create_task_group() as calls:
        for _ in range(8):
            calls.start_soon(one)
    assert [outcome.error for outcome in answers] == 8 * [None]
    assert [outcome.sent for outcome in answers] == 8 * [1]
    assert all(connection.is_closed() for connection in before)


async def test_a_connection_that_was_being_opened_while_all_were_closed_is_closed_with_its_answer(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.play(SHORT)
    opening, opened = anyio.Event(), anyio.Event()
    made: list[Any] = []
    connect = anyio.connect_tcp

    async def slow(*where: Any, **how: Any) -> Any:
        opening.set()
        await opened.wait()
        made.append(await connect(*where, **how))
        return made[-1]

    monkeypatch.setattr(anyio, "connect_tcp", slow)
    up = upstream()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as calls:
            calls.start_soon(ask, up, sim)
            await opening.wait()
            await up.aclose()
            opened.set()
        (one,) = made
        with pytest.raises(anyio.ClosedResourceError):
            await one.receive()


BEHIND = {
    "another answer": (HONEST + FALSE, True),
    "the beginning of one": (HONEST + FALSE[:14], True),
    "another answer behind the last chunk": (kept_open(answer("honest"), chunked=True) + FALSE, True),
    "garbage behind the last chunk": (kept_open(answer("honest"), chunked=True) + b"0\r\n\r\n", True),
    "another answer behind a large one": (LARGE + FALSE, True),
    "another answer behind an error": (kept_open(b"{}", status="400 Bad", kind="application/json") + FALSE, True),
    "a body without an end": (HONEST.replace(b"content-length: ", b"content-length: 9"), True),
    "nothing": (HONEST, False),
    "nothing behind the last chunk": (kept_open(answer("honest"), chunked=True), False),
    "nothing behind a large one": (LARGE, False),
    "nothing behind an error": (kept_open(b"{}", status="400 Bad", kind="application/json"), False),
}


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(("first", "closed"), BEHIND.values(), ids=BEHIND)
async def test_bytes_behind_a_complete_answer_never_answer_the_next_call(
    first: bytes, closed: bool, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    answered = 0
    numbers: set[int] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal answered
        numbers.add(number)
        while await request_of(reader):
            answered += 1
            writer.write(first if answered == 1 else HONEST)

    async with serving(handle, tls=context if secure else None) as url:
        up = upstream()
        with anyio.fail_after(60):
            await ask(up, url)
            second = await ask(up, url)
    assert second.error is None
    assert second.accumulator.answer == "honest"
    assert second.attempts == [1]
    assert numbers == ({1, 2} if closed else {1})


class Restarted:
    """A provider behind a balancer: what was connected before a restart is closed upon the next request."""

    def __init__(self) -> None:
        self.restarts = 0
        self.fresh = 0
        self.waiting = anyio.Event()
        self.together = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        born = self.restarts
        while await request_of(reader):
            if self.restarts > born:
                return
            self.fresh += 1
            if self.fresh == self.together:
                self.waiting.set()
            await self.waiting.wait()
            writer.write(HONEST)


async def test_after_a_restart_of_the_provider_no_call_fails_and_none_counts_as_a_retry() -> None:
    provider, clock = Restarted(), Clock()
    provider.together = 16
    async with serving(provider.handle) as url:
        up, results = upstream(clock), list[CallOutcome]()

        async def one() -> None:
            results.append(await ask(up, url))

        for _ in range(3):
            results.clear()
            with anyio.fail_after(60):
                async with anyio.create_task_group() as calls:
                    for _ in range(16):
                        calls.start_soon(one)
            assert [(each.code, each.attempts) for each in results] == 16 * [(None, [1])]
            assert len(connections(up)) == 16
            provider.restarts += 1
            provider.fresh, provider.waiting = 0, anyio.Event()
    assert clock.waits == []


async def test_one_dead_connection_takes_the_other_idle_ones_with_it() -> None:
    provider = Restarted()
    provider.together = 4
    async with serving(provider.handle) as url:
        up = upstream()
        async with anyio.create_task_group() as calls:
            for _ in range(4):
                calls.start_soon(ask, up, url)
        provider.restarts += 1
        provider.together, provider.fresh = 1, 0
        assert (await ask(up, url)).attempts == [1]
        assert len(connections(up)) == 1


JSON = kept_open(b'{"data": []}', kind="application/json")


async def list_then(url: str, call: Callable[[Upstream, Endpoint], Awaitable[object]]) -> KimiError | None:
    """Use a connection for a list of files, and then for a call; its error, if any."""
    up, to = upstream(), endpoint(url)
    with anyio.fail_after(60):
        await up.list_files(to)
        try:
            await call(up, to)
        except KimiError as error:
            return error
    return None


@pytest.mark.parametrize(
    "call",
    [
        lambda up, to: up.upload(to, upload()),
        lambda up, to: up.run_function(to, "moonshot/web-search:latest", "f", "{}"),
    ],
    ids=["upload", "formula"],
)
async def test_a_request_that_may_have_been_carried_out_is_not_sent_again(
    call: Callable[[Upstream, Endpoint], Awaitable[object]],
) -> None:
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        requests.append(await request_of(reader))
        writer.write(JSON)
        requests.append(await request_of(reader))  # all of it, and then nothing

    async with serving(handle) as url:
        error = await list_then(url, call)
    assert error is not None
    assert error.code == "upstream_broken"
    assert [request.split(b" ")[0] for request in requests] == [b"GET", b"POST"]


async def test_a_list_is_asked_for_again_by_a_new_connection() -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal requests
        for _ in range(3 - number):
            await request_of(reader)
            requests += 1
            if requests != 2:
                writer.write(JSON)

    async with serving(handle) as url:
        assert await list_then(url, lambda up, to: up.list_files(to)) is None
    assert requests == 3


async def test_an_upload_is_sent_again_if_its_connection_was_closed_before_all_of_it_was_sent() -> None:
    heads: list[bytes] = []
    closed = threading.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:
            await request_of(reader)
            writer.write(JSON)
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.transport.abort()
            closed.set()
            return
        heads.append(await request_of(reader))
        writer.write(kept_open(b'{"id": "file-1"}', kind="application/json"))

    def chunks() -> Iterator[bytes]:
        yield b"x" * 500
        closed.wait(5)
        yield b"x" * 500

    async with serving(handle) as url:
        file = upload(b"x" * 1000, chunks=chunks)
        assert await list_then(url, lambda up, to: up.upload(to, file)) is None
    assert len(heads) == 2
    assert heads[1].count(b"x" * 1000) == 1


async def test_a_used_connection_that_breaks_later_was_at_work_and_counts() -> None:
    provider, clock = Restarted(), Clock()
    provider.together = 1
    async with serving(provider.handle) as url:
        up = upstream(clock, deadlines=Deadlines(stale_s=0))
        assert (await ask(up, url)).attempts == [1]
        provider.restarts += 1
        assert (await ask(up, url)).attempts == [1, 2]
    assert len(clock.waits) == 1


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200"], ids=["new", "begun"])
async def test_a_new_connection_that_breaks_and_an_answer_that_has_begun_count(begun: bytes) -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal requests
        while await request_of(reader):
            requests += 1
            if begun and requests == 1:
                writer.write(HONEST)
                continue
            writer.write(begun)
            return

    async with serving(handle) as url:
        clock = Clock()
        up = upstream(clock)
        if begun:
            assert (await ask(up, url)).attempts == [1]
        with anyio.fail_after(60):
            outcome = await ask(up, url)
    assert (outcome.code, outcome.attempts) == ("upstream_broken", [1, 2, 3, 4, 5])
    assert requests == 5 + bool(begun)
    assert KEY not in str(outcome.error)
