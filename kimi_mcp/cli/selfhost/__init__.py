"""``kimi-mcp selfhost``: which weights fit a machine, in which engine, and how they are served.

What is known stands in the catalogue's ``selfhosting.toml`` (``rows``); a machine is read, or given (``machine``).
Pure but for those two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kimi_mcp import catalogue
from kimi_mcp.cli.selfhost.machine import Machine, this_machine
from kimi_mcp.cli.selfhost.rows import EngineOption, Needs, Weights, load

__all__ = ["EngineOption", "Fit", "Machine", "Needs", "Weights", "fits", "load", "misses", "this_machine"]

_EXPERT_GB = 1.6
"""GB of GPU memory that one more expert of every layer takes: ktransformers' example has 30 of them in 96 GB …"""

_EXPERTS = 384
"""Experts of a layer."""

_WITHOUT_EXPERTS_GB = 48
"""… and needs 48 GB at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Weights that fit, in an engine that runs them, with every command."""

    weights: Weights
    """The weights."""
    way: EngineOption
    """The engine."""
    download: str
    """The command that downloads the weights."""
    launch: str
    """The command that serves them."""
    settings: Mapping[str, str]
    """The settings of kimi-mcp for it."""

    def as_json(self) -> dict[str, Any]:
        """The fit as ``--json`` prints it."""
        return {
            "engine": self.way.engine,
            "weights": self.weights.name,
            "repo": self.weights.repo,
            "size_gb": self.weights.size_gb,
            "doubt": self.weights.doubt,
            "install": list(self.way.install),
            "download": self.download,
            "launch": self.launch,
            "settings": dict(self.settings),
            "note": self.way.note,
            "sources": [f"{row.source} ({row.date.isoformat()})" for row in (self.way, self.weights)],
        }


def fits(machine: Machine) -> list[Fit]:
    """All that fits, the best first: engines in their order, weights from large to small, doubtful ones last."""
    weights, ways = load()
    found = [
        _fit(weights[id], way, machine)
        for way in ways
        for id in way.weights
        if any(not _lacks(needs, machine) for needs in way.needs if needs.weights == id)
    ]
    return sorted(found, key=lambda fit: fit.weights.doubt is not None)


def misses(machine: Machine) -> list[tuple[Weights, EngineOption, list[str]]]:
    """For all weights in all engines what the machine lacks, by the needs that it comes nearest to."""
    weights, ways = load()
    return [
        (weights[id], way, min((_lacks(needs, machine) for needs in way.needs if needs.weights == id), key=len))
        for way in ways
        for id in way.weights
    ]


def _lacks(needs: Needs, machine: Machine) -> list[str]:
    """What is missing, in words; what is unknown counts as missing."""
    ram, gpu, gpus = machine.ram_gb or 0, machine.gpu_gb or 0, machine.gpus or 0
    return [
        text
        for there, needed, text in (
            (ram, needs.ram_gb, f"{needs.ram_gb:,} GB of main memory"),
            (gpus, needs.gpus, f"{needs.gpus} GPU{'s' if needs.gpus > 1 else ''}"),
            (gpu, needs.gpu_gb, f"{needs.gpu_gb:,} GB of GPU memory"),
            (ram + gpu, needs.together_gb, f"{needs.together_gb:,} GB of both together"),
        )
        if there < needed
    ]


def _fit(weights: Weights, way: EngineOption, machine: Machine) -> Fit:
    profile = catalogue.load().profile(way.provider, weights.model)
    assert profile is not None, "tests/cli/selfhost hold every way against the catalogue"
    gpu_gb, gpus = machine.gpu_gb or 0, machine.gpus or 0
    launch = way.launch.format(
        folder=weights.folder,
        pattern=weights.patterns[0] if weights.patterns else "*",
        wire_id=profile.serving.wire_id,
        cores=machine.cores,
        gpus=1 << max(0, gpus.bit_length() - 1),
        gpu_experts=min(_EXPERTS, max(0, int((gpu_gb - _WITHOUT_EXPERTS_GB) / _EXPERT_GB))),
        offload=_offload(weights.size_gb, gpu_gb),
    )
    settings = {"KIMI_PROVIDER": way.provider, "KIMI_BASE_URL": way.base_url, "KIMI_MODEL": weights.model}
    return Fit(weights=weights, way=way, download=_download(weights), launch=launch, settings=settings)


def _offload(size_gb: int, gpu_gb: float) -> str:
    """The options of llama.cpp: all on the GPUs where it fits there, else the experts in main memory."""
    if not gpu_gb:
        return ""
    return " --n-gpu-layers 99" if gpu_gb > size_gb else " --n-gpu-layers 99 --n-cpu-moe 99"


def _download(weights: Weights) -> str:
    """One command for a shell; the key of Hugging Face is read from HF_TOKEN, where it is set."""
    patterns = f", allow_patterns={list(weights.patterns)}" if weights.patterns else ""
    call = (
        f"snapshot_download('{weights.repo}', local_dir='{weights.folder}'{patterns}, token=os.environ.get('HF_TOKEN'))"
    )
    return f'python -c "import os; from huggingface_hub import snapshot_download; {call}"'
