"""``kimi-mcp simulator``: a strict local imitation of a provider. I/O: listens, prints its address."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_mcp.cli.console import Printer, complain

if TYPE_CHECKING:
    import anyio
    from anyio.abc import TaskStatus

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
) -> None:
    """Run a strict imitation of a provider.

    It speaks the provider's API on this machine until Ctrl-C, and prints its base URL first.
    """
    import anyio

    from kimi_mcp.simulator.dialects import DIALECTS

    if provider not in DIALECTS:
        raise typer.BadParameter(f"there is no {provider}; there are {', '.join(DIALECTS)}.", param_hint="--provider")
    try:
        fault = anyio.run(_serve, provider, host, port, faults)
    except KeyboardInterrupt:
        return
    if fault is not None:
        complain(f"{fault[:1].upper()}{fault[1:]}.")
        raise typer.Exit(1)


async def _serve(provider: str, host: str, port: int, faults: Path | None) -> str | None:
    """Serve until interrupted; returns why it could not, in a sentence."""
    import anyio

    from kimi_mcp.simulator import ScenarioError, SimulatorError, serve_simulator

    async with anyio.create_task_group() as tasks:
        await tasks.start(_end_on_sigterm, tasks.cancel_scope)
        try:
            await serve_simulator(provider, host, port, faults, partial(_announce, provider))
        except (SimulatorError, ScenarioError) as fault:
            tasks.cancel_scope.cancel()
            return str(fault)
    return None


async def _end_on_sigterm(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    """Stop at SIGTERM; where the platform has no such receiver, SIGTERM ends the process anyway."""
    import anyio

    try:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                scope.cancel()
    except NotImplementedError:
        task_status.started()


def _announce(provider: str, base_url: str) -> None:
    from kimi_mcp import catalogue

    print(base_url, flush=True)
    page = Printer(sys.stderr, label=0, indent=0)
    row = catalogue.load().providers.get(provider)
    variables = [f"KIMI_PROVIDER={provider}", f"KIMI_BASE_URL={base_url}"]
    if row is not None and row.needs_key:
        variables.append("KIMI_API_KEY=any-will-do")
    page.line(f"It imitates {row.name if row else provider}. Point kimi-mcp at it, in another terminal:", "quiet")
    page.command("", f"  {' '.join(variables)} kimi-mcp ask Hello")
    page.line("Ctrl-C ends it.", "quiet")
