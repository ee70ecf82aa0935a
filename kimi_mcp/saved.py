"""Reads a chat-completions body that somebody else wrote back into a request, so that the policy can judge it. Pure.

It reads as the provider would: what the provider's dialect ignores is ignored here too, so a mode said in the wrong
dialect is not the mode the answer would come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from kimi_mcp.catalogue.profile import Profile
from kimi_mcp.errors import InvalidArguments
from kimi_mcp.types import SAMPLING, MediaPart, Mode, Part, Request, TextPart, ToolCall, Turn

_ROLES = ("system", "user", "assistant", "tool")


def read_body(body: Mapping[str, Any], profile: Profile) -> Request:
    """The request that a saved body makes of that profile.

    Raises ``InvalidArguments`` naming the place where the body is no chat-completions request.
    """
    messages = _list(body, "messages", "the body")
    if not messages:
        raise _odd("`messages` is missing or empty")
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"))
    limit = next((value for value in limits if value is not None), None)
    return Request(
        mode=_mode(body, profile),
        turns=tuple(_turn(message, index, profile) for index, message in enumerate(messages)),
        sampling={name: value for name in SAMPLING if (value := _number(body, name)) is not None},
        max_tokens=limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None,
        effort=effort if isinstance(effort := body.get("reasoning_effort"), str) else None,
        tools=tuple(_function(tool, index) for index, tool in enumerate(_list(body, "tools", "the body"))),
        tool_choice=cast(Any, body.get("tool_choice")),
        response_schema=_schema(body),
        model_asked=model if isinstance(model := body.get("model"), str) else profile.model.id,
    )


def _mode(body: Mapping[str, Any], profile: Profile) -> Mode:
    """The mode the answer would come in: thinking is on unless the provider's own switch turns it off."""
    said: Any = None
    match profile.switch:
        case "thinking-object" | "reasoning-effort":  # models with efforts refuse the object, they don't ignore it
            said = _mapping(body.get("thinking")).get("type") != "disabled"
        case "chat-template":
            said = _mapping(body.get("chat_template_kwargs")).get("thinking", True)
        case "reasoning-object":
            said = _mapping(body.get("reasoning")).get("enabled", True)
        case "none":
            said = True
    return "instant" if said is False else "thinking"


def _turn(message: Any, index: int, profile: Profile) -> Turn:
    place = f"messages[{index}]"
    if not isinstance(message, dict) or (role := cast(dict[str, Any], message).get("role")) not in _ROLES:
        raise _odd(f"{place} has no role of {', '.join(_ROLES)}")
    message = cast(dict[str, Any], message)
    read_names = profile.provider.reasoning_send[:1] or ("reasoning_content",)
    reasoning = next((text for name in read_names if isinstance(text := message.get(name), str)), None)
    answers = message.get("tool_call_id")
    return Turn(
        role=cast(Any, role),
        parts=_parts(message.get("content"), place),
        reasoning=reasoning if role == "assistant" else None,
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
    part = _mapping(part)
    match part.get("type"):
        case "text" if isinstance(text := part.get("text"), str):
            return TextPart(text=text)
        case "image_url" | "video_url" as kind:
            media = part.get(kind)
            url = media if isinstance(media, str) else _mapping(media).get("url")
            if isinstance(url, str):
                return MediaPart(kind="image" if kind == "image_url" else "video", url=url)
        case _:
            pass
    raise _odd(f"{place} is no part of type text, image_url or video_url")


def _call(call: Any, place: str) -> ToolCall:
    call = _mapping(call)
    function = _mapping(call.get("function"))
    said = {"id": call.get("id", ""), "name": function.get("name"), "arguments": function.get("arguments", "")}
    if not all(isinstance(value, str) for value in said.values()):
        raise _odd(f"a tool call of {place} lacks its id, name or arguments")
    return ToolCall(**cast(dict[str, str], said))


def _function(tool: Any, index: int) -> Mapping[str, Any]:
    tool = _mapping(tool)
    function = _mapping(tool.get("function"))
    if tool.get("type") == "function" and not function:
        raise _odd(f"tools[{index}] has no function")
    return function or {"name": str(tool.get("type", "")), "parameters": {"type": "object"}}


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = _mapping(_mapping(body.get("response_format")).get("json_schema")).get("schema")
    return cast(Mapping[str, Any], wanted) if isinstance(wanted, Mapping) else None


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


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def _odd(what: str) -> InvalidArguments:
    return InvalidArguments(
        f"This is no chat-completions body: {what}.", fix="Save the JSON body that is sent to /chat/completions."
    )
