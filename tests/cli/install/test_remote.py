"""``install --url``: which URLs are taken, what each host's file holds for one, and how an entry becomes another."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.cli.install import (
    HostRow,
    InstallResult,
    RemoteServer,
    checked_token,
    checked_url,
    install_remote,
    snippet,
)
from kimi_mcp.cli.install.documents import FORMATS, changed
from kimi_mcp.core.errors import InvalidArguments, NotConfigured
from tests.cli.install.example_files import HOSTS, command_of, put, servers, take, with_other, written

URL = "https://kimi.example.org/mcp"
TOKEN = "t0ken-of-a-pers0n"
REMOTE = {id: host for id, host in HOSTS.items() if host.remote is not None}

each_remote_host = pytest.mark.parametrize("host", REMOTE.values(), ids=REMOTE)


def connect(
    host: HostRow, file: Path, url: str = URL, variable: str | None = "KIMI_TOKEN", name: str = "kimi"
) -> InstallResult:
    assert host.remote is not None
    token = TOKEN if variable and host.remote.way == "plain" else None
    server = RemoteServer(url=url, variable=variable, token=token)
    return install_remote(host, name, server, file=file, home=file.parent)


def url_of(host: HostRow, file: Path) -> Any:
    assert host.remote is not None
    return servers(host, file)["kimi"][host.remote.url_field]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("https://kimi.example.org", URL),
        (" HTTPS://Kimi.Example.Org/mcp/ ", URL),
        ("https://example.org:8443/kimi/mcp", "https://example.org:8443/kimi/mcp"),
        ("http://localhost:8000", "http://localhost:8000/mcp"),
        ("http://127.0.0.2:8000/mcp", "http://127.0.0.2:8000/mcp"),
        ("http://[::1]:8000/", "http://[::1]:8000/mcp"),
    ],
)
def test_a_url_is_taken_and_the_endpoint_added_where_it_has_no_path(given: str, taken: str) -> None:
    assert checked_url(given) == taken


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://kimi.example.org/mcp", "plain http"),
        ("http://127.0.0.1.example.org/mcp", "plain http"),
        ("http://10.0.0.7:8000/mcp", "plain http"),
        (f"https://me:{TOKEN}@kimi.example.org/mcp", "name or password"),
        (f"https://{TOKEN}@kimi.example.org/mcp", "name or password"),
        (f"https://kimi.example.org/mcp?key={TOKEN}", "query"),
        (f"https://kimi.example.org/mcp#{TOKEN}", "fragment"),
        ("kimi.example.org/mcp", "no http or https"),
        ("ws://kimi.example.org/mcp", "no http or https"),
        ("https://", "no http or https"),
        ("https:///mcp", "no http or https"),
        ("https://kimi.example.org:0/mcp", "no http or https"),
        ("https://kimi.example.org:99999/mcp", "no http or https"),
        ("https://kimi example.org/mcp", "no http or https"),
        ("https://${HOST}/mcp", "no http or https"),
        ("https://kimi.example.org/$HOME", "no http or https"),
        ("https://[::1/mcp", "no http or https"),
        ("https://kïmi.example.org/mcp", "no http or https"),
        ("", "no http or https"),
    ],
)
def test_any_other_url_is_refused_with_its_fix_and_not_repeated(given: str, expected: str) -> None:
    with pytest.raises(InvalidArguments, match=expected) as error:
        checked_url(given)
    assert error.value.fix
    assert TOKEN not in error.value.message + error.value.fix


@pytest.mark.parametrize("text", [f"Bearer {TOKEN}", f'"{TOKEN}"', f"{TOKEN}\nX: y", "tökén", ""])
def test_what_can_be_no_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidArguments, match="KIMI_TOKEN") as error:
        checked_token(text, "KIMI_TOKEN")
    assert TOKEN not in error.value.message + error.value.fix


def test_a_host_without_remote_servers_says_what_to_do_instead() -> None:
    assert [id for id, host in HOSTS.items() if host.remote is None] == ["claude-desktop"]
    assert "Connectors" in str(HOSTS["claude-desktop"].no_remote)


@each_remote_host
def test_a_token_is_named_and_written_only_where_the_host_has_no_better_place_for_it(host: HostRow, file: Path) -> None:
    done = connect(host, file)
    text = file.read_text("utf-8")
    assert host.remote is not None
    plain = host.remote.way == "plain"
    assert url_of(host, file) == URL
    assert (TOKEN in text) == plain
    assert done.in_clear == (("KIMI_TOKEN",) if plain else ())
    assert plain or "KIMI_TOKEN" in text or "kimi-token" in text


def test_codex_and_vscode_get_what_their_own_commands_write(file: Path) -> None:
    connect(HOSTS["codex"], file)
    assert tomllib.loads(file.read_text("utf-8"))["mcp_servers"]["kimi"] == {
        "url": URL,
        "required": True,
        "bearer_token_env_var": "KIMI_TOKEN",
    }
    file.unlink()
    connect(HOSTS["vscode"], file)
    assert json.loads(file.read_text("utf-8")) == {
        "servers": {
            "kimi": {"type": "http", "url": URL, "headers": {"Authorization": "Bearer ${input:kimi-mcp-kimi-token}"}}
        },
        "inputs": [
            {
                "type": "promptString",
                "id": "kimi-mcp-kimi-token",
                "description": "KIMI_TOKEN, for kimi-mcp",
                "password": True,
            }
        ],
    }


@each_remote_host
def test_without_a_token_nothing_of_one_is_written(host: HostRow, file: Path) -> None:
    connect(host, file, variable=None)
    assert host.remote is not None
    assert servers(host, file)["kimi"].keys() == host.remote.entry.keys()


@each_remote_host
def test_what_print_shows_is_what_would_be_written_but_for_a_token(host: HostRow, file: Path) -> None:
    connect(host, file)
    shown = snippet(host, "kimi", RemoteServer(url=URL, variable="KIMI_TOKEN"), {}, {})
    assert shown.replace("YOUR_TOKEN", TOKEN) == file.read_text("utf-8")


@each_remote_host
def test_what_is_there_stays_and_comes_back(host: HostRow, file: Path) -> None:
    old = with_other(host)
    file.write_text(old, "utf-8")
    connect(host, file)
    assert servers(host, file).keys() == {"other", "kimi"}
    assert take(host, file).action == "removed"
    assert file.read_text("utf-8") == old
    assert {path.name for path in file.parent.iterdir()} == {
        file.name, f"{file.name}.before-kimi-mcp", f"{file.name}.before-kimi-mcp-2"
    }  # fmt: skip


@each_remote_host
def test_doing_it_again_changes_nothing_and_another_url_only_that(host: HostRow, file: Path) -> None:
    connect(host, file)
    entry, before = servers(host, file)["kimi"], written(file)
    assert connect(host, file).action == "unchanged"
    assert written(file) == before
    other = "https://other.example.org/mcp"
    assert connect(host, file, url=other).action == "written"
    assert host.remote is not None
    assert servers(host, file)["kimi"] == entry | {host.remote.url_field: other}
    assert take(host, file).action == "removed"


@each_remote_host
def test_an_entry_becomes_one_with_a_url_and_one_that_is_started_again(host: HostRow, file: Path) -> None:
    file.write_text(with_other(host), "utf-8")
    put(host, file, {"KIMI_PROVIDER": "moonshot"})
    local = servers(host, file)["kimi"]
    text = changed(FORMATS[host.kind], file.read_text("utf-8"), put=[((*host.servers, "kimi", "note"), "mine")])
    file.write_text(text, "utf-8")
    assert connect(host, file).action == "written"
    fresh = file.with_name("fresh")
    connect(host, fresh)
    assert servers(host, file)["kimi"] == servers(host, fresh)["kimi"] | {"note": "mine"}
    assert put(host, file, {"KIMI_PROVIDER": "moonshot"}).action == "written"
    assert servers(host, file)["kimi"] == local | {"note": "mine"}
    assert command_of(servers(host, file)["kimi"])


@each_remote_host
def test_a_token_goes_where_none_is_wanted_any_more(host: HostRow, file: Path) -> None:
    connect(host, file)
    assert connect(host, file, variable=None).action == "written"
    fresh = file.with_name("fresh")
    connect(host, fresh, variable=None)
    assert servers(host, file) == servers(host, fresh)
    assert connect(host, file, variable="OTHER").action == "written"


def test_other_headers_of_a_person_stay(file: Path) -> None:
    host = HOSTS["cursor"]
    connect(host, file)
    entry = json.loads(file.read_text("utf-8"))
    entry["mcpServers"]["kimi"]["headers"]["X-Team"] = "mine"
    file.write_text(json.dumps(entry), "utf-8")
    assert connect(host, file).kept == (), "what is installed is there"
    connect(host, file, variable=None)
    assert servers(host, file)["kimi"]["headers"] == {"X-Team": "mine"}
    connect(host, file, variable=None)
    assert servers(host, file)["kimi"]["headers"] == {"X-Team": "mine"}


def test_a_question_goes_with_the_token_that_it_was_for(file: Path) -> None:
    host = HOSTS["vscode"]
    connect(host, file)
    connect(host, file, variable=None)
    assert "inputs" not in json.loads(file.read_text("utf-8"))


@each_remote_host
def test_another_server_at_a_url_is_left_alone(host: HostRow, file: Path) -> None:
    assert host.remote is not None
    theirs = {host.remote.url_field: "https://platform.example.org/docs/mcp"}
    old = changed(FORMATS[host.kind], "", put=[((*host.servers, "kimi"), theirs)])
    file.write_text(old, "utf-8")
    for refused in (lambda: connect(host, file), lambda: put(host, file), lambda: take(host, file)):
        with pytest.raises(NotConfigured, match="already the name of another server"):
            refused()
    assert file.read_text("utf-8") == old
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_an_entry_that_was_put_in_by_hand_from_what_print_shows_is_ours_once_it_is_installed(file: Path) -> None:
    host = HOSTS["kimi-code"]
    file.write_text(snippet(host, "kimi", RemoteServer(url=URL, variable="KIMI_TOKEN"), {}, {}), "utf-8")
    assert connect(host, file).action == "unchanged"
    assert take(host, file).action == "removed"


def test_whoever_removes_a_written_token_learns_that_the_copy_still_holds_it(file: Path) -> None:
    connect(HOSTS["zed"], file)
    assert take(HOSTS["zed"], file).in_clear == ("Authorization",)


@pytest.mark.parametrize("id", ["claude-code", "qwen-code", "copilot"])
def test_tools_are_shown_or_left_to_a_search_at_a_url_too(id: str, file: Path) -> None:
    host = HOSTS[id]
    assert host.always_load is not None
    connect(host, file)
    assert servers(host, file)["kimi"][host.always_load] == host.entry[host.always_load]
    connect(host.deferred(), file)
    assert host.always_load not in servers(host, file)["kimi"]
    connect(host, file)
    put(host.deferred(), file)
    assert host.always_load not in servers(host, file)["kimi"]
