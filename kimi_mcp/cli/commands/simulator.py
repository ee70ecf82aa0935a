"""``kimi-mcp simulator``: the strict local stand-in for a provider. I/O: listens, prints where."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_mcp.cli.console import Printer, complain

if TYPE_CHECKING:
    import anyio
    from anyio.abc import TaskStatus

PORT = 8731
"""Where the catalogue's provider ``simulator`` is looked for."""


def simulator(
    provider: Annotated[
        str, typer.Option(metavar="NAME", help="Whose dialect it speaks and whose models it serves.")
    ] = "simulator",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = PORT,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    faults: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="A scenario, JSON or TOML, of what shall go wrong."
        ),
    ] = None,
) -> None:
    """Run a strict stand-in for a provider.

    It speaks the provider's API on this machine until Ctrl-C, and prints its base URL first.
    """
    import anyio

    _known(provider)
    try:
        fault = anyio.run(_serve, provider, host, port, faults)
    except KeyboardInterrupt:
        return
    if fault is not None:
        complain(f"{fault[:1].upper()}{fault[1:]}.")
        raise typer.Exit(1)


def _known(provider: str) -> None:
    from kimi_mcp.simulator.dialects import DIALECTS

    if provider not in DIALECTS:
        raise typer.BadParameter(f"there is no {provider}; there are {', '.join(DIALECTS)}.", param_hint="--provider")


async def _serve(provider: str, host: str, port: int, faults: Path | None) -> str | None:
    """Serve until told to end; why it could not, in a sentence."""
    import anyio

    from kimi_mcp.simulator import ScenarioError, SimulatorError, serve_simulator

    def announce(base_url: str) -> None:
        print(base_url, flush=True)
        _say_how(provider, base_url)

    async with anyio.create_task_group() as tasks:
        await tasks.start(_end_on_sigterm, tasks.cancel_scope)
        try:
            await serve_simulator(provider, host, port, faults, announce)
        except (SimulatorError, ScenarioError) as fault:
            tasks.cancel_scope.cancel()
            return str(fault)
    return None


async def _end_on_sigterm(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    """Whoever started us says that it is over; where the platform can't tell us so, it ends us anyway."""
    import anyio

    try:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                scope.cancel()
    except NotImplementedError:
        task_status.started()


def _say_how(provider: str, base_url: str) -> None:
    from kimi_mcp import catalogue

    page = Printer(sys.stderr, label=0, indent=0)
    row = catalogue.load().providers.get(provider)
    variables = [f"KIMI_PROVIDER={provider}", f"KIMI_BASE_URL={base_url}"]
    if row is not None and row.needs_key:
        variables.append("KIMI_API_KEY=any-will-do")
    page.line(f"It stands in for {row.name if row else provider}. Point kimi-mcp at it, in another terminal:", "quiet")
    page.command("", f"  {' '.join(variables)} kimi-mcp ask Hello")
    page.line("Ctrl-C ends it.", "quiet")
