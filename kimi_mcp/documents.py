"""What can be read of this server as MCP resources: catalogue, policy, skill, a routing. Reads package data.

The catalogue and the policy are imported by the first who reads them: a host waits for the list of tools alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from kimi_mcp.skill import load_skill


def _catalogue_json() -> str:
    from kimi_mcp import catalogue
    from kimi_mcp.engine import today

    rows = [row.as_json() for row in catalogue.load().rows(today())]
    return json.dumps(rows, indent=1, ensure_ascii=False)


def _policy_json() -> str:
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
    read: Callable[[], str]
    """Its text, made when it is read."""


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
    read: Callable[[Any, str], Awaitable[str]]
    """The text, for a server's house and the value; made when it is read."""


async def _route_json(house: Any, text: str) -> str:
    del house
    from kimi_mcp.routing import route

    return json.dumps(route(text).as_json(), indent=1, ensure_ascii=False)


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
        read=lambda: load_skill().text,
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
}
"""What can be read with a value in the address, by the address with the value's place."""


def templated(uri: str) -> tuple[Template, str] | None:
    """The template that an address follows, and its value, decoded; None where it follows none."""
    for address, template in TEMPLATES.items():
        before, _, after = re.split(r"(\{\w+\})", address)
        if uri.startswith(before) and uri.endswith(after) and len(uri) > len(before) + len(after):
            return template, unquote(uri[len(before) : len(uri) - len(after)], errors="replace")
    return None
