"""A server on a socket of this process, its clients, and bare HTTP requests to it. I/O: loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp_types import Implementation

from kimi_mcp.core.settings import read_settings
from kimi_mcp.runs import Runs
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.serving import HttpServing, listen
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
        assert self.state.opened is not None
        return self.state.opened[1]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.serving.local_url.split(":")[2].split("/")[0])

    @asynccontextmanager
    async def client(self, mode: str = "auto", host: str = "a host") -> AsyncIterator[KimiClient]:
        """The SDK's own client, connected."""
        who = Implementation(name=host, version="1")
        async with Client(self.serving.local_url, mode=mode, client_info=who) as client:
            yield KimiClient(client, self.state)

    async def post(self, body: Any, headers: Mapping[str, str] = OLDER, path: str = "/mcp") -> httpx2.Response:
        """A POST; ``body`` is bytes, or what becomes JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.raw.post(path, content=content, headers=dict(headers))

    async def session(self) -> dict[str, str]:
        """A session of the handshake era: the headers of its requests."""
        hello = await self.post(message("initialize", HELLO))
        assert hello.status_code == 200, hello.text
        headers = {**OLDER, "Mcp-Session-Id": hello.headers["mcp-session-id"]}
        initialized = await self.post(message("notifications/initialized", request_id=None), headers)
        assert initialized.status_code == 202
        return headers


@asynccontextmanager
async def served(
    sim: Simulator | None, *, options: Options = None, limits: HttpLimits | None = None, **variables: str
) -> AsyncIterator[Served]:
    """A server on a free port of 127.0.0.1; ``variables`` are its environment."""
    settings = read_settings(environment(sim, "simulator", **variables))
    serving = HttpServing(settings, listen("127.0.0.1", 0), limits, partial(built, options=options))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving.serve)
        await wait_until(lambda: serving.app.state is not None)
        base = serving.local_url.removesuffix("/mcp")
        async with httpx2.AsyncClient(base_url=base, timeout=30, trust_env=False) as raw:
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


def free_port() -> int:
    """A port that nobody used a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
