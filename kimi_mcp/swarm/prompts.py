"""What the agents of a swarm are told: the texts of ``prompts.toml``, filled in. Reads that one file of the package."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


def render(place: str, **places: Any) -> str:
    """A text by its place in the file, such as ``notes.conclude``."""
    table, _, name = place.partition(".")
    return _texts()[table][name].strip().format_map(places)


def render_suffix(place: str) -> str:
    """A text that goes on where another one ended, so that the line break before it counts."""
    table, _, name = place.partition(".")
    return _texts()[table][name]


def main_system(*, steps: int, agents: int, tools: Sequence[str]) -> str:
    """The main agent's system prompt."""
    return render("main.system", steps=steps, agents=agents, tools=_of_tools("main", tools))


def agent_system(own: str | None, tools: Sequence[str]) -> str:
    """A sub-agent's system prompt: what the main agent gave it, then what holds for all of them."""
    common = render("agent.system", tools=_of_tools("agent", tools))
    return f"{own}\n\n{common}" if own else common


def coordinator_tools() -> tuple[Mapping[str, Any], ...]:
    """The main agent's two tools (arXiv 2602.02276, appendix), as they stand on the wire."""
    return tuple(
        {
            "name": name,
            "description": render(f"tools.{name}"),
            "parameters": {
                "type": "object",
                "properties": {
                    field: {"type": "string", "description": render(f"tools.{name}_{field}")} for field in fields
                },
                "required": list(fields),
                "additionalProperties": False,
            },
        }
        for name, fields in COORDINATOR_ARGUMENTS.items()
    )


COORDINATOR_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "create_subagent": ("name", "system_prompt"),
    "assign_task": ("agent", "prompt"),
}
"""The main agent's tools and their arguments, all of them required texts."""


def _of_tools(whose: str, tools: Sequence[str]) -> str:
    return render(f"{whose}.with_tools", names=", ".join(tools)) if tools else render(f"{whose}.without_tools")


@cache
def _texts() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads((Path(__file__).parent / "prompts.toml").read_text("utf-8"))
