"""A server on a socket of this process, its clients, and bare HTTP requests to it. I/O: loopback."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.session import ElicitationFnT
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import Implementation

from kimi_mcp.core.settings import read_settings
from kimi_mcp.runs import Runs
from kimi_mcp.runs.jobs import Role
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.serving import HttpServing, leave_failed, listen
from kimi_mcp.server.state import ServerState
from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, Options, built, environment, wait_until

ACCEPTED = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
"""What every client of this transport sends."""

OLDER = {**ACCEPTED, "MCP-Protocol-Version": "2025-11-25"}

HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "a host", "version": "1"},
}


def message(method: str, params: Mapping[str, Any] | None = None, request_id: Any = 1) -> dict[str, Any]:
    """A request; without an id a notification."""
    found = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": dict(params or {})}
    return {key: value for key, value in found.items() if not (key == "id" and value is None)}


def newest(method: str, params: Mapping[str, Any] | None = None, request_id: Any = 1) -> dict[str, Any]:
    """A request of the newest era, which says all for itself."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "a host", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return message(method, {**(params or {}), "_meta": meta}, request_id)


def newest_headers(method: str, name: str | None = None) -> dict[str, str]:
    """Its headers."""
    named = {} if name is None else {"Mcp-Name": name}
    return {**ACCEPTED, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, **named}


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token; none for an empty one."""
    return {"Authorization": f"Bearer {token}"} if token else {}


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    serving: HttpServing
    raw: httpx2.AsyncClient
    """Sends requests as they are."""

    @property
    def state(self) -> ServerState:
        """The server's own."""
        state = self.serving.app.state
        assert state is not None
        return state

    @property
    def runs(self) -> Runs:
        """Its runs, once there was a call."""
        assert self.state.runs is not None
        return self.state.runs

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.serving.local_url.split(":")[2].split("/")[0])

    @asynccontextmanager
    async def client(
        self, mode: str = "auto", host: str = "a host", token: str = "", user: ElicitationFnT | None = None
    ) -> AsyncIterator[KimiClient]:
        """The SDK's own client, connected; ``user`` answers what its host is asked, None: it asks nobody."""
        who = Implementation(name=host, version="1")
        async with create_mcp_http_client(headers=bearer(token)) as http:
            transport = streamable_http_client(self.serving.local_url, http_client=http)
            async with Client(transport, mode=mode, client_info=who, elicitation_callback=user) as client:
                yield KimiClient(client, self.state)

    async def post(self, body: Any, headers: Mapping[str, str] = OLDER, path: str = "/mcp") -> httpx2.Response:
        """A POST; ``body`` is bytes, or what becomes JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.raw.post(path, content=content, headers=dict(headers))

    async def session(self, token: str = "") -> dict[str, str]:
        """A session of the handshake era: the headers of its requests."""
        hello = await self.post(message("initialize", HELLO), OLDER | bearer(token))
        assert hello.status_code == 200, hello.text
        headers = {**OLDER, **bearer(token), "Mcp-Session-Id": hello.headers["mcp-session-id"]}
        initialized = await self.post(message("notifications/initialized", request_id=None), headers)
        assert initialized.status_code == 202
        return headers


@asynccontextmanager
async def served(
    sim: Simulator | None,
    *,
    options: Options = None,
    limits: HttpLimits | None = None,
    system_buffer: int | None = None,
    role: Role = "all",
    on_lost: Callable[[], None] = leave_failed,
    **variables: str,
) -> AsyncIterator[Served]:
    """A server on a free port of 127.0.0.1; ``variables`` are its environment.

    ``system_buffer``: the bytes that the system takes from it at once for each connection.
    """
    settings = read_settings(environment(sim, "simulator", **variables))
    listener = listen("127.0.0.1", 0)
    if system_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, system_buffer)
    serving = HttpServing(settings, listener, limits, partial(built, options=options), role, on_lost)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving.serve)
        await wait_until(lambda: serving.app.state is not None)
        base = serving.local_url.removesuffix("/mcp")
        async with httpx2.AsyncClient(base_url=base, timeout=30, trust_env=False, verify=False) as raw:
            yield Served(serving, raw)
        serving.stop()
        serving.stop()


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The JSON-RPC error in a response, which must be one."""
    found = response.json()
    assert found["jsonrpc"] == "2.0", found
    return found["error"]


class Wire:
    """A connection to write bytes to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: anyio.abc.SocketStream | None = None

    async def __aenter__(self) -> anyio.abc.SocketStream:
        self._stream = await anyio.connect_tcp("127.0.0.1", self._port)
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        assert self._stream is not None
        await self._stream.aclose()


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as bytes."""

    status: int
    head: bytes
    content: bytes


class Connection:
    """A connection that bytes are written to, and what comes back on it."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def ask(self, request: bytes) -> Answer | None:
        """Send bytes; the next response. None: the connection ended before there was one."""
        with suppress(anyio.BrokenResourceError):  # the server may have answered and gone already
            await self.stream.send(request)
        return await self.answer(has_body=not request.startswith(b"HEAD"))

    async def answer(self, *, has_body: bool = True) -> Answer | None:
        """The next response, but for those that only announce it. None: the connection ended before there was one."""
        try:
            head = b"HTTP/1.1 1"
            while head.startswith(b"HTTP/1.1 1"):
                await self._until(lambda: b"\r\n\r\n" in self._received)
                head, _, self._received = self._received.partition(b"\r\n\r\n")
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return None
        status, lines, end = int(head.split()[1]), head.lower(), 0
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            if has_body and status not in (204, 304):
                if length := re.search(rb"\r\ncontent-length: (\d+)", lines):
                    end = int(length[1])
                    await self._until(lambda: len(self._received) >= end)
                elif b"\r\ntransfer-encoding: chunked" in lines:
                    await self._until(lambda: b"0\r\n\r\n" in self._received)
                    end = self._received.index(b"0\r\n\r\n") + 5
                else:
                    await self._until(lambda: False)
        end = end or len(self._received)
        content, self._received = self._received[:end], self._received[end:]
        return Answer(status, head, content)

    async def ended(self) -> bool:
        """Whether nothing more comes but the end; returns once one of them has."""
        try:
            await self._until(lambda: self._received)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return True
        return False

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._received += await self.stream.receive()


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[Connection]:
    """A connection to a server."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        yield Connection(stream)


def encoded(line: str, headers: Mapping[str, str], body: bytes = b"", *, length: int | None = None) -> bytes:
    """A request to this machine as bytes; ``length``: what it announces, if not its own."""
    announced = {"Content-Length": str(len(body) if length is None else length)}
    lines = [line, "Host: localhost", *(f"{name}: {value}" for name, value in {**headers, **announced}.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def free_port() -> int:
    """A port that nobody used a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
