"""The ids of a request: each of its log lines has them, and its run keeps the trace. No I/O."""

from __future__ import annotations

from typing import Any

from opentelemetry.propagate import inject
from opentelemetry.trace import format_trace_id, get_current_span

from kimi_mcp.core import observing
from kimi_mcp.server.callers import caller_of
from kimi_mcp.server.middleware import CallNext

_CHARS = 64
"""Characters of an id that a client chose."""


async def name_request(ctx: Any, call_next: CallNext) -> Any:
    """Let each log line of a request have its ids. Over HTTP it has its request id already; else it is the client's."""
    span, request_id = get_current_span().get_span_context(), None
    if ctx.request_id is not None and "request_id" not in observing.ids():
        request_id = str(ctx.request_id)[:_CHARS]
    trace_id = format_trace_id(span.trace_id) if span.is_valid else None
    with observing.with_ids(request_id=request_id, trace_id=trace_id, principal=caller_of(ctx)):
        return await call_next(ctx)


def traceparent() -> str | None:
    """The trace that this task belongs to, as W3C Trace Context writes it; None: to none."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")
