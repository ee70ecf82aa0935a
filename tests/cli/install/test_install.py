"""Installing into example files of every host: what is kept, what is written, what is refused."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kimi_mcp.cli.install import (
    HostRow,
    InstallResult,
    LaunchCommand,
    install,
    load_hosts,
    place_of,
    snippet,
    uninstall,
)
from kimi_mcp.cli.install.documents import FORMATS, changed
from kimi_mcp.cli.install.files import BACKUP
from kimi_mcp.core.errors import InvalidArguments, NotConfigured

HOSTS = load_hosts()
STARTED = LaunchCommand(command="/opt/kimi mcp/bin/kimi-mcp")
KEY = "sk-5up3r-s3cr3t-k3y"
OTHER = {"command": "/usr/bin/other", "args": ["--é"], "cmd": "/usr/bin/other"}

each_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)


def put(
    host: HostRow, file: Path, env: dict[str, str] | None = None, name: str = "kimi", **environment: str
) -> InstallResult:
    return install(host, name, STARTED, env or {}, environment=environment, file=file, home=file.parent)


def take(host: HostRow, file: Path, name: str = "kimi") -> InstallResult:
    return uninstall(host, name, file=file, home=file.parent)


def servers(host: HostRow, file: Path) -> Any:
    value = FORMATS[host.kind].read(file.read_text("utf-8-sig"))
    for step in host.servers:
        value = value[step]
    return value


def with_other(host: HostRow) -> str:
    """A host's file with another server in it, and with comments where the kind has them."""
    text = changed(FORMATS[host.kind], "", put=[((*host.servers, "other"), OTHER)])
    return {"json": "", "jsonc": "// mine\n", "toml": "# mine\n", "yaml": "# mine\n"}[host.kind] + text


def written(file: Path) -> tuple[int, ...]:
    """What changes with each writing; when it was last read is not of it."""
    state = file.stat()
    return state.st_ino, state.st_mtime_ns, state.st_size


def command_of(entry: Any) -> str:
    return entry.get("command") or entry["cmd"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "host.file"


# ------------------------------------------------------------------------------------------------- writing


@each_host
def test_a_new_file_has_the_entry_alone_and_is_its_owners(host: HostRow, tmp_path: Path) -> None:
    file = tmp_path / "not" / "there" / "yet"
    done = put(host, file)
    assert (done.action, done.new_file, done.backup) == ("written", True, None)
    assert command_of(servers(host, file)["kimi"]) == STARTED.command
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@each_host
def test_what_is_there_stays_byte_for_byte(host: HostRow, file: Path) -> None:
    old = with_other(host)
    file.write_text(old, "utf-8")
    done = put(host, file)
    assert servers(host, file)["other"] == OTHER
    assert done.backup is not None
    assert done.backup.read_text("utf-8") == old
    assert take(host, file).action == "removed"
    assert "".join(file.read_text("utf-8").split()) == "".join(old.split())


BLANK = {
    "json": ["", " ", "\n", "{}", "{ }\n", "{\n}\n", '{"WHERE": {}}', '{"WHERE": null}', '{"WHERE": {\n  }\n}\n',
             '{"a": null, "WHERE": null}', '{"a": 1}', '{\n\t"a": [],\n\t"WHERE": { }\n}'],
    "jsonc": ["", "// mine\n", "{} // mine\n", '{"WHERE": {} /* mine */}', '{"WHERE": null, // mine\n}',
              '{\n  // mine\n}',
              '{"a": 1,}\n', '{"WHERE": {\n    // mine\n  }\n}', '{"WHERE": null}', "\r\n", '{"inputs": [], "a": 1}',
              '{"inputs": null}'],
    "toml": ["", "\n", "# mine\n", "a = 1", "a = 1\n\n# mine\n", "[WHERE]\n", "[WHERE] # mine\n", "WHERE = {}\n",
             "[b]\nc = 1\n\n[WHERE]\n", "a = 1\r\n"],
    "yaml": ["", "\n", "# mine\n", "a: 1", "a: 1\n# mine\n", "WHERE:\n", "WHERE: # mine\n", "WHERE: {}\n",
             "WHERE: null\n",
             "WHERE: ~\na: 1\n", "{}\n", "null\n", "WHERE: {}  # mine\nb: 2\n", "a: 1\r\nWHERE:\r\n"],
}  # fmt: skip
"""Files that say nothing, or nothing of servers, in many ways; ``WHERE`` is the name of the place for servers."""


@pytest.mark.parametrize(
    ("host", "old"),
    [(host, text.replace("WHERE", host.servers[0])) for host in HOSTS.values() for text in BLANK[host.kind]],
)
def test_what_was_blank_or_null_is_so_again_after_it_was_taken_out(host: HostRow, old: str, file: Path) -> None:
    file.write_bytes(old.encode())
    put(host, file, {"KIMI_PROVIDER": "moonshot"}, MOONSHOT_API_KEY=KEY)
    assert command_of(servers(host, file)["kimi"]) == STARTED.command
    assert take(host, file).action == "removed"
    assert file.read_bytes() == old.encode()


@each_host
def test_the_first_original_is_kept_whatever_is_written_later(host: HostRow, file: Path) -> None:
    old = with_other(host)
    file.write_text(old, "utf-8")
    first = put(host, file).backup
    second = put(host, file, {"KIMI_PROVIDER": "openrouter"}).backup
    third = take(host, file).backup
    assert first is not None
    assert first.read_text("utf-8") == old
    assert second == third != first
    assert second is not None
    assert "openrouter" in second.read_text("utf-8"), "it is how the file was before the last writing"


@each_host
def test_doing_it_again_changes_nothing_and_writes_nothing(host: HostRow, file: Path) -> None:
    file.write_text(with_other(host), "utf-8")
    put(host, file, {"KIMI_PROVIDER": "openrouter"})
    before, backup = written(file), file.with_name(file.name + BACKUP).read_bytes()
    assert put(host, file, {"KIMI_PROVIDER": "openrouter"}).action == "unchanged"
    assert put(host, file).action == "unchanged"
    assert written(file) == before
    assert file.with_name(file.name + BACKUP).read_bytes() == backup


@each_host
def test_a_byte_order_mark_and_line_ends_stay(host: HostRow, file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + with_other(host).replace("\n", "\r\n").encode())
    put(host, file)
    raw = file.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    assert raw.count(b"\xef\xbb\xbf") == 1
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert servers(host, file).keys() == {"other", "kimi"}


@each_host
@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_filled(host: HostRow, file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    put(host, file)
    assert servers(host, file).keys() == {"kimi"}


@pytest.mark.parametrize("text", ["---\n", "---", "# mine\n---\n\n"])
def test_a_yaml_document_that_has_only_begun_is_filled(text: str, file: Path) -> None:
    file.write_text(text, "utf-8")
    put(HOSTS["goose"], file)
    assert servers(HOSTS["goose"], file).keys() == {"kimi"}
    assert file.read_text("utf-8").startswith(text)


@pytest.mark.parametrize("host", [host for host in HOSTS.values() if host.kind != "toml"], ids=lambda host: host.id)
def test_null_in_the_servers_place_counts_as_none(host: HostRow, file: Path) -> None:
    old = {host.servers[0]: None, "theme": "dark"}
    file.write_text(json.dumps(old), "utf-8")
    assert put(host, file).action == "written"
    new = FORMATS[host.kind].read(file.read_text("utf-8"))
    assert new["theme"] == "dark"
    assert new[host.servers[0]].keys() == {"kimi"}


@each_host
def test_permissions_stay(host: HostRow, file: Path) -> None:
    file.write_text(with_other(host), "utf-8")
    file.chmod(0o640)
    done = put(host, file)
    assert done.backup is not None
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, done.backup)] == [0o640, 0o640]


def test_a_link_stays_a_link_and_what_it_leads_to_is_changed(tmp_path: Path) -> None:
    dotfiles, link = tmp_path / "dotfiles" / "claude.json", tmp_path / ".claude.json"
    dotfiles.parent.mkdir()
    dotfiles.write_text("{}", "utf-8")
    link.symlink_to(dotfiles)
    done = put(HOSTS["claude-code"], link)
    assert link.is_symlink()
    assert done.file == dotfiles.resolve()
    assert "kimi" in json.loads(dotfiles.read_text("utf-8"))["mcpServers"]


@each_host
def test_the_old_command_gives_way_and_what_a_person_added_stays(host: HostRow, file: Path) -> None:
    put(host, file, {"KIMI_MODEL": "kimi-k2.5"})
    entry = servers(host, file)["kimi"]
    field = "cmd" if "cmd" in entry else "command"
    way = (*host.servers, "kimi")
    puts = [((*way, field), "/old/kimi-mcp"), ((*way, "note"), "mine")]
    file.write_text(changed(FORMATS[host.kind], file.read_text("utf-8"), put=puts), "utf-8")
    assert put(host, file).action == "written"
    assert servers(host, file)["kimi"] == entry | {"note": "mine"}


# ------------------------------------------------------------------------------------------------- refusing


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


# ------------------------------------------------------------------------------------------------- keys


@each_host
def test_a_key_is_written_only_where_the_host_has_no_better_place_for_it(host: HostRow, file: Path) -> None:
    done = put(host, file, {"MOONSHOT_API_KEY": KEY})
    plain = host.keys.way == "plain"
    assert (KEY in file.read_text("utf-8")) == plain
    assert done.in_clear == (("MOONSHOT_API_KEY",) if plain else ())
    assert done.keys == ("MOONSHOT_API_KEY",)


def test_whoever_removes_a_key_learns_that_the_copy_still_holds_it(file: Path) -> None:
    put(HOSTS["claude-desktop"], file, {"MOONSHOT_API_KEY": KEY, "KIMI_POLICY": "strict"})
    assert take(HOSTS["claude-desktop"], file).in_clear == ("MOONSHOT_API_KEY",)
    put(HOSTS["claude-code"], file, {"MOONSHOT_API_KEY": KEY})
    assert take(HOSTS["claude-code"], file).in_clear == ()


@each_host
def test_what_is_no_utf_8_is_reported_and_nothing_is_written(host: HostRow, file: Path) -> None:
    with pytest.raises(InvalidArguments, match="KIMI_ROOTS is no UTF-8"):
        put(host, file, {"KIMI_ROOTS": "/data/\udcff"})
    with pytest.raises(InvalidArguments, match="path is no UTF-8"):
        snippet(host, "kimi", LaunchCommand(command="/opt/\udcff/kimi-mcp"), {}, {})
    assert not file.exists()


def test_a_secret_is_known_in_small_letters_too(file: Path) -> None:
    put(HOSTS["cursor"], file, {"search_api_key": KEY})
    assert servers(HOSTS["cursor"], file)["kimi"]["env"]["search_api_key"] == "${env:search_api_key}"


def test_one_host_alone_has_no_place_for_secrets() -> None:
    assert [host.id for host in HOSTS.values() if host.keys.way == "plain"] == ["claude-desktop"]


@each_host
def test_the_key_of_the_environment_is_named_and_never_read_into_the_file(host: HostRow, file: Path) -> None:
    done = put(host, file, OPENROUTER_API_KEY=KEY)
    assert done.keys == ("OPENROUTER_API_KEY",)
    assert KEY not in file.read_text("utf-8")


@pytest.mark.parametrize(
    ("env", "environment", "key"),
    [
        ({}, {}, "MOONSHOT_API_KEY"),
        ({}, {"NOVITA_API_KEY": KEY}, "NOVITA_API_KEY"),
        ({}, {"KIMI_API_KEY": KEY}, "KIMI_API_KEY"),
        ({}, {"KIMI_API_KEY": KEY, "NOVITA_API_KEY": KEY}, "NOVITA_API_KEY"),
        ({"KIMI_PROVIDER": "openrouter"}, {"NOVITA_API_KEY": KEY}, "OPENROUTER_API_KEY"),
        ({"KIMI_PROVIDER": "novita"}, {"NOVITA_API_KEY": KEY, "KIMI_API_KEY": KEY}, "KIMI_API_KEY"),
        ({"KIMI_PROVIDER": "simulator"}, {"NOVITA_API_KEY": KEY}, None),
        ({"KIMI_BASE_URL": "http://127.0.0.1:8000/v1"}, {}, None),
        ({"KIMI_API_KEY": KEY}, {"NOVITA_API_KEY": KEY}, "KIMI_API_KEY"),
        ({"NOVITA_API_KEY": ""}, {"MOONSHOT_API_KEY": KEY}, "NOVITA_API_KEY"),
    ],
)
def test_the_key_that_a_call_would_carry_is_provided_for(
    env: dict[str, str], environment: dict[str, str], key: str | None, file: Path
) -> None:
    done = put(HOSTS["codex"], file, env, **environment)
    assert done.keys == ((key,) if key else ())
    assert tomllib.loads(file.read_text("utf-8"))["mcp_servers"]["kimi"].get("env_vars") == ([key] if key else None)
    assert KEY not in file.read_text("utf-8")


TWO = {"KIMI_PROVIDER": "moonshot", "KIMI_ALLOWED_PROVIDERS": "nim,openrouter"}


@pytest.mark.parametrize(
    ("env", "environment", "keys"),
    [
        (TWO, {"OPENROUTER_API_KEY": KEY}, ("MOONSHOT_API_KEY", "OPENROUTER_API_KEY")),
        (TWO, {"OPENROUTER_API_KEY": KEY, "NVIDIA_API_KEY": KEY, "NOVITA_API_KEY": KEY},
         ("MOONSHOT_API_KEY", "NVIDIA_API_KEY", "OPENROUTER_API_KEY")),
        (TWO, {"KIMI_API_KEY": KEY, "NVIDIA_API_KEY": " "}, ("KIMI_API_KEY",)),
        (TWO | {"KIMI_PROVIDER": "simulator"}, {"NVIDIA_API_KEY": KEY}, ("NVIDIA_API_KEY",)),
        (TWO | {"OPENROUTER_API_KEY": KEY}, {}, ("OPENROUTER_API_KEY", "MOONSHOT_API_KEY")),
        (TWO | {"MOONSHOT_API_KEY": KEY}, {"OPENROUTER_API_KEY": KEY}, ("MOONSHOT_API_KEY", "OPENROUTER_API_KEY")),
        ({"KIMI_ALLOWED_PROVIDERS": "openrouter"}, {"NVIDIA_API_KEY": KEY, "OPENROUTER_API_KEY": KEY},
         ("NVIDIA_API_KEY", "OPENROUTER_API_KEY")),
        ({"KIMI_PROVIDER": "nim"}, {"HF_TOKEN": KEY}, ("HF_TOKEN",)),
    ],
)  # fmt: skip
def test_the_keys_of_allowed_providers_go_the_same_way_as_the_chosen_ones(
    env: dict[str, str], environment: dict[str, str], keys: tuple[str, ...], file: Path
) -> None:
    done = put(HOSTS["codex"], file, env, **environment)
    assert done.keys == keys
    assert tomllib.loads(file.read_text("utf-8"))["mcp_servers"]["kimi"]["env_vars"] == list(keys)
    assert KEY not in file.read_text("utf-8")


@each_host
def test_no_allowed_providers_key_of_the_environment_is_read_into_the_file(host: HostRow, file: Path) -> None:
    done = put(host, file, TWO, OPENROUTER_API_KEY=KEY)
    assert done.keys == ("MOONSHOT_API_KEY", "OPENROUTER_API_KEY")
    assert done.in_clear == ()
    assert KEY not in file.read_text("utf-8")


@pytest.mark.parametrize("given", ["NOVITA_API_KEY", "KIMI_API_KEY"])
def test_an_allowed_providers_key_that_would_choose_another_provider_stays_out(given: str, file: Path) -> None:
    done = put(HOSTS["codex"], file, {given: KEY, "KIMI_ALLOWED_PROVIDERS": "moonshot"}, MOONSHOT_API_KEY=KEY)
    assert done.keys == (given,), "without KIMI_PROVIDER the first key of all decides where everything goes"


def test_providers_that_are_allowed_later_bring_their_keys_and_change_no_other(file: Path) -> None:
    put(HOSTS["codex"], file, NVIDIA_API_KEY=KEY)
    put(HOSTS["codex"], file, {"KIMI_ALLOWED_PROVIDERS": "novita"}, MOONSHOT_API_KEY=KEY, NOVITA_API_KEY=KEY)
    entry = tomllib.loads(file.read_text("utf-8"))["mcp_servers"]["kimi"]
    assert entry["env_vars"] == ["NVIDIA_API_KEY", "NOVITA_API_KEY"]


def test_a_key_that_stands_in_the_entry_is_not_asked_for_when_others_are_allowed(file: Path) -> None:
    entry = {"type": "stdio", "command": "/old/kimi-mcp", "args": [], "env": {"MOONSHOT_API_KEY": KEY}}
    file.write_text(json.dumps({"servers": {"kimi": entry}}), "utf-8")
    put(HOSTS["vscode"], file, {"KIMI_ALLOWED_PROVIDERS": "novita"}, NOVITA_API_KEY=KEY)
    value = json.loads(file.read_text("utf-8"))
    assert value["servers"]["kimi"]["env"]["MOONSHOT_API_KEY"] == KEY
    assert [each["id"] for each in value["inputs"]] == ["kimi-mcp-novita-api-key"]


def test_an_allowed_provider_that_is_none_is_refused_and_nothing_is_written(file: Path) -> None:
    with pytest.raises(InvalidArguments, match="KIMI_ALLOWED_PROVIDERS") as error:
        put(HOSTS["codex"], file, {"KIMI_ALLOWED_PROVIDERS": "openruoter"})
    assert "openrouter" in error.value.fix
    assert not file.exists()


@pytest.mark.parametrize("name", ["MY_TOKEN", "KIMI_DATABASE_URL", "PROXY_PASSWORD"])
def test_other_secrets_are_kept_out_of_the_file_too_and_the_key_is_provided_for_all_the_same(
    name: str, file: Path
) -> None:
    done = put(HOSTS["claude-code"], file, {name: f"x://me:{KEY}@host"})
    assert done.keys == (name, "MOONSHOT_API_KEY")
    assert KEY not in file.read_text("utf-8")


def test_a_reference_that_is_given_is_written_as_it_is(file: Path) -> None:
    put(HOSTS["vscode"], file, {"MOONSHOT_API_KEY": "${input:mine}"})
    assert json.loads(file.read_text("utf-8"))["servers"]["kimi"]["env"] == {"MOONSHOT_API_KEY": "${input:mine}"}
    assert "inputs" not in json.loads(file.read_text("utf-8"))


def test_a_key_that_a_person_put_in_by_hand_is_not_touched(file: Path) -> None:
    entry = {"type": "stdio", "command": "/old/kimi-mcp", "args": [], "env": {"MOONSHOT_API_KEY": KEY}}
    file.write_text(json.dumps({"mcpServers": {"kimi": entry}}), "utf-8")
    put(HOSTS["claude-code"], file, {"KIMI_POLICY": "strict"})
    env = json.loads(file.read_text("utf-8"))["mcpServers"]["kimi"]["env"]
    assert env == {"MOONSHOT_API_KEY": KEY, "KIMI_POLICY": "strict"}


def test_vscode_asks_once_and_forgets_the_question_with_the_entry(file: Path) -> None:
    host = HOSTS["vscode"]
    file.write_text('{\n  "inputs": [{"id": "theirs", "type": "promptString"}] // mine\n}\n', "utf-8")
    put(host, file)
    put(host, file, name="second")
    value = FORMATS["jsonc"].read(file.read_text("utf-8"))
    assert [each["id"] for each in value["inputs"]] == ["theirs", "kimi-mcp-moonshot-api-key"]
    assert value["inputs"][1]["password"] is True
    take(host, file)
    assert "kimi-mcp-moonshot-api-key" in file.read_text("utf-8"), "the second still needs it"
    take(host, file, "second")
    assert [each["id"] for each in FORMATS["jsonc"].read(file.read_text("utf-8"))["inputs"]] == ["theirs"]


@pytest.mark.parametrize("variable", ["NVIDIA_API_KEY", "MY_NAME_TOKEN"])
def test_the_question_names_the_variable_whatever_its_name_holds(variable: str, file: Path) -> None:
    put(HOSTS["vscode"], file, {"KIMI_PROVIDER": "simulator", variable: KEY})
    value = json.loads(file.read_text("utf-8"))
    id = f"kimi-mcp-{variable.lower().replace('_', '-')}"
    (question,) = value["inputs"]
    assert (question["id"], question["description"]) == (id, f"{variable}, for kimi-mcp")
    assert value["servers"]["kimi"]["env"][variable] == f"${{input:{id}}}"


@pytest.mark.parametrize(
    ("id", "hint"),
    [
        ("claude-code", "${MOONSHOT_API_KEY:-}"),
        ("cursor", "${env:MOONSHOT_API_KEY}"),
        ("vscode", "${input:kimi-mcp-moonshot-api-key}"),
        ("gemini", "${MOONSHOT_API_KEY}"),
        ("goose", "MOONSHOT_API_KEY"),
        ("codex", "MOONSHOT_API_KEY"),
    ],
)
def test_each_host_has_its_own_hint_where_the_key_is(id: str, hint: str, file: Path) -> None:
    put(HOSTS[id], file)
    entry = servers(HOSTS[id], file)["kimi"]
    named = entry.get("env_keys") or entry.get("env_vars") or list(entry["env"].values())
    assert named == [hint]


# ------------------------------------------------------------------------------------------------- showing


@each_host
def test_what_print_shows_is_what_would_be_written(host: HostRow, file: Path) -> None:
    put(host, file, {"KIMI_MODEL": "kimi-k2.5"})
    assert snippet(host, "kimi", STARTED, {"KIMI_MODEL": "kimi-k2.5"}, {}) == file.read_text("utf-8")


def test_goose_reads_every_field_that_it_wants(file: Path) -> None:
    put(HOSTS["goose"], file)
    entry = yaml.safe_load(file.read_text("utf-8"))["extensions"]["kimi"]
    assert entry["name"] == "kimi"
    assert entry["enabled"] is True
    assert (entry["type"], entry["args"], entry["envs"], entry["timeout"]) == ("stdio", [], {}, 300)


# ------------------------------------------------------------------------------------------------- places


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


@pytest.fixture(autouse=True)
def writable_again(tmp_path: Path) -> Iterator[None]:
    """A read-only file would keep pytest from clearing up."""
    yield
    for path in tmp_path.iterdir():
        if not path.is_symlink():
            path.chmod(0o700)
