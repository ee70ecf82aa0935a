"""What was installed, read by the hosts themselves: they start the server, or say what they would start."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.cli.install import LaunchCommand, install, load_hosts, place_of, this_system
from kimi_mcp.simulator import Simulator
from kimi_mcp.skill.document import load_skill
from tests.npm import CLAUDE, CODEX, GEMINI, KIMI, Program, run

pytestmark = pytest.mark.soak

HERE = LaunchCommand(command=str(Path(sys.executable).with_name("kimi-mcp")))
GONE = LaunchCommand(command="/not/there/kimi-mcp")
SETTINGS = {"KIMI_PROVIDER": "simulator"}


def installed(id: str, home: Path, started: LaunchCommand, env: dict[str, str]) -> None:
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


@pytest.mark.skipif(sys.platform == "win32", reason="the command in between is a shell script")
async def test_kimi_code_offers_its_model_our_tools_and_hands_its_environment_on(tmp_path: Path) -> None:
    home, key = tmp_path / "home", tmp_path / "key"
    (command := tmp_path / "kimi-mcp").write_text(
        f'#!/bin/sh\nprintf %s "$MOONSHOT_API_KEY" > "{key}"\nexec "{HERE.command}"\n', "utf-8"
    )
    command.chmod(0o700)
    installed("kimi-code", home, LaunchCommand(command=str(command)), {})
    async with Simulator("simulator") as sim:
        models = '[models.moon]\nprovider = "moon"\nmodel = "kimi-k2.5"\nmax_context_size = 100000\n'
        moon = f'[providers.moon]\ntype = "kimi"\nbase_url = "{sim.base_url}"\napi_key = "a-key"\n'
        (home / ".kimi-code/config.toml").write_text(f'default_model = "moon"\n{moon}{models}', "utf-8")
        # To a session that stands in somebody's home, what lies there is a project's, which nobody vouched for.
        where = {"KIMI_CODE_HOME": str(home / ".kimi-code"), "MOONSHOT_API_KEY": "handed on", "NO_PROXY": "127.0.0.1"}
        outcome = await anyio.to_thread.run_sync(partial(run, KIMI, "-p", "Hello.", home=tmp_path, **where))
        requested: Any = sim.requests[-1].body
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    offered = {tool["function"]["name"] for tool in requested["tools"]}
    assert {f"mcp__kimi__{tool.name}" for tool in load_skill().tools} <= offered
    assert key.read_text("utf-8") == "handed on"
