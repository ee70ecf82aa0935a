"""A swarm that is stopped from outside its own ledger: what its agents had finished is its answer."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import KimiClient, connect, connect_messages, wait_until
from tests.server.requests import chats
from tests.server.results import Result

TELL = {"prompt": "Tell me about {{item}}.", "items": ["Rome", "Oslo", "Lima"]}


def hold(sim: Simulator, part: str = "Tell me about Oslo.") -> None:
    """The request with that part is never answered."""
    sim.play({"match": {"text": part}, "gate": "never", "times": "always"})


async def half_done(kimi: KimiClient, sim: Simulator) -> str:
    """The run of a swarm of which Rome and Lima have answered, and Oslo never does."""
    hold(sim)
    run_id = (await kimi.call("kimi_swarm", TELL)).run_id
    await sim.until(lambda: sim.waiting_at("never") == 1)
    agents: list[str] = []
    while agents != ["completed", "running", "completed"]:
        agents = [agent["status"] for agent in (await kimi.run(run_id, "status")).structured["swarm"]["agents"]]
    return run_id


def held(result: Result, code: str) -> None:
    """It is partial with what Rome and Lima had answered, and says that Oslo is missing."""
    assert (result.status, result.code, result.is_error) == ("partial", code, False)
    assert "agent-1 (Rome), completed:" in result.answer
    assert "agent-3 (Lima), completed:" in result.answer
    assert "Oslo" not in result.answer
    assert "Incomplete: agent-2 (Oslo)." in result.error["message"]
    assert [agent["status"] for agent in result.structured["swarm"]["agents"]] == [
        "completed",
        "cancelled",
        "completed",
    ]
    assert [agent["steps"] for agent in result.structured["swarm"]["agents"]] == [1, 1, 1], "each request was sent"
    assert result.structured["usage"]["cost_usd"] > 0
    assert result.answer in result.text


async def test_one_that_is_cancelled_is_partial_with_the_answers_of_the_agents_that_had_finished(
    sim: Simulator, mode: str
) -> None:
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        run_id = await half_done(kimi, sim)
        held(await kimi.run(run_id, "cancel"), "cancelled")
        await sim.client_gone()
    async with connect(sim, mode) as other:
        held(await other.run(run_id), "cancelled")
    assert len(chats(sim)) == 3


async def test_one_that_the_days_budget_stops_is_partial_with_them(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05", KIMI_BUDGET_USD_PER_DAY="1") as kimi:
        other = await kimi.think()
        run_id = await half_done(kimi, sim)
        with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
            file.execute("UPDATE runs SET counted_usd = 2 WHERE id = ?", [other.run_id])
        held(await kimi.run(run_id, "wait", wait_s=10), "budget_exceeded")


async def test_what_a_running_request_has_used_counts_for_the_days_budget(sim: Simulator, mode: str) -> None:
    arrives = {"content": "word " * 20_000, "event_tokens": 50, "gate": "never", "gate_at": 200}
    sim.play({"match": {"text": "Tell me about Oslo."}, **arrives, "times": "always"})  # 10,000 tokens, 0.03 USD
    async with connect(sim, mode, KIMI_BUDGET_USD_PER_DAY="0.02") as kimi:
        with anyio.fail_after(60):
            result = await kimi.call("kimi_swarm", TELL)
    held(result, "budget_exceeded")
    assert "KIMI_BUDGET_USD_PER_DAY" in result.error["fix"]
    assert len(chats(sim)) == 3


async def test_one_whose_user_cancels_the_call_keeps_them_on_record(sim: Simulator) -> None:
    hold(sim)
    async with connect_messages(sim) as host:
        await host.call("kimi_swarm", TELL, 1)
        await sim.until(lambda: sim.waiting_at("never") == 1)
        run_id = (await host.result("kimi_run", {}))["answer"].split()[0]
        agents = [{"status": "running"}]
        while sum(agent["status"] == "completed" for agent in agents) < 2:
            agents = (await host.result("kimi_run", {"run_id": run_id, "action": "status"}))["swarm"]["agents"]
        await host.cancel(1)
        await wait_until(lambda: not host.runs.live)
        kept = await host.result("kimi_run", {"run_id": run_id})
    assert (kept["status"], kept["error"]["code"]) == ("partial", "cancelled")
    assert "agent-3 (Lima), completed:" in kept["answer"]


async def test_one_whose_synthesis_is_cut_short_has_what_it_began_before_them(sim: Simulator) -> None:
    synthesis = {"content": "Rome is old.", "gate": "rest", "gate_at": "finish"}
    sim.play({"match": {"system": "Several agents have worked"}, **synthesis})
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        run_id = (await kimi.call("kimi_swarm", TELL)).run_id
        await sim.until(lambda: sim.waiting_at("rest") == 1)
        while (await kimi.run(run_id, "status")).answer != "Rome is old.":
            pass
        result = await kimi.run(run_id, "cancel")
    assert (result.status, result.code) == ("partial", "cancelled")
    assert result.answer.startswith("Rome is old.\n\nagent-1 (Rome), completed:")
    assert "agent-2 (Oslo), completed:" in result.answer
    assert "Incomplete" not in result.error["message"], "each agent is"


@pytest.mark.parametrize("how", ["cancel", "eof"])
async def test_one_of_which_no_agent_had_finished_is_as_before(sim: Simulator, how: str) -> None:
    hold(sim, "Tell me")
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        run_id = (await kimi.call("kimi_swarm", TELL)).run_id
        await sim.until(lambda: sim.waiting_at("never") == 3)
        if how == "cancel":
            result = await kimi.run(run_id, "cancel")
            assert (result.status, result.answer) == ("cancelled", "")
    if how == "eof":
        with opened(Path(os.environ["KIMI_DATA_DIR"])) as file:
            (status,) = file.execute("SELECT status FROM runs").fetchone()
        assert status == "running", "the next server goes on with it"
