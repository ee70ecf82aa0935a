"""Installing into example files of every host: what is kept and what is written."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from kimi_mcp.cli.install import (
    HostRow,
    snippet,
)
from kimi_mcp.cli.install.documents import FORMATS, changed
from kimi_mcp.cli.install.files import BACKUP
from tests.cli.install.example_files import (
    HOSTS,
    KEY,
    OTHER,
    STARTED,
    command_of,
    each_host,
    put,
    servers,
    take,
    with_other,
    written,
)


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
    old = ["/old/kimi-mcp"] if isinstance(entry[field], list) else "/old/kimi-mcp"
    puts = [((*way, field), old), ((*way, "note"), "mine")]
    file.write_text(changed(FORMATS[host.kind], file.read_text("utf-8"), put=puts), "utf-8")
    assert put(host, file).action == "written"
    assert servers(host, file)["kimi"] == entry | {"note": "mine"}


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


@each_host
def test_an_entry_of_before_gets_what_the_host_has_come_to_need(host: HostRow, file: Path) -> None:
    put(host, file)
    whole = servers(host, file)["kimi"]
    for field in [name for name, value in host.entry.items() if value is True]:
        file.write_text(changed(FORMATS[host.kind], file.read_text("utf-8"), cut=[(*host.servers, "kimi", field)]))
    put(host, file)
    assert servers(host, file)["kimi"] == whole
