"""The commands, thin. ``kimi-mcp`` alone serves, and then nothing else of this file is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of the command."""
    if sys.argv[1:] in ([], ["serve"]):
        from kimi_mcp.server.entry_point import serve

        serve()
    from kimi_mcp.cli.commands import app

    app()
