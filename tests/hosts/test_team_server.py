"""Hosts at a team's server over HTTP, with a token of their own, by what ``install --url`` writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from tests.hosts.scripted_model import Turn, Use
from tests.hosts.test_hosts import HOSTS, Host, run_host
from tests.server.processes import process_environment

pytestmark = pytest.mark.soak

TRIED = ("claude-code", "codex", "gemini", "opencode", "qwen-code")
"""One for each way in which a token gets there, and each protocol era."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A server that asks for tokens."""

    url: str
    token: str


@pytest.fixture
async def team(sim: Simulator, tmp_path: Path) -> AsyncIterator[Team]:
    environment = process_environment(sim, KIMI_HTTP_TOKENS=str(tmp_path / "tokens"), KIMI_DATA_DIR=str(tmp_path))
    kimi = [sys.executable, "-m", "kimi_mcp"]
    made = subprocess.run(
        [*kimi, "tokens", "add", "alice", "--json"], env=environment, check=True, capture_output=True, text=True
    )
    serve = [*kimi, "serve", "--transport", "http", "--port", "0"]
    async with await anyio.open_process(serve, env=environment, stdin=None) as server:
        assert server.stderr is not None
        reported = (await server.stderr.receive()).decode()
        url = next(word for word in reported.split() if word.startswith("http://127.0.0.1:"))
        yield Team(url=url, token=json.loads(made.stdout)["token"])
        server.terminate()


def script(turn: Turn) -> str | Use:
    """One call, and then its answer."""
    return turn.results[-1] if turn.results else turn.use("kimi_think", prompt="Think.")


@pytest.mark.parametrize("host", [host for host in HOSTS if host.id in TRIED], ids=lambda host: host.id)
async def test_a_host_s_model_is_offered_the_tools_of_a_team_s_server_and_gets_its_answer(
    host: Host, team: Team, tmp_path: Path
) -> None:
    to_it = ("--url", team.url, "--token-env", "KIMI_TOKEN")
    turns, printed = await run_host(host, script, tmp_path / "host", *to_it, KIMI_TOKEN=team.token)
    missing = [name for name in TOOLS if not any(each.endswith(name) for each in turns[0].offered)]
    assert missing == [], turns[0].offered
    assert "was asked: Think." in turns[-1].results[0]
    assert "was asked: Think." in printed
    (record,) = (tmp_path / "host").rglob("*.kimi-mcp")
    assert team.token not in record.with_suffix("").read_text("utf-8")
