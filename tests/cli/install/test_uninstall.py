"""What is refused, and what is left once the entry is taken out again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.cli.install import (
    HostRow,
)
from kimi_mcp.cli.install.documents import FORMATS
from kimi_mcp.core.errors import NotConfigured
from tests.cli.install.example_files import HOSTS, each_host, put, servers, take, with_other


@each_host
def test_a_name_that_another_server_has_is_left_alone(host: HostRow, file: Path) -> None:
    old = with_other(host)
    file.write_text(old, "utf-8")
    for refused in (lambda: put(host, file, name="other"), lambda: take(host, file, "other")):
        with pytest.raises(NotConfigured, match="already the name of another server") as error:
            refused()
        assert "--name" in error.value.fix
    assert file.read_text("utf-8") == old


BROKEN = {"json": '{"mcpServers": {', "jsonc": '{"a": 1 "b"}', "toml": "[a\n", "yaml": "a: [\n"}


@each_host
@pytest.mark.parametrize("raw", ["broken", "latin-1", "wrong kind"])
def test_a_broken_file_is_reported_and_left_as_it_is(host: HostRow, file: Path, raw: str) -> None:
    wrong = {"json": "[]", "jsonc": "[]", "toml": f"{host.servers[0]} = 1\n", "yaml": "- 1\n"}[host.kind]
    bytes_ = {"broken": BROKEN[host.kind].encode(), "latin-1": b'{"a": "\xe9"}', "wrong kind": wrong.encode()}[raw]
    file.write_bytes(bytes_)
    with pytest.raises(NotConfigured, match="left as it is") as error:
        put(host, file)
    assert error.value.fix
    assert file.read_bytes() == bytes_
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_read_only_file_is_left_as_it_is(file: Path) -> None:
    file.write_text("{}", "utf-8")
    file.chmod(0o444)
    with pytest.raises(NotConfigured, match="read-only") as error:
        put(HOSTS["cursor"], file)
    assert "--print" in error.value.fix
    assert file.read_text("utf-8") == "{}"


def test_a_folder_in_the_file_s_place_is_reported(file: Path) -> None:
    file.mkdir()
    with pytest.raises(NotConfigured, match="no file that a host would read"):
        put(HOSTS["cursor"], file)


def test_a_link_that_leads_to_itself_is_reported(file: Path) -> None:
    file.symlink_to(file)
    with pytest.raises(NotConfigured, match="can't be read"):
        put(HOSTS["cursor"], file)


def test_a_file_that_changed_in_the_meantime_is_left_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kimi_mcp.cli.install import files

    file.write_text("{}", "utf-8")
    old = files.read(file, file.parent)
    file.write_text('{"by": "the host itself"}', "utf-8")
    with pytest.raises(NotConfigured, match="changed by something else"):
        files.write(old, "{}")
    assert file.read_text("utf-8") == '{"by": "the host itself"}'


def test_a_write_that_fails_leaves_the_old_file_and_no_other(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("{}", "utf-8")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotConfigured, match="No space left"):
        put(HOSTS["cursor"], file)
    assert file.read_text("utf-8") == "{}"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@each_host
def test_taking_out_what_is_not_there_is_no_mistake(host: HostRow, file: Path) -> None:
    assert take(host, file).action == "absent"
    file.write_text(with_other(host), "utf-8")
    assert take(host, file).action == "absent"
    assert file.read_text("utf-8") == with_other(host)


EMPTIED = {"json": "{}", "jsonc": "{}", "toml": "", "yaml": "{}"}


@each_host
def test_a_file_that_was_made_for_the_entry_is_left_with_nothing_in_it(host: HostRow, file: Path) -> None:
    put(host, file)
    take(host, file)
    assert file.read_text("utf-8").strip() == EMPTIED[host.kind]


@each_host
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_place_for_servers_that_was_made_for_the_entry_goes_with_it(host: HostRow, file: Path, line_end: str) -> None:
    old = {
        "json": '{\n    "theme": "dark",\n    "z": 1\n}\n',
        "jsonc": '{\n    // mine\n    "theme": "dark" // and this\n}\n',
        "toml": '# mine\ntheme = "dark"\n',
        "yaml": "# mine\ntheme: dark\n",
    }[host.kind].replace("\n", line_end)
    file.write_bytes(old.encode())
    put(host, file)
    take(host, file)
    assert file.read_bytes() == old.encode()


def holding(host: HostRow, inside: str) -> str:
    """A file whose place for servers was there, with nothing in it but ``inside``."""
    name = host.servers[0]
    return f"{name}: {{{inside}}}\nz: 1\n" if host.kind == "yaml" else f'{{\n  "{name}": {{{inside}}},\n  "z": 1\n}}\n'


@pytest.mark.parametrize("host", [host for host in HOSTS.values() if host.kind != "toml"], ids=lambda host: host.id)
def test_an_empty_place_for_servers_that_was_there_stays(host: HostRow, file: Path) -> None:
    file.write_text(holding(host, ""), "utf-8")
    put(host, file)
    take(host, file)
    assert FORMATS[host.kind].read(file.read_text("utf-8")) == {host.servers[0]: {}, "z": 1}


@pytest.mark.parametrize(
    ("id", "old", "new"),
    [
        ("cursor", '{\n  "z": 1\n}\n', ('"mcpServers": {', '"mcpServers": {\n    // mine')),
        ("cursor", '{\n  "z": 1\n}\n', ('  "mcpServers": {', '  // mine\n  "mcpServers": {')),
        ("cursor", '{\n  "z": 1\n}\n', ("    }\n  }\n}", "    }\n  } // mine\n}")),
        ("cursor", '{\n  "mcpServers": null,\n  "z": 1\n}\n', ("  },\n", "  } // mine\n,\n")),
        ("goose", "z: 1\n", ("extensions:", "extensions: # mine")),
        ("goose", "z: 1\n", ("extensions:", "# mine\nextensions:")),
    ],
    ids=["inside", "above", "behind", "before-comma", "yaml-behind", "yaml-above"],
)
def test_a_comment_on_the_place_for_servers_keeps_both(id: str, old: str, new: tuple[str, str], file: Path) -> None:
    file.write_text(old, "utf-8")
    put(HOSTS[id], file)
    text = file.read_text("utf-8")
    assert new[0] in text
    file.write_text(text.replace(*new), "utf-8")
    take(HOSTS[id], file)
    assert "mine" in file.read_text("utf-8")
    assert servers(HOSTS[id], file) == {}


@pytest.mark.parametrize("old", [{"z": 1}, {"inputs": [], "z": 1}], ids=["none", "empty"])
def test_a_list_of_questions_goes_only_where_it_was_made_for_ours(old: Any, file: Path) -> None:
    file.write_text(json.dumps(old), "utf-8")
    put(HOSTS["vscode"], file)
    take(HOSTS["vscode"], file)
    assert json.loads(file.read_text("utf-8")) == old


@pytest.mark.parametrize(
    ("id", "old"),
    [
        ("cursor", '{\n  "mcpServers": null,\n  "z": 1\n}\n'),
        ("vscode", '{\n  "servers": null,\n  "inputs": null,\n  "z": 1\n}\n'),
        ("goose", "extensions: null\nz: 1\n"),
    ],
)
def test_a_null_in_the_place_for_servers_comes_back_though_the_file_was_changed_meanwhile(
    id: str, old: str, file: Path
) -> None:
    file.write_text(old, "utf-8")
    put(HOSTS[id], file)
    file.write_text(file.read_text("utf-8").replace("1\n", "2\n"), "utf-8")
    take(HOSTS[id], file)
    assert file.read_text("utf-8") == old.replace("1\n", "2\n")


@pytest.mark.parametrize("nothing", ["", " ~", " null", " {}"])
def test_a_comment_behind_a_place_for_servers_that_says_nothing_stays(nothing: str, file: Path) -> None:
    file.write_text(f"z: 1\nextensions:{nothing} # mine\n", "utf-8")
    put(HOSTS["goose"], file)
    assert "extensions: # mine\n" in file.read_text("utf-8")
    assert servers(HOSTS["goose"], file).keys() == {"kimi"}


@each_host
def test_a_second_entry_keeps_the_place_for_servers(host: HostRow, file: Path) -> None:
    put(host, file)
    put(host, file, name="second")
    take(host, file)
    assert servers(host, file).keys() == {"second"}
