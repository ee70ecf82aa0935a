"""The requests whose bodies are kept as snapshots: one table, encoded for every provider. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kimi_mcp.core.types import MediaPart, Request, TextPart, ToolCall, Turn, system, user

CALL = ToolCall(id="functions.get_weather:0", name="get_weather", arguments='{"city": "Oslo"}')
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
}
VERBATIM = "  Zwölf 漢字 🦊 \u200b\r\n\ttrailing  \n"


def _asks(mode: Any = "thinking", prompt: str = "Why is the sky blue?", **changes: Any) -> Request:
    return Request(**{"mode": mode, "turns": (user(prompt),), **changes})


CASES: Mapping[str, Request] = {
    "think": _asks(),
    "instant": _asks("instant"),
    "system": _asks(turns=(system("Be brief."), user("Hi"))),
    "temperature-asked": _asks(sampling={"temperature": 0.2, "top_p": 0.5, "n": 2}),
    "own-values-asked": _asks("instant", sampling={"temperature": 0.6, "top_p": 0.95}),
    "max-tokens": _asks(max_tokens=20_000),
    "tools": _asks(tools=(WEATHER,)),
    "tool-choice": _asks("instant", tools=(WEATHER,), tool_choice="required"),
    "response-schema": _asks(response_schema=ANSWER),
    "response-schema-and-system": _asks("instant", turns=(system("Be brief."), user("Hi")), response_schema=ANSWER),
    "history": _asks(
        turns=(
            user("Weather?"),
            Turn(role="assistant", reasoning="Look it up.\n", tool_calls=(CALL,)),
            Turn(role="tool", parts=(TextPart(text="Rain"),), tool_call_id=CALL.id),
            Turn(role="assistant", parts=(TextPart(text="It rains."),), reasoning=""),
            user("And tomorrow?"),
            Turn(role="assistant", parts=(TextPart(text="I can't say."),)),
            user("Why?"),
        ),
        tools=(WEATHER,),
    ),
    "unicode": _asks(prompt=VERBATIM),
    "picture": _asks(
        turns=(
            Turn(role="user", parts=(MediaPart(kind="image", url="data:image/png;base64,AAAA"), TextPart(text="?"))),
        )
    ),
}
"""Case by name; each is decided for the model that ``auto`` takes at that provider on the day of the facts."""
