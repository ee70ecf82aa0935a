"""Owns what makes a provider refuse a request, and how it understands one that it takes. Pure, no I/O.

Sources: MoonshotAI/Kimi-Vendor-Verifier verify_params.py (fixed values), MoonshotAI/kimi-help-center error-codes
(statuses and types), the issues named beside the messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from kimi_mcp.simulator import tokens
from kimi_mcp.simulator.cache import read_ttl
from kimi_mcp.simulator.dialects import Dialect, Served, SimulatedModel, Switch
from kimi_mcp.simulator.faults import CHAT_PATH, RequestSummary
from kimi_mcp.simulator.messages import MediaLookup, Messages, read_messages, summarize
from kimi_mcp.simulator.refusals import Refused, invalid
from kimi_mcp.simulator.schemas import TOOL_NAME, schema_fault
from kimi_mcp.simulator.shapes import JsonObject, as_array, as_integer, as_number, as_object, as_text, type_name

MAX_TOOLS = 128
MAX_STOPS, MAX_STOP_BYTES = 5, 32
"""At most 5 stop strings of 32 bytes each (Moonshot chat API)."""

_TYPES: Mapping[str, tuple[str, ...]] = {
    name: types
    for types, names in (
        (("string",), ("model", "user", "reasoning_effort", "prompt_cache_key", "safety_identifier")),
        (("integer",), ("n", "max_tokens", "max_completion_tokens", "seed", "top_logprobs")),
        (("number", "integer"), ("temperature", "top_p", "presence_penalty", "frequency_penalty")),
        (("boolean",), ("stream", "parallel_tool_calls", "logprobs", "enable_thinking")),
        (("array",), ("messages", "tools")),
        (("object",), ("stream_options", "response_format", "logit_bias", "metadata")),
        (("object",), ("thinking", "chat_template_kwargs", "reasoning", "prompt_cache_options")),
        (("string", "array"), ("stop",)),
        (("string", "object"), ("tool_choice",)),
    )
    for name in names
}
"""JSON types of the fields that are checked; all but the required ones may be null."""

_REQUIRED = ("model", "messages")
_OPTIONAL_FIELDS = frozenset(
    {"thinking", "chat_template_kwargs", "reasoning", "enable_thinking"}
    | {"reasoning_effort", "prompt_cache_key", "prompt_cache_options", "safety_identifier"}
)
"""Checked fields that only some dialects take."""

_EFFORT_FIELDS = {"chat_template_kwargs": "thinking_effort", "reasoning": "effort", "thinking": "effort"}
"""Where switches have the level, which outranks `reasoning_effort` (Kimi Vendor Verifier; openrouter.ai/docs)."""

_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "n": (1, 16),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
"""Sampling values, and what engines take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A request as the provider understood it."""

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
    """Its messages."""
    texts: RequestSummary
    """Their texts."""
    tools: Mapping[str, JsonObject]
    """Parameter schemas by the tool's name."""
    forced_tool: str | None
    """The tool that must be called: a name, or the first one under `required`."""
    may_call: bool
    """Whether it may call tools."""
    schema: JsonObject | None
    """Of a json_schema response format."""
    json_answer: bool
    """Whether the answer must be JSON."""
    stops: tuple[str, ...]
    prompt_tokens: int
    ignored: tuple[str, ...]
    """Top-level fields that were taken without any effect."""
    cache_ttl: str
    """How long the prompt stays in the cache."""


def read_chat(body: object, dialect: Dialect, day: date, media: MediaLookup) -> Chat:
    """Check a request body; raises Refused with the documented status, type and message."""
    fields = as_object(body)
    if fields is None:
        invalid("Invalid request: the body must be a JSON object")
    ignored = _check_fields(fields, dialect)
    served = served_model(str(fields["model"]), dialect, day)
    model = served.model
    thinking, effort = _thinking(fields, dialect, model, ignored)
    sampling = _sampling(fields, dialect, thinking)
    tools = _tools(fields, dialect, model, thinking)
    forced = _tool_choice(fields, dialect, model, thinking, tools, ignored)
    schema, json_answer = _response_format(fields, dialect)
    received = read_messages(as_array(fields.get("messages")) or [], dialect, model, thinking=thinking, media=media)
    if received.begun and as_text((as_object(fields.get("response_format")) or {}).get("type")) not in (None, "text"):
        # The guide to partial mode warns of mixing the two (platform.kimi.ai, use-partial-mode-feature-of-kimi-api);
        # third parties report a refusal.
        invalid("Invalid request: partial is incompatible with response_format")
    requested = _limit(fields, dialect)
    prompt_tokens = received.tokens + (tokens.count(str(fields["tools"])) if fields.get("tools") else 0)
    needed = prompt_tokens + (requested or 0)
    if needed > model.context:  # words: MoonshotAI/kimi-cli#2011
        invalid(f"Invalid request: Your request exceeded model token limit: {model.context} (requested: {needed})")
    options = as_object(fields.get("stream_options")) or {}
    return Chat(
        answering=served,
        thinking=thinking,
        effort=effort,
        stream=fields.get("stream") is True,
        include_usage=options.get("include_usage") is True,
        limit=max(1, min(requested or model.default_max_tokens, model.context - prompt_tokens)),
        requested_limit=requested,
        sampling=sampling,
        received=received,
        texts=summarize(CHAT_PATH, fields),
        tools=tools,
        forced_tool=forced,
        may_call=bool(tools) and fields.get("tool_choice") != "none",
        schema=schema,
        json_answer=json_answer,
        stops=_stops(fields),
        prompt_tokens=prompt_tokens,
        ignored=tuple(ignored),
        cache_ttl=read_ttl(fields, model),
    )


def _check_fields(fields: JsonObject, dialect: Dialect) -> list[str]:
    """Check their names and types; those that the provider takes without effect."""
    known = (_TYPES.keys() - _OPTIONAL_FIELDS) | dialect.extra_fields | set(dialect.switches)
    unknown = [name for name in fields if name not in known]
    if unknown and not dialect.moonshot:
        invalid(f"Invalid request: unknown field '{unknown[0]}'")
    for name, value in fields.items():
        if name in unknown:
            continue
        wanted = _TYPES.get(name)
        if wanted and type_name(value) not in wanted and (value is not None or name in _REQUIRED):
            invalid(f"Invalid request: '{name}' must be {wanted[0]}, not {type_name(value)}")
    for name in _REQUIRED:
        if name not in fields:
            invalid(f"Invalid request: '{name}' is required")
    if "stream_options" in fields and fields.get("stream") is not True and fields["stream_options"] is not None:
        invalid("Invalid request: 'stream_options' is only allowed when 'stream' is true")
    return unknown  # "silently ignores unknown top-level fields" (docs.rs synaps-engine 0.11.0, verified live)


def served_model(model_id: str, dialect: Dialect, day: date) -> Served:
    """The row of the model that answers for an id on that day; raises Refused."""
    message = f"The model `{model_id}` does not exist."
    if dialect.moonshot:  # langgenius/dify#39778
        message = f"Not found the model {model_id} or Permission denied"
    not_found = Refused(404, "resource_not_found_error", message)
    served = dialect.find(model_id)
    if served is None:
        raise not_found
    if served.redirected_to and served.redirected_since and day >= served.redirected_since and served.live(day):
        served = dialect.find(served.redirected_to) or served
    if served.live(day):
        return served
    if dialect.retired_status == 410 and served.until and day > served.until:  # NVIDIA/NemoClaw#11902
        raise Refused(410, "gone", f"The model '{model_id}' has reached its end of life and is no longer available")
    raise not_found


def _thinking(
    fields: JsonObject, dialect: Dialect, model: SimulatedModel, ignored: list[str]
) -> tuple[bool, str | None]:
    """Whether it thinks, and at which level."""
    effort = as_text(fields.get("reasoning_effort"))
    for name, key in _EFFORT_FIELDS.items():
        if name in dialect.switches and (own := (as_object(fields.get(name)) or {}).get(key)) is not None:
            if not isinstance(own, str):
                invalid(f"Invalid request: '{name}.{key}' must be string")
            effort = own if model.efforts else effort  # a template of a model without levels reads none
    if effort is not None and effort not in model.efforts:
        if not dialect.moonshot:
            words = f"only {', '.join(model.efforts)} are allowed for" if model.efforts else "not supported by"
            invalid(f"invalid reasoning_effort: {words} this model")
        if not model.efforts and fields.get("thinking") is not None:  # HKUDS/nanobot#3939
            invalid("cannot specify both 'thinking' and 'reasoning_effort'")
        ignored.append("reasoning_effort")  # as the unknown fields are
        effort = None
    level = (effort or "max") if model.efforts else None
    switches = [_switch(name, fields, model) for name in dialect.switches if fields.get(name) is not None]
    return model.always_thinks or False not in switches, level


def _switch(name: Switch, fields: JsonObject, model: SimulatedModel) -> bool:
    """Whether a switch turns thinking on."""
    if name == "thinking":
        return _thinking_object(fields, model)
    if name == "enable_thinking":
        return fields[name] is not False
    key = "thinking" if name == "chat_template_kwargs" else "enabled"
    value = (as_object(fields[name]) or {}).get(key)
    if value is not None and not isinstance(value, bool):
        invalid(f"Invalid request: '{name}.{key}' must be boolean")
    return value is not False


def _thinking_object(fields: JsonObject, model: SimulatedModel) -> bool:
    # K3 takes one by Kimi-Vendor-Verifier tests/k3_features; its guide says to leave it out (modelparams.dev#168).
    thinking = as_object(fields["thinking"]) or {}
    for name in thinking:
        if name not in ("type", "keep") and not (name == "effort" and model.efforts):
            invalid(f"invalid thinking: unknown field '{name}'")
    kind = thinking.get("type", "enabled" if model.efforts else None)
    if model.always_thinks and kind != "enabled":
        invalid("invalid thinking: only type=enabled is allowed for this model")
    if kind not in ("enabled", "disabled"):
        invalid("invalid thinking: type must be enabled or disabled")
    if "keep" in thinking and not (model.keeps or (model.always_thinks and thinking["keep"] == "all")):
        invalid("invalid thinking: keep is not supported by this model")
    if thinking.get("keep") not in (None, "all"):
        invalid('invalid thinking: keep must be null or "all"')
    if thinking.get("effort") not in (None, *model.efforts):
        invalid(f"invalid thinking: effort must be one of {', '.join(model.efforts)}")
    return kind == "enabled"


def _sampling(fields: JsonObject, dialect: Dialect, thinking: bool) -> dict[str, float | int]:
    sampling = {name: value for name in _RANGES if (value := as_number(fields.get(name))) is not None}
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
    if len(stops) > MAX_STOPS:
        invalid(f"Invalid request: at most {MAX_STOPS} stop strings are allowed")
    found: list[str] = []
    for stop in stops:
        if not isinstance(stop, str):
            invalid("Invalid request: 'stop' must hold strings")
        if len(stop.encode()) > MAX_STOP_BYTES:
            invalid(f"Invalid request: a stop string must not exceed {MAX_STOP_BYTES} bytes")
        found.append(stop)
    return tuple(one for one in found if one)


def _tools(fields: JsonObject, dialect: Dialect, model: SimulatedModel, thinking: bool) -> dict[str, JsonObject]:
    """The parameters of each tool that the model may call, by its name: those of its system messages first."""
    listed = [*_declared(fields, model), *enumerate(as_array(fields.get("tools")) or [])]
    if len(listed) > MAX_TOOLS:
        invalid(f"Invalid request: at most {MAX_TOOLS} tools are allowed, got {len(listed)}")
    found: dict[str, JsonObject] = {}
    for index, entry in listed:
        tool = as_object(entry) or {}
        function = as_object(tool.get("function"))
        name = as_text((function or {}).get("name"))
        if function is None or name is None:
            invalid(f"Invalid request: tools[{index}] must have a function with a name")
        kind = tool.get("type")
        if kind == "builtin_function" and dialect.moonshot and name.startswith("$"):
            if thinking:
                invalid(f"Invalid request: {name} is incompatible with thinking enabled")
            found[name] = {}
            continue
        if kind != "function":
            invalid(f"Invalid request: tools[{index}].type must be function")
        if not TOOL_NAME.fullmatch(name):  # MoonshotAI/kimi-cli#1773
            invalid(
                "function name is invalid, must start with a letter and can contain letters, numbers, "
                "underscores, and dashes"
            )
        if name in found:
            invalid(f"Invalid request: function name {name} is duplicated")
        _check_strict(function, f"tools[{index}].function")
        found[name] = _parameters(function, dialect)
    return found


def _declared(fields: JsonObject, model: SimulatedModel) -> Iterator[tuple[int, object]]:
    """What system messages declare, for models that load tools in the middle of a conversation."""
    for index, entry in enumerate(as_array(fields.get("messages")) or [] if model.loads_tools else []):
        message = as_object(entry) or {}
        if message.get("role") == "system" and message.get("tools") is not None:
            tools = as_array(message["tools"])
            if tools is None:
                invalid(f"Invalid request: tools of the message at position {index} must be an array")
            yield from enumerate(tools)


def _check_strict(holder: JsonObject, where: str) -> None:
    if not isinstance(holder.get("strict", True), bool):
        invalid(f"Invalid request: {where}.strict must be boolean")


def _parameters(function: JsonObject, dialect: Dialect) -> JsonObject:
    if function.get("parameters") is None:
        return {}
    schema = as_object(function["parameters"])
    if schema is None:
        invalid("Invalid request: tools.function.parameters must be an object")
    if dialect.moonshot_schemas:
        fault = schema_fault(schema)
        if fault:  # MoonshotAI/kimi-code#2661
            invalid(
                "Invalid request: tools.function.parameters is not a valid moonshot flavored json schema, "
                f"details: <{fault}>"
            )
        # Whether anyOf alone is taken there, sources disagree: MoonshotAI/kimi-code#2661, Hmbown/Codewhale#4613.
        if not {"anyOf", "$ref"} & set(schema) and schema.get("type") != "object":
            invalid('Invalid request: tools.function.parameters.type is required and must be "object"')
    return schema


def _tool_choice(
    fields: JsonObject,
    dialect: Dialect,
    model: SimulatedModel,
    thinking: bool,
    tools: Mapping[str, JsonObject],
    ignored: list[str],
) -> str | None:
    choice = fields.get("tool_choice")
    if choice is None or choice in ("auto", "none"):
        return None
    named = as_text((as_object((as_object(choice) or {}).get("function")) or {}).get("name"))
    if choice != "required" and named is None:
        invalid("Invalid request: tool_choice must be auto, none, required or name a function")
    if dialect.moonshot and model.forced_tools and choice != "required":
        ignored.append("tool_choice")  # Kimi-Vendor-Verifier tests/k3_features/test_tool_choice.py
        return None
    if dialect.moonshot and thinking and not model.forced_tools:
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
    _check_strict(named, "response_format.json_schema")
    fault = schema_fault(schema) if dialect.moonshot_schemas else None
    if fault:
        invalid(
            "Invalid request: response_format.json_schema is not a valid moonshot flavored json schema, "
            f"details: <{fault}>"  # murtaza-nasir/maestro#34
        )
    return schema, True
