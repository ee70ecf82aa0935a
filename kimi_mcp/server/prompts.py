"""MCP prompts, each a call of one tool, and the completion of arguments. Reads ``prompts.toml``.

A prompt is data: its arguments, the call that they make, and what to do with the answer. A prompt is offered if the
skill lists its tool.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

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

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.server.completions import MOST_VALUES, completers, matches
from kimi_mcp.skill.document import Skill

_PLACEHOLDER = re.compile(r"\{(\w+)(\[\])?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument of a prompt."""

    name: str
    description: str
    required: bool = False
    default: str | None = None
    completes: str | Sequence[str] = ()
    """What completion offers: values, or the name of a source of them; empty: nothing."""


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
                f"The prompt {self.name} has no argument `{_printable(unknown[0])}`.",
                fix=f"Use these: {', '.join(names)}.",
            )
        if missing := [each.name for each in self.arguments if each.required and each.name not in given]:
            raise InvalidArguments(f"The prompt {self.name} needs `{missing[0]}`.", fix=f"Give `{missing[0]}`.")
        values = {each.name: given.get(each.name, each.default) for each in self.arguments}
        filled = {name: _fill(template, values) for name, template in self.call.items()}
        return {name: value for name, value in filled.items() if value is not None}

    def text(self, arguments: Mapping[str, str] | None) -> str:
        """The message for the host's model. Raises ``InvalidArguments``."""
        call = json.dumps(self.tool_arguments(arguments), indent=2, ensure_ascii=False)
        return f"Call the tool {self.tool} once, with exactly these arguments:\n\n```json\n{call}\n```\n\n{self.then}"


def prompts(skill: Skill) -> Mapping[str, Prompt]:
    """The prompts whose tool the skill lists, by name."""
    listed = {tool.name for tool in skill.tools}
    return {prompt.name: prompt for prompt in _load() if prompt.tool in listed}


@cache
def _load() -> tuple[Prompt, ...]:
    rows: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return tuple(
        Prompt(
            name=name, arguments=[Argument(name=each, **row) for each, row in table.pop("arguments").items()], **table
        )
        for name, table in rows.items()
    )


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


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:80])


class PromptHandlers:
    """The MCP handlers of prompts and completion, for one skill."""

    def __init__(self, skill: Skill) -> None:
        self._prompts = prompts(skill)
        self._completers = completers(self._prompts)

    async def list_prompts(self, context: Any, params: PaginatedRequestParams | None) -> ListPromptsResult:
        """Answers ``prompts/list``."""
        return ListPromptsResult(
            prompts=[
                ListedPrompt(
                    name=prompt.name,
                    title=prompt.title,
                    description=prompt.description,
                    arguments=[
                        PromptArgument(name=each.name, description=each.description, required=each.required)
                        for each in prompt.arguments
                    ],
                )
                for prompt in self._prompts.values()
            ]
        )

    async def get_prompt(self, context: Any, params: GetPromptRequestParams) -> GetPromptResult:
        """Answers ``prompts/get``."""
        prompt = self._prompts.get(params.name)
        if prompt is None:
            raise MCPError(INVALID_PARAMS, f"There is no such prompt; there are {', '.join(self._prompts)}.")
        try:
            text = prompt.text(params.arguments)
        except InvalidArguments as error:
            raise MCPError(INVALID_PARAMS, f"{error.message} {error.fix}") from None
        message = PromptMessage(role="user", content=TextContent(text=text))
        return GetPromptResult(description=prompt.description, messages=[message])

    async def complete(self, context: Any, params: CompleteRequestParams) -> CompleteResult:
        """Answers ``completion/complete``. Hosts ask for every argument: one without a completer gets no values."""
        ref = params.ref
        name = ref.uri if isinstance(ref, ResourceTemplateReference) else ref.name
        values: list[str] = []
        if completer := self._completers.get(name, {}).get(params.argument.name):
            values = matches(await completer(context.lifespan_context), params.argument.value)
        more = len(values) > MOST_VALUES
        return CompleteResult(completion=Completion(values=values[:MOST_VALUES], total=len(values), has_more=more))
