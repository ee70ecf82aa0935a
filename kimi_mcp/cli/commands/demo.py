"""``kimi-mcp demo``: everything at work, without a key and without a network. I/O: all of ``kimi_mcp.cli.demo``'s."""

from __future__ import annotations

import typer


def demo() -> None:
    """Show every tool at work, without a key.

    Starts a simulator, and the server as a host would; calls every tool on real inputs, and checks each step. Needs
    no key and no network, and passes over the settings of your environment. Exit status: 0 only when every step
    held.
    """
    import anyio

    from kimi_mcp.cli.demo import play

    if not anyio.run(play):
        raise typer.Exit(1)
