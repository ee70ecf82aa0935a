"""The provider's own tools ("formulas"): list the functions of one, run one of them (a "fiber"). Does I/O.

``GET /formulas/{uri}/tools`` and ``POST /formulas/{uri}/fibers`` (platform.kimi.ai docs/guide/use-official-tools,
2026-11-24). A fiber's result is in its ``context``: ``output``, or ``encrypted_output``, which only the provider's
models can open and which goes back to them unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

from kimi_mcp.provider.json_requests import JsonClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Fiber:
    """The result of one run of a function."""

    succeeded: bool
    """Whether the provider reports success."""
    text: str
    """The output; of a failed run, the provider's error."""
    sealed: bool = False
    """Whether the text is encrypted for the provider's models."""


async def list_functions(client: JsonClient, uri: str) -> tuple[Mapping[str, Any], ...]:
    """The functions of a formula, as they go under ``tools[].function``."""
    rows = (await client.request("GET", f"formulas/{quote(uri, safe='/:')}/tools")).get("tools")
    tools = cast(list[Any], rows) if isinstance(rows, list) else []
    listed: list[Any] = [cast(dict[str, Any], row).get("function") for row in tools if isinstance(row, dict)]
    return tuple(cast(dict[str, Any], one) for one in listed if isinstance(one, dict))


async def run_function(client: JsonClient, uri: str, name: str, arguments: str) -> Fiber:
    """Run a function; ``arguments`` is JSON text. One attempt: a run may be billed."""
    body = json.dumps({"name": name, "arguments": arguments}).encode()
    return _read(await client.request("POST", f"formulas/{quote(uri, safe='/:')}/fibers", body))


def _read(fiber: dict[str, Any]) -> Fiber:
    found = fiber.get("context")
    context = cast(dict[str, Any], found) if isinstance(found, dict) else {}
    if fiber.get("status") != "succeeded":
        return Fiber(succeeded=False, text=_words(fiber.get("error") or context.get("error") or ""))
    output = context.get("output")
    if output is not None and output != "":
        return Fiber(succeeded=True, text=_words(output))
    sealed = context.get("encrypted_output")
    return Fiber(succeeded=True, text=_words(sealed or ""), sealed=bool(sealed))


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
