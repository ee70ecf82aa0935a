"""Clients of a server in this process: the SDK's own, and one that writes single messages. I/O.

The provider is a simulator on a socket; every result is checked against the contract.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import anyio
from mcp import Client
from mcp.client._memory import InMemoryTransport
from mcp.server import Server
from mcp.shared.message import SessionMessage
from mcp_types import Implementation, JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from kimi_mcp.catalogue import Catalogue
from kimi_mcp.core.settings import Settings, read_settings
from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.provider import Deadlines
from kimi_mcp.runs import Runs
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.server import apps
from kimi_mcp.server.app import build_server
from kimi_mcp.server.state import ServerState, Timings
from kimi_mcp.simulator import Simulator
from kimi_mcp.simulator.dialects import FACTS_DAY
from tests.server.results import Result, checked
from tests.server.stdio.peer import INITIALIZE

ERAS = {"2025-11-25": "legacy", "2026-07-28": "auto"}
"""The two protocol eras, and the client mode that selects each."""


@dataclass(frozen=True, slots=True)
class KimiClient:
    """A client of a server that runs in this process."""

    client: Client
    state: ServerState

    @property
    def runs(self) -> Runs:
        """The server's runs, once there was a call."""
        assert self.state.runs is not None
        return self.state.runs

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Result:
        """Call a tool; ``more`` is for the client (``progress_callback``, ``read_timeout_seconds``)."""
        return checked(await self.client.call_tool(tool, None if arguments is None else dict(arguments), **more))

    async def think(self, prompt: str = "What is 17 * 23?", **arguments: Any) -> Result:
        return await self.call("kimi_think", {"prompt": prompt, **arguments})

    async def instant(self, prompt: str = "What is 17 * 23?", **arguments: Any) -> Result:
        return await self.call("kimi_instant", {"prompt": prompt, **arguments})

    async def run(self, run_id: str | None = None, action: str | None = None, **arguments: Any) -> Result:
        return await self.call("kimi_run", {"run_id": run_id, "action": action, **arguments})

    async def ended(self, result: Result) -> Result:
        """The result once its run has ended."""
        while result.status == "running":
            result = await self.run(result.run_id, wait_s=10)
        return result

    async def full_text(self, run_id: str, kind: str = "answer") -> str:
        """All pages of a run's ``answer`` or ``reasoning``."""
        text, offset = "", 0
        while offset is not None:
            page = (await self.run(run_id, kind, offset=offset)).structured["page"]
            text, offset = text + page["text"], page["next_offset"]
        return text

    async def only_run(self) -> str:
        """The id of the one run there is."""
        lines = (await self.run()).answer.splitlines()
        assert len(lines) == 1, lines
        return lines[0].split()[0]


def environment(sim: Simulator | None, provider: str | None, **variables: str) -> dict[str, str]:
    """The server's environment: the simulator as that provider, and the variables of the test."""
    found = {"KIMI_DATA_DIR": os.environ["KIMI_DATA_DIR"]}
    if sim is not None:
        found["KIMI_BASE_URL"] = sim.base_url
    if provider is not None:
        found["KIMI_PROVIDER"] = provider
    return found | variables


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a server in this process has that no environment variable names."""

    timings: Timings = field(
        default_factory=lambda: Timings(warm_up_after_s=3600, store=StoreLimits(written_within_s=10))
    )
    """A test's own calls open the store, at their own time; on a loaded machine an outcome takes long to be written."""
    deadlines: Deadlines = field(default_factory=Deadlines)
    media_limits: MediaLimits = field(default_factory=MediaLimits)
    facts: Catalogue | None = None


def store_limits(**values: Any) -> ServerOptions:
    """Options with such limits of the store, by the names of ``StoreLimits``."""
    return ServerOptions(timings=Timings(store=StoreLimits(**values)))


Options = Any
"""``ServerOptions`` or None; typed loosely, so that a test may pass variables as ``**mapping`` beside it."""


def new_server(
    sim: Simulator | None, provider: str | None = "simulator", options: Options = None, **variables: str
) -> Server[ServerState]:
    """A server; ``variables`` are its environment."""
    return built(read_settings(environment(sim, provider, **variables)), options)


def built(settings: Settings, options: Options = None) -> Server[ServerState]:
    """A server on the day of the facts; between two attempts it pauses only for as long as the provider asks."""
    options = options or ServerOptions()
    pipeline = partial(
        Pipeline,
        day=lambda: FACTS_DAY,
        draw=lambda: 0.0,
        deadlines=options.deadlines,
        media_limits=options.media_limits,
        facts=options.facts,
    )
    return build_server(settings, timings=options.timings, pipeline=pipeline)


def _server(
    sim: Simulator | None, provider: str | None, options: Options, **variables: str
) -> tuple[Server[ServerState], list[ServerState]]:
    """A server, and a list that gets its state once it runs."""
    server = new_server(sim, provider, options, **variables)
    lifespan, states = server.lifespan, list[ServerState]()

    @asynccontextmanager
    async def recording(server: Server[ServerState]) -> AsyncIterator[ServerState]:
        async with lifespan(server) as state:
            states.append(state)
            yield state

    server.lifespan = recording
    return server, states


@asynccontextmanager
async def connect(
    sim: Simulator | None,
    mode: str = "auto",
    *,
    provider: str | None = "simulator",
    host: str = "a host",
    extensions: Any = (),
    options: Options = None,
    user: Options = None,
    **variables: str,
) -> AsyncIterator[KimiClient]:
    """A server in this process and its client, which talk JSON-RPC over streams; ``variables`` are its environment.

    ``extensions`` are those of the SDK's client, typed loosely for the reason of ``Options``. ``user`` answers what the
    host is asked; None: the host asks nobody.
    """
    server, states = _server(sim, provider, options, **variables)
    who = Implementation(name=host, version="1")
    known: dict[str, Any] = {"mode": mode, "client_info": who, "extensions": extensions}
    async with Client(InMemoryTransport(server), elicitation_callback=user, **known) as client:
        yield KimiClient(client, states[0])


async def wait_until(condition: Callable[[], object], within: float = 60) -> None:
    """Return once something inside the server holds, where no event announces it."""
    with anyio.fail_after(within):
        while not condition():
            await anyio.sleep(0.005)


class MessageClient:
    """The bare messages between a host and a server in this process, as the handshake era writes them."""

    def __init__(self, streams: Any, state: ServerState) -> None:
        self._read, self._write = streams
        self.state = state

    @property
    def runs(self) -> Runs:
        """The server's runs, once there was a call."""
        assert self.state.runs is not None
        return self.state.runs

    async def send(self, method: str, params: Mapping[str, Any], request_id: int | str | None = None) -> None:
        """Write a request, or a notification where no id is given."""
        if request_id is None:
            message = JSONRPCNotification(jsonrpc="2.0", method=method, params=dict(params))
        else:
            message = JSONRPCRequest(jsonrpc="2.0", id=request_id, method=method, params=dict(params))
        await self._write.send(SessionMessage(message))

    async def receive(self) -> dict[str, Any]:
        """The next message, as it goes over the wire."""
        received = await self._read.receive()
        return json.loads(received.message.model_dump_json(by_alias=True, exclude_unset=True))

    async def call(self, tool: str, arguments: Mapping[str, Any], request_id: int | str, **meta: Any) -> None:
        """Call a tool without waiting for its result."""
        params = {"name": tool, "arguments": dict(arguments), **({"_meta": meta} if meta else {})}
        await self.send("tools/call", params, request_id)

    async def cancel(self, request_id: Any, **params: Any) -> None:
        """Send that a request is cancelled; ``reason`` is the text of the host."""
        await self.send("notifications/cancelled", {"requestId": request_id, **params})

    async def answer(self, request_id: Any, reply: Mapping[str, Any]) -> None:
        """Answer a request of the server: with a ``result`` or an ``error``."""
        if "error" in reply:
            message = JSONRPCError.model_validate({"jsonrpc": "2.0", "id": request_id, **reply})
        else:
            message = JSONRPCResponse.model_construct(jsonrpc="2.0", id=request_id, **reply)
        await self._write.send(SessionMessage(message))

    async def result(self, tool: str, arguments: Mapping[str, Any], request_id: int | str = "call") -> dict[str, Any]:
        """Call a tool and take its structured result."""
        await self.call(tool, arguments, request_id)
        reply = await self.receive()
        assert reply["id"] == request_id, reply
        return reply["result"]["structuredContent"]


def enveloped(
    params: Mapping[str, Any], *extensions: str, capabilities: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The parameters of a request of the newest era, whose client knows those extensions; its other capabilities."""
    known = {name: {"mimeTypes": [apps.MIME_TYPE]} if name == apps.EXTENSION else {} for name in extensions}
    fields = {
        "protocolVersion": "2026-07-28",
        "clientInfo": {"name": "a host", "version": "1"},
        "clientCapabilities": {"extensions": known, **(capabilities or {})},
    }
    return {**params, "_meta": {f"io.modelcontextprotocol/{name}": value for name, value in fields.items()}}


class NewestClient:
    """The bare messages of the newest era: each request says for itself which extensions its client knows."""

    def __init__(
        self, streams: Any, states: list[ServerState], *extensions: str, capabilities: Mapping[str, Any] | None = None
    ) -> None:
        self._read, self._write = streams
        self._capabilities = capabilities
        self._states = states
        self._extensions, self._ids = extensions, count()
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.notifications = asyncio.Queue[dict[str, Any]]()

    @property
    def runs(self) -> Runs:
        """The server's runs, once there was a call."""
        runs = self._states[0].runs
        assert runs is not None
        return runs

    async def read(self) -> None:
        """Pass on what the server sends, until it is gone."""
        async for received in self._read:
            message = json.loads(received.message.model_dump_json(by_alias=True, exclude_unset=True))
            if "id" in message:
                self._open.pop(message["id"]).set_result(message)
            else:
                self.notifications.put_nowait(message)

    async def send(self, method: str, params: Mapping[str, Any], *extensions: str) -> tuple[int, Any]:
        """Write a request; its id, and what its answer is awaited by."""
        number, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._open[number] = answer
        params = enveloped(params, *(extensions or self._extensions), capabilities=self._capabilities)
        await self._write.send(SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=number, method=method, params=params)))
        return number, answer

    async def ask(self, method: str, *extensions: str, **params: Any) -> dict[str, Any]:
        """The answer to a request: what it says as ``result`` or as ``error``."""
        _, answer = await self.send(method, params, *extensions)
        message = await answer
        return message["error"] if "error" in message else message["result"]

    async def call(self, tool: str, arguments: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """The result of a call, the task that it became, or what it asks; ``more`` are parameters of its request."""
        return await self.ask("tools/call", name=tool, arguments=dict(arguments), **more)

    async def cancel(self, request_id: int, reason: str = "the user pressed escape") -> None:
        """Send that a request is cancelled."""
        params = {"requestId": request_id, "reason": reason}
        message = JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=params)
        await self._write.send(SessionMessage(message))


@asynccontextmanager
async def connect_newest(
    sim: Simulator | None,
    *extensions: str,
    options: Options = None,
    capabilities: Options = None,
    **variables: str,
) -> AsyncIterator[NewestClient]:
    """A server in this process, and a client of the newest era that knows those extensions; its other capabilities."""
    server, states = _server(sim, "simulator", options, **variables)
    async with InMemoryTransport(server) as streams:
        client = NewestClient(streams, states, *extensions, capabilities=capabilities)
        async with anyio.create_task_group() as reading:
            reading.start_soon(client.read)
            yield client
            reading.cancel_scope.cancel()


@asynccontextmanager
async def connect_messages(
    sim: Simulator | None,
    *,
    provider: str | None = "simulator",
    protocol: str = "2025-11-25",
    options: Options = None,
    **variables: str,
) -> AsyncIterator[MessageClient]:
    """A server in this process without any client: a test plays the host, message by message."""
    server, states = _server(sim, provider, options, **variables)
    async with InMemoryTransport(server) as streams:
        bare = MessageClient(streams, None)  # pyright: ignore[reportArgumentType]
        await bare.send("initialize", {**INITIALIZE["params"], "protocolVersion": protocol}, "hello")
        assert "result" in await bare.receive()
        await bare.send("notifications/initialized", {})
        yield MessageClient(streams, states[0])
