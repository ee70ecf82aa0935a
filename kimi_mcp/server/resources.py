"""MCP resources: catalogue, policy, skill, routes, runs. Reads package data and the store.

A reader imports what it needs when it is called: a host that starts the server waits for the list of tools only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from kimi_mcp.core.errors import KimiError, RunNotFound
from kimi_mcp.core.outcome import WHOLE, Outcome, structured
from kimi_mcp.core.redaction import inert, inert_values, scrub_values
from kimi_mcp.server.client_quirks import LOCAL
from kimi_mcp.server.state import ServerState
from kimi_mcp.skill.document import load_skill

RUN, RUN_REASONING = "kimi://runs/{id}", "kimi://runs/{id}/reasoning"
"""Templates of a run's addresses."""

MOST_RUNS = 50
"""Runs that ``kimi://runs`` lists at most."""

Reader = Callable[[ServerState, str], Awaitable[str]]
"""Returns a resource's text; its second argument is the value in the address, empty where there is none."""


async def _catalogue(state: ServerState, value: str) -> str:
    from kimi_mcp import catalogue
    from kimi_mcp.pipeline.route import today

    return _json([row.as_json() for row in catalogue.load().rows(today())])


async def _policy(state: ServerState, value: str) -> str:
    from kimi_mcp import policy

    return _json([rule.as_json() for rule in policy.load_rules().values()])


async def _skill(state: ServerState, value: str) -> str:
    return load_skill().text


async def _route(state: ServerState, text: str) -> str:
    from kimi_mcp.skill.routing import route

    return _json(route(text).as_json())


async def _runs(state: ServerState, value: str) -> str:
    from kimi_mcp.runs.store.serializers import in_list

    runs = await state.open_runs()
    recorded = {record.id: in_list(record) for record in await runs.store.overview(LOCAL, most=MOST_RUNS)}
    rows = [
        recorded.get(run.id) or {"run_id": run.id, "tool": run.tool, "status": run.status, "prompt": run.prompt_head}
        for run in await runs.latest(LOCAL, MOST_RUNS)
    ]
    return _json(inert_values(scrub_values(rows)))


async def _run(state: ServerState, run_id: str) -> str:
    return _json(structured(await _outcome(state, run_id), reasoning_chars=WHOLE))


async def _reasoning(state: ServerState, run_id: str) -> str:
    return inert((await _outcome(state, run_id)).reasoning or "")


async def _outcome(state: ServerState, run_id: str) -> Outcome:
    return await (await (await state.open_runs()).find(run_id, LOCAL)).current_outcome()


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


RESOURCES: Mapping[str, tuple[Resource, Reader]] = {
    resource.uri: (resource, reader)
    for resource, reader in (
        (
            Resource(
                uri="kimi://catalogue",
                name="catalogue",
                title="Models and providers",
                description="Which provider serves which Kimi model today: state, modes, limits, prices, sources.",
                mime_type="application/json",
            ),
            _catalogue,
        ),
        (
            Resource(
                uri="kimi://policy",
                name="policy",
                title="The policy",
                description="Every rule: what it guards against, what it does, and where it comes from.",
                mime_type="application/json",
            ),
            _policy,
        ),
        (
            Resource(
                uri="kimi://skill",
                name="skill",
                title="How to use Kimi",
                description="The skill document: which tool when, the two modes, and the mistakes to avoid.",
                mime_type="text/markdown",
            ),
            _skill,
        ),
        (
            Resource(
                uri="kimi://runs",
                name="runs",
                title="Your latest runs",
                description="The latest calls: tool, time, status, the beginning of the prompt, tokens, cost.",
                mime_type="application/json",
            ),
            _runs,
        ),
    )
}
"""The resources with a fixed address, by it."""

TEMPLATES: Mapping[str, tuple[ResourceTemplate, Reader]] = {
    template.uri_template: (template, reader)
    for template, reader in (
        (
            ResourceTemplate(
                uri_template="kimi://route/{text}",
                name="route",
                title="Which tool a sentence means",
                description="The tool for a request in words, with the skill's score, the matched triggers and why.",
                mime_type="application/json",
            ),
            _route,
        ),
        (
            ResourceTemplate(
                uri_template=RUN_REASONING,
                name="run-reasoning",
                title="The reasoning of a run",
                description="The whole reasoning, exactly as it came.",
                mime_type="text/plain",
            ),
            _reasoning,
        ),
        (
            ResourceTemplate(
                uri_template=RUN,
                name="run",
                title="A run",
                description="The structured result of a run so far, with the whole answer and reasoning.",
                mime_type="application/json",
            ),
            _run,
        ),
    )
}
"""The resources with a value in their address, by the address's template; the first that matches counts."""


async def list_resources(context: Any, params: PaginatedRequestParams | None) -> ListResourcesResult:
    """Answers ``resources/list``."""
    return ListResourcesResult(resources=[resource for resource, _ in RESOURCES.values()])


async def list_templates(context: Any, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    """Answers ``resources/templates/list``."""
    return ListResourceTemplatesResult(resource_templates=[template for template, _ in TEMPLATES.values()])


async def read_resource(context: Any, params: ReadResourceRequestParams) -> ReadResourceResult:
    """Answers ``resources/read``; a protocol error where there is no such resource, or it can't be read."""
    resource, reader, value = _find(str(params.uri))
    try:
        text = await reader(context.lifespan_context, value)
    except RunNotFound as error:
        raise MCPError(INVALID_PARAMS, f"{error.message} Read kimi://runs to see the latest.") from None
    except KimiError as error:
        raise MCPError(INTERNAL_ERROR, f"{error.message} {error.fix}") from None
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate can't be sent
    return ReadResourceResult(contents=[TextResourceContents(uri=params.uri, mime_type=resource.mime_type, text=text)])


def _find(uri: str) -> tuple[Resource | ResourceTemplate, Reader, str]:
    """The resource of an address, its reader, and the decoded value in the address."""
    if found := RESOURCES.get(uri):
        return *found, ""
    for address, (template, reader) in TEMPLATES.items():
        before, _, after = re.split(r"(\{\w+\})", address)
        if uri.startswith(before) and uri.endswith(after) and len(uri) > len(before) + len(after):
            return template, reader, unquote(uri[len(before) : len(uri) - len(after)], errors="replace")
    raise MCPError(INVALID_PARAMS, f"There is no such resource; there are {', '.join((*RESOURCES, *TEMPLATES))}.")
