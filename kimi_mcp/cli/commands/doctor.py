"""``kimi-mcp doctor``: what is configured, what the provider serves, what is wrong. I/O: ``kimi_mcp.cli.doctor``'s."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Annotated

import typer

from kimi_mcp.cli.console import Printer, print_json


def doctor(
    probe: Annotated[
        bool, typer.Option("--probe", help="Spend a few tokens to hold the provider against the catalogue.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON.")] = False,
) -> None:
    """Say what is wrong, and how to mend it.

    Looks at what is configured, what the provider serves, and whether a call would work. No key is ever shown. Exit
    status: 0 only when a call would work.
    """
    import anyio

    from kimi_mcp.cli.doctor import examine, show
    from kimi_mcp.core import json_logs
    from kimi_mcp.core.settings import read_settings

    settings = read_settings(os.environ)
    json_logs.configure("CRITICAL")
    with nullcontext() if as_json else Printer().waiting("asking the provider …"):
        diagnosis = anyio.run(examine, os.environ, settings, probe)
    if as_json:
        print_json(diagnosis.as_json())
    else:
        show(diagnosis)
    if not diagnosis.works:
        raise typer.Exit(1)
