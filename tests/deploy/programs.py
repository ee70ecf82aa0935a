"""Programs of ``.venv/deploy``, which ``make soak`` installs: validators. I/O."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.deploy.parts import ROOT

PROGRAMS = ROOT / ".venv" / "deploy"


def program(name: str) -> Path:
    """Where a program lies; skips the test where it could not be had."""
    found = PROGRAMS / "bin" / name
    if not found.exists():
        pytest.skip(f"{name} is not installed in .venv/deploy: `make soak` does that")
    return found


def accepted(name: str, *arguments: str | Path) -> str:
    """What a validator says, which must accept what it is given."""
    ended = subprocess.run(
        [program(name), *arguments], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
