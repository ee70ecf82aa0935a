"""kimi-mcp: an MCP server that gives Moonshot's Kimi models to other agents. No I/O.

``route`` is the one function for other programs: which tool a sentence means. It is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kimi_mcp.core.version import __version__

if TYPE_CHECKING:
    from kimi_mcp.skill.routing import Routing as Routing
    from kimi_mcp.skill.routing import route as route

__all__ = ["Routing", "__version__", "route"]


def __getattr__(name: str) -> Any:
    if name in ("route", "Routing"):
        from kimi_mcp.skill import routing

        return getattr(routing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
