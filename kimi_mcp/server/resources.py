"""MCP resources: catalogue, policy, skill, routes, runs and what shows them. Reads package data and the store.

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
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from kimi_mcp.core.errors import KimiError, RunNotFound
from kimi_mcp.core.outcome import ALL_CHARS, Outcome, structured
from kimi_mcp.core.redaction import clean, clean_values
from kimi_mcp.server import apps, skills
from kimi_mcp.server.callers import caller_of
from kimi_mcp.server.state import ServerState
from kimi_mcp.skill.document import load_agent_skill, load_skill

RUN, RUN_REASONING, RUN_STEP = "kimi://runs/{id}", "kimi://runs/{id}/reasoning", "kimi://runs/{id}/steps/{step}"
"""Templates of a run's addresses."""

RESOURCE_NOT_FOUND = -32002
"""The code of an unknown resource up to 2025-11-25, from the specification's page on resources."""

MAX_RUNS = 50
"""Runs that ``kimi://runs`` lists at most."""

ResourceReader = Callable[[ServerState, str, str], Awaitable[str]]
"""Returns a resource's text for a caller; the last argument is the value in the address, empty where there is none; of
several values all, with a slash between them."""

RESOURCES: dict[str, tuple[Resource | ResourceTemplate, ResourceReader]] = {}
"""Every resource, by its address, or by the template of addresses with a value; the first that matches counts."""


def _resource(
    address: str,
    name: str,
    title: str,
    description: str,
    mime_type: str = "application/json",
    meta: Mapping[str, Any] | None = None,
) -> Callable[[ResourceReader], ResourceReader]:
    """Lists the resource that a function reads."""

    def add(reader: ResourceReader) -> ResourceReader:
        texts: dict[str, Any] = {"name": name, "title": title, "description": description, "mime_type": mime_type}
        texts |= {"_meta": dict(meta)} if meta else {}
        is_template = "{" in address
        resource = ResourceTemplate(uri_template=address, **texts) if is_template else Resource(uri=address, **texts)
        RESOURCES[address] = resource, reader
        return reader

    return add


@_resource(
    "kimi://catalogue",
    "catalogue",
    "Models and providers",
    "Which provider serves which Kimi model today: state, modes, limits, prices, sources.",
)
async def _catalogue(state: ServerState, caller: str, value: str) -> str:
    from kimi_mcp import catalogue
    from kimi_mcp.pipeline.route import today

    return _json([row.as_json() for row in catalogue.load_for(state.settings).rows(today())])


@_resource(
    "kimi://policy",
    "policy",
    "The policy",
    "Every rule: what it guards against, what it does, and where it comes from.",
)
async def _policy(state: ServerState, caller: str, value: str) -> str:
    from kimi_mcp import policy

    return _json([rule.as_json() for rule in policy.load_rules().values()])


@_resource(
    "kimi://skill",
    "skill",
    "How to use Kimi",
    "The skill document: which tool when, the two modes, and the mistakes to avoid.",
    "text/markdown",
)
async def _skill(state: ServerState, caller: str, value: str) -> str:
    return load_skill().text


@_resource(
    skills.URI,
    load_agent_skill().head["name"],
    "How to use Kimi, as an Agent Skill",
    load_agent_skill().head["description"],
    "text/markdown",
)
async def _agent_skill(state: ServerState, caller: str, value: str) -> str:
    return load_agent_skill().text


@_resource(
    "kimi://runs",
    "runs",
    "Your latest runs",
    "The latest calls: tool, time, status, the beginning of the prompt, tokens, cost.",
)
async def _runs(state: ServerState, caller: str, value: str) -> str:
    from kimi_mcp.runs.store.records import in_list

    runs = await state.open_runs()
    recorded = {record.id: in_list(record) for record in await runs.store.overview(caller, most=MAX_RUNS)}
    rows = [
        recorded.get(run.id)
        or {"run_id": run.id, "tool": run.tool, "status": run.outcome.status, "prompt": run.prompt_head}
        for run in await runs.latest(caller, MAX_RUNS)
    ]
    return _json(rows)


@_resource(
    "kimi://route/{text}",
    "route",
    "Which tool a sentence means",
    "The tool for a request in words, with the skill's score, the matched triggers and why.",
)
async def _route(state: ServerState, caller: str, text: str) -> str:
    from kimi_mcp.skill.routing import route

    return _json(route(text).as_json())


@_resource(
    RUN_REASONING,
    "run-reasoning",
    "The reasoning of a run",
    "The whole reasoning, exactly as it came.",
    "text/plain",
)
async def _reasoning(state: ServerState, caller: str, run_id: str) -> str:
    return clean((await _outcome(state, caller, run_id)).reasoning or "", "host")


@_resource(
    RUN_STEP,
    "run-step",
    "A step of a run",
    "What one step of a swarm's agent was given, thought and returned, by the key that a view of the run has.",
)
async def _step(state: ServerState, caller: str, value: str) -> str:
    from kimi_mcp.view import reading

    run_id, _, key = value.partition("/")
    return _json(await reading.step_view((await state.open_runs()).store, run_id, caller, key))


@_resource(RUN, "run", "A run", "The structured result of a run so far, with the whole answer and reasoning.")
async def _run(state: ServerState, caller: str, run_id: str) -> str:
    return _json(structured(await _outcome(state, caller, run_id), reasoning_chars=ALL_CHARS))


@_resource(
    apps.URI,
    "run-view",
    "A run, to look at",
    "The document in which hosts with MCP Apps show a run: it follows the run, and can cancel it.",
    apps.MIME_TYPE,
    apps.RESOURCE_META,
)
async def _app(state: ServerState, caller: str, value: str) -> str:
    return apps.document()


async def _outcome(state: ServerState, caller: str, run_id: str) -> Outcome:
    return await (await (await state.open_runs()).find(run_id, caller)).current_outcome()


def _json(value: Any) -> str:
    return json.dumps(clean_values(value, "host"), indent=1, ensure_ascii=False)


async def list_resources(context: Any, params: PaginatedRequestParams | None) -> ListResourcesResult:
    """Answers ``resources/list``."""
    return ListResourcesResult(resources=[each for each, _ in RESOURCES.values() if isinstance(each, Resource)])


async def list_templates(context: Any, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    """Answers ``resources/templates/list``."""
    templates = [each for each, _ in RESOURCES.values() if isinstance(each, ResourceTemplate)]
    return ListResourceTemplatesResult(resource_templates=templates)


async def read_resource(context: Any, params: ReadResourceRequestParams) -> ReadResourceResult:
    """Answers ``resources/read``; a protocol error where there is no such resource, or it can't be read."""
    uri = str(params.uri)
    found = _find(uri)
    if found is None:
        raise _not_found(context, uri, f"There is no such resource; there are {', '.join(RESOURCES)}.")
    resource, reader, value = found
    try:
        with context.lifespan_context.store_within():
            text = await reader(context.lifespan_context, caller_of(context), value)
    except RunNotFound as error:
        raise _not_found(context, uri, f"{error.message} Read kimi://runs to see the latest.") from None
    except KimiError as error:
        raise MCPError(INTERNAL_ERROR, f"{error.message} {error.fix}") from None
    contents = TextResourceContents(uri=params.uri, mime_type=resource.mime_type, text=text, _meta=resource.meta)
    return ReadResourceResult(contents=[contents])


def _find(uri: str) -> tuple[Resource | ResourceTemplate, ResourceReader, str] | None:
    """The resource of an address, its reader, and the decoded value in the address."""
    for address, (resource, reader) in RESOURCES.items():
        pattern = "(.+)".join(map(re.escape, re.split(r"\{\w+\}", address)))
        if match := re.fullmatch(pattern, uri, re.DOTALL):
            return resource, reader, unquote("/".join(match.groups()), errors="replace")
    return None


def _not_found(context: Any, uri: str, message: str) -> MCPError:
    """The error of an unknown resource: -32002 up to 2025-11-25, invalid parameters since; its data has the address."""
    code = INVALID_PARAMS if context.protocol_version in MODERN_PROTOCOL_VERSIONS else RESOURCE_NOT_FOUND
    return MCPError(code, message, {"uri": uri})
