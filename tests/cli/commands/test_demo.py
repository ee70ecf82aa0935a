"""``kimi-mcp demo``: every step holds, whatever the user has configured. The slowest of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.cli.demo import ACTS, play
from kimi_mcp.server.tools import TOOLS
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


async def test_without_its_picture_and_its_clip_the_demo_says_so_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not await play(acts=[act for act in ACTS if act.reads], examples=tmp_path)
    printed = capsys.readouterr().out
    assert "There is no examples/shot.png and no examples/clip.mp4" in printed
    assert "make demo" in printed
    assert str(tmp_path) not in printed
