"""The server card and the catalogue that lists it, by which clients find a server before they connect. No I/O.

SEP-2127 is a draft; this follows its text of 2026-07-24 (experimental-ext-server-card, ``docs/discovery.md`` and
``schema.ts``). There the catalogue is ``/.well-known/ai-catalog.json``; until 2026-07-20 it was
``/.well-known/mcp/catalog.json``, where it is found too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import metadata
from typing import Any
from urllib.parse import urlsplit

from mcp.server import Server
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kimi_mcp.server.http.gate import CARDS

NAME = "io.github.kimi-mcp/kimi-mcp"
"""The server's name in the MCP registry."""

REPOSITORY = "https://github.com/kimi-mcp/kimi-mcp"

CARD_TYPE = "application/mcp-server-card+json"

_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET",
    "Access-Control-Allow-Headers": "Content-Type, If-None-Match",
    "Access-Control-Expose-Headers": "ETag",
    "Cache-Control": "public, max-age=3600",
}


def routes(server: Server[Any], url: str) -> list[Route]:
    """The routes of the card and the catalogue; ``url`` is where clients reach the endpoint."""
    card, *catalogues = CARDS
    entry = {
        "identifier": f"urn:air:{urlsplit(url).hostname}:mcp:kimi-mcp",
        "type": CARD_TYPE,
        "url": f"{url}/server-card",
    }
    catalogue = {"specVersion": "1.0", "entries": [entry]}
    found = [_route(card, server_card(server, url), CARD_TYPE)]
    return found + [_route(path, catalogue, "application/ai-catalog+json") for path in catalogues]


def server_card(server: Server[Any], url: str) -> dict[str, Any]:
    """What is known of the server before one connects; it names no tools."""
    versions = [*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS]
    return {
        "$schema": "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json",
        "name": NAME,
        "version": server.version,
        "title": server.title,
        "description": metadata("kimi-mcp")["Summary"],
        "repository": {"url": REPOSITORY, "source": "github"},
        "icons": server.server_info_stamp["icons"],
        "remotes": [{"type": "streamable-http", "url": url, "supportedProtocolVersions": versions}],
    }


def _route(path: str, document: Mapping[str, Any], media_type: str) -> Route:
    content = json.dumps(document, ensure_ascii=False).encode()
    tag = f'"{sha256(content).hexdigest()[:32]}"'

    async def answer(request: Request) -> Response:
        headers = {**_HEADERS, "ETag": tag}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return Route(path, answer, methods=["GET", "OPTIONS"])
