"""``kimi-mcp install`` and ``uninstall`` as a person types them; what was installed is started by a real client."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import mcp
import pytest
import yaml
from mcp.client.stdio import StdioServerParameters

from kimi_mcp.cli.install import load_hosts, place_of, this_system
from kimi_mcp.skill.document import load_skill
from tests.cli.commands.shell import Ended, kimi

KEY = "sk-5up3r-s3cr3t-k3y"
URL = "https://kimi.example.org/mcp"
HOSTS = load_hosts()
READ: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "jsonc": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}


def at(home: Path) -> dict[str, str]:
    """The environment of somebody whose home is there."""
    return {"HOME": str(home), "USERPROFILE": str(home), "APPDATA": str(home / "appdata"), "XDG_CONFIG_HOME": ""}


def entry(id: str, home: Path, name: str = "kimi") -> Any:
    """What a host would read."""
    host = HOSTS[id]
    value = READ[host.kind](place_of(host, this_system(), home, at(home)).read_text("utf-8"))
    for step in (*host.servers, name):
        value = value[step]
    return value


async def run(*arguments: str, home: Path, **settings: str) -> Ended:
    return await kimi(*arguments, settings=at(home) | settings)


EVERYDAY = {"claude-code", "goose"}
"""Hosts whose entry is started by every ``make test``; those of all others are by ``make soak``."""


@pytest.mark.parametrize("id", [id if id in EVERYDAY else pytest.param(id, marks=pytest.mark.soak) for id in HOSTS])
async def test_what_was_installed_starts_and_lists_its_tools_from_any_folder(id: str, tmp_path: Path) -> None:
    home = tmp_path / "a home"
    home.mkdir()
    ended = await run("install", id, "--env", "KIMI_PROVIDER=simulator", home=home)
    assert ended.status == 0, ended.err
    written = entry(id, home)
    program, *args = (
        written["command"]
        if isinstance(written.get("command"), list)
        else (written.get("command") or written["cmd"], *written.get("args", []))
    )
    (env,) = (written[name] for name in ("env", "envs", "environment") if name in written)
    command = StdioServerParameters(
        command=program,
        args=args,
        env=env | {"KIMI_DATA_DIR": str(tmp_path / "data")},
        cwd=os.sep,
    )
    with anyio.fail_after(60):
        async with mcp.Client(command) as client:
            tools = await client.list_tools()
    assert [tool.name for tool in tools.tools] == [tool.name for tool in load_skill().tools]


@pytest.mark.parametrize("id", HOSTS)
async def test_a_person_learns_where_and_what_next_and_never_the_key(id: str, tmp_path: Path) -> None:
    ended = await run("install", id, "--env", f"MOONSHOT_API_KEY={KEY}", home=tmp_path)
    assert ended.status == 0, ended.err
    assert "~" in ended.out
    assert HOSTS[id].next in ended.out
    assert HOSTS[id].keys.hint.replace("NAME", "MOONSHOT_API_KEY") in ended.out
    assert KEY not in ended.out + ended.err


LEFT_OUT = "The value of MOONSHOT_API_KEY was not written"


@pytest.mark.parametrize("id", HOSTS)
async def test_a_value_that_was_given_and_not_written_is_reported(id: str, tmp_path: Path) -> None:
    plain = HOSTS[id].keys.way == "plain"
    for more in ((), ("--json",), ("--print",)):
        ended = await run("install", id, "--env", f"MOONSHOT_API_KEY={KEY}", *more, home=tmp_path)
        printed = " ".join((ended.out + ended.err).split())
        assert (LEFT_OUT in printed) != plain
        assert (KEY in printed) == (plain and more == ("--print",))


@pytest.mark.parametrize("given", ["", "${MOONSHOT_API_KEY}"])
async def test_a_name_and_a_reference_are_no_values_to_be_reported(given: str, tmp_path: Path) -> None:
    ended = await run("install", "claude-code", "--env", f"MOONSHOT_API_KEY={given}", home=tmp_path)
    assert "was not written" not in ended.out


async def test_json_says_what_was_done(tmp_path: Path) -> None:
    ended = await run("install", "claude-desktop", "--env", f"HF_TOKEN={KEY}", "--json", home=tmp_path)
    result = ended.json
    assert (result["action"], result["keys_in_clear"], result["backup"]) == ("written", ["HF_TOKEN"], None)
    assert Path(result["file"]).is_file()
    assert KEY not in ended.out
    again = await run("install", "claude-desktop", "--json", home=tmp_path)
    assert again.json["action"] == "unchanged"
    gone = await run("uninstall", "claude-desktop", "--json", home=tmp_path)
    assert gone.json["action"] == "removed"
    assert (await run("uninstall", "claude-desktop", "--json", home=tmp_path)).json["action"] == "absent"


@pytest.mark.parametrize(
    ("host", "place", "ours", "theirs", "claim"),
    [
        ("claude-code", ".claude.json", '"alwaysLoad": true', '"alwaysLoad": false', "its model always has them"),
        ("codex", ".codex/config.toml", "required = true", "required = false", "waits until it has started"),
    ],
)
async def test_a_value_of_the_users_own_is_named_and_nothing_is_claimed_that_it_changes(
    host: str, place: str, ours: str, theirs: str, claim: str, tmp_path: Path
) -> None:
    assert claim in (await run("install", host, home=tmp_path)).out
    file = tmp_path / place
    file.write_text(file.read_text("utf-8").replace(ours, theirs), "utf-8")
    again = (await run("install", host, home=tmp_path)).out
    assert theirs in file.read_text("utf-8")
    assert claim not in again
    assert f"{ours.split()[0].strip(chr(34) + ':')}, as this file has it" in again


async def test_print_writes_nothing_and_prints_the_file_alone(tmp_path: Path) -> None:
    ended = await run("install", "vscode", "--print", "--name", "moon", home=tmp_path)
    assert json.loads(ended.out)["servers"]["moon"]["type"] == "stdio"
    assert "mcp.json" in ended.err
    assert not list(tmp_path.rglob("*"))


async def test_a_key_that_the_desktop_file_lacks_is_asked_for_by_the_command_that_adds_it(tmp_path: Path) -> None:
    ended = await run("install", "claude-desktop", home=tmp_path)
    assert "contains the key" not in ended.out, "there is none"
    assert "kimi-mcp install claude-desktop --env MOONSHOT_API_KEY=" in ended.out
    await run("install", "claude-desktop", "--env", f"MOONSHOT_API_KEY={KEY}", home=tmp_path)
    assert entry("claude-desktop", tmp_path)["env"] == {"MOONSHOT_API_KEY": KEY}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("install", "claud-code"), "did you mean claude-code"),
        (("install", "emacs"), "there is claude-desktop"),
        (("uninstall", "emacs"), "there is claude-desktop"),
        (("install",), "HOST"),
        (("install", "zed", "--name", "my server"), "--name"),
        (("install", "zed", "--env", "KIMI_MODEL"), "NAME=VALUE"),
        (("install", "zed", "--env", "=x"), "NAME=VALUE"),
        (("install", "zed", "--env", "KIMI_MODLE=x"), "did you mean KIMI_MODEL"),
        (("install", "zed", "--env", "KIMI_POLICY=lax"), "adjust, strict"),
        (("install", "claude-desktop", "--url", URL), "Connectors"),
        (("install", "cursor", "--url", URL, "--env", "KIMI_POLICY=strict"), "operator's"),
        (("install", "cursor", "--url", "http://kimi.example.org"), "https"),
        (("install", "cursor", "--url", URL, "--token-env", "kimi-abc"), "never an argument"),
        (("install", "cursor", "--url", URL, "--token-env", "kimi_" + "aB3" * 14), "never an argument"),
        (("install", "cursor", "--token-env", "KIMI_TOKEN"), "add --url"),
        (("install", "zed", "--url", URL, "--token-env", "KIMI_TOKEN"), "Set KIMI_TOKEN to your token"),
        (("install", "cursor", "--url", URL, "--defer"), "shows all tools"),
    ],
)
async def test_wrong_usage_ends_with_2_and_says_what_would_be_right(
    arguments: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    ended = await run(*arguments, home=tmp_path)
    assert ended.status == 2
    assert expected in " ".join(ended.err.split())
    assert not list(tmp_path.rglob("*"))


async def test_a_provider_that_is_none_is_reported_before_anything_is_written(tmp_path: Path) -> None:
    ended = await run("install", "zed", "--env", "KIMI_PROVIDER=moonshoot", home=tmp_path)
    assert ended.status == 2
    assert "KIMI_PROVIDER" in ended.err
    assert not list(tmp_path.rglob("*"))


async def test_a_broken_file_ends_with_1_one_sentence_and_the_fix(tmp_path: Path) -> None:
    (tmp_path / ".claude.json").write_text('{"mcpServers": {', "utf-8")
    ended = await run("install", "claude-code", home=tmp_path)
    assert ended.status == 1
    assert "~/.claude.json" in ended.err
    assert "line 1, column 17" in ended.err
    assert not ended.out
    assert (tmp_path / ".claude.json").read_text("utf-8") == '{"mcpServers": {'


@pytest.mark.parametrize("id", ["codex", "zed"])
async def test_a_team_s_server_is_put_in_and_the_token_never_shown(id: str, tmp_path: Path) -> None:
    at_url = ("install", id, "--url", "https://kimi.example.org", "--token-env", "KIMI_TOKEN")
    for more in (("--print",), (), ("--json",)):
        ended = await run(*at_url, *more, home=tmp_path, KIMI_TOKEN=KEY)
        assert ended.status == 0, ended.err
        assert URL in ended.out
        assert "KIMI_TOKEN" in ended.out + ended.err
        assert KEY not in ended.out + ended.err
    assert ended.json["url"] == URL
    assert ended.json["keys_in_clear"] == (["KIMI_TOKEN"] if id == "zed" else [])
    assert URL in entry(id, tmp_path).values()
    assert (await run("uninstall", id, "--json", home=tmp_path)).json["action"] == "removed"


async def test_without_a_token_a_person_learns_how_to_sign_in(tmp_path: Path) -> None:
    ended = await run("install", "claude-code", "--url", URL, home=tmp_path)
    shown = " ".join(ended.out.split())
    assert "add --token-env NAME" in shown
    assert str(getattr(HOSTS["claude-code"].remote, "login", None)) in shown


async def test_help_names_every_host() -> None:
    ended = await kimi("install", "--help")
    shown = "".join(ended.out.split())  # a name may be folded behind its dash
    assert all(id in shown for id in HOSTS)
