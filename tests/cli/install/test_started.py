"""How a host is to start the server: as the very command that installed it, from wherever the host stands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kimi_mcp.cli.install import started_as
from kimi_mcp.cli.install.entry import is_ours
from kimi_mcp.core.errors import InvalidArguments


def test_the_command_is_written_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kimi-mcp").touch()
    monkeypatch.chdir(tmp_path)
    assert started_as("./kimi-mcp").command == str(tmp_path / "kimi-mcp")


def test_a_link_to_the_command_is_written_as_the_link(tmp_path: Path) -> None:
    (tmp_path / "kimi-mcp").symlink_to(sys.executable)
    assert started_as(str(tmp_path / "kimi-mcp")).command == str(tmp_path / "kimi-mcp")


def test_on_windows_the_ending_that_the_script_took_off_comes_back(tmp_path: Path) -> None:
    (tmp_path / "kimi-mcp.exe").touch()
    assert started_as(str(tmp_path / "kimi-mcp"), windows=True).command == str(tmp_path / "kimi-mcp.exe")


def test_a_module_is_written_with_its_python() -> None:
    started = started_as(str(Path("kimi_mcp") / "__main__.py"))
    assert (started.command, started.args) == (sys.executable, ("-m", "kimi_mcp"))


def test_a_package_that_only_this_folder_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(InvalidArguments, match="only in the working directory") as error:
        started_as("/somewhere/kimi_mcp/__main__.py")
    assert "make demo" in error.value.fix


FIELDS = {"command": "command", "args": "args"}


@pytest.mark.parametrize(
    ("entry", "ours"),
    [
        ({"command": "/a b/kimi-mcp"}, True),
        ({"command": "C:\\x\\kimi-mcp.exe", "args": []}, True),
        ({"command": "/usr/bin/python", "args": ["-m", "kimi_mcp"]}, True),
        ({"command": "uv", "args": ["run", "kimi-mcp"]}, True),
        ({"command": "/x/kimi-mcp-proxy"}, False),
        ({"command": "kimi"}, False),
        ({"url": "https://kimi-mcp"}, False),
        ({"command": 3, "args": "kimi-mcp"}, False),
        ("kimi-mcp", False),
        (None, False),
    ],
)
def test_an_entry_is_ours_by_what_it_starts(entry: object, ours: bool) -> None:
    assert is_ours(entry, FIELDS) == ours
