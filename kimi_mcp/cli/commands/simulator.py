"""``kimi-mcp simulator``: a strict local imitation of a provider. I/O: listens, prints its address."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kimi_mcp.cli.commands.signals import handled_signals
from kimi_mcp.cli.console import Printer, complain

PORT = 8731
"""The port of the catalogue's provider ``simulator``."""


def simulator(
    provider: Annotated[
        str, typer.Option(metavar="NAME", help="Whose API it imitates and whose models it serves.")
    ] = "simulator",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = PORT,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    faults: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="A scenario, JSON or TOML, of faults to produce."
        ),
    ] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests a minute that each account may send.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens a minute, sent and requested.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at once of each account.")] = None,
) -> None:
    """Run a strict imitation of a provider.

    It speaks the provider's API on this machine until Ctrl-C, and prints its base URL first.
    """
    import anyio

    from kimi_mcp.simulator import RateLimits, ScenarioError, SimulatorError, serve_simulator
    from kimi_mcp.simulator.dialects import DIALECTS

    if provider not in DIALECTS:
        raise typer.BadParameter(f"there is no {provider}; there are {', '.join(DIALECTS)}.", param_hint="--provider")
    limits = RateLimits(rpm=rpm, tpm=tpm, concurrency=concurrency)
    serve = partial(serve_simulator, provider, host, port, faults, partial(_announce, provider), limits)
    try:
        with handled_signals():
            anyio.run(serve)
    except KeyboardInterrupt:
        return
    except (SimulatorError, ScenarioError) as fault:
        message = str(fault)
        complain(f"{message[:1].upper()}{message[1:]}.")
        raise typer.Exit(2 if isinstance(fault, ScenarioError) else 1) from None


def _announce(provider: str, base_url: str) -> None:
    from kimi_mcp import catalogue

    print(base_url, flush=True)
    page = Printer(sys.stderr, label=0, indent=0)
    row = catalogue.load().providers.get(provider)
    variables = [f"KIMI_PROVIDER={provider}", f"KIMI_BASE_URL={base_url}"]
    if row is not None and row.needs_key:
        variables.append("KIMI_API_KEY=any-will-do")
    of = "" if row is None or provider == "simulator" else f" of {row.name}"
    page.line(f"Simulator{of}. Point kimi-mcp at it, in another terminal:", "quiet")
    page.command("", f"  {' '.join(variables)} kimi-mcp ask Hello")
    page.line("Ctrl-C ends it.", "quiet")
