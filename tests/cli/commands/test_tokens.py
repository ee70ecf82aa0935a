"""``kimi-mcp tokens``: what it prints, what the file holds, and two who write it at once."""

from __future__ import annotations

import json
import re
import stat
from functools import partial
from hashlib import sha256
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from kimi_mcp.server.http.auth.token_file import TokenFile, utc_now
from tests.cli.commands.shell import Ended, kimi_here


class Shell:
    """A shell with a file of tokens."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *arguments: str) -> Ended:
        return kimi_here("tokens", *arguments, settings={"KIMI_HTTP_TOKENS": str(self.path)})


@pytest.fixture
def tokens(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "new" / "tokens.json")


def test_a_new_token_is_all_of_stdout_and_the_file_has_its_hash_alone(tokens: Shell) -> None:
    added = tokens("add", "alice", "--days", "30")
    assert added.status == 0
    token = added.out.removesuffix("\n")
    assert re.fullmatch(r"kimi_[A-Za-z0-9_-]{43}", token)
    assert "kimi:call, kimi:swarm" in added.err
    assert token not in added.err
    content = tokens.path.read_text("utf-8")
    assert token not in content
    assert token.removeprefix("kimi_") not in content
    (entry,) = json.loads(content)["tokens"]
    assert entry["sha256"] == sha256(token.encode()).hexdigest()
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600


def test_tokens_are_listed_without_what_calls(tokens: Shell) -> None:
    made = tokens("add", "alice", "--scope", "kimi:admin", "--scope", "kimi:call", "--json").json
    tokens("add", "ci-runner")
    listed = tokens("list")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["NAME", "alice", "ci-runner"]
    assert max(map(len, listed.out.splitlines())) <= 80
    assert tokens().out == listed.out
    rows = tokens("list", "--json").json
    assert [row["name"] for row in rows] == ["alice", "ci-runner"]
    assert rows[0] == {key: value for key, value in made.items() if key != "token"}
    assert rows[0]["scopes"] == ["kimi:call", "kimi:admin"]
    assert made["token"] not in listed.out + json.dumps(rows)


def test_a_revoked_token_is_gone_and_its_name_is_free_again(tokens: Shell) -> None:
    tokens("add", "alice")
    assert "revoked" in tokens("revoke", "alice").out
    assert tokens("list", "--json").json == []
    assert tokens("add", "alice").status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("add", "alice"), 2, "has a token already"),
        (("add", ""), 2, "letters, digits"),
        (("add", "../alice"), 2, "letters, digits"),
        (("add", "a#b"), 2, "letters, digits"),
        (("add", "bob", "--scope", "kimi:all"), 2, "kimi:swarm"),
        (("add", "bob", "--days", "0"), 2, "--days"),
        (("add", "bob", "--days", "99999999999"), 2, "too many days"),
        (("revoke", "bob"), 2, "no token of that name"),
    ],
)
def test_what_can_not_be_says_why(tokens: Shell, arguments: tuple[str, ...], status: int, words: str) -> None:
    tokens("add", "alice")
    before = tokens.path.read_bytes()
    ended = tokens(*arguments)
    assert (ended.status, ended.out) == (status, "")
    assert words in " ".join(ended.err.split())
    assert tokens.path.read_bytes() == before


def test_a_damaged_file_is_left_as_it_is(tokens: Shell) -> None:
    tokens.path.parent.mkdir()
    tokens.path.write_text("{", "utf-8")
    for arguments in (("add", "bob"), ("revoke", "bob"), ("list",)):
        ended = tokens(*arguments)
        assert ended.status == 1
        assert "damaged" in ended.err
    assert tokens.path.read_text("utf-8") == "{"


def test_without_the_setting_it_names_it() -> None:
    ended = kimi_here("tokens", "add", "alice")
    assert ended.status == 1
    assert "KIMI_HTTP_TOKENS" in ended.err


async def test_of_several_who_write_at_once_nobody_undoes_another(tmp_path: Path) -> None:
    names = [f"user-{number}" for number in range(8)]
    async with anyio.create_task_group() as tasks:
        for name in names:
            add = partial(TokenFile(tmp_path / "tokens.json").add, name, ("kimi:call",), now=utc_now())
            tasks.start_soon(anyio.to_thread.run_sync, add)
    assert {each.name for each in TokenFile(tmp_path / "tokens.json").read()} == set(names)
    assert {path.name for path in tmp_path.iterdir()} <= {"tokens.json", "tokens.json.lock"}
