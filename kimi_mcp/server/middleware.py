"""What is decided about a request before its handler is asked, from the request alone. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import NoneType
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

CallNext = Callable[[Any], Awaitable[Any]]


async def refuse_cursor(ctx: Any, call_next: CallNext) -> Any:
    """Every list has one page, and no cursor was ever handed out; an empty one counts as absent."""
    params: Mapping[str, Any] = ctx.params or {}
    if ctx.method.endswith("/list") and params.get("cursor"):
        raise MCPError(INVALID_PARAMS, "There is one page: leave `cursor` out.")
    return await call_next(ctx)


async def wrap_invalid_arguments(ctx: Any, call_next: CallNext) -> Any:
    """Arguments that are not an object get a result that says what is allowed, not a protocol error."""
    params: Mapping[str, Any] = ctx.params or {}
    if ctx.method == "tools/call" and not isinstance(params.get("arguments"), Mapping | NoneType):
        ctx = replace(ctx, params={**params, "arguments": {"arguments": params["arguments"]}})
    return await call_next(ctx)
