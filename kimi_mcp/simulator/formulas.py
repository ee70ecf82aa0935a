"""Owns the provider's official tools: the declaration of each formula, and the result of a fiber. Pure, no I/O.

Formula and fiber: platform.kimi.ai docs/guide/use-official-tools (2026-11-24); the declaration of web_search as third
parties recorded it in August 2026. The results of a search come sealed, and go back to the model as they are.
"""

from __future__ import annotations

import base64
import hashlib
import json

from kimi_mcp.simulator.refusals import Refused, invalid
from kimi_mcp.simulator.shapes import JsonObject, as_object

SEALED_BEGIN, SEALED_END = "----MOONSHOT ENCRYPTED BEGIN----", "----MOONSHOT ENCRYPTED END----"

_WEB_SEARCH: JsonObject = {
    "type": "function",
    "function": {
        "name": "web_search",
        "description": "Search the web for information.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What to search for."},
                "classes": {
                    "type": "array",
                    "description": "Fields to search in; all of them by default.",
                    "items": {"type": "string", "enum": ["all", "academic", "social", "finance", "code"]},
                },
            },
            "required": ["query"],
        },
    },
}

_TOOLS: dict[str, list[JsonObject]] = {"moonshot/web-search:latest": [_WEB_SEARCH]}


def declaration(uri: str) -> JsonObject:
    """What ``GET …/tools`` answers; raises Refused with 404."""
    return {"object": "list", "tools": [*_of(uri)]}


def fiber(uri: str, body: object, number: int) -> JsonObject:
    """What ``POST …/fibers`` answers; raises Refused."""
    names = [function["name"] for tool in _of(uri) if (function := as_object(tool["function"]))]
    wanted = as_object(body)
    if wanted is None or not isinstance(wanted.get("name"), str) or not isinstance(wanted.get("arguments"), str):
        invalid("Invalid request: a fiber needs 'name' and 'arguments', both text")
    if wanted["name"] not in names:
        invalid("Invalid request: the formula has no such function")
    made: JsonObject = {"id": f"fiber-simulator-{number:06d}", "object": "fiber", "formula": uri}
    try:
        query = (as_object(json.loads(str(wanted["arguments"]))) or {}).get("query")
    except (ValueError, RecursionError):
        query = None
    if not isinstance(query, str) or not query:
        return {**made, "status": "failed", "error": {"message": "query is required"}}
    sealed = base64.b64encode(hashlib.sha256(query.encode("utf-8", "replace")).digest() * 4).decode()
    context: JsonObject = {"input": wanted["arguments"], "encrypted_output": f"{SEALED_BEGIN}{sealed}{SEALED_END}"}
    return {**made, "status": "succeeded", "context": context}


def _of(uri: str) -> list[JsonObject]:
    tools = _TOOLS.get(uri)
    if tools is None:
        raise Refused(404, "resource_not_found_error", f"Not found the formula {uri}")
    return tools
