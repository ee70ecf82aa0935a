"""Feeds events to an accumulator."""

from __future__ import annotations

import json
from typing import Any

from kimi_mcp.core.types import Completion, ToolCall
from kimi_mcp.provider.decoding import StreamAccumulator

ONE = ToolCall(id="functions.a:0", name="a", arguments='{"x": 1}')
"""A whole tool call."""

STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def chunk(delta: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


def fed(*events: Any) -> StreamAccumulator:
    accumulator = StreamAccumulator()
    for event in events:
        accumulator.feed(event if isinstance(event, bytes) else json.dumps(event).encode())
    return accumulator


def accumulated(*events: Any) -> Completion:
    return fed(*events).completion()


def call(name: str | None = None, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**more, "function": function}


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return chunk({"tool_calls": list(calls)})
