"""Owns what makes an upstream refuse a request, and what it understands of one that it takes. Pure, no I/O.

Sources: MoonshotAI/Kimi-Vendor-Verifier verify_params.py (fixed values), MoonshotAI/kimi-help-center error-codes
(statuses and types), the issues named beside the messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NoReturn

from kimi_mcp.simulator import tokens
from kimi_mcp.simulator.dialects import Dialect, Served, SimulatedModel, Switch
from kimi_mcp.simulator.messages import MediaSource, Messages, read_messages
from kimi_mcp.simulator.refusals import Refused, invalid
from kimi_mcp.simulator.schemas import TOOL_NAME, schema_fault
from kimi_mcp.simulator.shapes import JsonObject, as_array, as_integer, as_number, as_object, as_text, type_name

MOST_TOOLS = 128
MOST_STOPS, LONGEST_STOP = 5, 32
"""At most 5 stop strings of 32 bytes each (Moonshot chat API)."""

_COMMON_FIELDS: Mapping[str, tuple[str, ...]] = {
    "model": ("string",),
    "messages": ("array",),
    "stream": ("boolean", "null"),
    "stream_options": ("object", "null"),
    "temperature": ("number", "integer", "null"),
    "top_p": ("number", "integer", "null"),
    "n": ("integer", "null"),
    "presence_penalty": ("number", "integer", "null"),
    "frequency_penalty": ("number", "integer", "null"),
    "max_tokens": ("integer", "null"),
    "max_completion_tokens": ("integer", "null"),
    "stop": ("string", "array", "null"),
    "tools": ("array", "null"),
    "tool_choice": ("string", "object", "null"),
    "parallel_tool_calls": ("boolean", "null"),
    "response_format": ("object", "null"),
    "seed": ("integer", "null"),
    "user": ("string", "null"),
    "logprobs": ("boolean", "null"),
    "top_logprobs": ("integer", "null"),
    "logit_bias": ("object", "null"),
    "metadata": ("object", "null"),
}
_EXTRA_TYPES: Mapping[str, tuple[str, ...]] = {
    "thinking": ("object", "null"),
    "reasoning_effort": ("string", "null"),
    "prompt_cache_key": ("string", "null"),
    "safety_identifier": ("string", "null"),
    "chat_template_kwargs": ("object", "null"),
    "reasoning": ("object", "null"),
    "enable_thinking": ("boolean", "null"),
}
_SAMPLING = ("temperature", "top_p", "n", "presence_penalty", "frequency_penalty")
_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "n": (1, 16),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A request as the upstream understood it."""

    model_id: str
    """The id the request asked for."""
    answering: Served
    """The row of the model that answers: another one where the provider redirects."""
    thinking: bool
    effort: str | None
    """Level of `reasoning_effort`, for models that have levels."""
    stream: bool
    include_usage: bool
    limit: int
    """Tokens of reasoning and answer together."""
    requested_limit: int | None
    """`max_completion_tokens` or `max_tokens` of the request."""
    sampling: Mapping[str, float | int]
    """The sampling values of the request."""
    received: Messages
    """What its messages brought."""
    tools: Mapping[str, JsonObject]
    """Parameter schemas by the tool's name."""
    forced_tool: str | None
    """The tool that must be called: a name, or the first one under `required`."""
    schema: JsonObject | None
    """Of a json_schema response format."""
    json_answer: bool
    """Whether the answer must be JSON."""
    stops: tuple[str, ...]
    prompt_tokens: int
    cache_key: str


def read_chat(body: object, dialect: Dialect, day: date, media: MediaSource) -> Chat:
    """Judge a request body; raises Refused with the documented status, type and message."""
    fields = as_object(body)
    if fields is None:
        invalid("Invalid request: the body must be a JSON object")
    _check_fields(fields, dialect)
    served = _model(fields, dialect, day)
    model = served.model
    thinking, effort = _thinking(fields, dialect, model)
    sampling = _sampling(fields, dialect, thinking)
    tools, forced = _tools(fields, dialect, model, thinking)
    schema, json_answer = _response_format(fields, dialect)
    received = read_messages(as_array(fields.get("messages")) or [], dialect, thinking=thinking, media=media)
    requested = _limit(fields, dialect)
    prompt_tokens = received.tokens + (tokens.count(str(fields.get("tools"))) if tools else 0)
    asked = prompt_tokens + (requested or 0)
    if asked > model.context:  # words: MoonshotAI/kimi-cli#2011
        invalid(f"Invalid request: Your request exceeded model token limit: {model.context} (requested: {asked})")
    options = as_object(fields.get("stream_options")) or {}
    return Chat(
        model_id=str(fields["model"]),
        answering=served,
        thinking=thinking,
        effort=effort,
        stream=fields.get("stream") is True,
        include_usage=options.get("include_usage") is True,
        limit=max(1, min(requested or model.default_max_tokens, model.context - prompt_tokens)),
        requested_limit=requested,
        sampling=sampling,
        received=received,
        tools=tools,
        forced_tool=forced,
        schema=schema,
        json_answer=json_answer,
        stops=_stops(fields),
        prompt_tokens=prompt_tokens,
        cache_key=as_text(fields.get("prompt_cache_key")) or "",
    )


def _check_fields(fields: JsonObject, dialect: Dialect) -> None:
    for name, value in fields.items():
        if name not in _COMMON_FIELDS and name not in dialect.extra_fields and name not in dialect.switches:
            invalid(f"Invalid request: unknown field '{name}'")
        wanted = _COMMON_FIELDS.get(name) or _EXTRA_TYPES.get(name)
        if wanted and type_name(value) not in wanted:
            invalid(f"Invalid request: '{name}' must be {wanted[0]}, not {type_name(value)}")
    for name in ("model", "messages"):
        if name not in fields:
            invalid(f"Invalid request: '{name}' is required")
    if "stream_options" in fields and fields.get("stream") is not True and fields["stream_options"] is not None:
        invalid("Invalid request: 'stream_options' is only allowed when 'stream' is true")


def _model(fields: JsonObject, dialect: Dialect, day: date) -> Served:
    asked = str(fields["model"])
    served = dialect.find(asked)
    if served is None:
        _not_found(asked, dialect)
    if served.redirected_to and served.redirected_since and day >= served.redirected_since and served.live(day):
        served = dialect.find(served.redirected_to) or served
    if not served.live(day):
        if dialect.retired_status == 410 and served.until and day > served.until:  # NVIDIA/NemoClaw#11902
            raise Refused(410, "gone", f"The model '{asked}' has reached its end of life and is no longer available")
        _not_found(asked, dialect)
    return served


def _not_found(asked: str, dialect: Dialect) -> NoReturn:
    if dialect.moonshot:  # langgenius/dify#39778
        raise Refused(404, "resource_not_found_error", f"Not found the model {asked} or Permission denied")
    raise Refused(404, "resource_not_found_error", f"The model `{asked}` does not exist.")


def _thinking(fields: JsonObject, dialect: Dialect, model: SimulatedModel) -> tuple[bool, str | None]:
    """Whether it thinks, and at which level."""
    effort = as_text(fields.get("reasoning_effort"))
    if effort is not None and not model.efforts:
        invalid("invalid reasoning_effort: not supported by this model")
    if effort is not None and effort not in model.efforts:
        invalid(f"invalid reasoning_effort: only {', '.join(model.efforts)} are allowed for this model")
    level = (effort or "max") if model.efforts else None
    switches = [_SWITCHES[name](fields, dialect, model) for name in dialect.switches if fields.get(name) is not None]
    return model.always_thinks or False not in switches, level


def _thinking_object(fields: JsonObject, dialect: Dialect, model: SimulatedModel) -> bool:
    thinking = as_object(fields["thinking"]) or {}
    if model.efforts and dialect.moonshot:
        invalid("invalid thinking: not supported by this model, use reasoning_effort")
    for name in thinking:
        if name not in ("type", "keep"):
            invalid(f"invalid thinking: unknown field '{name}'")
    kind = thinking.get("type")
    if model.always_thinks and kind != "enabled":
        invalid("invalid thinking: only type=enabled is allowed for this model")
    if kind not in ("enabled", "disabled"):
        invalid("invalid thinking: type must be enabled or disabled")
    if "keep" in thinking and not (model.keeps or (model.always_thinks and thinking["keep"] == "all")):
        invalid("invalid thinking: keep is not supported by this model")
    if thinking.get("keep") not in (None, "all"):
        invalid('invalid thinking: keep must be null or "all"')
    return kind == "enabled"


def _chat_template(fields: JsonObject, dialect: Dialect, model: SimulatedModel) -> bool:
    return _flag(fields, "chat_template_kwargs", "thinking")


def _reasoning_object(fields: JsonObject, dialect: Dialect, model: SimulatedModel) -> bool:
    return _flag(fields, "reasoning", "enabled")


def _flag(fields: JsonObject, name: str, key: str) -> bool:
    value = (as_object(fields[name]) or {}).get(key)
    if value is not None and not isinstance(value, bool):
        invalid(f"Invalid request: '{name}.{key}' must be boolean")
    return value is not False


def _enable_thinking(fields: JsonObject, dialect: Dialect, model: SimulatedModel) -> bool:
    return fields["enable_thinking"] is not False


_SWITCHES: Mapping[Switch, Callable[[JsonObject, Dialect, SimulatedModel], bool]] = {
    "thinking": _thinking_object,
    "chat_template_kwargs": _chat_template,
    "reasoning": _reasoning_object,
    "enable_thinking": _enable_thinking,
}
"""What reads each switch: whether to think."""


def _sampling(fields: JsonObject, dialect: Dialect, thinking: bool) -> dict[str, float | int]:
    sampling = {name: value for name in _SAMPLING if (value := as_number(fields.get(name))) is not None}
    for name, value in sampling.items():
        low, high = _RANGES[name]
        if dialect.moonshot:
            # Kimi-Vendor-Verifier verify_params.py (K2.5, K2.6), models.dev#3331 (K3), HKUDS/nanobot#4967 (K2.7)
            only = {"temperature": 1 if thinking else 0.6, "top_p": 0.95, "n": 1}.get(name, 0)
            if value != only:
                invalid(f"invalid {name}: only {only} is allowed for this model")
        elif not low <= value <= high:
            invalid(f"Invalid request: '{name}' must be between {low} and {high}")
    return sampling


def _limit(fields: JsonObject, dialect: Dialect) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = as_integer(fields.get(name))
        if value is None:
            continue
        if value < 1:
            invalid(f"Invalid request: '{name}' must be at least 1")
        if dialect.max_tokens_limit and value > dialect.max_tokens_limit:
            invalid(f"Invalid request: '{name}' must be between 1 and {dialect.max_tokens_limit}")
        return value
    return None


def _stops(fields: JsonObject) -> tuple[str, ...]:
    value = fields.get("stop")
    stops = [value] if isinstance(value, str) else as_array(value) or []
    if len(stops) > MOST_STOPS:
        invalid(f"Invalid request: at most {MOST_STOPS} stop strings are allowed")
    found: list[str] = []
    for stop in stops:
        if not isinstance(stop, str):
            invalid("Invalid request: 'stop' must hold strings")
        if len(stop.encode()) > LONGEST_STOP:
            invalid(f"Invalid request: a stop string must not exceed {LONGEST_STOP} bytes")
        found.append(stop)
    return tuple(one for one in found if one)


def _tools(
    fields: JsonObject, dialect: Dialect, model: SimulatedModel, thinking: bool
) -> tuple[dict[str, JsonObject], str | None]:
    found: dict[str, JsonObject] = {}
    listed = as_array(fields.get("tools")) or []
    if len(listed) > MOST_TOOLS:
        invalid(f"Invalid request: at most {MOST_TOOLS} tools are allowed, got {len(listed)}")
    for place, entry in enumerate(listed):
        tool = as_object(entry) or {}
        function = as_object(tool.get("function"))
        name = as_text((function or {}).get("name"))
        if function is None or name is None:
            invalid(f"Invalid request: tools[{place}] must have a function with a name")
        kind = tool.get("type")
        if kind == "builtin_function" and dialect.moonshot and name.startswith("$"):
            if thinking:
                invalid(f"Invalid request: {name} is incompatible with thinking enabled")
            found[name] = {}
            continue
        if kind != "function":
            invalid(f"Invalid request: tools[{place}].type must be function")
        if not TOOL_NAME.fullmatch(name):  # MoonshotAI/kimi-cli#1773
            invalid(
                "function name is invalid, must start with a letter and can contain letters, numbers, "
                "underscores, and dashes"
            )
        if name in found:
            invalid(f"Invalid request: function name {name} is duplicated")
        found[name] = _parameters(function, dialect)
    return found, _tool_choice(fields, dialect, model, thinking, found)


def _parameters(function: JsonObject, dialect: Dialect) -> JsonObject:
    if function.get("parameters") is None:
        return {}
    schema = as_object(function["parameters"])
    if schema is None:
        invalid("Invalid request: tools.function.parameters must be an object")
    if dialect.moonshot:
        fault = schema_fault(schema)
        if fault:  # MoonshotAI/kimi-code#2661
            invalid(
                "Invalid request: tools.function.parameters is not a valid moonshot flavored json schema, "
                f"details: <{fault}>"
            )
        if not {"anyOf", "$ref"} & set(schema) and schema.get("type") != "object":
            invalid('Invalid request: tools.function.parameters.type is required and must be "object"')
    return schema


def _tool_choice(
    fields: JsonObject, dialect: Dialect, model: SimulatedModel, thinking: bool, tools: Mapping[str, JsonObject]
) -> str | None:
    choice = fields.get("tool_choice")
    if choice is None or choice in ("auto", "none"):
        return None
    named = as_text((as_object((as_object(choice) or {}).get("function")) or {}).get("name"))
    if choice != "required" and named is None:
        invalid("Invalid request: tool_choice must be auto, none, required or name a function")
    if dialect.moonshot and thinking and not (choice == "required" and model.forced_tools):
        word = "required" if choice == "required" else "specified"
        invalid(f"tool_choice '{word}' is incompatible with thinking enabled")
    if not tools or (named is not None and named not in tools):
        invalid("Invalid request: tool_choice names a tool that is not in tools")
    return named or next(iter(tools))


def _response_format(fields: JsonObject, dialect: Dialect) -> tuple[JsonObject | None, bool]:
    wanted = as_object(fields.get("response_format"))
    if wanted is None or wanted.get("type") == "text":
        return None, False
    if wanted.get("type") == "json_object":
        return None, True
    if wanted.get("type") != "json_schema":
        invalid("Invalid request: response_format.type must be text, json_object or json_schema")
    named = as_object(wanted.get("json_schema")) or {}
    schema = as_object(named.get("schema"))
    if schema is None or not as_text(named.get("name")):
        invalid("Invalid request: response_format.json_schema must have a name and a schema")
    fault = schema_fault(schema) if dialect.moonshot else None
    if fault:
        invalid(
            "Invalid request: response_format.json_schema.schema is not a valid moonshot flavored json schema, "
            f"details: <{fault}>"
        )
    return schema, True
