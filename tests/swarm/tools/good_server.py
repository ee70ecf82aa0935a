"""A well-behaved MCP server by the SDK, over stdio or (with a port as argument) streamable HTTP. Run as a script."""

import os
import sys
from typing import Literal

from mcp.server import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("good")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def greet(name: str, tone: Literal["warm", "cool"] = "warm") -> str:
    """Greet somebody."""
    return f"{'Dear' if tone == 'warm' else 'Hello'} {name}"


@server.tool()
def remove(path: str) -> str:
    """Remove a file."""
    return f"removed {path}"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def environment() -> dict[str, str]:
    """All variables of this process."""
    return dict(os.environ)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]), json_response="json" in sys.argv)
    else:
        server.run()
