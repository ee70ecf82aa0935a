"""What every source of tools has in common: what it is asked and what it answers. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kimi_mcp.swarm.tools.selection import ListedTool, SourceTools


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLimits:
    """How much time and room tools get."""

    start_within_s: float = 30.0
    """Seconds until a server must have listed its tools: the first start of some of them downloads them."""
    call_within_s: float = 60.0
    """Seconds of one call, waiting for its turn included."""
    result_chars: int = 30_000
    """Code points of one result that the model gets to read."""
    arguments_chars: int = 200_000
    """Code points of one call's arguments."""
    calls_at_once: int = 16
    """Calls that one source runs at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAnswer:
    """What came of a call, before it is framed."""

    text: str
    """What the tool says, or where ``ours`` what we say of it."""
    is_error: bool = False
    """Whether the call failed."""
    ours: bool = False
    """Whether the text is a sentence of ours: it needs no frame."""
    ran: bool = True
    """Whether the tool may have acted."""
    verbatim: bool = False
    """Whether the text must reach the model as it is: an envelope that only the provider's model can open."""
    cost_usd: float = 0.0
    """What the call cost."""

    @classmethod
    def refused(cls, why: str) -> ToolAnswer:
        """A call that did not reach the tool."""
        return cls(text=why, is_error=True, ours=True, ran=False)

    @classmethod
    def failed(cls, why: str, *, ran: bool = True) -> ToolAnswer:
        """A call that brought no answer."""
        return cls(text=why, is_error=True, ours=True, ran=ran)


class ToolSource(Protocol):
    """Something that has tools: an MCP server, or the provider itself."""

    name: str
    """The name that patterns know it by."""
    fault: str | None
    """Why its tools are not there, as the end of a sentence about it; None: they are."""

    async def run(self) -> None:
        """Start it and keep it, until it is to stop or is gone; raises nothing."""
        ...

    async def started(self) -> None:
        """Return when it is known whether its tools are there."""
        ...

    def stop(self) -> None:
        """Ask it to leave."""
        ...

    def offer(self) -> SourceTools:
        """Its tools."""
        ...

    def disable(self, name: str, why: str) -> None:
        """From now on a tool does not run; ``why`` is the end of a sentence about it."""
        ...

    def disabled(self) -> Mapping[str, str]:
        """The tools that no longer run, each with why."""
        ...

    async def call(self, tool: ListedTool, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Run a tool; whatever happens is an answer."""
        ...
