"""A plan becomes the body of a chat-completions request. Pure, no I/O.

Bodies differ by what a Profile says, in the table below; a provider's or a model's name is never looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile, ThinkingSwitch
from kimi_mcp.core.types import MediaPart, Part, TextPart, Turn


def encode(plan: Plan) -> dict[str, Any]:
    """The body of the one streamed request that a plan stands for."""
    provider = plan.profile.provider
    body: dict[str, Any] = {
        "model": plan.profile.serving.wire_id,
        "messages": [_message(turn, plan.profile) for turn in _with_schema_in_words(plan)],
        "stream": True,
        provider.output_limit_field: plan.max_tokens,
    }
    if provider.streams_usage:
        body["stream_options"] = {"include_usage": True}
    body.update({name: _whole(value) if name == "n" else value for name, value in plan.said.items()})
    body.update(_SWITCHES[plan.profile.switch](plan))
    if plan.tools:
        body["tools"] = [{"type": "function", "function": dict(tool)} for tool in plan.tools]
        if plan.tool_choice is not None:
            body["tool_choice"] = plan.tool_choice
    if plan.response_schema is not None and "json_schema" in provider.response_format:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": plan.response_schema, "strict": True},
        }
    elif plan.response_schema is not None and "json_object" in provider.response_format:
        body["response_format"] = {"type": "json_object"}
    return body


def _whole(value: float) -> float:
    """A whole number as one: ``n: 1.0`` is refused."""
    return int(value) if float(value).is_integer() else value


def _thinking_object(plan: Plan) -> dict[str, Any]:
    """Moonshot's own; a model that can't stop thinking is told nothing (HC: only ``enabled`` is allowed there)."""
    if not plan.profile.can_stop_thinking:
        return {}
    return {"thinking": {"type": "enabled" if plan.mode == "thinking" else "disabled"}}


def _chat_template(plan: Plan) -> dict[str, Any]:
    """What the engine hands to the model's chat template; K3's takes its effort there (KVV)."""
    told: dict[str, Any] = {}
    if plan.profile.can_stop_thinking:
        told["thinking"] = plan.mode == "thinking"
    if plan.effort is not None:
        told["thinking_effort"] = plan.effort
    return {"chat_template_kwargs": told} if told else {}


def _reasoning_object(plan: Plan) -> dict[str, Any]:
    """A router's, which it translates for the host behind it (openrouter.ai/docs, reasoning tokens)."""
    told: dict[str, Any] = {}
    if plan.profile.can_stop_thinking:
        told["enabled"] = plan.mode == "thinking"
    if plan.effort is not None:
        told["effort"] = plan.effort
    return {"reasoning": told} if told else {}


def _reasoning_effort(plan: Plan) -> dict[str, Any]:
    """K3's, at the top level (HC)."""
    return {} if plan.effort is None else {"reasoning_effort": plan.effort}


def _nothing(plan: Plan) -> dict[str, Any]:
    """No switch is documented: nothing is said."""
    del plan
    return {}


_SWITCHES: Mapping[ThinkingSwitch, Callable[[Plan], dict[str, Any]]] = {
    "thinking-object": _thinking_object,
    "chat-template": _chat_template,
    "reasoning-object": _reasoning_object,
    "reasoning-effort": _reasoning_effort,
    "none": _nothing,
}
"""One encoder for each way of switching thinking; a dialect nobody speaks yet is one more row."""


def _with_schema_in_words(plan: Plan) -> Sequence[Turn]:
    """The turns, with the schema asked for in words where ``response_format`` does not take it."""
    if plan.response_schema is None or "json_schema" in plan.profile.provider.response_format:
        return plan.turns
    words = (
        "Answer with one JSON value and nothing else: no prose, no code fence. It must be valid against this JSON "
        "schema:\n" + json.dumps(plan.response_schema, ensure_ascii=False)
    )
    first, *others = plan.turns
    if first.role == "system":
        return [Turn(role="system", parts=(TextPart(text=f"{first.text}\n\n{words}"),)), *others]
    return [Turn(role="system", parts=(TextPart(text=words),)), *plan.turns]


def _message(turn: Turn, profile: Profile) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role}
    if turn.media:
        message["content"] = [_part(part) for part in turn.parts]
    elif turn.text or not turn.tool_calls:
        # A blank content beside tool calls may be refused ("text content is empty"): left out.
        message["content"] = turn.text
    if turn.reasoning is not None:
        for name in profile.provider.reasoning_send:
            message[name] = turn.reasoning
    if turn.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    if turn.tool_call_id is not None:
        message["tool_call_id"] = turn.tool_call_id
    return message


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case MediaPart(kind=kind, url=url):
            return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
