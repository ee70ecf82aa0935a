"""What can be read of this server as MCP resources: catalogue, policy, skill, a routing, the caller's runs.

I/O: reads package data, and the journal. What a resource needs is imported by the first who reads it: a host waits for
the list of tools alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from kimi_mcp.core.outcome import WHOLE, Outcome, structured
from kimi_mcp.core.redaction import inert, inert_values, scrub_values
from kimi_mcp.server.client_quirks import LOCAL
from kimi_mcp.skill.document import load_skill

if TYPE_CHECKING:
    from kimi_mcp.runs import Runs

RUN, RUN_REASONING = "kimi://runs/{id}", "kimi://runs/{id}/reasoning"
"""Where a run can be read."""

MOST_RUNS = 50
"""Runs that ``kimi://runs`` lists at most."""


class ResourceServices(Protocol):
    """What answers calls."""

    @property
    def runs(self) -> Runs:
        """The runs of this process, and those of the journal."""
        ...


class ResourceState(Protocol):
    """What lives as long as the server does."""

    async def opened(self) -> ResourceServices:
        """The runs, opened by the first who needs them."""
        ...


async def _catalogue_json(house: ResourceState) -> str:
    del house
    from kimi_mcp import catalogue
    from kimi_mcp.pipeline.pipeline import today

    rows = [row.as_json() for row in catalogue.load().rows(today())]
    return json.dumps(rows, indent=1, ensure_ascii=False)


async def _policy_json(house: ResourceState) -> str:
    del house
    from kimi_mcp import policy

    return json.dumps([rule.as_json() for rule in policy.load_rules().values()], indent=1, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One resource."""

    name: str
    """Its name for hosts."""
    title: str
    """Its name for people."""
    description: str
    """What it holds."""
    mime_type: str
    """Its type."""
    read: Callable[[ResourceState], Awaitable[str]]
    """Its text, for a server's house; made when it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Resources whose address holds a value."""

    name: str
    """Its name for hosts."""
    title: str
    """Its name for people."""
    description: str
    """What they hold."""
    mime_type: str
    """Their type."""
    read: Callable[[ResourceState, str], Awaitable[str]]
    """The text, for a server's house and the value; made when it is read."""


async def _skill(house: ResourceState) -> str:
    del house
    return load_skill().text


async def _route_json(house: ResourceState, text: str) -> str:
    del house
    from kimi_mcp.skill.routing import route

    return json.dumps(route(text).as_json(), indent=1, ensure_ascii=False)


async def _runs_json(house: ResourceState) -> str:
    from kimi_mcp.runs.store.serializers import in_list

    runs = (await house.opened()).runs
    recorded = {record.id: in_list(record) for record in await runs.journal.overview(LOCAL, most=MOST_RUNS)}
    rows = [
        recorded.get(run.id) or {"run_id": run.id, "tool": run.tool, "status": run.status, "prompt": run.prompt_head}
        for run in await runs.latest(LOCAL, MOST_RUNS)
    ]
    return json.dumps(inert_values(scrub_values(rows)), indent=1, ensure_ascii=False)


async def _run_json(house: ResourceState, run_id: str) -> str:
    whole = structured(await _outcome(house, run_id), reasoning_chars=WHOLE)
    return json.dumps(whole, indent=1, ensure_ascii=False)


async def _reasoning(house: ResourceState, run_id: str) -> str:
    return inert((await _outcome(house, run_id)).reasoning or "")


async def _outcome(house: ResourceState, run_id: str) -> Outcome:
    return await (await (await house.opened()).runs.find(run_id, LOCAL)).look()


DOCUMENTS: Mapping[str, Document] = {
    "kimi://catalogue": Document(
        name="catalogue",
        title="Models and providers",
        description="Which provider serves which Kimi model today: state, modes, limits, prices, sources.",
        mime_type="application/json",
        read=_catalogue_json,
    ),
    "kimi://policy": Document(
        name="policy",
        title="The policy",
        description="Every rule: what it guards against, what it does, and where it comes from.",
        mime_type="application/json",
        read=_policy_json,
    ),
    "kimi://skill": Document(
        name="skill",
        title="How to use Kimi",
        description="The skill document: which tool when, the two modes, and the mistakes to avoid.",
        mime_type="text/markdown",
        read=_skill,
    ),
    "kimi://runs": Document(
        name="runs",
        title="Your latest runs",
        description="The latest calls: which tool, when, how it stands, the head of the prompt, tokens, cost.",
        mime_type="application/json",
        read=_runs_json,
    ),
}
"""What can be read, by address."""

TEMPLATES: Mapping[str, Template] = {
    "kimi://route/{text}": Template(
        name="route",
        title="Which tool a sentence means",
        description="The tool for a request in words, with the skill's score, the matched triggers and why.",
        mime_type="application/json",
        read=_route_json,
    ),
    RUN_REASONING: Template(
        name="run-reasoning",
        title="The reasoning of a run",
        description="The whole reasoning, exactly as it came.",
        mime_type="text/plain",
        read=_reasoning,
    ),
    RUN: Template(
        name="run",
        title="A run",
        description="The structured result of a run as it stands, with the whole answer and reasoning.",
        mime_type="application/json",
        read=_run_json,
    ),
}
"""What can be read with a value in the address, by the address with the value's place; the first that fits counts."""


def templated(uri: str) -> tuple[Template, str] | None:
    """The template that an address follows, and its value, decoded; None where it follows none."""
    for address, template in TEMPLATES.items():
        before, _, after = re.split(r"(\{\w+\})", address)
        if uri.startswith(before) and uri.endswith(after) and len(uri) > len(before) + len(after):
            return template, unquote(uri[len(before) : len(uri) - len(after)], errors="replace")
    return None
