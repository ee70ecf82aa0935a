"""What is answered before the SDK is there is what the SDK's server answers, byte for byte; and nothing doubtful is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from kimi_mcp.core.settings import read_settings
from kimi_mcp.server.app import build_server
from kimi_mcp.server.stdio.early import EarlyReplies
from kimi_mcp.server.stdio.framing import Framer, RejectedLine, TransportLimits, encode

Message = dict[str, Any]

NEWEST = "2026-07-28"
CLIENT: Message = {"name": "test", "version": "1"}


def request(id: object, method: str, params: object = ...) -> Message:
    message: Message = {"jsonrpc": "2.0", "id": id, "method": method}
    return message if params is ... else message | {"params": params}


def initialize(version: object, capabilities: object = {}, client: object = CLIENT, id: object = 1) -> Message:
    params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": client}
    return request(id, "initialize", params)


def envelope(version: object = NEWEST, client: object = CLIENT, capabilities: object = {}, **more: object) -> Message:
    fields = {"protocolVersion": version, "clientInfo": client, "clientCapabilities": capabilities}
    return {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in fields.items()}, **more}


INITIALIZED: Message = {"jsonrpc": "2.0", "method": "notifications/initialized"}


@asynccontextmanager
async def sdk() -> AsyncIterator[Any]:
    """The SDK's server: sends it a line and returns the line that it answers; None for a notification."""
    server = build_server(read_settings({}))
    to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception](1)
    to_client, from_server = anyio.create_memory_object_stream[SessionMessage](1)

    async def answer(line: bytes) -> bytes | None:
        (received,) = Framer(TransportLimits()).feed(line + b"\n")
        if isinstance(received, RejectedLine):
            return encode(received.reply())
        await to_server.send(SessionMessage(received))
        return encode((await from_server.receive()).message) if isinstance(received, JSONRPCRequest) else None

    with anyio.fail_after(60):
        async with to_server, from_client, to_client, from_server, anyio.create_task_group() as tasks:
            tasks.start_soon(server.run, from_client, to_client, server.create_initialization_options())
            yield answer
            tasks.cancel_scope.cancel()


async def answered_early(*messages: Message | bytes) -> list[bool]:
    """Which of the messages are answered early; each such answer must be the SDK's own."""
    replies = EarlyReplies()
    early: list[bool] = []
    async with sdk() as answer:
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            reply = replies.answer_line(line)
            expected = await answer(line)
            assert reply in (None, expected)
            early.append(reply is not None)
    return early


PLAIN_CAPABILITIES: list[Message] = [
    {},
    {"roots": {}, "sampling": {}, "elicitation": {}},
    {"roots": {"listChanged": True}, "sampling": {"tools": {}, "context": {}}},
    {"elicitation": {"form": {"applyDefaults": True}, "url": {}}, "experimental": {"x": {"y": [1, None]}}},
    {"extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}},
]
PLAIN_CLIENTS: list[Message] = [CLIENT, {**CLIENT, "title": "Tést", "websiteUrl": "https://x.org", "description": ""}]


@pytest.mark.parametrize("version", [*HANDSHAKE_PROTOCOL_VERSIONS, NEWEST, "1.0", ""])
async def test_every_plain_handshake_is_answered_as_the_sdk_does(version: str) -> None:
    for number, (capabilities, client) in enumerate(product(PLAIN_CAPABILITIES, PLAIN_CLIENTS)):
        early = await answered_early(
            initialize(version, capabilities, client, id=number),
            INITIALIZED,
            request("ping", "ping"),
            request("a-2", "tools/list"),
            request("a-3", "tools/list", {}),
            request("a-4", "tools/list", {"_meta": {"progressToken": 7}}),
        )
        assert early == [True, False, True, True, True, True]


async def test_every_plain_request_of_the_newest_era_is_answered_as_the_sdk_does() -> None:
    for capabilities, client in product(PLAIN_CAPABILITIES, PLAIN_CLIENTS):
        params = envelope(NEWEST, client, capabilities)
        early = await answered_early(
            request(1, "server/discover", params),
            request(2, "tools/list", params),
            request(3, "server/discover", params),
        )
        assert early == [True, True, True]


def nested(depth: int) -> Message:
    """An object in an object, and so on."""
    return {"in": nested(depth - 1)} if depth else {}


DOUBTFUL_FIRST = {
    "a capability of a wrong type": initialize("2025-11-25", {"roots": True}),
    "a flag of a wrong type": initialize("2025-11-25", {"roots": {"listChanged": "often"}}),
    "a capability that few know": initialize("2025-11-25", {"tasks": {"list": 1}}),
    "capabilities that are none": initialize("2025-11-25", None),
    "a client without a version": initialize("2025-11-25", {}, {"name": "x"}),
    "a client with pictures": initialize("2025-11-25", {}, {**CLIENT, "icons": [{"src": 1}]}),
    "a version that is a number": initialize(2025),
    "no parameters": request(1, "initialize"),
    "parameters that are a list": request(1, "initialize", []),
    "an id that writers write differently": initialize("2025-11-25", id='a"\u2028'),
    "an id that is a fraction": initialize("2025-11-25", id=1.5),
    "an id that is true": initialize("2025-11-25", id=True),
    "an id that is null": initialize("2025-11-25", id=None),
    "an older JSON-RPC": {**initialize("2025-11-25"), "jsonrpc": "1.0"},
    "a field too many": {**initialize("2025-11-25"), "extra": 1},
    "a list before the handshake": request(1, "tools/list"),
    "an envelope of an unknown version": request(1, "tools/list", envelope("2030-01-01")),
    "an envelope without a client": request(1, "tools/list", envelope(client=None)),
    "an envelope of a version without envelopes": request(1, "tools/list", envelope("2025-11-25")),
    "an envelope with a cursor": request(1, "tools/list", envelope(cursor="x")),
    "a ping of the newest era": request(1, "ping", envelope()),
    "half a surrogate pair": b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"x":"\\ud83d"}}',
    "no JSON": b"{",
    "a batch": b"[]",
    "deeper than anybody's": initialize("2025-11-25", {"experimental": {"x": nested(200)}}),
    "more values than anybody has": initialize("2025-11-25", {"experimental": {"x": {"y": [0] * 20_000}}}),
    "another encoding": json.dumps(initialize("2025-11-25")).encode("utf-16-le"),
    "another encoding that says so": json.dumps(initialize("2025-11-25")).encode("utf-16"),
    "a number that is none": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}',
}


@pytest.mark.parametrize("message", DOUBTFUL_FIRST.values(), ids=DOUBTFUL_FIRST)
def test_what_is_doubtful_waits_for_the_sdk(message: Message | bytes) -> None:
    line = message if isinstance(message, bytes) else json.dumps(message).encode()
    assert EarlyReplies().answer_line(line) is None


async def test_a_list_with_a_cursor_and_a_second_handshake_wait() -> None:
    cursor = request(2, "tools/list", {"cursor": "x"})
    assert await answered_early(initialize("2025-11-25"), cursor, request(3, "tools/list")) == [True, False, True]
    again = initialize("2025-06-18", id=2)
    assert await answered_early(initialize("2025-11-25"), again, request(3, "ping")) == [True, False, False]


async def test_an_id_that_comes_again_waits() -> None:
    assert await answered_early(initialize("2025-11-25"), request(1, "ping"), request(2, "ping")) == [
        True,
        False,
        False,
    ]


def test_an_id_that_is_the_same_for_the_sdk_waits() -> None:
    lines = [json.dumps(request(id, "ping")).encode() for id in (7, "007", 8)]
    replies = EarlyReplies()
    assert [replies.answer_line(line) is not None for line in lines] == [True, False, False]


async def test_a_request_of_the_other_era_waits() -> None:
    newest = request(2, "tools/list", envelope())
    assert await answered_early(initialize("2025-11-25"), newest, request(3, "tools/list")) == [True, False, True]
    older = request(2, "tools/list")
    first = request(1, "tools/list", envelope())
    assert await answered_early(first, older, request(3, "tools/list", envelope())) == [True, False, True]


def test_a_probe_of_the_newest_era_settles_nothing() -> None:
    replies = EarlyReplies()
    probe, hello = request(1, "server/discover", envelope()), initialize("2025-11-25", id=2)
    for message in (probe, hello, request(3, "tools/list")):
        reply = replies.answer_line(json.dumps(message).encode())
        assert reply is not None
        assert "result" in json.loads(reply)
