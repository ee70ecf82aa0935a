"""How these tests ask a whole server: in this process over streams, or a process of its own; the upstream is a socket.

Every result is held against the contract before a test sees it: its keys, their types, the listed output schema, and
that the text of a failure stands on its own.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import anyio
import jsonschema
from mcp import Client, StdioServerParameters
from mcp.client._memory import InMemoryTransport
from mcp.client.stdio import stdio_client
from mcp.server import Server
from mcp.shared.message import SessionMessage
from mcp_types import (
    CallToolResult,
    Implementation,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    ResourceLink,
    TextContent,
)

from kimi_mcp.core.settings import read_settings
from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.provider import Deadlines
from kimi_mcp.runs import Runs
from kimi_mcp.server.app import build_server
from kimi_mcp.server.state import ServerState, Timings
from kimi_mcp.server.tools import OUTPUT_SCHEMA
from kimi_mcp.simulator import ReceivedRequest, Simulator
from tests.server.stdio.peer import HELLO, Peer

ERAS = {"2025-11-25": "legacy", "2026-07-28": "auto"}
"""The two protocol eras, and how a client is told to speak them."""

KEY = "sk-Vt4Rw8Yq2Lk6Nz0Xb5Gd9Hf3Jm7Pc1Sa"
"""Looks like a provider's key, is none."""

KEYS = {
    "status": str,
    "run_id": (str, type(None)),
    "conversation_id": (str, type(None)),
    "answer": str,
    "parsed": object,
    "reasoning": (dict, type(None)),
    "model": dict,
    "provider": (str, type(None)),
    "mode": (str, type(None)),
    "finish_reason": (str, type(None)),
    "usage": dict,
    "policy": list,
    "timing": dict,
    "error": (dict, type(None)),
    "swarm": (dict, type(None)),
    "page": (dict, type(None)),
}
"""The contract's keys of a structured result, and what each of them may be."""

INNER_KEYS = {
    "reasoning": {"text", "chars", "truncated", "uri"},
    "model": {"asked", "sent", "answered"},
    "usage": {
        "prompt_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "cached_tokens",
        "total_tokens",
        "cost_usd",
    },
    "timing": {"first_token_s", "total_s", "attempts"},
    "error": {"code", "message", "fix", "retryable", "rule"},
    "page": {"of", "text", "offset", "next_offset"},
}
"""The contract's keys inside those."""

_VALIDATOR = jsonschema.Draft202012Validator(OUTPUT_SCHEMA)

CODES = {
    *("invalid_arguments", "policy_refused", "not_configured", "auth_failed", "quota_exhausted", "rate_limited"),
    *("overloaded", "model_not_served", "context_too_long", "content_filtered", "answer_cut_off"),
    *("upstream_timeout", "upstream_broken", "upstream_unreachable", "media_rejected", "path_refused"),
    *("url_refused", "budget_exceeded", "run_not_found", "cancelled", "internal"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """A tool's result, held against the contract."""

    text: str
    is_error: bool
    structured: dict[str, Any]
    """The structured content."""
    link: ResourceLink | None = None
    """The link to the whole reasoning."""

    @property
    def status(self) -> str:
        return self.structured["status"]

    @property
    def answer(self) -> str:
        return self.structured["answer"]

    @property
    def run_id(self) -> str:
        assert self.structured["run_id"] is not None
        return self.structured["run_id"]

    @property
    def error(self) -> dict[str, Any]:
        """What went wrong; asserts that something did."""
        assert self.structured["error"] is not None, f"no error, but {self.text[:500]}"
        return self.structured["error"]

    @property
    def code(self) -> str | None:
        return self.structured["error"] and self.structured["error"]["code"]

    @property
    def rules(self) -> list[str]:
        return [entry["rule"] for entry in self.structured["policy"]]

    @property
    def reasoning(self) -> str:
        """The inline reasoning; empty where there is none."""
        return self.structured["reasoning"]["text"] if self.structured["reasoning"] else ""

    @property
    def attempts(self) -> int:
        return self.structured["timing"]["attempts"]


def held(result: CallToolResult) -> Result:
    """The result, after the contract was held against it."""
    block, *links = result.content
    assert isinstance(block, TextContent), "the text comes first"
    assert len(links) <= 1, "and then a single link at most"
    said = result.structured_content
    assert said is not None, f"no structured content beside {block.text[:500]}"
    assert list(said) == list(KEYS), "the keys of the contract, in its order"
    for name, kinds in KEYS.items():
        assert isinstance(said[name], kinds), f"{name} is {said[name]!r}"
    for name, keys in INNER_KEYS.items():
        assert said[name] is None or set(said[name]) == keys, name
    _VALIDATOR.validate(said)
    assert said["status"] in ("completed", "running", "partial", "failed", "cancelled")
    assert result.is_error is (said["status"] == "failed" and said["page"] is None)
    for entry in said["policy"]:
        assert set(entry) == {"rule", "action", "field", "asked", "sent", "why"}
        assert entry["action"] in ("adjusted", "warned")
    error, page = said["error"], said["page"]
    assert (error is None) == (said["status"] in ("completed", "running")), (said["status"], error)
    if error is not None:
        assert error["code"] in CODES
        assert error["message"], "an error says what happened"
        assert error["fix"], "an error names the mend"
    if error is not None and said["status"] == "failed" and page is None:
        for part in (error["message"], error["fix"], said["answer"]):
            assert part in block.text, "the text of a failure stands on its own"
    elif page is None:
        assert block.text.startswith(said["answer"]), "the text is the answer, then at most a closing line"
    if said["status"] == "completed" and not said["policy"] and page is None:
        assert block.text == said["answer"], "with nothing to report the text is the answer"
    link = links[0] if links else None
    if link is not None:
        assert isinstance(link, ResourceLink)
        assert said["reasoning"]["truncated"], "what is whole needs no link"
        assert link.uri == said["reasoning"]["uri"]
    return Result(block.text, bool(result.is_error), said, link)


@dataclass(frozen=True, slots=True)
class Kimi:
    """A client of a server that runs in this process."""

    client: Client
    state: ServerState

    @property
    def runs(self) -> Runs:
        """The server's runs, once there was a call."""
        assert self.state.opened is not None
        return self.state.opened[1]

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Result:
        """Call a tool; ``more`` is for the client (``progress_callback``, ``read_timeout_seconds``)."""
        return held(await self.client.call_tool(tool, None if arguments is None else dict(arguments), **more))

    async def think(self, prompt: str = "What is 17 * 23?", **arguments: Any) -> Result:
        return await self.call("kimi_think", {"prompt": prompt, **arguments})

    async def instant(self, prompt: str = "What is 17 * 23?", **arguments: Any) -> Result:
        return await self.call("kimi_instant", {"prompt": prompt, **arguments})

    async def run(self, run_id: str | None = None, action: str | None = None, **arguments: Any) -> Result:
        return await self.call("kimi_run", {"run_id": run_id, "action": action, **arguments})

    async def only_run(self) -> str:
        """The id of the one run there is."""
        lines = (await self.run()).answer.splitlines()
        assert len(lines) == 1, lines
        return lines[0].split()[0]


def environment(sim: Simulator | None, provider: str | None, **variables: str) -> dict[str, str]:
    """What the server is told: the simulator as that provider, on top of whatever a test sets itself."""
    told = {"KIMI_DATA_DIR": os.environ["KIMI_DATA_DIR"]}
    if sim is not None:
        told["KIMI_BASE_URL"] = sim.base_url
    if provider is not None:
        told["KIMI_PROVIDER"] = provider
    return told | variables


FACTS_DAY = date(2026, 11, 23)
"""The day of the simulator's facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a server in this process has that no environment variable names."""

    timings: Timings = field(default_factory=Timings)
    deadlines: Deadlines = field(default_factory=Deadlines)
    media_limits: MediaLimits = field(default_factory=MediaLimits)


Options = Any
"""``ServerOptions`` or None. Not said, so that a test may pass variables as ``**mapping`` beside it."""


def new_server(
    sim: Simulator | None, provider: str | None = "simulator", options: Options = None, **variables: str
) -> Server[ServerState]:
    """A server on the day of the facts; between two attempts it pauses only for as long as the provider asks.

    ``variables`` are its environment.
    """
    options = options or ServerOptions()
    pipeline = partial(
        Pipeline,
        day=lambda: FACTS_DAY,
        draw=lambda: 0.0,
        deadlines=options.deadlines,
        media_limits=options.media_limits,
    )
    settings = read_settings(environment(sim, provider, **variables))
    return build_server(settings, timings=options.timings, pipeline=pipeline)


def _server(
    sim: Simulator | None, provider: str | None, options: Options, **variables: str
) -> tuple[Server[ServerState], list[ServerState]]:
    """A server, and a list that gets its state once it runs."""
    server = new_server(sim, provider, options, **variables)
    lifespan, states = server.lifespan, list[ServerState]()

    @asynccontextmanager
    async def noted(whom: Server[ServerState]) -> AsyncIterator[ServerState]:
        async with lifespan(whom) as state:
            states.append(state)
            yield state

    server.lifespan = noted
    return server, states


@asynccontextmanager
async def served(
    sim: Simulator | None,
    mode: str = "auto",
    *,
    provider: str | None = "simulator",
    host: str = "a host",
    options: Options = None,
    **variables: str,
) -> AsyncIterator[Kimi]:
    """A server in this process and its client, which talk JSON-RPC over streams; ``variables`` are its environment."""
    server, states = _server(sim, provider, options, **variables)
    who = Implementation(name=host, version="1")
    async with Client(InMemoryTransport(server), mode=mode, client_info=who) as client:
        yield Kimi(client, states[0])


def process_environment(sim: Simulator | None, provider: str | None = "simulator", **variables: str) -> dict[str, str]:
    """The environment of a real server process."""
    return {**os.environ, **environment(sim, provider, **variables)}


@asynccontextmanager
async def process(
    sim: Simulator | None,
    mode: str = "auto",
    *,
    stderr: Path | None = None,
    provider: str | None = "simulator",
    **variables: str,
) -> AsyncIterator[Client]:
    """A server as a host starts it, and the official client; its stderr goes to a file."""
    log: TextIO
    with Path(stderr or os.devnull).open("w", encoding="utf-8") as log:
        started = StdioServerParameters(
            command=sys.executable,
            args=["-m", "kimi_mcp"],
            env=process_environment(sim, provider, **variables),
        )
        async with Client(stdio_client(started, errlog=log), mode=mode) as client:
            yield client


@asynccontextmanager
async def raw_process(
    sim: Simulator | None,
    *module: str,
    stderr: Any = None,
    provider: str | None = "simulator",
    **variables: str,
) -> AsyncIterator[Peer]:
    """A server process to write bytes and send signals to; killed when the test leaves.

    ``module`` is another one than the package that serves, and its arguments.
    """
    started = await anyio.open_process(
        [sys.executable, "-m", *(module or ("kimi_mcp",))],
        env=process_environment(sim, provider, **variables),
        stderr=stderr,
    )
    try:
        yield Peer(started)
    finally:
        if started.returncode is None:
            started.kill()
        await started.aclose()


def chats(sim: Simulator) -> list[ReceivedRequest]:
    """The chat requests that arrived."""
    return [request for request in sim.requests if request.path.endswith("/chat/completions")]


def body(request: ReceivedRequest) -> dict[str, Any]:
    """Its body, which is an object."""
    assert request.body is not None
    return dict(request.body)


HELD = {"gate": "end", "gate_at": "finish", "reasoning": "Hm, let me see.", "content": "It is 391."}
"""Everything arrives but the finish reason."""


async def until(condition: Callable[[], bool], within: float = 30) -> None:
    """Return once something inside the server holds, which nobody tells of."""
    with anyio.fail_after(within):
        while not condition():
            await anyio.sleep(0.005)


def forms(secret: str) -> list[str]:
    """The shapes in which a secret may leak."""
    raw = secret.encode()
    return [
        secret,
        raw.hex(),
        raw.hex().upper(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        "".join(f"%{byte:02X}" for byte in raw),
    ]


class Line:
    """The bare messages between a host and a server in this process, as the handshake era writes them."""

    def __init__(self, streams: Any, state: ServerState) -> None:
        self._read, self._write = streams
        self.state = state

    @property
    def runs(self) -> Runs:
        """The server's runs, once there was a call."""
        assert self.state.opened is not None
        return self.state.opened[1]

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
        """Ask for a tool, without waiting."""
        params = {"name": tool, "arguments": dict(arguments), **({"_meta": meta} if meta else {})}
        await self.send("tools/call", params, request_id)

    async def cancel(self, request_id: Any, **params: Any) -> None:
        """Say that a request is cancelled; ``reason`` as the host words it."""
        await self.send("notifications/cancelled", {"requestId": request_id, **params})

    async def answer(self, request_id: Any, reply: Mapping[str, Any]) -> None:
        """Answer a request of the server: with a ``result`` or an ``error``."""
        if "error" in reply:
            message = JSONRPCError.model_validate({"jsonrpc": "2.0", "id": request_id, **reply})
        else:
            message = JSONRPCResponse.model_construct(jsonrpc="2.0", id=request_id, **reply)
        await self._write.send(SessionMessage(message))

    async def ask(self, tool: str, arguments: Mapping[str, Any], request_id: int | str = "asked") -> dict[str, Any]:
        """Call a tool and take its structured result."""
        await self.call(tool, arguments, request_id)
        reply = await self.receive()
        assert reply["id"] == request_id, reply
        return reply["result"]["structuredContent"]


@asynccontextmanager
async def line(
    sim: Simulator | None,
    *,
    provider: str | None = "simulator",
    protocol: str = "2025-11-25",
    options: Options = None,
    **variables: str,
) -> AsyncIterator[Line]:
    """A server in this process without any client: a test plays the host, message by message."""
    server, states = _server(sim, provider, options, **variables)
    async with InMemoryTransport(server) as streams:
        bare = Line(streams, None)  # pyright: ignore[reportArgumentType]
        await bare.send("initialize", {**HELLO["params"], "protocolVersion": protocol}, "hello")
        assert "result" in await bare.receive()
        await bare.send("notifications/initialized", {})
        yield Line(streams, states[0])
