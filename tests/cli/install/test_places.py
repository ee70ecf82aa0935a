"""Where each host's file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.cli.install import (
    HostRow,
    place_of,
)
from tests.cli.install.example_files import HOSTS, each_host

HOME = Path("/home/me")


@pytest.mark.parametrize(
    ("id", "system", "environment", "place"),
    [
        ("claude-desktop", "linux", {}, "/home/me/.config/Claude/claude_desktop_config.json"),
        ("claude-desktop", "linux", {"XDG_CONFIG_HOME": "/x"}, "/x/Claude/claude_desktop_config.json"),
        ("claude-desktop", "linux", {"XDG_CONFIG_HOME": "x"}, "/home/me/.config/Claude/claude_desktop_config.json"),
        ("claude-desktop", "macos", {},
         "/home/me/Library/Application Support/Claude/claude_desktop_config.json"),
        ("claude-desktop", "windows", {"APPDATA": "/r"}, "/r/Claude/claude_desktop_config.json"),
        ("claude-code", "linux", {}, "/home/me/.claude.json"),
        ("claude-code", "macos", {"CLAUDE_CONFIG_DIR": "/c"}, "/c/.claude.json"),
        ("cursor", "windows", {}, "/home/me/.cursor/mcp.json"),
        ("vscode", "linux", {}, "/home/me/.config/Code/User/mcp.json"),
        ("vscode", "macos", {}, "/home/me/Library/Application Support/Code/User/mcp.json"),
        ("vscode", "windows", {}, "/home/me/AppData/Roaming/Code/User/mcp.json"),
        ("codex", "linux", {"CODEX_HOME": "/c"}, "/c/config.toml"),
        ("codex", "windows", {}, "/home/me/.codex/config.toml"),
        ("gemini", "macos", {}, "/home/me/.gemini/settings.json"),
        ("kimi-code", "linux", {"KIMI_CODE_HOME": "/k"}, "/k/mcp.json"),
        ("kimi-code", "linux", {"KIMI_CODE_HOME": " "}, "/home/me/.kimi-code/mcp.json"),
        ("zed", "macos", {}, "/home/me/.config/zed/settings.json"),
        ("zed", "windows", {"APPDATA": "/r"}, "/r/Zed/settings.json"),
        ("goose", "linux", {}, "/home/me/.config/goose/config.yaml"),
        ("goose", "windows", {"APPDATA": "/r"}, "/r/Block/goose/config/config.yaml"),
        ("opencode", "macos", {}, "/home/me/.config/opencode/opencode.jsonc"),
        ("opencode", "linux", {"XDG_CONFIG_HOME": "/x"}, "/x/opencode/opencode.jsonc"),
        ("qwen-code", "linux", {}, "/home/me/.qwen/settings.json"),
        ("qwen-code", "linux", {"QWEN_HOME": "/q"}, "/q/settings.json"),
        ("copilot", "windows", {}, "/home/me/.copilot/mcp-config.json"),
        ("copilot", "linux", {"COPILOT_HOME": "/c"}, "/c/mcp-config.json"),
        ("cline", "linux", {}, "/home/me/.cline/data/settings/cline_mcp_settings.json"),
        ("kilo", "linux", {}, "/home/me/.config/kilo/kilo.jsonc"),
    ],
)  # fmt: skip
def test_a_host_s_file_lies_where_the_host_looks(id: str, system: Any, environment: dict[str, str], place: str) -> None:
    assert place_of(HOSTS[id], system, HOME, environment) == Path(place)


@each_host
@pytest.mark.parametrize("system", ["linux", "macos", "windows"])
def test_every_host_has_a_place_on_every_system(host: HostRow, system: Any) -> None:
    assert place_of(host, system, HOME, {}).is_absolute()


def test_of_several_places_the_one_that_is_there_counts(tmp_path: Path) -> None:
    packaged = tmp_path / "Packages/Claude_pzs8sxrjxfjjc/LocalCache/Roaming/Claude/claude_desktop_config.json"
    packaged.parent.mkdir(parents=True)
    environment = {"APPDATA": str(tmp_path / "roaming"), "LOCALAPPDATA": str(tmp_path)}
    assert place_of(HOSTS["claude-desktop"], "windows", tmp_path, environment) == packaged
