"""Claude Code with its tools left to its search: what its model finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.simulator import Simulator
from tests.hosts.scripted_model import Turn, Use
from tests.hosts.test_hosts import HOSTS, options, run_host

pytestmark = pytest.mark.soak

CLAUDE_CODE = next(host for host in HOSTS if host.id == "claude-code")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("translate", "kimi_instant"), ("screenshot", "kimi_vision"), ("deep research", "kimi_swarm")],
)
async def test_tools_left_to_a_search_are_found_by_a_trigger(
    sim: Simulator, tmp_path: Path, wanted: str, found: str
) -> None:
    """And ``kimi_think`` needs no search: it is in the prompt as soon as the server is connected."""

    def script(turn: Turn) -> str | Use:
        match len(turn.results):
            case 0:
                return Use(tool="ToolSearch", arguments={"query": wanted, "max_results": 5})
            case 1:
                return turn.use("kimi_think", prompt="Is P equal to NP?")
            case _:
                return turn.results[-1]

    sim.play({"content": "Nobody knows."})
    turns, printed = await run_host(CLAUDE_CODE, script, tmp_path, *options(sim), "--defer")
    assert found in turns[1].results[0]
    assert "Nobody knows." in printed
