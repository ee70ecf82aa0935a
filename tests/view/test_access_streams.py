"""Streams of events: who may no longer read one is cut off, and all end at once where the server ends."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import Scope

from kimi_mcp.view.web import access
from kimi_mcp.view.web.access import AccessRefused, ViewAccess, signed_out, viewer_of
from kimi_mcp.view.web.pages import message_page
from kimi_mcp.view.web.routes import Viewer
from tests.server.clients import wait_until
from tests.view.visiting import checked, error_code

EVENTS = "/ui/api/events"


class Door(ViewAccess):
    """Lets in whom the test lets in."""

    def __init__(self) -> None:
        self.refusal: AccessRefused | None = None
        self.looks = 0
        self.ended: list[str] = []
        routes = [
            Route(EVENTS, self._events),
            Route("/ui/api/runs", self._runs),
            Route("/ui/api/broken/events", self._broken),
        ]
        super().__init__(Router(routes), "/ui")

    def has_host(self, host: str | None) -> bool:
        return True

    def origins(self, host: str) -> tuple[str, ...]:
        return ()

    async def admit(self, scope: Scope) -> Viewer:
        self.looks += 1
        if self.refusal is not None:
            raise self.refusal
        return Viewer(caller=None, may_cancel=True)

    async def answer_own(self, name: str, request: Request) -> Response | None:
        return None

    def refused_page(self, refused: AccessRefused) -> Response:
        return message_page(refused.status, "Refused", refused.message)

    async def _runs(self, request: Request) -> Response:
        await viewer_of(request)
        return PlainTextResponse("runs")

    async def _events(self, request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            try:
                yield "data: 1\n\n"
                await anyio.sleep_forever()
            finally:
                self.ended.append(request.url.path)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _broken(self, request: Request) -> Response:
        raise RuntimeError("a secret detail")


@asynccontextmanager
async def door() -> AsyncIterator[tuple[Door, httpx2.AsyncClient]]:
    found, listener = Door(), socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(found, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        async with (
            anyio.create_task_group() as tasks,
            httpx2.AsyncClient(base_url=base, timeout=30, verify=False) as http,
        ):
            tasks.start_soon(server._serve, [listener])
            yield found, http
            found.end_streams()
            server.should_exit = True


async def first(stream: httpx2.Response) -> AsyncIterator[bytes]:
    """The rest of a stream, once its first event has come."""
    pieces = stream.aiter_bytes()
    assert await anext(pieces) == b"data: 1\n\n"
    return pieces


async def test_streams_end_at_once_where_the_server_ends_and_nothing_else_does() -> None:
    async with door() as (found, http), AsyncExitStack() as streams:
        rests = [await first(await streams.enter_async_context(http.stream("GET", EVENTS))) for _ in range(3)]
        assert found.streams == 3
        found.end_streams()
        with anyio.fail_after(60):
            assert [[piece async for piece in rest] for rest in rests] == [[], [], []], "each ends as a whole response"
            await wait_until(lambda: found.ended == [EVENTS] * 3)
        assert found.streams == 0
        assert (await http.get("/ui/api/runs")).text == "runs"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_stream_ends_once_its_reader_may_read_it_no_longer(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(access, "CHECK_EVERY_S", 0.01)
    async with door() as (found, http), http.stream("GET", EVENTS) as stream:
        rest = await first(stream)
        await wait_until(lambda: found.looks > 3)
        assert found.ended == []
        found.refusal = AccessRefused(status, "token_refused", "The token was revoked.", "Sign in.")
        with anyio.fail_after(60):
            assert [piece async for piece in rest] == []


async def test_a_stream_goes_on_while_nobody_can_say_who_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CHECK_EVERY_S", 0.01)
    async with door() as (found, http), http.stream("GET", EVENTS) as stream:
        rest = await first(stream)
        found.refusal = AccessRefused(503, "busy", "The identity provider does not answer.", "Wait.")
        requested = found.looks
        await wait_until(lambda: found.looks > requested + 3)
        assert (found.streams, found.ended) == (1, [])
        found.end_streams()
        assert [piece async for piece in rest] == []


async def test_a_stream_whose_reader_left_is_forgotten() -> None:
    async with door() as (found, http):
        async with http.stream("GET", EVENTS) as stream:
            await first(stream)
        await wait_until(lambda: found.streams == 0)
        assert found.ended == [EVENTS]


async def test_no_proxy_collects_events_and_no_cache_keeps_them() -> None:
    async with door() as (_, http), http.stream("GET", EVENTS) as stream:
        assert (stream.headers["x-accel-buffering"], stream.headers["cache-control"]) == ("no", "no-store")


@pytest.mark.parametrize("path", [EVENTS, "/ui/api/runs"])
async def test_who_is_not_let_in_gets_the_error_as_json(path: str) -> None:
    async with door() as (found, http):
        found.refusal = signed_out("You are not signed in.", "Sign in.")
        refused = checked(await http.get(path))
    assert (refused.status_code, error_code(refused)) == (401, "signed_out")


async def test_a_fault_of_ours_is_a_sentence_without_its_text() -> None:
    async with door() as (_, http):
        broken: Any = checked(await http.get("/ui/api/broken/events"))
    assert (broken.status_code, error_code(broken)) == (500, "internal")
    assert "secret" not in broken.text
