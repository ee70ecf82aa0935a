"""Refusals that come while the request is still being sent, and what is done in worker threads meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.core.errors import KimiError
from kimi_mcp.provider import Upload
from kimi_mcp.provider.endpoint import InlineMedium
from tests.provider.certificates import certificate
from tests.provider.loopback import Handler, kept_open, request_of, serving
from tests.provider.requests import CallOutcome, ask, endpoint, upstream
from tests.provider.test_kept_connections import HONEST

SIZE = 30_000_000
CODES = {401: "auth_failed", 413: "invalid_arguments", 429: "quota_exhausted"}
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"


def refusal(status: int) -> bytes:
    error = {"type": "exceeded_current_quota_error" if status == 429 else "some_error", "message": "Too much of it."}
    body = json.dumps({"error": error}).encode()
    return kept_open(body, status=f"{status} No", kind="application/json")


def picture(read_at: Any = lambda at, length: bytes(length)) -> InlineMedium:
    return InlineMedium(mime="image/png", size=SIZE, read_at=read_at)


def clip(chunks: Callable[[], Iterator[bytes]]) -> Upload:
    return Upload(sha256="0" * 64, mime="video/mp4", purpose="video", size=SIZE, chunks=chunks)


async def send(url: str, what: str) -> CallOutcome:
    """A body that no socket's buffers hold: media read while they are sent, a long text, a file."""
    if what == "a text":
        return await ask(upstream(), url, prompt="x" * SIZE)
    if what == "a picture":
        medium = picture()
        return await ask(upstream(), url, prompt=medium.placeholder, inline=medium)
    file = Upload(
        sha256="0" * 64, mime="video/mp4", purpose="video", size=SIZE, chunks=lambda: iter([bytes(SIZE // 30)] * 30)
    )
    outcome = CallOutcome()
    outcome.attempts.append(1)
    try:
        await upstream().upload(endpoint(url), file)
    except KimiError as error:
        outcome.error = error
    return outcome


def refusing(status: int, then: str, left: asyncio.Event, seen: list[int], interim: bytes = b"") -> Handler:
    """Refuses a request of which it has read the head; then closes, resets, or reads no further."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        seen.append(number)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(interim + refusal(status))
        await writer.drain()
        if then == "stops reading":
            await left.wait()
        if then == "resets":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    return handle


@pytest.mark.parametrize("what", ["a picture", "a text", "a file"])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("then", ["closes", "resets", "stops reading"])
@pytest.mark.parametrize("status", CODES)
async def test_a_refusal_that_comes_while_the_body_is_sent_is_what_the_caller_hears(
    status: int, then: str, secure: bool, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    left, seen = asyncio.Event(), list[int]()
    async with serving(refusing(status, then, left, seen), tls=context if secure else None) as url:
        with anyio.fail_after(60):
            outcome = await send(url, what)
        left.set()
    assert (outcome.code, outcome.attempts) == (CODES[status], [1])
    assert seen == [1]
    if status == 413:
        assert "Too much of it." in str(outcome.error)


async def test_a_refusal_behind_interim_answers_is_heard_too() -> None:
    left, seen = asyncio.Event(), list[int]()
    async with serving(refusing(413, "stops reading", left, seen, INTERIM)) as url:
        with anyio.fail_after(60):
            outcome = await send(url, "a picture")
        left.set()
    assert (outcome.code, seen) == ("invalid_arguments", [1])


@pytest.mark.parametrize("early", [INTERIM, INTERIM[:30], HONEST[:40]], ids=["interim", "half of one", "a good answer"])
async def test_whatever_else_comes_early_stops_nothing(early: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(early)
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        await reader.readexactly(length)
        writer.write((INTERIM + HONEST)[len(early) :] if INTERIM.startswith(early) else HONEST[len(early) :])

    async with serving(handle) as url:
        with anyio.fail_after(60):
            outcome = await send(url, "a picture")
    assert outcome.error is None
    assert outcome.accumulator.answer == "honest"


async def test_a_provider_that_breaks_off_while_the_body_is_sent_is_asked_again() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:
            await reader.readuntil(b"\r\n\r\n")
            return
        await request_of(reader)
        writer.write(HONEST)

    async with serving(handle) as url:
        with anyio.fail_after(60):
            outcome = await send(url, "a picture")
    assert (outcome.code, outcome.attempts) == (None, [1, 2])


async def test_a_body_that_is_cancelled_while_nobody_takes_it_closes_its_connection() -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        began.set()
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        gone.set()

    async with serving(handle) as url:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as calls:
                calls.start_soon(send, url, "a text")
                await began.wait()
                calls.cancel_scope.cancel()
            await gone.wait()


async def test_media_are_read_and_encoded_in_worker_threads() -> None:
    threads: set[int] = set()

    def read_at(at: int, length: int) -> bytes:
        threads.add(threading.get_ident())
        return bytes(length)

    def chunks() -> Iterator[bytes]:
        yield read_at(0, SIZE)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        request = await request_of(reader)
        file = kept_open(b'{"id": "one"}', kind="application/json")
        writer.write(file if b"/files" in request.split(b"\r\n")[0] else HONEST)

    async with serving(handle) as url:
        medium = picture(read_at)
        assert (await ask(upstream(), url, prompt=medium.placeholder, inline=medium)).error is None
        assert await upstream().upload(endpoint(url), clip(chunks)) == "one"
    assert threads
    assert threading.get_ident() not in threads
