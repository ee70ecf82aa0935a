"""Sessions of the handshake era that any replica takes. None of these servers has joined: no database is needed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kimi_mcp.server import apps, callers
from kimi_mcp.server.http.auth.scopes import USE
from kimi_mcp.server.http.auth.token_file import TokenFile, utc_now
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.sessions import PortableSessions
from tests.server.http.served import HELLO, OLDER, Served, bearer, message, served

replica = partial(served, None, KIMI_CLUSTER="on", KIMI_DATABASE_URL="postgresql+psycopg://kimi@127.0.0.1:1/kimi")


class Alternating(httpx2.AsyncBaseTransport):
    """A balancer: each request goes to the next server."""

    def __init__(self, servers: Sequence[Served]) -> None:
        self._ports, self._inner = cycle(server.port for server in servers), httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(port=next(self._ports))
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def two(limits: HttpLimits | None = None, tokens: str = "") -> AsyncIterator[tuple[Served, Served]]:
    one, other = (replica(limits=limits, KIMI_HTTP_TOKENS=tokens) for _ in range(2))
    async with one as first, other as second:
        yield first, second


async def test_a_client_whose_every_request_goes_to_another_server_notices_nothing(mode: str) -> None:
    async with two() as servers, httpx2.AsyncClient(transport=Alternating(servers)) as http:
        transport = streamable_http_client(servers[0].serving.local_url, http_client=http)
        async with Client(transport, mode=mode) as client:
            for _ in range(2):
                assert (await client.list_tools()).tools
                assert (await client.list_prompts()).prompts


async def test_a_session_has_one_id_at_all_servers_and_ends_where_it_is_ended() -> None:
    async with two() as (one, other):
        session = await one.session()
        for server in (one, other, other):
            answer = await server.post(message("tools/list"), session)
            assert (answer.status_code, answer.headers["mcp-session-id"]) == (200, session["Mcp-Session-Id"])
        assert (await other.raw.request("DELETE", "/mcp", headers=session)).status_code == 200
        assert (await other.post(message("tools/list"), session)).status_code == 404


async def test_an_id_that_no_server_gave_is_not_known() -> None:
    async with replica() as one:
        session = await one.session()
        for made_up in ("abc", ".", "abc.W10=", "abc." + "A" * 4000, "abc.WyJ4IiwxLDJd"):
            answer = await one.post(message("tools/list"), {**session, "Mcp-Session-Id": made_up})
            assert answer.status_code == 404, made_up


async def test_a_session_gives_another_caller_nothing_and_counts_where_it_is_used(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    alice, bob = (file.add(name, USE, now=utc_now())[1] for name in ("alice", "bob"))
    limits = HttpLimits(max_principal_sessions=1)
    async with two(limits, str(tmp_path / "tokens.json")) as (one, other):
        session, _ = await one.session(alice), await other.session(alice)
        assert (await other.post(message("tools/list"), session)).status_code == 429
        as_bob = session | bearer(bob)
        assert (await other.post(message("tools/list"), as_bob)).status_code == 200
        assert (await other.raw.request("DELETE", "/mcp", headers=as_bob)).status_code == 200
        assert (await one.post(message("tools/list"), session)).status_code == 200


class Opened:
    """An app in the place of the SDK's: what the sessions were opened with that it was asked for."""

    def __init__(self) -> None:
        self.capabilities: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = await Request(scope, receive).json()
        if sent["method"] == "initialize":
            self.capabilities.append(sent["params"]["capabilities"])
        await Response(headers={"mcp-session-id": "local"})(scope, receive, send)


async def session_elsewhere(capabilities: Any) -> Any:
    """The capabilities with which another server opens the session of such a client."""

    async def post(app: Opened, body: Any, headers: Mapping[str, str]) -> str:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(part: Any) -> None:
            sent.append(part)

        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope: Scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": raw, callers.KEY: None}
        await PortableSessions(app, lambda _: False)(scope, receive, send)
        return Headers(raw=sent[0]["headers"])["mcp-session-id"]

    first, other = Opened(), Opened()
    session = await post(first, message("initialize", HELLO | {"capabilities": capabilities}), OLDER)
    await post(other, message("tools/list"), OLDER | {"mcp-session-id": session})
    assert first.capabilities == [capabilities]
    (found,) = other.capabilities
    return found


async def test_a_session_knows_everywhere_whether_its_client_shows_apps() -> None:
    assert await session_elsewhere({"extensions": {**apps.CLIENT, "x": {}}}) == {"extensions": apps.CLIENT}
    assert await session_elsewhere({"extensions": {apps.EXTENSION: {}}}) == {}
    assert await session_elsewhere({}) == {}
