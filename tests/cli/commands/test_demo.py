"""``kimi-mcp demo``: every step holds, whatever the user has configured. The slowest of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kimi_mcp
from kimi_mcp.server.tools import TOOLS
from scripts.demo import ACTS
from tests.cli.commands.shell import kimi_process


@pytest.mark.soak
async def test_every_step_of_the_demo_holds_whatever_is_configured() -> None:
    settings = {"KIMI_POLICY": "nonsense", "KIMI_BASE_URL": "http://127.0.0.1:9", "MOONSHOT_API_KEY": "sk-of-the-user"}
    ended = await kimi_process("demo", settings=settings)
    assert ended.status == 0, ended.out
    assert "✗" not in ended.out
    assert "steps held" in ended.out.splitlines()[-2]
    for tool in TOOLS:
        assert f"{tool}(" in ended.out, "every tool is called"
    for act in ACTS:
        for scene in act.scenes:
            assert (scene.__doc__ or "").strip() in ended.out
    assert "\x1b" not in ended.out
    assert "sk-of-the-user" not in ended.out


def test_an_installed_package_says_that_the_demo_needs_a_checkout(tmp_path: Path) -> None:
    shutil.copytree(Path(kimi_mcp.__file__).parent, tmp_path / "kimi_mcp", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "kimi_mcp", "demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Run `make demo` in a checkout" in done.stderr
