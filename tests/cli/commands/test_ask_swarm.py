"""``kimi-mcp ask --tool swarm``: a swarm from a shell, along the very same path."""

from __future__ import annotations

import anyio
import pytest
from typer.testing import CliRunner

from kimi_mcp.cli.commands import app
from kimi_mcp.cli.commands.arguments import chosen_tool
from kimi_mcp.simulator import Simulator
from tests.cli.commands.shell import kimi, started, to

TELL = ("ask", "Tell me about {{item}}.", "--item", "Rome", "--item", "Oslo")


async def test_items_make_a_swarm(sim: Simulator) -> None:
    ended = await kimi(*TELL, "--json", settings=to(sim))
    assert ended.status == 0, ended.err
    assert [agent["name"] for agent in ended.json["swarm"]["agents"]] == ["Rome", "Oslo"]
    assert ended.json["usage"]["cost_usd"] > 0


async def test_a_swarm_s_task_is_shown_as_it_was_asked_and_which_tools_its_agents_had(sim: Simulator) -> None:
    run_id = (await kimi(*TELL, "--json", settings=to(sim))).json["run_id"]
    task = (await kimi("runs", "show", run_id, settings=to(sim))).out.split("\nTask\n")[1].split("\n\n")[0]
    assert [line.split()[0] for line in task.splitlines()] == ["prompt", "items", "agents'"]


async def test_every_option_of_a_swarm_reaches_it(sim: Simulator) -> None:
    options = ["--tool", "swarm", "--max-steps", "40", "--max-agent-steps", "3", "--max-agents", "2"]
    options += ["--max-cost-usd", "0.5", "--model", "kimi-k2.6", "--provider", "simulator", "--json"]
    ended = await kimi("ask", "Compare them.", *options, settings=to(sim))
    assert ended.status == 0, ended.err
    assert ended.json["model"]["answered"] == "kimi-k2.6"
    assert [(row["rule"], row["sent"]) for row in ended.json["policy"]] == [("swarm-steps", 15)]
    refused = await kimi("ask", "Compare them.", "--use", "nothing.*", settings=to(sim))
    assert refused.status == 2
    assert "--use names no tool" in refused.err


async def test_a_partial_swarm_ends_with_status_1_and_prints_what_there_is(sim: Simulator) -> None:
    sim.play({"match": {"text": "Oslo"}, "status": 401})
    ended = await kimi(*TELL, settings=to(sim))
    assert ended.status == 1
    assert "Rome" in ended.out
    assert "agent-2 (Oslo)" in ended.err


async def test_what_makes_no_sense_is_reported_before_anything_is_sent(sim: Simulator) -> None:
    ended = await kimi("ask", "Tell me.", "--item", "Rome", "--item", "Oslo", settings=to(sim))
    assert (ended.status, ended.out) == (2, "")
    assert "{{item}}" in ended.err
    assert not sim.requests


@pytest.mark.parametrize(
    "wrong", [["--item", "a", "--tool", "think"], ["--tool", "swarm", "--image", "a.png"], ["--max-agents", "many"]]
)
def test_options_that_belong_to_another_tool_are_wrong_usage(wrong: list[str]) -> None:
    assert CliRunner().invoke(app, ["ask", "x", *wrong]).exit_code == 2


def test_an_option_of_swarms_alone_means_a_swarm() -> None:
    assert chosen_tool(None, ["max_cost_usd"]) == "swarm"
    assert chosen_tool(None, ["model"]) == "think"


@pytest.mark.soak
async def test_ctrl_c_closes_every_request_of_a_swarm(sim: Simulator) -> None:
    import signal

    sim.play({"match": {"text": "Tell me"}, "gate": "never", "times": "always"})
    async with started(*TELL, "--json", settings=to(sim)) as process:
        await sim.until(lambda: sim.waiting_at("never") == 2)
        process.send_signal(signal.SIGINT)
        await sim.client_gone(2)
        with anyio.fail_after(60):
            assert await process.wait() == 130
