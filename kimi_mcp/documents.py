"""What can be read of this server as MCP resources: the catalogue, the policy, the skill. Reads package data.

The catalogue and the policy are imported by the first who reads them: a host waits for the list of tools alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
