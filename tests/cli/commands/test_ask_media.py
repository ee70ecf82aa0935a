"""``kimi-mcp ask`` with pictures, clips and files: which tool they mean, what arrives, and what may be read."""

from __future__ import annotations

import base64
import os
import signal
from pathlib import Path
from typing import Any, get_args

import anyio
import anyio.lowlevel
import pytest
from typer.testing import CliRunner

from kimi_mcp.cli.commands import app
from kimi_mcp.cli.commands.arguments import AskTool, chosen_tool, with_typed_folders
from kimi_mcp.core.settings import Settings
from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from tests import contract
from tests.cli.commands.shell import kimi, started, to
from tests.server.media import hanging_resolver

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SHOT, CLIP = EXAMPLES / "shot.png", EXAMPLES / "clip.mp4"


def messages(sim: Simulator) -> Any:
    chat = sim.requests[-1].body
    assert chat is not None
    return chat["messages"]


def media(sim: Simulator) -> list[bytes]:
    """What the last request held, decoded."""
    parts = [part for part in messages(sim)[-1]["content"] if part["type"] != "text"]
    return [base64.b64decode(part[part["type"]]["url"].partition(";base64,")[2]) for part in parts]


async def test_pictures_mean_vision_and_arrive_in_order_byte_for_byte(sim: Simulator, tmp_path: Path) -> None:
    from PIL import Image

    small = tmp_path / "small.png"
    Image.new("RGB", (8, 8), "red").save(small)
    ended = await kimi("ask", "Compare.", "--image", str(SHOT), "--image", str(small), "--json", settings=to(sim))
    assert (ended.status, ended.json["mode"]) == (0, "thinking"), ended.err
    assert media(sim) == [SHOT.read_bytes(), small.read_bytes()]


async def test_a_clip_means_video_and_can_be_asked_about_at_once(sim: Simulator) -> None:
    ended = await kimi("ask", "What?", "--video", str(CLIP), "--mode", "instant", "--json", settings=to(sim))
    assert (ended.status, ended.json["mode"]) == (0, "instant"), ended.err
    assert media(sim) == [CLIP.read_bytes()]


async def test_files_go_along_with_either_text_tool(sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Alpha stays.\n")
    (tmp_path / "b.md").write_text("Beta too.\n")
    glob = str(tmp_path / "*.md")
    ended = await kimi("ask", "Which stay?", "--file", glob, "--tool", "instant", settings=to(sim))
    assert ended.status == 0, ended.err
    context, prompt = messages(sim)
    assert "## a.md\n\n```\nAlpha stays.\n```" in context["content"]
    assert "## b.md\n\n```\nBeta too.\n```" in context["content"]
    assert prompt == {"role": "user", "content": "Which stay?"}


async def test_a_path_that_was_typed_may_be_read_wherever_it_lies(sim: Simulator, tmp_path: Path) -> None:
    picture = tmp_path / "shot.png"
    picture.write_bytes(SHOT.read_bytes())
    for name in (str(picture), picture.as_uri(), os.path.relpath(picture)):
        ended = await kimi("ask", "What?", "--image", name, settings=to(sim))
        assert ended.status == 0, ended.err


async def test_where_the_roots_are_set_they_alone_count(sim: Simulator, tmp_path: Path) -> None:
    settings = to(sim, KIMI_ROOTS=str(tmp_path))
    ended = await kimi("ask", "What?", "--image", str(SHOT), settings=settings)
    assert (ended.status, ended.out) == (1, "")
    assert "outside the folders" in ended.err
    assert "KIMI_ROOTS" in ended.err
    assert str(EXAMPLES) not in ended.err


@pytest.mark.parametrize("name", [".env", "id_ed25519"])
async def test_a_key_is_not_sent_though_it_was_typed(name: str, sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / name).write_text("MOONSHOT_API_KEY=x\n")
    ended = await kimi("ask", "What?", "--file", str(tmp_path / name), "--json", settings=to(sim))
    assert ended.status == 1
    assert ended.json["error"]["code"] == "path_refused"
    assert not [request for request in sim.requests if request.method == "POST"]


async def test_a_clip_given_as_a_picture_is_refused_with_the_tool_that_takes_it(sim: Simulator) -> None:
    ended = await kimi("ask", "What?", "--image", str(CLIP), "--json", settings=to(sim))
    assert ended.status == 1
    assert ended.json["error"]["code"] == "media_rejected"
    assert "kimi_video" in ended.json["error"]["fix"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--image", "a.png", "--video", "b.mp4"], "--video"),
        (["--image", "a.png", "--tool", "think"], "--image"),
        (["--image", "a.png", "--tool", "video"], "--image"),
        (["--video", "b.mp4", "--tool", "vision"], "--video"),
        (["--file", "a.md", "--image", "a.png"], "--file"),
        (["--mode", "instant"], "--mode"),
        (["--tool", "vision"], "--image"),
        (["--tool", "video"], "--video"),
        (["--image", "a.png", "--mode", "fast"], "--mode"),
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(options: list[str], named: str) -> None:
    ended = CliRunner().invoke(app, ["ask", "What?", *options])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert named in ended.stderr


def test_every_tool_that_calls_a_model_can_be_called_from_a_shell_as_the_contract_says() -> None:
    tools = get_args(AskTool)
    assert [f"kimi_{tool}" for tool in tools] == [name for name, tool in TOOLS.items() if tool.mode]
    assert f"--tool {'|'.join(tools)}]" in contract.TEXT.replace("\\|", "|")


@pytest.mark.parametrize(("given", "tool"), [(["images"], "vision"), (["video"], "video"), ([], "think")])
def test_what_is_given_chooses_the_tool(given: list[str], tool: AskTool) -> None:
    assert chosen_tool(None, given) == tool


def test_the_folders_of_typed_paths_become_roots_beside_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somebody")
    media = ["/pictures/a.png", "../up.png", "https://example.org/b.png", "data:image/png;base64,", "ms://file-1"]
    settings = with_typed_folders(Settings(), media, ["/docs/**/*.md", "~/notes.txt"])
    roots = [str(tmp_path), "/pictures", str(tmp_path.parent), "/docs", "/somebody"]
    assert settings.roots == os.pathsep.join(roots)


def test_a_folder_whose_name_holds_the_separator_opens_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_typed_folders(Settings(), [f"/a{os.pathsep}/etc/x.png"], []).roots == str(tmp_path)


@pytest.mark.parametrize("settings", [Settings(roots="/only"), Settings()])
def test_where_nothing_was_typed_or_roots_are_set_the_settings_stay(settings: Settings) -> None:
    typed = ["/pictures/a.png"] if settings.roots else []
    assert with_typed_folders(settings, typed, []) is settings


@pytest.mark.soak
async def test_ctrl_c_ends_it_at_once_though_a_resolver_hangs(sim: Simulator, tmp_path: Path) -> None:
    requested = hanging_resolver(tmp_path)
    settings = to(sim, PYTHONPATH=str(tmp_path))
    async with started("ask", "What is it?", "--image", "https://slow.example.com/a.png", settings=settings) as process:
        while not requested.exists():
            await anyio.lowlevel.checkpoint()
        process.send_signal(signal.SIGINT)
        with anyio.fail_after(60):
            assert await process.wait() == 130
