"""``web`` where it can't be had, and where it ends early: who is named, and that what was paid for is kept."""

from __future__ import annotations

import json

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, connect
from tests.server.requests import body_of, chats, messages
from tests.server.results import Result
from tests.server.test_web import ASKED, FETCH, FOUND, SEARCH, call_of, runs_of, without_formulas

# ── who can't ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("allowed", ["", "vllm,simulator"], ids=["none", "one"])
async def test_a_provider_without_a_search_is_refused_with_those_that_have_one(mode: str, allowed: str) -> None:
    async with (
        Simulator(provider="vllm") as sim,
        connect(sim, mode, provider="vllm", KIMI_ALLOWED_PROVIDERS=allowed) as kimi,
    ):
        result = await kimi.think(ASKED, web=True)
        assert chats(sim) == []
    assert result.code == "invalid_arguments"
    assert result.error["message"] == "vllm has no web search of its own."
    expected = "Name a `provider` that has one (simulator)" if allowed else "(moonshot, moonshot-cn, simulator)"
    assert expected in result.error["fix"]


async def test_a_provider_that_can_t_be_reached_is_named(sim: Simulator) -> None:
    async with connect(sim, KIMI_BASE_URL="http://127.0.0.1:9/v1") as kimi:
        result = await kimi.think(ASKED, web=True, model="kimi-k2.6")
    assert result.code == "upstream_unreachable"


async def test_a_gateway_without_formulas_is_refused_while_thinking_and_searches_inside_instant_chats(
    sim: Simulator,
) -> None:
    sim.play({"match": {"path": f"{SEARCH}/tools"}, "status": 404, "times": "always"})
    async with connect(sim) as kimi:
        refused, found = await kimi.think(ASKED, web=True), await kimi.instant(ASKED, web=True)
    assert refused.code == "invalid_arguments"
    assert "has none of the web tools of simulator" in refused.error["message"]
    assert found.status == "completed", found.text
    assert body_of(chats(sim)[0])["tools"] == [{"type": "builtin_function", "function": {"name": "$web_search"}}]


async def test_where_only_the_builtin_search_exists_its_arguments_are_echoed_and_it_is_paid_for() -> None:
    async with Simulator(provider="simulator") as sim, connect(sim, options=without_formulas()) as kimi:
        thinking = await kimi.think(ASKED, web=True)
        result = await kimi.instant(ASKED, web=True)
        follow_up = await kimi.instant("And?", conversation_id=result.structured["conversation_id"])
    assert thinking.code == "invalid_arguments"
    assert thinking.error["message"] == "simulator searches the web in instant mode only."
    assert (result.status, follow_up.status) == ("completed", "completed"), result.text
    assert runs_of(sim) == []
    call, answer = messages(sim, 1)[1:]
    assert call["tool_calls"][0]["type"] == "builtin_function"
    assert answer["content"] == call["tool_calls"][0]["function"]["arguments"]
    assert json.loads(answer["content"])["search_result"]
    assert result.structured["usage"]["cost_usd"] > 0.005
    assert result.structured["sources"] == [], "what it found is known to the provider alone"


# ── what is paid for is kept ──────────────────────────────────────────────────────────────────────────────────────


async def held(kimi: KimiClient, sim: Simulator, gate: str) -> str:
    """The id of the only run, once it waits at a gate of the simulator."""
    await sim.until(lambda: sim.waiting_at(gate) == 1)
    return await kimi.only_run()


@pytest.mark.parametrize("path", [f"{SEARCH}/fibers", f"{FETCH}/fibers"])
async def test_a_cancellation_closes_a_running_search_and_keeps_what_was_paid_for(sim: Simulator, path: str) -> None:
    sim.play({"match": {"path": path}, "gate": "tool"})
    run_id = ""
    async with connect(sim) as kimi:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: kimi.think(ASKED, web=True))
            run_id = await held(kimi, sim, "tool")
            tasks.cancel_scope.cancel()
        await sim.client_gone()
        kept = await kimi.run(run_id)
    assert kept.status == "cancelled"
    assert "Tools offered: web_search, fetch" in kept.reasoning
    assert kept.structured["sources"] == (FOUND if path.startswith(FETCH) else [])
    assert kept.structured["usage"]["cost_usd"] > 0.005, "the search may have been billed"


async def test_each_turn_is_recorded_before_the_next_request_is_paid_for(sim: Simulator) -> None:
    sim.play({"match": {"tool": "", "turns": 1}, "gate": "second", "gate_at": "start"})
    async with connect(sim) as kimi, connect(sim) as other, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: kimi.think(ASKED, web=True))
        run_id = await held(kimi, sim, "second")
        record = await kimi.runs.store.find(run_id, None)
        seen = await other.run(run_id, "status")
        sim.open_gate("second")
        assert record is not None
        assert [turn["role"] for turn in record.request["turns"]] == ["user", "assistant", "tool"]
        assert "Tools offered" in record.request["turns"][1]["reasoning"]
        assert seen.structured["sources"] == FOUND


@pytest.mark.parametrize(("limit", "requests", "searches"), [("0.001", 1, 0), ("0.0055", 1, 1)])
async def test_a_budget_is_checked_between_rounds(sim: Simulator, limit: str, requests: int, searches: int) -> None:
    async with connect(sim, KIMI_BUDGET_USD_PER_CALL=limit) as kimi:
        result: Result = await kimi.think(ASKED, web=True)
    assert result.code == "budget_exceeded", result.text
    assert (len(chats(sim)), len(runs_of(sim))) == (requests, searches)
    assert "Tools offered" in result.reasoning
    assert len(result.structured["sources"]) == 2 * searches
    assert result.structured["usage"]["total_tokens"] > 0
    assert 0.005 * searches < result.structured["usage"]["cost_usd"] < 0.005 * searches + 0.005


async def test_a_request_that_fails_behind_a_search_keeps_the_sources(sim: Simulator) -> None:
    sim.play(call_of("web_search", query=ASKED), {"status": 400, "error_type": "content_filter"})
    async with connect(sim) as kimi:
        result = await kimi.think(ASKED, web=True)
    assert result.is_error
    assert result.structured["sources"] == FOUND
    assert "I am kimi-k2.5" in result.reasoning
