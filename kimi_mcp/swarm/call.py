"""``SwarmCall``: one call of ``kimi_swarm``, and the tasks that its items make. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kimi_mcp.core.errors import InvalidArguments, NotConfigured
from kimi_mcp.core.types import Effort

ITEM_PLACEHOLDER = "{{item}}"
"""Where an item goes in the prompt."""

FEWEST_ITEMS, MOST_ITEMS = 2, 128
"""How many items a swarm takes, as Kimi Code has it (MoonshotAI/kimi-code, features/swarm)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmCall:
    """The validated arguments of a swarm, and what a resumed one must know of its start."""

    prompt: str
    """Verbatim; with items it holds ``{{item}}``."""
    items: tuple[str, ...] = ()
    """One sub-agent an item; empty: a main agent assigns the tasks."""
    texts: tuple[str | None, ...] = ()
    """Of each item that is a file its whole text, under its name; None for any other. Empty: no item is a file."""
    offered_roots: tuple[str, ...] | None = None
    """The host's own roots as ``file://`` URIs, or those it began with (empty: none); None where it offers none."""
    max_agents: int | None = None
    """Sub-agents at most; None: left open."""
    max_steps: int | None = None
    """Steps of the main agent at most; None: left open."""
    max_agent_steps: int | None = None
    """Steps of a sub-agent at most; None: left open."""
    max_cost_usd: float | None = None
    """US dollars at most; None: the setting alone decides."""
    effort: Effort | None = None
    """How much the agents are to think in each step; None: left open."""
    tools: tuple[str, ...] | None = None
    """Patterns of the tools that sub-agents get; None: the default."""
    model: str | None = None
    """The ``model`` argument; None: the setting decides."""
    provider: str | None = None
    """The ``provider`` argument; None: the settings decide."""
    asks: bool = False
    """Whether its host can ask its user for a larger budget."""
    known_tools: Mapping[str, str] | None = None
    """The tools when it began, by hash; None: it begins. One that has changed since is not called any more."""
    known_definitions: Sequence[Mapping[str, Any]] | None = None
    """The definitions that its agents got when it began; None: it begins."""
    known_servers: Sequence[str] = ()
    """The servers of ``KIMI_SWARM_MCP`` whose tools those are: a server that resumes it must have them."""
    first_provider: str | None = None
    """The provider that it began with, and goes on with wherever it is resumed; None: it begins."""
    first_model: str | None = None
    """The same of the model, which ``auto`` takes first."""

    @classmethod
    def from_json(cls, task: Mapping[str, Any]) -> SwarmCall:
        """The recorded call, from what ``asdict`` made of it; raises ``NotConfigured`` for one of another version."""
        known = {each.name for each in fields(cls)}
        if task.keys() <= known and {"prompt", "items", "tools"} <= task.keys():
            with suppress(ValidationError):
                return TypeAdapter(cls).validate_python(dict(task))
        raise NotConfigured(
            "This run was begun by another version of kimi-mcp, and its server has died.",
            fix="Update kimi-mcp to continue it; or end it with `kimi-mcp runs cancel` and call again.",
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each item's sub-agent: the item, in one line."""
        return tuple(" ".join(item.split())[:80] for item in self.items)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The task of each item's sub-agent: the prompt with the item in its place, then the text of its file."""
        texts = self.texts or (None,) * len(self.items)
        prompts = (self.prompt.replace(ITEM_PLACEHOLDER, item) for item in self.items)
        return tuple(f"{prompt}\n\n{text}" if text else prompt for prompt, text in zip(prompts, texts, strict=True))


def check_items(call: SwarmCall) -> SwarmCall:
    """The call, where its items can be used; raises ``InvalidArguments`` that names what can't."""
    items = call.items
    if not items:
        return call
    if not FEWEST_ITEMS <= len(items) <= MOST_ITEMS:
        raise InvalidArguments(
            f"`items` has {len(items)} {'entry' if len(items) == 1 else 'entries'}; a swarm takes {FEWEST_ITEMS} to "
            f"{MOST_ITEMS}.",
            fix="Use kimi_think for a single one." if len(items) == 1 else "Split `items` among several calls.",
        )
    if ITEM_PLACEHOLDER not in call.prompt and not all(call.texts or (None,)):
        raise InvalidArguments(
            f"`prompt` has no {ITEM_PLACEHOLDER}, so every sub-agent would get the same prompt.",
            fix=f"Write {ITEM_PLACEHOLDER} into `prompt` where the item belongs, or leave `items` out.",
        )
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        first = seen.setdefault(item.strip(), index)
        if first != index:
            raise InvalidArguments(
                f"`items[{first}]` and `items[{index}]` are the same.",
                fix="Name each item once: every one is paid for.",
            )
    if call.max_agents is not None and call.max_agents < len(items):
        raise InvalidArguments(
            f"`items` has {len(items)} entries, `max_agents` allows {call.max_agents}.",
            fix="Raise `max_agents`, leave it out, or give fewer `items`.",
        )
    return call
