"""The texts for the agents of a swarm: those of ``prompts.toml``, filled in. Reads that one file of the package."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


def render(key: str, **values: Any) -> str:
    """A text by its key in the file, such as ``notes.conclude``."""
    text: Any = _texts()
    for part in key.split("."):
        text = text[part]
    return text.rstrip().format_map(values)


def system_prompt(agent: str, tools: Sequence[str], **values: Any) -> str:
    """The system prompt of ``main`` or ``agent``, with the names of the sub-agents' tools."""
    about = render(f"{agent}.{'with' if tools else 'without'}_tools", names=", ".join(tools))
    return render(f"{agent}.system", tools=about, **values)


@cache
def _texts() -> Mapping[str, Any]:
    return tomllib.loads((Path(__file__).parent / "prompts.toml").read_text("utf-8"))
