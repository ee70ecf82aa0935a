"""Encodes a plan as the body of a chat-completions request, by the fields of its profile. Pure, no I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.types import MediaPart, Part, TextPart, Turn


def encode(plan: Plan) -> dict[str, Any]:
    """The body of the streamed request for a plan."""
    provider = plan.profile.provider
    body: dict[str, Any] = {
        "model": plan.profile.serving.wire_id,
        "messages": [_message(turn, plan.profile) for turn in _with_schema_in_words(plan)],
        "stream": True,
        provider.output_limit_field: plan.max_tokens,
    }
    if provider.streams_usage:
        body["stream_options"] = {"include_usage": True}
    body.update(plan.sampling)
    if (n := plan.sampling.get("n")) is not None and float(n).is_integer():
        body["n"] = int(n)  # 1.0 is refused
    body.update(_thinking(plan))
    if plan.cache_ttl is not None:
        body["prompt_cache_options"] = {"ttl": plan.cache_ttl}  # forum.moonshot.ai t/613
    if plan.tools:
        body["tools"] = [{"type": _kind(str(tool.get("name", ""))), "function": dict(tool)} for tool in plan.tools]
        if plan.tool_choice is not None:
            body["tool_choice"] = plan.tool_choice
    if plan.turns[-1].partial:
        return body  # what has begun as JSON goes on as JSON; the two are not to be mixed (Moonshot's partial mode)
    if plan.response_schema is not None and "json_schema" in provider.response_format:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": plan.response_schema, "strict": True},
        }
    elif plan.response_schema is not None and "json_object" in provider.response_format:
        body["response_format"] = {"type": "json_object"}
    return body


def _thinking(plan: Plan) -> dict[str, Any]:
    """How mode and effort are sent; a new dialect is one more case."""
    thinking, effort, can_stop = plan.mode == "thinking", plan.effort, plan.profile.can_stop_thinking
    match plan.profile.switch:
        case "thinking-object":  # a model that always thinks takes only "enabled" (Moonshot's help center)
            return {"thinking": {"type": "enabled" if thinking else "disabled"}} if can_stop else {}
        case "chat-template":  # K3's template takes the effort (Kimi Vendor Verifier)
            options = _given(thinking=thinking if can_stop else None, thinking_effort=effort)
            return _given(chat_template_kwargs=options or None)
        case "reasoning-object":  # a router translates it for the host (openrouter.ai/docs, reasoning tokens)
            options = _given(enabled=thinking if can_stop else None, effort=effort)
            return _given(reasoning=options or None)
        case "reasoning-effort":  # K3 (Moonshot's help center)
            return _given(reasoning_effort=effort)
        case "none":
            return {}


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _with_schema_in_words(plan: Plan) -> Sequence[Turn]:
    """The turns, with the schema in the system message where ``response_format`` does not take it."""
    if plan.response_schema is None or "json_schema" in plan.profile.provider.response_format:
        return plan.turns
    words = (
        "Answer with one JSON value and nothing else: no prose, no code fence. It must be valid against this JSON "
        "schema:\n" + json.dumps(plan.response_schema, ensure_ascii=False)
    )
    others = plan.turns
    if others[0].role == "system":
        words, others = f"{others[0].text}\n\n{words}", others[1:]
    return [Turn(role="system", parts=(TextPart(text=words),)), *others]


def _message(turn: Turn, profile: Profile) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role}
    if turn.media:
        message["content"] = [_part(part) for part in turn.parts]
    elif turn.text or not turn.tool_calls:
        # Blank content beside tool calls may be refused ("text content is empty").
        message["content"] = turn.text
    if turn.reasoning is not None:
        for name in profile.provider.reasoning_send:
            message[name] = turn.reasoning
    if turn.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": _kind(call.name), "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    if turn.tool_call_id is not None:
        message["tool_call_id"] = turn.tool_call_id
    if turn.partial:
        message["partial"] = True
    return message


def _kind(function: str) -> str:
    """Moonshot's own functions, which run inside the chat, have a ``$`` before their names (help center)."""
    return "builtin_function" if function.startswith("$") else "function"


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case MediaPart(kind=kind, url=url):
            return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
