"""Three hosts hide tools behind a search: what ``install`` and ``install --defer`` write about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.cli.install import HostRow, InstallResult, LaunchCommand, install, load_hosts, uninstall

HOSTS = load_hosts()
FIELDS = {"claude-code": "alwaysLoad", "qwen-code": "alwaysLoadTools", "copilot": "deferTools"}

each_host = pytest.mark.parametrize(("host", "field"), [(HOSTS[id], field) for id, field in FIELDS.items()], ids=FIELDS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


def put(host: HostRow, file: Path, *, defer: bool = False) -> InstallResult:
    host = host.deferred() if defer else host
    return install(
        host, "kimi", LaunchCommand(command="/bin/kimi-mcp"), {}, environment={}, file=file, home=file.parent
    )


def entry(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())["mcpServers"]["kimi"]


@each_host
def test_the_entry_shows_every_tool_to_the_model_unless_it_is_deferred(
    host: HostRow, field: str, file: Path, tmp_path: Path
) -> None:
    put(host, file)
    put(host, other := tmp_path / "other.json", defer=True)
    assert entry(file)[field] == host.entry[field]
    assert entry(file) == entry(other) | {field: host.entry[field]}
    assert field not in entry(other)


@each_host
def test_an_entry_of_before_gets_the_field_and_defer_takes_it_out_again(host: HostRow, field: str, file: Path) -> None:
    put(host, file, defer=True)
    assert put(host, file).action == "written"
    assert entry(file)[field] == host.entry[field]
    assert put(host, file).action == "unchanged"
    assert put(host, file, defer=True).action == "written"
    assert field not in entry(file)


@each_host
def test_what_a_user_wrote_there_stays(host: HostRow, field: str, file: Path) -> None:
    put(host, file)
    file.write_text(file.read_text().replace(json.dumps(host.entry[field]), '"mine"'))
    done = put(host, file)
    assert (done.action, done.kept) == ("unchanged", (field,))
    assert entry(file)[field] == "mine"


@each_host
def test_uninstall_takes_the_whole_entry_out(host: HostRow, field: str, file: Path) -> None:
    file.write_text("{}")
    put(host, file)
    uninstall(host, "kimi", file=file, home=file.parent)
    assert file.read_text() == "{}"
