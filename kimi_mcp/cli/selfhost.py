"""Which weights of Kimi fit a machine, in which engine, and the commands that download and serve them.

I/O: reads the catalogue's ``selfhosting.toml``; asks the system for its memory, and nvidia-smi where it is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kimi_mcp import catalogue
from kimi_mcp.cli.console import counted
from kimi_mcp.core.profiles import SourcedRecord

GB = 1_000_000_000
"""Bytes; the unit of all sizes of weights and of memory."""

_MIB = 1 << 20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_NVIDIA_TIMEOUT_S = 10

_EXPERT_GB = 1.6
"""GPU memory, GB, for one more expert of every layer: ktransformers' example has 30 of them in 96 GB …"""

_EXPERTS = 384
"""Experts of a layer."""

_WITHOUT_EXPERTS_GB = 48
"""… and needs 48 GB at least."""


class Weights(SourcedRecord, strict=False):
    """One set of files that holds the model."""

    id: str
    name: str
    model: str
    """The model's catalogue id."""
    repo: str
    """On Hugging Face."""
    patterns: tuple[str, ...]
    """Which of its files; empty: all."""
    folder: str
    """Where it is downloaded to, relative."""
    size_gb: int


class Needs(BaseModel, frozen=True, extra="forbid"):
    """What weights need at least in an engine, GB; of several alternatives one is enough."""

    weights: str
    ram_gb: int = 0
    gpu_gb: int = 0
    """Memory of all GPUs."""
    gpus: int = 0
    together_gb: int = 0
    """Main memory and memory of all GPUs."""


class EngineOption(SourcedRecord, strict=False):
    """One engine, and the weights that it runs."""

    engine: str
    weights: tuple[str, ...]
    """Ids of weights, the best first."""
    provider: str
    base_url: str
    """Where it listens; left out in the file: at the provider's base URL."""
    install: tuple[str, ...]
    launch: str
    note: str
    needs: tuple[Needs, ...]

    @property
    def splits_tensors(self) -> bool:
        """Whether it divides each layer among the GPUs, which takes a power of two of them."""
        return "{gpus}" in self.launch


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine has. None: unknown."""

    ram_gb: float | None
    """Main memory; in a container what it may use of it."""
    gpus: int | None
    gpu_gb: float | None
    """Memory of all GPUs."""
    cores: int

    @property
    def even_gpus(self) -> int:
        """The largest power of two of its GPUs."""
        return 1 << max(0, (self.gpus or 0).bit_length() - 1)

    def usable_gpu_gb(self, option: EngineOption) -> float:
        """Memory of the GPUs that an engine can use, all of them alike."""
        all_gb, gpus = self.gpu_gb or 0, self.gpus or 0
        return all_gb * self.even_gpus / gpus if option.splits_tensors and gpus else all_gb


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Weights in an engine that runs them, with every command."""

    weights: Weights
    option: EngineOption
    download: str
    launch: str
    settings: Mapping[str, str]
    """The settings of kimi-mcp for it."""

    def as_json(self) -> dict[str, Any]:
        """The fit as ``--json`` prints it."""
        return {
            "engine": self.option.engine,
            "weights": self.weights.name,
            "repo": self.weights.repo,
            "size_gb": self.weights.size_gb,
            "doubt": self.weights.doubt,
            "install": list(self.option.install),
            "download": self.download,
            "launch": self.launch,
            "settings": dict(self.settings),
            "note": self.option.note,
            "sources": [f"{row.source} ({row.checked.isoformat()})" for row in (self.option, self.weights)],
        }


@cache
def load() -> tuple[Mapping[str, Weights], tuple[EngineOption, ...]]:
    """All weights by their id, and all engines in order of preference."""
    rows = tomllib.loads(Path(catalogue.__file__).with_name("selfhosting.toml").read_text("utf-8"))
    weights = [Weights(**row) for row in rows["weights"]]
    providers = catalogue.load().providers
    options = [
        EngineOption.model_validate({"base_url": providers[row["provider"]].base_url, **row}) for row in rows["engines"]
    ]
    return {each.id: each for each in weights}, tuple(options)


def fits(machine: Machine) -> list[Fit]:
    """All that fits, the best first: engines in their order, weights from large to small, doubtful ones last."""
    found = [_fit(weights, option, machine) for weights, option, lacks in misses(machine) if not lacks]
    return sorted(found, key=lambda fit: fit.weights.doubt is not None)


def misses(machine: Machine) -> list[tuple[Weights, EngineOption, list[str]]]:
    """For all weights in all engines what the machine lacks, by the alternative that lacks least."""
    weights, options = load()
    return [
        (
            weights[id],
            option,
            min((_lacks(each, option, machine) for each in option.needs if each.weights == id), key=len),
        )
        for option in options
        for id in option.weights
    ]


def _lacks(needs: Needs, option: EngineOption, machine: Machine) -> list[str]:
    """What is missing, in words; what is unknown counts as missing."""
    ram, gpu, gpus = machine.ram_gb or 0, machine.usable_gpu_gb(option), machine.gpus or 0
    used = f" on {machine.even_gpus} of the {gpus} GPUs" if option.splits_tensors and gpus > machine.even_gpus else ""
    return [
        text
        for there, needed, text in (
            (ram, needs.ram_gb, f"{needs.ram_gb:,} GB of main memory"),
            (gpus, needs.gpus, counted(needs.gpus, "GPU")),
            (gpu, needs.gpu_gb, f"{needs.gpu_gb:,} GB of GPU memory{used}"),
            (ram + gpu, needs.together_gb, f"{needs.together_gb:,} GB of both together"),
        )
        if there < needed
    ]


def _fit(weights: Weights, option: EngineOption, machine: Machine) -> Fit:
    profile = catalogue.load().profile(option.provider, weights.model)
    assert profile is not None, "the tests compare every row with the catalogue"
    gpu_gb = machine.usable_gpu_gb(option)
    # llama.cpp keeps all of the model on the GPUs where it fits there, else the experts in main memory.
    offload = "" if not gpu_gb else " --n-gpu-layers 99" + ("" if gpu_gb > weights.size_gb else " --n-cpu-moe 99")
    launch = option.launch.format(
        folder=weights.folder,
        pattern=weights.patterns[0] if weights.patterns else "*",
        wire_id=profile.serving.wire_id,
        cores=machine.cores,
        gpus=machine.even_gpus,
        gpu_experts=min(_EXPERTS, max(0, int((gpu_gb - _WITHOUT_EXPERTS_GB) / _EXPERT_GB))),
        offload=offload,
    )
    settings = {"KIMI_PROVIDER": option.provider, "KIMI_BASE_URL": option.base_url, "KIMI_MODEL": weights.model}
    return Fit(weights=weights, option=option, download=_download(weights), launch=launch, settings=settings)


def _download(weights: Weights) -> str:
    """One shell command; Hugging Face's key comes from HF_TOKEN, where it is set."""
    patterns = f", allow_patterns={list(weights.patterns)}" if weights.patterns else ""
    call = (
        f"snapshot_download('{weights.repo}', local_dir='{weights.folder}'{patterns}, token=os.environ.get('HF_TOKEN'))"
    )
    return f'python -c "import os; from huggingface_hub import snapshot_download; {call}"'


def this_machine(cgroup_limit: Path = _CGROUP_LIMIT) -> Machine:
    """What this machine has. ``cgroup_limit``: the file with a container's limit of memory."""
    memory, gpus = _ram(cgroup_limit), _nvidia()
    return Machine(
        ram_gb=None if memory is None else memory / GB,
        gpus=None if gpus is None else len(gpus),
        gpu_gb=None if gpus is None else sum(gpus) / GB,
        cores=os.cpu_count() or 1,
    )


def _ram(cgroup_limit: Path) -> int | None:
    """Bytes of main memory."""
    if sys.platform == "win32":
        return _windows_ram()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        limit = cgroup_limit.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return memory
    return min(memory, int(limit)) if limit.isdigit() else memory


def _windows_ram() -> int | None:
    import ctypes

    class MemoryStatus(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            ("others", ctypes.c_ulonglong * 6),
        )

    status = MemoryStatus()
    status.length = ctypes.sizeof(status)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 -- the name exists on Windows alone
    return int(status.total) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _nvidia() -> list[int] | None:
    """Bytes of memory of each NVIDIA GPU; None where there may be GPUs of another maker."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 -- a program of the system, with fixed arguments
            [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_NVIDIA_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [int(line) * _MIB for line in done.stdout.split("\n") if line.strip().isdigit()]
