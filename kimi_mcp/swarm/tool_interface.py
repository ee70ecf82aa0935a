"""What the agents need of a toolbox: its shape alone, so that any will do. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from kimi_mcp.swarm import prompts


class ToolResult(Protocol):
    """What a tool call brought."""

    @property
    def text(self) -> str:
        """For the model: bounded, and marked as untrusted."""
        ...

    @property
    def is_error(self) -> bool:
        """Whether the call failed."""
        ...

    @property
    def repairable(self) -> bool:
        """Whether nothing ran and the model may put its call right."""
        ...

    @property
    def ran(self) -> bool:
        """Whether the tool was reached, and so may have acted."""
        ...

    @property
    def cost_usd(self) -> float:
        """What the call cost beside tokens."""
        ...


class Toolset(Protocol):
    """The tools of one swarm's sub-agents."""

    @property
    def definitions(self) -> Sequence[Mapping[str, Any]]:
        """The tools as they stand under ``tools[].function`` on the wire."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What is to be said of the tools that are not there, a sentence each."""
        ...

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Of each tool a hash of what its source tells about it."""
        ...

    @property
    def servers(self) -> Sequence[str]:
        """The operator's servers that have them, by name."""
        ...

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Run a tool with the JSON text of its arguments. Never raises but for a cancellation."""
        ...


class NoTools:
    """The toolbox of a swarm that was asked for without tools."""

    definitions: Sequence[Mapping[str, Any]] = ()
    """None."""
    warnings: Sequence[str] = ("Sub-agents have no tools: the call asked for none.",)
    """That they are not there."""
    fingerprints: Mapping[str, str] = {}
    """None."""
    servers: Sequence[str] = ()
    """None."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ended: object) -> None:
        """Nothing was started."""

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Nobody offers any tool, so nobody calls one."""
        raise LookupError(name, arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gone:
    """What a call brings of a tool that is not there any more."""

    text: str
    is_error: bool = True
    repairable: bool = False
    ran: bool = False
    cost_usd: float = 0.0


class RecordedTools:
    """The toolbox of a swarm that is gone on with: it offers what the agents were told of, whatever is there by now."""

    def __init__(self, toolbox: Toolset, definitions: Sequence[Mapping[str, Any]]) -> None:
        self._toolbox = toolbox
        self._there = {tool["name"] for tool in toolbox.definitions}
        self.definitions = definitions
        """The tools that it began with: a replay takes the same way."""

    @property
    def warnings(self) -> Sequence[str]:
        """Those of what is there, and which tools are not."""
        gone = [tool["name"] for tool in self.definitions if tool["name"] not in self._there]
        told = [f"Tools that the swarm began with are not there any more: {', '.join(gone)}."] if gone else []
        return (*self._toolbox.warnings, *told)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Of each tool that is there."""
        return self._toolbox.fingerprints

    @property
    def servers(self) -> Sequence[str]:
        """Those that are there."""
        return self._toolbox.servers

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Run a tool where it is still there."""
        if name in self._there:
            return await self._toolbox.call(name, arguments)
        return _Gone(text=prompts.render("notes.not_run", name=name, why=prompts.render("notes.gone")))
