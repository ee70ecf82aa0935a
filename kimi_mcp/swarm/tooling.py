"""What the agents need of a toolbox: its shape alone, so that any will do. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self


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


class Toolbox(Protocol):
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ended: object) -> None:
        """Nothing was started."""

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Nobody offers any tool, so nobody calls one."""
        raise LookupError(name, arguments)
