"""What this machine has: main memory, GPUs, cores. I/O: asks the system, and nvidia-smi where it is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

GB = 1_000_000_000
"""Bytes; the sizes of weights and of memory are given in these."""

_MIB = 1 << 20
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_ASK_WITHIN_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to run on. None: unknown."""

    ram_gb: float | None
    """Main memory, GB; in a container what it may have of it."""
    gpus: int | None
    """How many GPUs."""
    gpu_gb: float | None
    """Memory of all GPUs, GB."""
    cores: int
    """Cores."""


def this_machine() -> Machine:
    """The machine that this runs on."""
    memory = _ram()
    cards = _nvidia()
    return Machine(
        ram_gb=None if memory is None else memory / GB,
        gpus=None if cards is None else len(cards),
        gpu_gb=None if cards is None else sum(cards) / GB,
        cores=os.cpu_count() or 1,
    )


def _ram() -> int | None:
    """Bytes of main memory."""
    if sys.platform == "win32":
        return _windows_ram()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        limit = _CGROUP.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return memory
    return min(memory, int(limit)) if limit.isdigit() else memory


def _windows_ram() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulonglong)
                for name in ("total", "free", "page", "page_free", "virtual", "v_free", "ext")
            ),
        )

    status = Status()
    status.length = ctypes.sizeof(status)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 -- the name is there on Windows alone
    return int(status.total) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _nvidia() -> list[int] | None:
    """Bytes of memory of each NVIDIA GPU; empty where there is none, None where GPUs of others may be."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        asked = subprocess.run(  # noqa: S603 -- a program of the system, with words of ours
            [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_ASK_WITHIN_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [int(line) * _MIB for line in asked.stdout.split("\n") if line.strip().isdigit()]
