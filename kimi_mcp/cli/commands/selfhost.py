"""``kimi-mcp selfhost``: which weights fit a machine, and how to serve them. I/O: reads the machine, prints."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_mcp.cli.console import Printer, counted, print_json

if TYPE_CHECKING:
    from kimi_mcp.cli.selfhost import EngineOption, Fit, Machine, Weights

    Miss = tuple[Weights, EngineOption, list[str]]

_LARGE_GPU_GB = 141
"""Memory of an H200; from it the number of GPUs follows where it is not given."""

_MOST = 1_000_000
"""More than any machine has, of GB and of GPUs."""


def selfhost(
    ram_gb: Annotated[
        float | None, typer.Option("--ram-gb", min=0, max=_MOST, help="Main memory in GB. Left out: this machine's.")
    ] = None,
    vram_gb: Annotated[
        float | None,
        typer.Option("--vram-gb", min=0, max=_MOST, help="Memory of all GPUs in GB. Left out: this machine's."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, max=_MOST, help="How many GPUs. Left out: this machine's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what fits as JSON.")] = False,
) -> None:
    """Say which weights fit a machine.

    Reads this machine, or the figures that are given, and prints for each fit the commands to download and to serve,
    and what to set here afterwards. Exit status: 0 when something fits, 1 when nothing does.
    """
    from kimi_mcp.cli.selfhost import fits, misses

    machine = _machine(ram_gb, vram_gb, gpus)
    found, lacking = fits(machine), [miss for miss in misses(machine) if miss[2]]
    if as_json:
        print_json(_as_json(machine, found, lacking))
    else:
        _show(machine, found, lacking)
    if not found:
        raise typer.Exit(1)


def _machine(ram_gb: float | None, gpu_gb: float | None, gpus: int | None) -> Machine:
    """This machine, with the given figures in place of its own."""
    from kimi_mcp.cli.selfhost import this_machine

    machine = this_machine()
    if ram_gb is not None:
        machine = replace(machine, ram_gb=ram_gb)
    if gpu_gb is None and gpus is None:
        # Given figures describe another machine: if they name no GPUs, it has none.
        return machine if ram_gb is None else replace(machine, gpus=0, gpu_gb=0.0)
    if gpu_gb is None:
        raise typer.BadParameter("give the memory of all of them, too.", param_hint="--vram-gb")
    if gpus == 0 and gpu_gb > 0:
        raise typer.BadParameter("leave it out where there are no GPUs.", param_hint="--vram-gb")
    return replace(machine, gpu_gb=gpu_gb, gpus=gpus if gpus is not None else math.ceil(gpu_gb / _LARGE_GPU_GB))


def _as_json(machine: Machine, found: list[Fit], lacking: list[Miss]) -> dict[str, Any]:
    return {
        "machine": {
            "ram_gb": machine.ram_gb and round(machine.ram_gb, 1),
            "gpus": machine.gpus,
            "vram_gb": machine.gpu_gb and round(machine.gpu_gb, 1),
            "cores": machine.cores,
        },
        "fits": [fit.as_json() for fit in found],
        "lacks": [
            {"engine": option.engine, "weights": weights.name, "size_gb": weights.size_gb, "lacks": lacks}
            for weights, option, lacks in lacking
        ],
    }


def _show(machine: Machine, found: list[Fit], lacking: list[Miss]) -> None:
    page = Printer(label=10)
    ram = "main memory unknown" if machine.ram_gb is None else f"{machine.ram_gb:,.0f} GB of main memory"
    gpus = "GPUs unknown"
    if machine.gpus is not None and machine.gpu_gb is not None:
        memory = f" with {machine.gpu_gb:,.0f} GB" if machine.gpus else ""
        gpus = counted(machine.gpus, "GPU") + memory
    page.heading("Machine", f"{ram}, {gpus}, {machine.cores} cores")
    if machine.ram_gb is None:
        page.mark("unknown", "Its main memory can't be read from here; it counts as none.", fix="Give --ram-gb.")
    if machine.gpu_gb is None:
        page.mark("unknown", "Its GPUs can't be read from here; they count as none.", fix="Give --vram-gb and --gpus.")
    page.line()
    for fit in found:
        _show_fit(page, fit)
    if lacking:
        page.heading("What does not fit" if found else "Nothing fits")
    for weights, option, lacks in lacking:
        page.mark("bad", f"{weights.name} ({weights.size_gb} GB) in {option.engine}: needs {', '.join(lacks)}")
    if not found:
        page.line()
        page.mark(
            "bad", "This machine can't serve Kimi K2.5 itself.", fix="Use a provider; `kimi-mcp models` lists them."
        )


def _show_fit(page: Printer, fit: Fit) -> None:
    page.heading(f"{fit.weights.name} in {fit.option.engine}", f"{fit.weights.size_gb} GB")
    if fit.weights.doubt:
        page.mark("warn", fit.weights.doubt)
    for command in fit.option.install:
        page.command("install", command)
    page.command("download", fit.download)
    page.command("serve", fit.launch)
    page.command("then set", " ".join(f"{name}={value}" for name, value in fit.settings.items()))
    page.row("note", fit.option.note, "quiet")
    page.row("source", f"{fit.option.source} ({fit.option.checked.isoformat()})", "quiet")
    page.line()
