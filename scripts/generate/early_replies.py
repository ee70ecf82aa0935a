"""``early_replies.json``: what the SDK's server answers to a host's first requests, in every version. No I/O."""

from __future__ import annotations

import json
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, JSONRPCResponse
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from kimi_mcp.core.settings import read_settings
from kimi_mcp.server.app import build_server
from kimi_mcp.server.stdio.framing import encode

FILE = "kimi_mcp/server/stdio/early_replies.json"
"""Where it belongs, in the checkout."""

CLIENT = {"name": "generator", "version": "1"}


def early_replies() -> str:
    """The file: by method and version of the protocol, the result as the text of its JSON."""
    return anyio.run(_early_replies)


async def _early_replies() -> str:
    replies: dict[str, dict[str, str]] = {"initialize": {}, "server/discover": {}, "tools/list": {}}
    for version in HANDSHAKE_PROTOCOL_VERSIONS:
        hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": CLIENT}
        results = await _results(("initialize", hello), ("tools/list", {}))
        replies["initialize"][version], replies["tools/list"][version] = results
    for version in MODERN_PROTOCOL_VERSIONS:
        fields = {"protocolVersion": version, "clientInfo": CLIENT, "clientCapabilities": {}}
        envelope = {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in fields.items()}}
        results = await _results(("server/discover", envelope), ("tools/list", envelope))
        replies["server/discover"][version], replies["tools/list"][version] = results
    return json.dumps(replies, ensure_ascii=False, indent=1) + "\n"


async def _results(*requests: tuple[str, dict[str, Any]]) -> list[str]:
    """What a new server answers to the requests, one after the other."""
    server = build_server(read_settings({}))
    to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception](1)
    to_client, from_server = anyio.create_memory_object_stream[SessionMessage](1)
    results: list[str] = []
    async with anyio.create_task_group() as tasks, from_server:
        tasks.start_soon(server.run, from_client, to_client, server.create_initialization_options())
        for number, (method, params) in enumerate(requests):
            request = JSONRPCRequest(jsonrpc="2.0", id=number, method=method, params=params)
            await to_server.send(SessionMessage(request))
            message = (await from_server.receive()).message
            if not isinstance(message, JSONRPCResponse):
                raise ValueError(f"{method} was not answered: {message}")
            line = encode(message).decode()
            results.append(line.removeprefix(f'{{"jsonrpc":"2.0","id":{number},"result":').removesuffix("}\n"))
        to_server.close()
        tasks.cancel_scope.cancel()
    return results
