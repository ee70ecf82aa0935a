"""The MCP handlers of prompts and of completion, made for one skill. No I/O but that of a completer."""

from __future__ import annotations

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
from kimi_mcp.server.completions import MOST_VALUES, completers, fitting
from kimi_mcp.server.prompts import Prompt, prompts
from kimi_mcp.skill.document import Skill


class PromptHandlers:
    """The three handlers."""

    def __init__(self, skill: Skill) -> None:
        self._offered = prompts(skill)
        self._completers = completers(self._offered)

    async def list_prompts(self, context: Any, params: PaginatedRequestParams | None) -> ListPromptsResult:
        """Every prompt whose tool there is."""
        del context, params
        return ListPromptsResult(prompts=[_listed(prompt) for prompt in self._offered.values()])

    async def get_prompt(self, context: Any, params: GetPromptRequestParams) -> GetPromptResult:
        """One prompt, filled."""
        del context
        prompt = self._offered.get(params.name)
        if prompt is None:
            raise MCPError(INVALID_PARAMS, f"There is no such prompt; there are {', '.join(self._offered)}.")
        try:
            text = prompt.text(params.arguments)
        except InvalidArguments as error:
            raise MCPError(INVALID_PARAMS, f"{error.message} {error.fix}") from None
        message = PromptMessage(role="user", content=TextContent(text=text))
        return GetPromptResult(description=prompt.description, messages=[message])

    async def complete(self, context: Any, params: CompleteRequestParams) -> CompleteResult:
        """What an argument may become. A host asks for every one: where there is nothing to offer, that is no error."""
        ref = params.ref
        reference = ref.uri if isinstance(ref, ResourceTemplateReference) else ref.name
        values: list[str] = []
        if completer := self._completers.get(reference, {}).get(params.argument.name):
            said = (params.context and params.context.arguments) or {}
            values = fitting(await completer(context.lifespan_context, said), params.argument.value)
        more = len(values) > MOST_VALUES
        return CompleteResult(completion=Completion(values=values[:MOST_VALUES], total=len(values), has_more=more))


def _listed(prompt: Prompt) -> ListedPrompt:
    return ListedPrompt(
        name=prompt.name,
        title=prompt.title,
        description=prompt.description,
        arguments=[
            PromptArgument(name=each.name, description=each.description, required=each.required)
            for each in prompt.arguments
        ],
    )
