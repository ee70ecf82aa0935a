"""The tools: for each name its arguments, the call that they make, and how hosts see it. Pure, no I/O.

The request models are the one source of the schemas: an argument that they don't have is refused with the names that
exist; an explicit null, or an empty optional one, counts as absent. A tool is one row of ``TOOLS`` and one entry of
``skill.md``.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.json_schema import can_be_written, check_schema
from kimi_mcp.core.redaction import clean
from kimi_mcp.core.types import Effort, Mode
from kimi_mcp.skill.document import Skill, SkillError, SkillTool

if TYPE_CHECKING:
    from kimi_mcp.pipeline.call import Call
    from kimi_mcp.swarm import SwarmCall

MAX_WAIT_S = 600.0
"""Seconds that one ``kimi_run`` waits at most."""

MAX_JSON_CHARS = 256 * 1024
"""Characters of an object or a list that arrives as JSON text, whose values no transport has counted."""

_HASH_CHARS = 65_536
"""Characters that are hashed at once."""

SOURCE_FORMS = "path, https URL, data URI or ms:// id"
"""How a picture or a clip can be named."""


def _whole(value: Any) -> Any:
    """16000.0 is a whole number in JSON schema too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


NonBlank = Annotated[str, Field(min_length=1, pattern=r"\S")]
ModelId = Annotated[str | None, Field(min_length=1, description="Such as kimi-k2.5; best by default.")]
ProviderId = Annotated[str | None, Field(min_length=1, description="One the operator allows.")]
EffortName = Annotated[Effort | None, Field(description="How much to think.")]
WHOLE = BeforeValidator(_whole)


class Arguments(BaseModel):
    """Arguments of a tool: nothing is coerced, nothing unknown is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def _values(self) -> dict[str, Any]:
        """The arguments that were given, with tuples for lists."""
        given = {name: value for name, value in self if value is not None}
        return {name: tuple(cast(list[Any], each)) if isinstance(each, list) else each for name, each in given.items()}


class PromptArguments(Arguments):
    """Arguments of every tool that calls a model once: a tool of these needs no handler of its own."""

    prompt: Annotated[NonBlank, Field(description="What to ask; sent verbatim.")]

    def call(self, mode: Mode) -> Call:
        """The call for the pipeline; ``mode`` is the tool's."""
        from kimi_mcp.pipeline.call import Call

        values: dict[str, Any] = {"mode": mode, **self._values()}
        return Call(**values)


class ChatArguments(PromptArguments):
    """Arguments of the tools that answer a question."""

    system: Annotated[str | None, Field(description="None by default.")] = None
    response_schema: Annotated[dict[str, Any] | None, Field(description="JSON schema of the answer; see `parsed`.")] = (
        None
    )
    max_tokens: Annotated[int | None, Field(ge=1, description="Tokens, reasoning included."), WHOLE] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, description="Leave out: it is fixed.")] = None
    model: ModelId = None
    provider: ProviderId = None
    conversation_id: Annotated[
        str | None, Field(min_length=1, description="An earlier result's, or a run_id to branch off.")
    ] = None

    def call(self, mode: Mode) -> Call:
        """The call, as above; raises ``InvalidArguments`` for a schema that is none."""
        if self.response_schema is not None:
            check_schema(self.response_schema)
        return super().call(mode)


class TextArguments(ChatArguments):
    """Arguments of ``kimi_instant``."""

    web: Annotated[bool | None, Field(description="Search the web.")] = None

    files: Annotated[
        list[NonBlank] | None, Field(min_length=1, description="Text, pdf, docx, pptx, xlsx, epub: paths or globs.")
    ] = None


class ThinkArguments(TextArguments):
    """Arguments of ``kimi_think``."""

    effort: EffortName = None


class VisionArguments(ChatArguments):
    """Arguments of ``kimi_vision``."""

    images: Annotated[
        list[NonBlank],
        Field(min_length=1, description=f"Pictures, in order: each a {SOURCE_FORMS}; or `a.pdf#page=2-4`."),
    ]
    mode: Annotated[Mode | None, Field(description="thinking by default.")] = None
    effort: EffortName = None


class VideoArguments(ChatArguments):
    """Arguments of ``kimi_video``."""

    video: Annotated[NonBlank, Field(description=f"The clip: a {SOURCE_FORMS}.")]
    mode: Annotated[Mode | None, Field(description="thinking by default.")] = None
    effort: EffortName = None


class SwarmArguments(Arguments):
    """Arguments of ``kimi_swarm``."""

    prompt: Annotated[NonBlank, Field(description="The task; {{item}} is replaced by each of `items`.")]
    items: Annotated[
        list[NonBlank] | None, Field(description="2 to 128 inputs, files or globs: a sub-agent each, then a synthesis.")
    ] = None
    max_agents: Annotated[int | None, Field(ge=1, le=100, description="Sub-agents."), WHOLE] = None
    max_steps: Annotated[int | None, Field(ge=1, description="Of the main agent; 15 at most."), WHOLE] = None
    max_agent_steps: Annotated[int | None, Field(ge=1, description="Of a sub-agent; 100 at most."), WHOLE] = None
    max_cost_usd: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="Can only lower the operator's limit.")
    ] = None
    effort: EffortName = None
    tools: Annotated[
        list[NonBlank] | None,
        Field(description='Patterns of the tools that sub-agents get; read-only ones by default, ["none"] for none.'),
    ] = None
    model: ModelId = None
    provider: ProviderId = None

    def call(self) -> SwarmCall:
        """The call for the swarm."""
        from kimi_mcp.swarm.call import SwarmCall

        values = self._values()
        if values.get("tools") == ("none",):
            values["tools"] = ()  # an empty list stands for absent, as of clients that fill in every field
        return SwarmCall(**values)


class RunArguments(Arguments):
    """Arguments of ``kimi_run``."""

    run_id: Annotated[str | None, Field(description="Leave out to list your latest runs.")] = None
    action: Annotated[
        Literal["wait", "status", "answer", "reasoning", "continue", "cancel"],
        Field(
            description="wait for the end (default), status, a page of the answer or of the reasoning, continue a cut "
            "answer, or cancel."
        ),
    ] = "wait"
    wait_s: Annotated[float | None, Field(ge=0, le=MAX_WAIT_S, description="How long to wait, in seconds.")] = None
    offset: Annotated[int, Field(ge=0, description="Where a page begins, in characters."), WHOLE] = 0


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool."""

    name: str
    arguments: type[Arguments]
    mode: Mode | None
    """The mode of its calls; None: it calls no model."""
    read_only: bool = True
    """Whether it changes nothing that the caller knows of, which hosts run without asking."""
    becomes_task: Literal["never", "late", "at once"] = "never"
    """When its call goes on as a task, for a client that takes tasks: once it takes long, or as soon as it is begun."""


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("kimi_think", ThinkArguments, "thinking", becomes_task="late"),
        Tool("kimi_instant", TextArguments, "instant"),
        Tool("kimi_vision", VisionArguments, "thinking", becomes_task="late"),
        Tool("kimi_video", VideoArguments, "thinking", becomes_task="late"),
        Tool("kimi_swarm", SwarmArguments, "thinking", becomes_task="at once"),
        Tool("kimi_run", RunArguments, None, read_only=False),
    )
}
"""Every tool, by its name."""


def listed_tools(skill: Skill) -> tuple[tuple[Tool, SkillTool], ...]:
    """The skill's tools with their rows; ``SkillError`` where the skill and ``TOOLS`` differ."""
    names = {tool.name for tool in skill.tools}
    if unbuilt := sorted(names - TOOLS.keys()):
        raise SkillError(
            f"skill.md lists tools that nobody built: {', '.join(unbuilt)}. Add them to TOOLS, or take them out."
        )
    if unlisted := sorted(TOOLS.keys() - names):
        raise SkillError(f"skill.md does not list the tools {', '.join(unlisted)}. Add an entry for each.")
    return tuple((TOOLS[tool.name], tool) for tool in skill.tools)


def parse_arguments(tool: Tool, arguments: Mapping[str, Any] | None, *, by_client: bool = True) -> Arguments:
    """A tool's arguments, validated. Raises ``InvalidArguments`` that names the argument and what is allowed.

    ``by_client``: whether a client may have filled in every field, and sent objects and lists as JSON text.
    """
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    if by_client:
        given = _given(tool.arguments, given)
    for name in tool.arguments.model_fields.keys() & given.keys():
        if isinstance(given[name], str | list) and not can_be_written(given[name]):
            raise InvalidArguments(f"`{name}` holds half a surrogate pair.", fix=f"Make `{name}` text that is UTF-8.")
    try:
        return tool.arguments.model_validate(given)
    except ValidationError as error:
        faults = cast(list[dict[str, Any]], error.errors(include_url=False, include_input=False))
        misspelt = [fault for fault in faults if fault["type"] == "extra_forbidden"]
        raise _invalid(tool, (misspelt or faults)[0]) from None


def call_key(tool: Tool, arguments: Arguments, stamps: Sequence[str] = ()) -> str:
    """Equal for equal calls. Hashes a long value piece by piece: a data URI may have many megabytes."""
    digest = sha256(tool.name.encode())
    for name, value in (*arguments, ("stamps", list(stamps))):
        for each in cast(list[Any], value) if isinstance(value, list) else () if value is None else (value,):
            text = each if isinstance(each, str) else json.dumps(each)
            digest.update(f" {name} {type(each).__name__} {len(text)} ".encode())
            for at in range(0, len(text), _HASH_CHARS):
                digest.update(text[at : at + _HASH_CHARS].encode())
    return digest.hexdigest()


def _given(model: type[Arguments], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without those that stand for absent, as clients send that fill in every field.

    An object or a list that arrives as JSON text is read.
    """
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        field = model.model_fields.get(name)
        if field is not None and isinstance(value, str) and (kind := _structured(model).get(name)) is not None:
            with suppress(ValueError, RecursionError):
                read: Any = json.loads(value) if len(value) <= MAX_JSON_CHARS else None
                value = read if type(read) is kind else value
        if field is None or field.is_required() or not _is_empty(field, value):
            given[name] = value
    return given


def _is_empty(field: FieldInfo, value: Any) -> bool:
    if isinstance(value, str | list | dict):
        return not value
    above_0 = any(getattr(bound, "ge", 0) > 0 or hasattr(bound, "gt") for bound in field.metadata)
    return above_0 and type(value) in (int, float) and value == 0


@cache
def _structured(model: type[Arguments]) -> Mapping[str, type[list[Any]] | type[dict[str, Any]]]:
    """The arguments that are lists or objects."""
    kinds = {"array": list, "object": dict}
    rows = input_schema(model)["properties"].items()
    return {name: kinds[row["type"]] for name, row in rows if row.get("type") in kinds}


def _invalid(tool: Tool, fault: dict[str, Any]) -> InvalidArguments:
    names = ", ".join(tool.arguments.model_fields)
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault["loc"])[1:80]
    field = tool.arguments.model_fields.get(re.split(r"[.[]", path)[0])
    shown = " ".join(clean(path, "terminal").split()) or "arguments"
    otherwise = "." if field is not None and field.is_required() else ", or leave it out."
    match fault["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(path, tool.arguments.model_fields, n=1)
            message = f"{tool.name} has no argument `{shown}`." + (f" You may mean `{near[0]}`." if near else "")
            return InvalidArguments(message, fix=f"Use its arguments: {names}.")
        case "missing":
            return InvalidArguments(f"{tool.name} needs `{path}`.", fix=f"Give `{path}`. Its arguments: {names}.")
        case "string_too_short" | "string_pattern_mismatch" | "too_short":
            return InvalidArguments(f"`{shown}` is empty.", fix=f"Put something into `{shown}`{otherwise}")
        case kind:
            allowed = _ALLOWED.get(kind, "of another kind").format(**fault.get("ctx", {}))
            return InvalidArguments(f"`{shown}` must be {allowed}.", fix=f"Make `{shown}` {allowed}{otherwise}")


_ALLOWED: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "an object",
    "bool_type": "true or false",
    "literal_error": "{expected}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:g} or less",
    "finite_number": "a finite number",
}
"""What is allowed, by pydantic's type of the error."""


@cache
def input_schema(arguments: type[Arguments]) -> dict[str, Any]:
    """The arguments' JSON schema, as every host and Moonshot's own dialect take it: each property typed."""
    schema = arguments.model_json_schema()
    return {
        "type": "object",
        "properties": {name: _flat(row) for name, row in schema["properties"].items()},
        "required": schema.get("required", []),
        "additionalProperties": False,
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A property without its title, and without the null that stands for absent, as an empty value does too."""
    for branch in row.pop("anyOf", ()):
        if branch != {"type": "null"}:
            row |= branch
    row = {key: value for key, value in row.items() if key not in ("title", "pattern")}
    if row.get("default", ...) is None:
        row = {key: value for key, value in row.items() if key not in ("default", "minLength", "minItems")}
    if row.get("type") == "array":
        row["items"] = _flat(dict(row["items"]))
    return row


OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        name: {}
        for name in (
            *("status", "run_id", "conversation_id", "answer", "parsed", "reasoning", "model", "provider", "mode"),
            *("finish_reason", "usage", "policy", "timing", "error", "swarm", "sources"),
            *("next_step", "page"),
        )
    },
}
"""The fields of a result, as short as can be: every tool repeats it. It requires none, since some hosts hold even an
error against it."""
