"""The texts for the agents of a swarm: those of ``prompts.toml``, filled in. Reads that one file of the package."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


def render(key: str, **values: Any) -> str:
    """A text by its key in the file, such as ``notes.conclude``."""
    table, _, name = key.partition(".")
    return _texts()[table][name].rstrip().format_map(values)


def main_system(*, steps: int, agents: int, tools: Sequence[str]) -> str:
    """The main agent's system prompt."""
    return render("main.system", steps=steps, agents=agents, tools=_about_tools("main", tools))


def agent_system(own: str | None, tools: Sequence[str]) -> str:
    """A sub-agent's system prompt: what the main agent wrote, then what holds for all of them."""
    common = render("agent.system", tools=_about_tools("agent", tools))
    return f"{own}\n\n{common}" if own else common


def _about_tools(table: str, tools: Sequence[str]) -> str:
    return render(f"{table}.with_tools", names=", ".join(tools)) if tools else render(f"{table}.without_tools")


@cache
def _texts() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads((Path(__file__).parent / "prompts.toml").read_text("utf-8"))
