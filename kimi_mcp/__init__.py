"""kimi-mcp: an MCP server that gives Moonshot's Kimi models to other agents. Owns the version; no I/O.

``route`` is the one function for other programs: which tool a sentence means. It is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kimi_mcp.routing import Routing as Routing
    from kimi_mcp.routing import route as route

__version__ = "0.1.0"

__all__ = ["Routing", "__version__", "route"]


def __getattr__(name: str) -> Any:
    if name in ("route", "Routing"):
        from kimi_mcp import routing

        return getattr(routing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
