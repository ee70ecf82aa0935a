"""``kimi-mcp serve``: the server on stdio; ``cli.py`` takes a shorter way to the same place. I/O: all of serving's."""

from __future__ import annotations


def serve() -> None:
    """Serve the Model Context Protocol on stdin and stdout, for the host that started this."""
    from kimi_mcp.serving import serve

    serve()
