"""Parses a chat-completions body that somebody else wrote into a request, so that the policy can judge it. Pure.

It parses as the provider would: a mode set in another provider's dialect is ignored. ``not_judged`` names the fields
that no rule reads; the content of media is never read, and is not counted among them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.profiles import Profile, ThinkingSwitch
from kimi_mcp.core.types import SAMPLING, MediaPart, Mode, Part, Request, TextPart, ToolCall, Turn
from kimi_mcp.policy.findings import load_rules
from kimi_mcp.policy.schema_dialect import mapping

_ROLES = ("system", "user", "assistant", "tool")
_TOOL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9-_]{2,63}")
_MOST_TOOLS = 128
"""Names and number of tools that raise no question (MoonshotAI/kimi-help-center, tool use)."""

_DATA_URL = re.compile(r"data:(image|video)/[\w.+-]{1,40};base64,[A-Za-z0-9+/]+={0,2}")


def read_body(body: Mapping[str, Any], profile: Profile) -> Request:
    """The request that a saved body makes of that profile.

    Raises ``InvalidArguments`` naming the place where the body is no chat-completions request.
    """
    messages = _list(body, "messages", "the body")
    if not messages:
        raise _odd("`messages` is missing or empty")
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"))
    limit = next((value for value in limits if value is not None), None)
    schema = mapping(mapping(body.get("response_format")).get("json_schema")).get("schema")
    return Request(
        mode=_mode(body, profile),
        turns=tuple(_turn(message, index, profile) for index, message in enumerate(messages)),
        sampling={name: value for name in SAMPLING if (value := _number(body, name)) is not None},
        max_tokens=limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None,
        effort=effort if isinstance(effort := _effort(body, profile), str) else None,
        tools=tuple(_function(tool, index) for index, tool in enumerate(_list(body, "tools", "the body"))),
        tool_choice=cast(Any, body.get("tool_choice")),
        response_schema=mapping(schema) if isinstance(schema, Mapping) else None,
        model_asked=model if isinstance(model := body.get("model"), str) else profile.model.id,
    )


def _mode(body: Mapping[str, Any], profile: Profile) -> Mode:
    """The mode the answer would come in: thinking is on unless the provider's own switch turns it off."""
    match profile.switch:
        case "thinking-object" | "reasoning-effort":  # models with efforts refuse the object, they don't ignore it
            stops = mapping(body.get("thinking")).get("type") == "disabled"
        case "chat-template":
            stops = mapping(body.get("chat_template_kwargs")).get("thinking") is False
        case "reasoning-object":
            stops = mapping(body.get("reasoning")).get("enabled") is False
        case "none":
            stops = False
    return "instant" if stops else "thinking"


def _effort(body: Mapping[str, Any], profile: Profile) -> Any:
    """The effort where the provider reads it."""
    match profile.switch:
        case "thinking-object" | "reasoning-effort":
            return body.get("reasoning_effort")
        case "chat-template":
            return mapping(body.get("chat_template_kwargs")).get("thinking_effort")
        case "reasoning-object":
            return mapping(body.get("reasoning")).get("effort")
        case "none":
            return None


def _turn(message: Any, index: int, profile: Profile) -> Turn:
    place, message = f"messages[{index}]", mapping(message)
    if (role := message.get("role")) not in _ROLES:
        raise _odd(f"{place} has no role of {', '.join(_ROLES)}")
    reasoning = message.get(profile.provider.reasoning_send[0])
    answers = message.get("tool_call_id")
    return Turn(
        role=cast(Any, role),
        parts=_parts(message.get("content"), place),
        reasoning=reasoning if role == "assistant" and isinstance(reasoning, str) else None,
        tool_calls=tuple(_call(call, place) for call in _list(message, "tool_calls", place)),
        tool_call_id=answers if isinstance(answers, str) else None,
    )


def _parts(content: Any, place: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(text=content),)
    if not isinstance(content, list):
        raise _odd(f"{place}.content is neither text nor a list of parts")
    return tuple(_part(part, f"{place}.content[{index}]") for index, part in enumerate(cast(list[Any], content)))


def _part(part: Any, place: str) -> Part:
    part = mapping(part)
    match part.get("type"):
        case "text" if isinstance(text := part.get("text"), str):
            return TextPart(text=text)
        case "image_url" | "video_url" as kind:
            media = part.get(kind)
            url = media if isinstance(media, str) else mapping(media).get("url")
            if isinstance(url, str):
                return MediaPart(kind="image" if kind == "image_url" else "video", url=url)
        case _:
            pass
    raise _odd(f"{place} is no part of type text, image_url or video_url")


def _call(call: Any, place: str) -> ToolCall:
    call = mapping(call)
    function = mapping(call.get("function"))
    fields = {"id": call.get("id", ""), "name": function.get("name"), "arguments": function.get("arguments", "")}
    if not all(isinstance(value, str) for value in fields.values()):
        raise _odd(f"a tool call of {place} lacks its id, name or arguments")
    return ToolCall(**cast(dict[str, str], fields))


def _function(tool: Any, index: int) -> Mapping[str, Any]:
    tool = mapping(tool)
    function = mapping(tool.get("function"))
    if tool.get("type") == "function" and not function:
        raise _odd(f"tools[{index}] has no function")
    return function or {"name": str(tool.get("type", "")), "parameters": {"type": "object"}}


def _number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _odd(f"`{name}` is no number")
    return value


def _list(holder: Mapping[str, Any], name: str, place: str) -> list[Any]:
    value = holder.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _odd(f"`{name}` of {place} is no list")
    return cast(list[Any], value)


def _odd(what: str) -> InvalidArguments:
    return InvalidArguments(
        f"This is no chat-completions body: {what}.", fix="Save the JSON body that is sent to /chat/completions."
    )


_SWITCHES: Mapping[ThinkingSwitch, tuple[str, ...]] = {
    "thinking-object": ("thinking", "reasoning_effort"),
    "reasoning-effort": ("thinking", "reasoning_effort"),
    "chat-template": ("chat_template_kwargs",),
    "reasoning-object": ("reasoning",),
    "none": (),
}
"""The fields that a profile's own switch reads."""

_LIMITS, _OTHERS = ("max_tokens", "max_completion_tokens"), ("stream", "stream_options", "response_format")
_FIELDS = ("model", "messages", "tools", "tool_choice", *SAMPLING, *_LIMITS, *_OTHERS)
"""The fields that are read for every profile."""


def not_judged(body: Mapping[str, Any], profile: Profile) -> tuple[str, ...]:
    """The top-level fields that no rule reads for that profile, or that hold what no rule reads, in their order.

    That is no objection: the provider may take them, ignore them or refuse the request for them.
    Raises ``InvalidArguments`` like ``read_body``.
    """
    request = read_body(body, profile)
    fields = {"model": None, **body}  # a body that names no model is no request yet
    return tuple(name for name, value in fields.items() if not _is_judged(name, value, body, request, profile))


def _is_judged(name: str, value: Any, body: Mapping[str, Any], request: Request, profile: Profile) -> bool:
    """Whether the rules read all that a field holds."""
    if name not in _FIELDS and name not in _SWITCHES[profile.switch]:
        return False
    if name in SAMPLING:
        return _sampling_judged(name, value, request, profile)
    if value is None:
        return name != "model"
    match name:
        case "model":
            return value == profile.serving.wire_id
        case "messages":
            return _messages_judged(value, request, profile)
        case "stream":
            return isinstance(value, bool)
        case "stream_options":
            known = profile.provider.streams_usage and body.get("stream") is True
            return known and value in ({"include_usage": True}, {"include_usage": False})
        case "max_tokens" | "max_completion_tokens":
            return type(value) is int and value == request.max_tokens
        case "tools":
            return not value or _tools_judged(value, request, profile)
        case "tool_choice":
            return _tool_choice_judged(value, request, profile)
        case "response_format":
            return _response_format_judged(value, request, profile)
        case "thinking" if profile.switch == "reasoning-effort":
            return mapping(value).get("type") == "disabled"  # the rule always-thinks objects to this one alone
        case "thinking":
            return value in ({"type": "enabled"}, {"type": "disabled"})
        case "reasoning_effort":
            return isinstance(value, str)  # the rule effort-known objects to those that the model does not know
        case "chat_template_kwargs":
            return _switch_judged(value, "thinking", "thinking_effort")
        case _:
            return _switch_judged(value, "enabled", "effort")


def _sampling_judged(name: str, value: Any, request: Request, profile: Profile) -> bool:
    ruled = any(name in rule.options["fields"] for rule in load_rules().values() if rule.kind == "fixed-sampling")
    unpublished = profile.fixed(request.mode) is None and profile.provider.self_hosted
    fits = value is None or name != "n" or isinstance(value, int)  # ``n: 1.0`` is refused
    return ruled and fits and not unpublished


def _switch_judged(value: Any, switch: str, effort: str) -> bool:
    fields = mapping(value)
    known = isinstance(value, Mapping) and {switch, effort}.issuperset(fields)
    return known and isinstance(fields.get(switch, True), bool) and isinstance(fields.get(effort, ""), str | None)


def _tools_judged(value: Any, request: Request, profile: Profile) -> bool:
    names = [function.get("name") for function in request.tools]
    return (
        profile.provider.moonshot_schemas
        and len(names) == len({str(name) for name in names}) <= _MOST_TOOLS
        and all(mapping(tool).get("type") == "function" for tool in value)
        and all(isinstance(name, str) and _TOOL_NAME.fullmatch(name) for name in names)
    )


def _tool_choice_judged(value: Any, request: Request, profile: Profile) -> bool:
    if value in ("auto", "none"):
        return True
    tools = [function.get("name") for function in request.tools]
    named = mapping(mapping(value).get("function")).get("name")
    if tools and (value == "required" or named in tools):
        return True
    taken = value == "required" and profile.model.forced_tool_choice_thinking
    return request.mode == "thinking" and not taken  # tool-choice-thinking objects


def _response_format_judged(value: Any, request: Request, profile: Profile) -> bool:
    if value in ({"type": "text"}, {"type": "json_object"}):
        return True
    named = mapping(mapping(value).get("json_schema")).get("name")
    is_schema = mapping(value).get("type") == "json_schema" and request.response_schema is not None
    return profile.provider.moonshot_schemas and is_schema and isinstance(named, str) and named != ""


def _messages_judged(value: Any, request: Request, profile: Profile) -> bool:
    """Whether the conversation is whole: nothing blank, nothing unknown, each tool call answered in its turn."""
    known: set[str] = set()
    open_calls: set[str] = set()
    for message, turn in zip(value, request.turns, strict=True):
        if turn.role == "tool":
            if turn.tool_call_id not in known:
                return False
            open_calls.discard(turn.tool_call_id)
        elif open_calls:
            return False
        open_calls |= {call.id for call in turn.tool_calls}
        known |= open_calls
        if not _message_judged(message, turn, profile):
            return False
    return not open_calls


def _message_judged(message: Mapping[str, Any], turn: Turn, profile: Profile) -> bool:
    own = {"assistant": ("tool_calls", *profile.provider.reasoning_send), "tool": ("tool_call_id",)}
    fields = {"role", "content", *own.get(turn.role, ())}
    reasoning = [message.get(name) for name in profile.provider.reasoning_send]
    only_calls = bool(turn.tool_calls) and message.get("content") is None
    texts = [part.text for part in turn.parts if isinstance(part, TextPart)]
    if turn.role == "tool":
        filled = message.get("content") is not None
    else:
        filled = all(text.strip() for text in texts) and (bool(turn.parts) or only_calls)
    return (
        fields.issuperset(message)
        and all(text is None or isinstance(text, str) for text in reasoning)
        and all(call.id and call.name for call in turn.tool_calls)
        and filled
        and (not turn.media or turn.role in ("user", "tool"))
        and all(_media_judged(part) for part in turn.media)
    )


def _media_judged(part: MediaPart) -> bool:
    """Whether a rule reads all of a URL: whether a file of ``ms://`` exists is not checked."""
    if not part.url.startswith("data:"):
        return not part.url.startswith("ms:")
    found = _DATA_URL.fullmatch(part.url)
    return found is not None and found[1] == part.kind
