"""``kimi-mcp serve``: the server on stdio; ``cli.py`` takes a shorter way to the same place. I/O: all of serving's."""

from __future__ import annotations


def serve() -> None:
    """Serve MCP on stdin and stdout.

    This is what a host starts; it is the same as no command at all.
    """
    from kimi_mcp.server.entry_point import serve

    serve()
