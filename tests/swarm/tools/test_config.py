"""The file of KIMI_SWARM_MCP: what hosts write is understood, what is wrong is named by its key, no value leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.swarm.tools.config import ServerConfig, read_servers

ENVIRONMENT = {"TOKEN": "tok-12345678", "PLACE": "here", "EMPTY": ""}


def read(tmp_path: Path, document: Any) -> tuple[ServerConfig, ...]:
    file = tmp_path / "mcp.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return read_servers(str(file), ENVIRONMENT)


def entry(tmp_path: Path, **entry: Any) -> ServerConfig:
    (server,) = read(tmp_path, {"mcpServers": {"one": entry}})
    return server


def test_a_process_is_read_with_its_arguments_environment_and_folder(tmp_path: Path) -> None:
    server = entry(tmp_path, command="npx", args=["-y", "server"], env={"A": "b"}, cwd="/srv", allow=["write_*"])
    assert server.command == ("npx", "-y", "server")
    assert server.environment == {"A": "b"}
    assert (server.folder, server.allow, server.url) == ("/srv", ("write_*",), None)


@pytest.mark.parametrize("key", ["url", "httpUrl", "serverUrl"])
@pytest.mark.parametrize("kind", [{}, {"type": "http"}, {"type": "streamable-http"}, {"transport": "streamableHttp"}])
def test_an_endpoint_is_read_however_a_host_spells_it(tmp_path: Path, key: str, kind: dict[str, str]) -> None:
    server = entry(tmp_path, **{key: "https://example.org/mcp"}, **kind, headers={"X-Api-Key": "${TOKEN}"})
    assert server.url == "https://example.org/mcp"
    assert server.headers == {"X-Api-Key": "tok-12345678"}
    assert server.command == ()


@pytest.mark.parametrize("off", [{"disabled": True}, {"enabled": False}])
def test_a_disabled_server_is_not_there_and_not_even_checked(tmp_path: Path, off: dict[str, bool]) -> None:
    assert read(tmp_path, {"mcpServers": {"one": {"command": "${UNSET}", "type": "sse", **off}}}) == ()


def test_keys_of_other_hosts_are_ignored(tmp_path: Path) -> None:
    server = entry(tmp_path, command="x", autoApprove=["y"], timeout=30, gallery=True, disabled=False)
    assert server.command == ("x",)
    assert server.allow == ()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${PLACE}", "here"),
        ("${env:PLACE}", "here"),
        ("a-${PLACE}-b", "a-here-b"),
        ("${UNSET:-else}", "else"),
        ("${EMPTY:-else}", "else"),
        ("${UNSET:-}", ""),
        ("$PLACE", "$PLACE"),
    ],
)
def test_variables_are_expanded_as_hosts_do_it(tmp_path: Path, written: str, meant: str) -> None:
    assert entry(tmp_path, command="x", args=[written]).command == ("x", meant)
    assert entry(tmp_path, command="x", env={"A": written}).environment == {"A": meant}


@pytest.mark.parametrize(
    ("wrong", "key", "fix"),
    [
        ({}, "mcpServers.one", "Give it a `command`"),
        ({"command": "x", "url": "https://e.org"}, "both `command` and `url`", "Give it a `command`"),
        ({"command": 3}, "mcpServers.one.command", "quotation marks"),
        ({"command": " "}, "mcpServers.one.command", "Name the program"),
        ({"command": "x", "args": "y"}, "mcpServers.one.args", "list of texts"),
        ({"command": "x", "args": ["y", 3]}, "mcpServers.one.args[1]", "quotation marks"),
        ({"command": "x", "env": ["A=b"]}, "mcpServers.one.env", "an object"),
        ({"command": "x", "env": {"A": None}}, "mcpServers.one.env.A", "quotation marks"),
        ({"command": "x", "env": {"A=B": "c"}}, "mcpServers.one.env", "Rename"),
        ({"command": "x", "env": {"A": "${UNSET}"}}, "the variable UNSET", "${UNSET:-otherwise}"),
        ({"command": "x", "args": ["${input:key}"]}, "mcpServers.one.args[0]", "${VAR}"),
        ({"command": "x", "args": ["a\0b"]}, "NUL", "Take it out"),
        ({"command": "x", "allow": "*"}, "mcpServers.one.allow", "list of texts"),
        ({"command": "x", "disabled": "yes"}, "mcpServers.one.disabled", "true or false"),
        ({"command": "x", "type": "http"}, "mcpServers.one.type", "stdio needs `command`"),
        ({"url": "https://e.org", "type": "sse"}, "mcpServers.one.type", '"http"'),
        ({"url": "https://e.org", "type": "carrier pigeon"}, "mcpServers.one.type", '"stdio" or "http"'),
        ({"url": "ftp://e.org"}, "mcpServers.one.url", "streamable HTTP"),
        ({"url": "https://e.org/ x"}, "mcpServers.one.url", "streamable HTTP"),
        ({"url": "https://e.org", "headers": {"A": "b\r\nC: d"}}, "mcpServers.one.headers.A", "printable ASCII"),
        ({"url": "https://e.org", "headers": {"A b": "c"}}, "mcpServers.one.headers.A_b", "printable ASCII"),
        ("text", "mcpServers.one", '{"command"'),
    ],
)
def test_what_is_wrong_in_an_entry_is_named_with_its_key_and_the_fix(
    tmp_path: Path, wrong: Any, key: str, fix: str
) -> None:
    with pytest.raises(NotConfigured) as refused:
        read(tmp_path, {"mcpServers": {"one": wrong}})
    assert key in refused.value.message
    assert fix in refused.value.fix
    assert str(tmp_path) not in refused.value.message + refused.value.fix


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("{", "line 1, column 2"),
        ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "two entries `a`"),
        ("[]", "no JSON object"),
        ('{"servers": {}}', "`mcpServers`"),
        ("[" * 100_000, "nested too deeply"),
        (" " * (1024 * 1024 + 1), "more than 1 MB"),
        (json.dumps({"mcpServers": {str(i): {"command": "x"} for i in range(65)}}), "65 servers"),
    ],
)
def test_a_file_that_can_not_be_used_is_refused(tmp_path: Path, document: str, why: str) -> None:
    with pytest.raises(NotConfigured) as refused:
        read(tmp_path, document)
    assert why in refused.value.message
    assert "KIMI_SWARM_MCP" in refused.value.message


def test_a_file_that_is_not_there_or_is_none_is_refused_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "binary", Path("/dev/zero")):
        with pytest.raises(NotConfigured) as refused:
            read_servers(str(path), ENVIRONMENT)
        assert str(path) not in refused.value.message + refused.value.fix


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path, '\ufeff{"mcpServers": {}}') == ()


def test_what_an_entry_must_keep_to_itself_is_known(tmp_path: Path) -> None:
    server = entry(
        tmp_path,
        command="x",
        args=["--api-key", "argument-one", "--password=argument-two", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "-y"],
        env={
            "DB_PASSWORD": "hunter2",
            "URL": "postgres://me:s3cr%40t@db/x",
            "REGION": "eu-west-1",
            "PLAIN": "${PLACE}",
        },
    )
    assert {"argument-one", "argument-two", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"} <= set(server.secrets)
    assert {"hunter2", "s3cr%40t", "s3cr@t"} <= set(server.secrets)
    assert not {"eu-west-1", "here", "-y", "x"} & set(server.secrets)


def test_headers_and_what_a_url_carries_are_secret(tmp_path: Path) -> None:
    server = entry(
        tmp_path,
        url="https://me:pass-word@example.org/mcp?api_key=k-in-url",
        headers={"Authorization": "Bearer abcdef", "X-Plain": "value-x", "User-Agent": "ordinary"},
    )
    assert {"pass-word", "k-in-url", "Bearer abcdef", "abcdef", "value-x"} <= set(server.secrets)
    assert "ordinary" not in server.secrets


def test_nothing_secret_shows_when_an_entry_is_printed(tmp_path: Path) -> None:
    server = entry(tmp_path, command="x", args=["--key=abcdefgh"], env={"A": "${TOKEN}"})
    assert "abcdefgh" not in repr(server)
    assert "tok-12345678" not in repr(server)
