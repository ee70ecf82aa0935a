"""Owns the provider's official tools: the declaration of each formula, and the result of a fiber. Pure, no I/O.

Formula and fiber: platform.kimi.ai docs/guide/use-official-tools (2026-11-24); the declarations of web_search and fetch
as third parties recorded them in July and August 2026. The results of a search come sealed, and go back to the model as
they are; their titles and URLs are in ``context.references`` (third party). A page comes readable.
"""

from __future__ import annotations

import json

from kimi_mcp.simulator import web
from kimi_mcp.simulator.refusals import Refused, invalid
from kimi_mcp.simulator.shapes import JsonObject, as_object, as_text

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

_FETCH: JsonObject = {
    "type": "function",
    "function": {
        "name": "fetch",
        "description": "Fetch the content of a URL as Markdown.",
        "parameters": {
            "type": "object",
            "properties": {"url": {"type": "string", "description": "The URL to fetch."}},
            "required": ["url"],
        },
    },
}

_TOOLS: dict[str, list[JsonObject]] = {
    "moonshot/web-search:latest": [_WEB_SEARCH],
    "moonshot/fetch:latest": [_FETCH],
}


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
        arguments = as_object(json.loads(str(wanted["arguments"]))) or {}
    except (ValueError, RecursionError):
        arguments = {}
    context: JsonObject = {"input": wanted["arguments"]}
    if wanted["name"] == web.FETCH:
        page = web.page_at(as_text(arguments.get("url")) or "")
        if page is None:
            return {**made, "status": "failed", "error": {"message": "the url can't be fetched"}}
        context["output"] = f"# {page.title}\n\n{page.text}"
    else:
        query = as_text(arguments.get("query"))
        if not query:
            return {**made, "status": "failed", "error": {"message": "query is required"}}
        found = web.find(query)
        context["encrypted_output"] = web.seal(web.described(found))
        context["references"] = [{"title": page.title, "url": page.url} for page in found]
    return {**made, "status": "succeeded", "context": context}


def _of(uri: str) -> list[JsonObject]:
    tools = _TOOLS.get(uri)
    if tools is None:
        raise Refused(404, "resource_not_found_error", f"Not found the formula {uri}")
    return tools
