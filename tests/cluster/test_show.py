"""``make cluster``: what a person sees of a cluster, and that nothing of it stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.cluster.show import REPLICAS

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")]

SHORT = "import anyio, scripts.cluster.show as show; raise SystemExit(not anyio.run(show.play, show.PLACES[:12]))"


def processes_of(folder: Path) -> list[str]:
    """The commands of processes that have that folder for temporary files."""
    found: list[str] = []
    for process in Path("/proc").iterdir():
        try:
            if f"TMPDIR={folder}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except (OSError, ValueError):
            continue
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the user of PostgreSQL can go to, with a name that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="kimi-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_it_shows_who_goes_on_and_leaves_nothing_behind(folder: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(folder)}
    shown = subprocess.run(
        [sys.executable, "-c", SHORT], env=environment, capture_output=True, text=True, check=False, timeout=180
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "took up" in shown.stdout
    assert all(f"replica-{number}" in shown.stdout for number in range(1, REPLICAS + 1))
    assert "✗" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []
