"""MCP prompts, each a call of one tool, and the completion of arguments. Reads ``prompts.toml``.

A prompt is data: its arguments, the call that they make, and what to do with the answer. A prompt is offered if the
skill lists its tool. Completion reads the catalogue and the store.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    PaginatedRequestParams,
    PromptArgument,
    PromptMessage,
    ResourceTemplateReference,
    TextContent,
)
from mcp_types import Prompt as ListedPrompt

from kimi_mcp.core.errors import InvalidArguments, KimiError
from kimi_mcp.core.redaction import clean
from kimi_mcp.server.callers import caller_of
from kimi_mcp.server.resources import RUN, RUN_REASONING
from kimi_mcp.server.state import ServerState
from kimi_mcp.skill.document import Skill, load_skill

MAX_RUN_IDS = 1_000
"""Run ids that completion offers at most, the newest."""

MAX_VALUES = 100
"""Values in one completion at most, as the protocol says."""

Values = Sequence[str] | Callable[[ServerState, str], Awaitable[Sequence[str]]]
"""Every value of an argument, the likeliest first, or what returns them for a caller."""

_PLACEHOLDER = re.compile(r"\{(\w+)(\[\])?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument of a prompt."""

    name: str
    description: str
    required: bool = False
    default: str | None = None
    completes: Sequence[str] | Literal["models"] = ()
    """The values that completion offers; ``models``: those of the catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One table of ``prompts.toml``."""

    name: str
    """Its name for hosts."""
    title: str
    """Its name for people."""
    description: str
    tool: str
    then: str
    """What the host's model does with the answer."""
    arguments: Sequence[Argument]
    call: Mapping[str, Any]
    """The tool's arguments, with placeholders for the prompt's."""

    def tool_arguments(self, arguments: Mapping[str, str] | None) -> dict[str, Any]:
        """The arguments of the tool's call. Raises ``InvalidArguments`` that names what is missing or unknown."""
        given = {name: value for name, value in (arguments or {}).items() if value.strip()}
        names = [argument.name for argument in self.arguments]
        if unknown := sorted(given.keys() - set(names)):
            raise InvalidArguments(
                f"The prompt {self.name} has no argument `{clean(unknown[0][:80], 'terminal')}`.",
                fix=f"Use these: {', '.join(names)}.",
            )
        if missing := [each.name for each in self.arguments if each.required and each.name not in given]:
            raise InvalidArguments(f"The prompt {self.name} needs `{missing[0]}`.", fix=f"Give `{missing[0]}`.")
        values = {each.name: given.get(each.name, each.default) for each in self.arguments}
        filled = {name: _fill(template, values) for name, template in self.call.items()}
        return {name: value for name, value in filled.items() if value is not None}

    def listed(self) -> ListedPrompt:
        """The prompt in the list of prompts."""
        arguments = [
            PromptArgument(name=each.name, description=each.description, required=each.required)
            for each in self.arguments
        ]
        return ListedPrompt(name=self.name, title=self.title, description=self.description, arguments=arguments)

    def text(self, arguments: Mapping[str, str] | None) -> str:
        """The message for the host's model. Raises ``InvalidArguments``."""
        call = json.dumps(self.tool_arguments(arguments), indent=2, ensure_ascii=False)
        return f"Call the tool {self.tool} once, with exactly these arguments:\n\n```json\n{call}\n```\n\n{self.then}"


@cache
def prompts(skill: Skill) -> Mapping[str, Prompt]:
    """The prompts whose tool the skill lists, by name; read once."""
    tables: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    made: dict[str, Prompt] = {}
    for name, table in tables.items():
        if table["tool"] in {tool.name for tool in skill.tools}:
            arguments = [Argument(name=each, **row) for each, row in table.pop("arguments").items()]
            made[name] = Prompt(name=name, arguments=arguments, **table)
    return made


def _fill(template: Any, values: Mapping[str, str | None]) -> Any:
    """A template with its placeholders filled; None where the value of one was left out."""
    if isinstance(template, list):
        filled = [_fill(each, values) for each in template]  # pyright: ignore[reportUnknownVariableType]
        return filled if None not in filled else None
    if (placeholder := _PLACEHOLDER.fullmatch(template)) is not None:
        value = values[placeholder[1]]
        if value is None or not placeholder[2]:
            return value
        return [item.strip() for item in re.split(r"[,，、;；\n]", value) if item.strip()] or None
    lines = [
        line
        for line in template.strip().split("\n")
        if all(values[name] is not None for name, _ in _PLACEHOLDER.findall(line))
    ]
    return _PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]] or "", "\n".join(lines))


async def _models(state: ServerState, caller: str) -> Sequence[str]:
    """The models that the provider serves today, the preferred first, then the rest of the catalogue."""
    from kimi_mcp import catalogue
    from kimi_mcp.catalogue import credentials
    from kimi_mcp.pipeline.route import today

    facts = catalogue.load()
    try:
        facts = catalogue.load_for(state.settings)
        provider = credentials.chosen_provider(state.settings, facts).id
    except KimiError:
        provider = ""
    served = [profile.model.id for profile in facts.profiles(provider, today())]
    return tuple(dict.fromkeys((*served, *facts.models)))


async def _run_ids(state: ServerState, caller: str) -> Sequence[str]:
    """The ids of the caller's runs, the newest first; none where the store can't be read."""
    try:
        with state.store_within():
            return [run.id for run in await (await state.open_runs()).latest(caller, MAX_RUN_IDS)]
    except KimiError:
        return ()


def completions(prompts: Mapping[str, Prompt]) -> dict[tuple[str, str], Values]:
    """What completion offers, by the name of a prompt or the template of a resource, and the name of the argument."""
    values: dict[tuple[str, str], Values] = {(RUN, "id"): _run_ids, (RUN_REASONING, "id"): _run_ids}
    for prompt in prompts.values():
        for each in prompt.arguments:
            values[prompt.name, each.name] = _models if each.completes == "models" else each.completes
    return values


def matches(values: Sequence[str], typed: str) -> list[str]:
    """The values that contain what was typed; those that begin with it come first."""
    typed = typed.strip().casefold()
    found = [value for value in values if typed in value.casefold()]
    return sorted(found, key=lambda value: not value.casefold().startswith(typed))


async def list_prompts(context: Any, params: PaginatedRequestParams | None) -> ListPromptsResult:
    """Answers ``prompts/list``."""
    return ListPromptsResult(prompts=[prompt.listed() for prompt in prompts(load_skill()).values()])


async def get_prompt(context: Any, params: GetPromptRequestParams) -> GetPromptResult:
    """Answers ``prompts/get``."""
    offered = prompts(load_skill())
    prompt = offered.get(params.name)
    if prompt is None:
        raise MCPError(INVALID_PARAMS, f"There is no such prompt; there are {', '.join(offered)}.")
    try:
        text = prompt.text(params.arguments)
    except InvalidArguments as error:
        raise MCPError(INVALID_PARAMS, f"{error.message} {error.fix}") from None
    message = PromptMessage(role="user", content=TextContent(text=text))
    return GetPromptResult(description=prompt.description, messages=[message])


async def complete(context: Any, params: CompleteRequestParams) -> CompleteResult:
    """Answers ``completion/complete``. Hosts request every argument: some have no values."""
    ref = params.ref
    name = ref.uri if isinstance(ref, ResourceTemplateReference) else ref.name
    values = completions(prompts(load_skill())).get((name, params.argument.name), ())
    if callable(values):
        values = await values(context.lifespan_context, caller_of(context))
    found = matches(values, params.argument.value)
    more = len(found) > MAX_VALUES
    return CompleteResult(completion=Completion(values=found[:MAX_VALUES], total=len(found), has_more=more))
