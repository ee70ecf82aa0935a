"""What was installed, read by the hosts themselves: they start the server, or say what they would start."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kimi_mcp.install import Started, install, load_hosts, place_of, this_system
from tests.npm import CLAUDE, CODEX, GEMINI, Program, run

HERE = Started(command=str(Path(sys.executable).with_name("kimi-mcp")))
GONE = Started(command="/not/there/kimi-mcp")
SETTINGS = {"KIMI_PROVIDER": "simulator"}


def installed(id: str, home: Path, started: Started, env: dict[str, str]) -> None:
    host = load_hosts()[id]
    file = place_of(host, this_system(), home, {"APPDATA": str(home / "appdata")})
    install(host, "kimi", started, env, environment={}, file=file, home=home)


def listed(host: Program, home: Path) -> str:
    outcome = run(host, "mcp", "list", home=home)
    (line,) = [line for line in (outcome.stdout + outcome.stderr).splitlines() if line.lstrip("✓✗ ").startswith("kimi")]
    return line


@pytest.mark.parametrize(("id", "host"), [("claude-code", CLAUDE), ("gemini", GEMINI)])
def test_a_host_starts_what_was_installed_and_is_answered(id: str, host: Program, tmp_path: Path) -> None:
    installed(id, tmp_path, HERE, SETTINGS)
    assert " Connected" in listed(host, tmp_path)


@pytest.mark.parametrize(("id", "host"), [("claude-code", CLAUDE), ("gemini", GEMINI)])
def test_a_host_tells_where_nothing_is_there_to_start(id: str, host: Program, tmp_path: Path) -> None:
    installed(id, tmp_path, GONE, SETTINGS)
    assert " Connected" not in listed(host, tmp_path)


def test_codex_reads_the_command_the_settings_and_where_the_key_is(tmp_path: Path) -> None:
    installed("codex", tmp_path, HERE, {"KIMI_PROVIDER": "openrouter"})
    outcome = run(CODEX, "mcp", "get", "kimi", "--json", home=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    read = json.loads(outcome.stdout)["transport"]
    assert (read["command"], read["args"]) == (HERE.command, [])
    assert (read["env"], read["env_vars"]) == ({"KIMI_PROVIDER": "openrouter"}, ["OPENROUTER_API_KEY"])
