"""Claude Code hides tools behind a search: what ``install`` and ``install --defer`` write about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.cli.install import InstallResult, LaunchCommand, install, load_hosts, uninstall

HOST = load_hosts()["claude-code"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".claude.json"


def put(file: Path, *, defer: bool = False) -> InstallResult:
    host = HOST.deferred() if defer else HOST
    return install(
        host, "kimi", LaunchCommand(command="/bin/kimi-mcp"), {}, environment={}, file=file, home=file.parent
    )


def entry(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())["mcpServers"]["kimi"]


def test_the_entry_shows_every_tool_to_the_model_unless_it_is_deferred(file: Path, tmp_path: Path) -> None:
    put(file)
    put(other := tmp_path / "other.json", defer=True)
    assert entry(file)["alwaysLoad"] is True
    assert entry(file) == entry(other) | {"alwaysLoad": True}
    assert "alwaysLoad" not in entry(other)


def test_an_entry_of_before_gets_the_field_and_defer_takes_it_out_again(file: Path) -> None:
    put(file, defer=True)
    assert put(file).action == "written"
    assert entry(file)["alwaysLoad"] is True
    assert put(file).action == "unchanged"
    assert put(file, defer=True).action == "written"
    assert "alwaysLoad" not in entry(file)


def test_what_a_user_wrote_there_stays(file: Path) -> None:
    put(file)
    file.write_text(file.read_text().replace("true", "false"))
    assert put(file).action == "unchanged"
    assert entry(file)["alwaysLoad"] is False


def test_uninstall_takes_the_whole_entry_out(file: Path) -> None:
    file.write_text("{}")
    put(file)
    uninstall(HOST, "kimi", file=file, home=file.parent)
    assert file.read_text() == "{}"
