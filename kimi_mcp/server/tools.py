"""The tools: for each name its arguments, what it asks of the pipeline, and what hosts are told of it. Pure, no I/O.

The request models are the one source of the schemas: what they don't name is refused with the names that exist, an
explicit null counts as absent. A tool is one row of ``TOOLS`` and one entry of ``skill.md``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kimi_mcp.core import response_schema as structure
from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.types import Mode
from kimi_mcp.skill.document import Skill, SkillError, SkillTool

if TYPE_CHECKING:
    from kimi_mcp.pipeline.call import Call
    from kimi_mcp.swarm import SwarmCall

LONGEST_WAIT_S = 600.0
"""The longest that one ``kimi_run`` waits, in seconds."""


SOURCE_FORMS = "path, https URL, data URI or ms:// id"
"""How a picture or a clip can be named."""

FileReference = Annotated[str, Field(min_length=1, pattern=r"\S")]
"""The name of a file, a picture or a clip."""


class Arguments(BaseModel):
    """What a tool takes: nothing is coerced, nothing unknown is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ChatArguments(Arguments):
    """What every tool that asks a model takes."""

    prompt: Annotated[str, Field(min_length=1, pattern=r"\S", description="What to ask; sent verbatim.")]
    system: Annotated[str | None, Field(description="None by default.")] = None
    response_schema: Annotated[dict[str, Any] | None, Field(description="JSON schema of the answer; see `parsed`.")] = (
        None
    )
    max_tokens: Annotated[int | None, Field(ge=1, description="Reasoning plus answer, in tokens.")] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, description="Leave out: the mode fixes it.")] = None
    model: Annotated[str | None, Field(min_length=1, description="Such as kimi-k2.5; the best by default.")] = None
    provider: Annotated[str | None, Field(min_length=1, description="One that the operator allows.")] = None
    conversation_id: Annotated[
        str | None, Field(min_length=1, description="Go on with it: an earlier result's, or a run_id to branch off.")
    ] = None

    def call(self, mode: Mode) -> Call:
        """What the pipeline is asked, in the tool's mode; raises ``InvalidArguments`` for a schema that is none."""
        from kimi_mcp.pipeline.call import Call

        if self.response_schema is not None:
            structure.check_schema(self.response_schema)
        return Call(
            mode=mode,
            prompt=self.prompt,
            system=self.system,
            response_schema=self.response_schema,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            model=self.model,
            provider=self.provider,
            conversation_id=self.conversation_id,
        )


class TextArguments(ChatArguments):
    """Arguments of ``kimi_think`` and ``kimi_instant``."""

    files: Annotated[
        list[FileReference] | None,
        Field(min_length=1, description="Text files to send along, as paths or globs."),
    ] = None

    def call(self, mode: Mode) -> Call:
        """What the pipeline is asked."""
        return replace(super().call(mode), files=tuple(self.files or ()))


class VisionArguments(ChatArguments):
    """Arguments of ``kimi_vision``."""

    images: Annotated[
        list[FileReference], Field(min_length=1, description=f"Pictures, in order: each a {SOURCE_FORMS}.")
    ]
    mode: Annotated[Mode | None, Field(description="thinking by default.")] = None

    def call(self, mode: Mode) -> Call:
        """What the pipeline is asked."""
        return replace(super().call(self.mode or mode), images=tuple(self.images))


class VideoArguments(ChatArguments):
    """Arguments of ``kimi_video``."""

    video: Annotated[FileReference, Field(description=f"The clip: a {SOURCE_FORMS}.")]
    mode: Annotated[Mode | None, Field(description="thinking by default.")] = None

    def call(self, mode: Mode) -> Call:
        """What the pipeline is asked."""
        return replace(super().call(self.mode or mode), video=self.video)


class SwarmArguments(Arguments):
    """Arguments of ``kimi_swarm``."""

    prompt: Annotated[
        str, Field(min_length=1, pattern=r"\S", description="The task; {{item}} stands for each of `items`.")
    ]
    items: Annotated[
        list[FileReference] | None, Field(description="2 to 128 inputs: one sub-agent each, then one synthesis.")
    ] = None
    max_agents: Annotated[int | None, Field(ge=1, le=100, description="Sub-agents.")] = None
    max_steps: Annotated[int | None, Field(ge=1, description="Of the main agent; 15 at most.")] = None
    max_agent_steps: Annotated[int | None, Field(ge=1, description="Of a sub-agent; 100 at most.")] = None
    max_cost_usd: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="Can only lower the operator's limit."),
    ] = None
    tools: Annotated[
        list[FileReference] | None,
        Field(description="Patterns of the tools that sub-agents get; read-only ones by default."),
    ] = None
    model: Annotated[str | None, Field(min_length=1, description="Such as kimi-k2.5; the best by default.")] = None
    provider: Annotated[str | None, Field(min_length=1, description="One that the operator allows.")] = None

    def call(self) -> SwarmCall:
        """What the swarm is asked; raises ``InvalidArguments`` for items that are of no use."""
        from kimi_mcp.swarm.call import SwarmCall, check_items

        said = self.model_dump(exclude={"items", "tools"})
        tools = None if self.tools is None else tuple(self.tools)
        return check_items(SwarmCall(**said, items=tuple(self.items or ()), tools=tools))


class RunArguments(Arguments):
    """Arguments of ``kimi_run``."""

    run_id: Annotated[str | None, Field(description="Leave out to list your latest runs.")] = None
    action: Annotated[
        Literal["wait", "status", "answer", "reasoning", "cancel"],
        Field(description="wait for the end (default), status, a page of the answer or of the reasoning, or cancel."),
    ] = "wait"
    wait_s: Annotated[float | None, Field(ge=0, le=LONGEST_WAIT_S, description="How long to wait, in seconds.")] = None
    offset: Annotated[int, Field(ge=0, description="Where a page begins, in characters.")] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool."""

    name: str
    """Its name for hosts."""
    arguments: type[Arguments]
    """The model of its arguments."""
    mode: Mode | None
    """The mode it asks in; None: it asks nothing upstream."""
    open_world: bool
    """Whether it reaches beyond this server."""


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(name="kimi_think", arguments=TextArguments, mode="thinking", open_world=True),
        Tool(name="kimi_instant", arguments=TextArguments, mode="instant", open_world=True),
        Tool(name="kimi_vision", arguments=VisionArguments, mode="thinking", open_world=True),
        Tool(name="kimi_video", arguments=VideoArguments, mode="thinking", open_world=True),
        Tool(name="kimi_swarm", arguments=SwarmArguments, mode="thinking", open_world=True),
        Tool(name="kimi_run", arguments=RunArguments, mode=None, open_world=False),
    )
}
"""Every tool that is built."""


def listed_tools(skill: Skill) -> tuple[tuple[Tool, SkillTool], ...]:
    """The skill's tools with what they do; ``SkillError`` where the skill and the code don't know the same ones."""
    told = {tool.name for tool in skill.tools}
    if unbuilt := sorted(told - TOOLS.keys()):
        raise SkillError(
            f"skill.md lists tools that nobody built: {', '.join(unbuilt)}. Add them to TOOLS, or take them out."
        )
    if untold := sorted(TOOLS.keys() - told):
        raise SkillError(f"skill.md does not list the tools {', '.join(untold)}. Add an entry for each.")
    return tuple((TOOLS[tool.name], tool) for tool in skill.tools)


def parse_arguments(tool: Tool, arguments: Mapping[str, Any] | None) -> Arguments:
    """A tool's arguments, validated. Raises ``InvalidArguments`` that names the argument and what is allowed."""
    said = {name: _whole(tool, name, value) for name, value in (arguments or {}).items() if value is not None}
    for name, value in said.items():
        if (
            isinstance(value, str | list)
            and name in tool.arguments.model_fields
            and not structure.can_be_written(value)
        ):
            raise InvalidArguments(f"`{name}` holds half a surrogate pair.", fix=f"Make `{name}` text that is UTF-8.")
    try:
        return tool.arguments.model_validate(said)
    except ValidationError as fault:
        faults = cast(list[dict[str, Any]], fault.errors(include_url=False, include_input=False))
        misspelt = [row for row in faults if row["type"] == "extra_forbidden"]
        raise _invalid(tool, (misspelt or faults)[0]) from None


def _whole(tool: Tool, name: str, value: Any) -> Any:
    """16000.0 is a whole number too, as JSON schema has it; everything else stays as it is."""
    field = tool.arguments.model_fields.get(name)
    wants_whole = field is not None and cast(Any, field.annotation) in (int, int | None)
    return int(value) if wants_whole and isinstance(value, float) and value.is_integer() else value


def _invalid(tool: Tool, fault: dict[str, Any]) -> InvalidArguments:
    names = ", ".join(tool.arguments.model_fields)
    place = ".".join(str(step) for step in fault["loc"])[:80]
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place, tool.arguments.model_fields, n=1)
        meant = f" You may mean `{near[0]}`." if near else ""
        return InvalidArguments(
            f"{tool.name} has no argument `{_plain(place)}`.{meant}", fix=f"Use its arguments: {names}."
        )
    if fault["type"] == "missing":
        return InvalidArguments(f"{tool.name} needs `{place}`.", fix=f"Give `{place}`. Its arguments: {names}.")
    field, place = tool.arguments.model_fields.get(place.partition(".")[0]), _plain(place) or "arguments"
    otherwise = "." if field is not None and field.is_required() else ", or leave it out."
    if fault["type"] in ("string_too_short", "string_pattern_mismatch", "too_short"):
        return InvalidArguments(f"`{place}` is empty.", fix=f"Put something into `{place}`{otherwise}")
    allowed = _ALLOWED.get(fault["type"], "of another kind").format(**fault.get("ctx", {}))
    return InvalidArguments(f"`{place}` must be {allowed}.", fix=f"Make `{place}` {allowed}{otherwise}")


_ALLOWED: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "an object",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "finite_number": "a finite number",
}
"""What is allowed, by the kind of fault that the validation names."""


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def input_schema(arguments: type[Arguments]) -> dict[str, Any]:
    """The arguments' JSON schema, in words that every host's and Moonshot's own dialect take: each property typed."""
    schema = arguments.model_json_schema()
    properties = {name: _flat(row) for name, row in schema["properties"].items()}
    return {
        "type": "object",
        "properties": properties,
        "required": schema.get("required", []),
        "additionalProperties": False,
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A property without its title, and without the null that stands for absent."""
    branches = [branch for branch in row.pop("anyOf", ()) if branch != {"type": "null"}]
    for branch in branches:
        row |= branch
    row = {key: value for key, value in row.items() if key not in ("title", "pattern")}
    if row.get("default", ...) is None:
        del row["default"]
    if row.get("type") == "object":
        row.pop("additionalProperties", None)
    if row.get("type") == "array":
        row["items"] = _flat(dict(row["items"]))
    return row


OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["completed", "running", "partial", "failed", "cancelled"]},
        **{name: {} for name in ("run_id", "conversation_id")},
        "answer": {"type": "string"},
        **{name: {} for name in ("parsed", "reasoning")},
        "model": {"type": "object"},
        **{name: {} for name in ("provider", "mode", "finish_reason")},
        "usage": {"type": "object"},
        "policy": {"type": "array"},
        "timing": {"type": "object"},
        **{name: {} for name in ("error", "swarm", "page")},
    },
}
"""The fields of a result; it requires none, since some hosts hold even an error against it."""
