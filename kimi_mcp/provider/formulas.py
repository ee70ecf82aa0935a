"""The provider's own tools ("Formula"): what a formula holds, and one run of a function of it ("fiber"). Does I/O.

``GET /formulas/{uri}/tools`` and ``POST /formulas/{uri}/fibers`` (platform.kimi.ai docs/guide/use-official-tools,
2026-11-24). What a fiber brings stands in its ``context``: ``output``, or ``encrypted_output``, an envelope that only
the provider's models can open and that goes back to them as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from kimi_mcp.provider.attempt import Destination, read_whole
from kimi_mcp.provider.failures import AttemptFailure, failure

if TYPE_CHECKING:
    from kimi_mcp.provider.clients import Client, Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Fiber:
    """What one run of a function brought."""

    succeeded: bool
    """Whether the provider says so."""
    text: str
    """The output; of a run that failed, the provider's words for it."""
    sealed: bool = False
    """Whether the text is an envelope that only the provider's models can open."""


async def functions(
    client: Client, uri: str, *, to: Destination, wall: Callable[[], float]
) -> tuple[Mapping[str, Any], ...] | AttemptFailure:
    """The functions that a formula holds, as they stand under ``tools[].function``."""
    told = await _told(client, "GET", f"formulas/{_quoted(uri)}/tools", to, wall)
    if isinstance(told, AttemptFailure):
        return told
    rows = told.get("tools")
    tools = cast(list[Any], rows) if isinstance(rows, list) else []
    listed: list[Any] = [cast(dict[str, Any], row).get("function") for row in tools if isinstance(row, dict)]
    return tuple(cast(dict[str, Any], one) for one in listed if isinstance(one, dict))


async def fiber(
    client: Client, uri: str, name: str, arguments: str, *, to: Destination, wall: Callable[[], float]
) -> Fiber | AttemptFailure:
    """Run a function; ``arguments`` is JSON text. One attempt: a run may be billed."""
    body = json.dumps({"name": name, "arguments": arguments}).encode()
    told = await _told(client, "POST", f"formulas/{_quoted(uri)}/fibers", to, wall, body)
    return told if isinstance(told, AttemptFailure) else _read(told)


def _read(told: dict[str, Any]) -> Fiber:
    found = told.get("context")
    context = cast(dict[str, Any], found) if isinstance(found, dict) else {}
    if told.get("status") != "succeeded":
        return Fiber(succeeded=False, text=_words(told.get("error") or context.get("error") or ""))
    output = context.get("output")
    if output is not None and output != "":
        return Fiber(succeeded=True, text=_words(output))
    sealed = context.get("encrypted_output")
    return Fiber(succeeded=True, text=_words(sealed or ""), sealed=bool(sealed))


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _quoted(uri: str) -> str:
    return quote(uri, safe="/:")


async def _told(
    client: Client,
    method: Method,
    path: str,
    to: Destination,
    wall: Callable[[], float],
    body: bytes | None = None,
) -> dict[str, Any] | AttemptFailure:
    """The JSON object that the provider answers with."""
    found = await read_whole(client, path, to=to, wall=wall, method=method, content=body)
    if isinstance(found, AttemptFailure):
        return found
    try:
        told: Any = json.loads(found)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict):
        return cast(dict[str, Any], told)
    return failure("json", provider=to.provider.id, host=to.host)
