"""The page as `kimi-mcp ui` serves it, on a socket of this process, and whoever sends requests to it. I/O: loopback."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import anyio
import httpx2
import uvicorn
from starlette.routing import BaseRoute, Route

from kimi_mcp.cli.commands.ui import make_access
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.view.web.one_time_link import LinkAccess

OWN = {"X-Kimi-View": "1"}
"""What the page's scripts send with a request that changes something."""

CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
"""What a browser says of a script of another site."""

FROM_A_LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
"""What it says of a link on another site."""

FRAMED = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""What every response has."""

Request = tuple[str, str]
"""A method and a path."""


@dataclass(frozen=True, slots=True)
class Local:
    """`kimi-mcp ui`."""

    access: LinkAccess
    store: RunStore
    http: httpx2.AsyncClient
    port: int
    link: str
    """Not used yet."""

    async def open_link(self) -> dict[str, str]:
        """Open the link; the header with the cookie that it gives."""
        opened = await self.http.get(self.link)
        assert opened.status_code == 303, opened.text
        return {"Cookie": opened.headers["set-cookie"].partition(";")[0]}

    async def raw(self, request: bytes) -> bytes:
        """What comes back to bytes, until the end of the connection."""
        async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
            await stream.send(request)
            received = b""
            try:
                while True:
                    received += await stream.receive()
            except anyio.EndOfStream:
                return received


@asynccontextmanager
async def local() -> AsyncIterator[Local]:
    """The page over this test's store."""
    store = RunStore(Path(os.environ["KIMI_DATA_DIR"]))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    access = make_access(store, port)
    config = uvicorn.Config(access, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    base = f"http://127.0.0.1:{port}"
    try:
        async with (
            anyio.create_task_group() as tasks,
            httpx2.AsyncClient(base_url=base, timeout=30, trust_env=False) as http,
        ):
            http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))  # a test says what is sent
            tasks.start_soon(server._serve, [listener])
            yield Local(access, store, http, port, access.new_link())
            access.end_streams()
            server.should_exit = True
    finally:
        listener.close()
        with anyio.CancelScope(shield=True):
            await store.aclose()


def every_request(routes: Iterable[BaseRoute], run_id: str) -> list[Request]:
    """A request to each route, about that run: one that is added is among them."""
    found: list[Request] = []
    known = {"run_id": run_id, "key": "main", "name": "view.css"}
    for route in routes:
        assert isinstance(route, Route)
        path = re.sub(r"\{(\w+)(?::path)?\}", lambda name: known[name[1]], route.path)
        found += [(method, path) for method in sorted((route.methods or set()) - {"HEAD"})]
    return found


def data_of(requests: Iterable[Request]) -> list[Request]:
    """Those of them that show or change what a store has."""
    return [each for each in requests if each[1].startswith("/ui/api/")]


async def answer(http: httpx2.AsyncClient, request: Request, headers: Mapping[str, str | bytes]) -> httpx2.Response:
    """The response to a request, of a stream its beginning; the headers of scripts of the page are added."""
    method, path = request
    more = OWN if method == "POST" else {}
    sent: Any = {**more, **headers}
    async with http.stream(method, path, headers=sent) as response:
        if "event-stream" not in response.headers.get("content-type", ""):
            await response.aread()
            return response
        first = b""
        async for piece in response.aiter_bytes():
            first += piece
            if b"data:" in first:
                break
        return httpx2.Response(response.status_code, headers=response.headers, content=first)


def checked(response: httpx2.Response) -> httpx2.Response:
    """A response that has the headers which each has, and no way for another site to read it."""
    for name, value in HEADERS.items():
        assert response.headers[name] == value, name
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not [name for name in response.headers if name.startswith("access-control-")]
    return response


def error_code(response: httpx2.Response) -> Any:
    """The code of the error that a script gets."""
    error = response.json()["error"]
    assert error["message"]
    assert error["fix"]
    return error["code"]
