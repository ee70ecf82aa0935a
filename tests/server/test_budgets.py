"""What calls cost, and the limits on it: before anything is sent, while it streams, and over all servers of a day."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp import catalogue
from kimi_mcp.provider import Deadlines
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened, run_store
from tests.server.clients import connect, store_limits, wait_until
from tests.server.requests import HELD_STEP, chats
from tests.server.results import Result

LONG = {
    "content": "word " * 40_000,
    "reasoning": "Hm.",
    "event_tokens": 50,
    "tokens_per_second": 20_000,
    "gate": "the end",
    "gate_at": "finish",
}
"""About 40,000 tokens in two seconds, 0.12 USD of K2.5; never whole: a slow reader may get the rest in one piece."""


def cost(result: Result, model: str, provider: str = "simulator") -> float:
    """What its usage costs by the price list, counted here once more."""
    profile = catalogue.load().profile(provider, model)
    assert profile is not None
    assert profile.price is not None
    usage = result.structured["usage"]
    cached = usage["cached_tokens"] or 0
    fresh = usage["prompt_tokens"] - cached
    output = usage["completion_tokens"] * profile.price.output
    return (fresh * profile.price.input + cached * profile.price.cached + output) / 1e6


async def test_a_call_costs_what_the_price_list_says_cached_tokens_at_their_own_price(
    sim: Simulator, mode: str
) -> None:
    prompt = "A long prompt, the same each time. " * 200
    async with connect(sim, mode) as kimi:
        first = await kimi.think(prompt)
        second = await kimi.think(prompt + "And more.")
    assert not first.structured["usage"]["cached_tokens"]
    assert second.structured["usage"]["cached_tokens"] > 0
    for result in (first, second):
        assert result.structured["usage"]["cost_usd"] == pytest.approx(cost(result, "kimi-k2.5"))


async def test_the_price_is_that_of_the_model_that_answered(sim: Simulator) -> None:
    sim.play({"answer_model": "kimi-k3"}, {"answer_model": "kimi-k2.5-0905"}, {"answer_model": "gpt-7"})
    async with connect(sim) as kimi:
        dearer, dated, unknown = [await kimi.think() for _ in range(3)]
    assert dearer.rules == ["model-answered"]
    assert dearer.structured["usage"]["cost_usd"] == pytest.approx(cost(dearer, "kimi-k3"))
    assert dated.structured["usage"]["cost_usd"] == pytest.approx(cost(dated, "kimi-k2.5"))
    assert unknown.structured["usage"]["cost_usd"] is None


@pytest.mark.parametrize("usage", ["missing"])
async def test_the_cost_is_null_where_usage_is_unknown(sim: Simulator, usage: str) -> None:
    sim.play({"usage": usage})
    async with connect(sim) as kimi:
        assert (await kimi.think()).structured["usage"]["cost_usd"] is None


async def test_the_cost_is_null_where_the_price_is_unknown() -> None:
    async with Simulator(provider="vllm") as sim, connect(sim, provider="vllm") as kimi:
        result = await kimi.think()
    assert result.structured["usage"]["total_tokens"] > 0
    assert result.structured["usage"]["cost_usd"] is None


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


async def test_a_repaired_answer_costs_both_requests(sim: Simulator) -> None:
    sim.play({"content": "It is 1."}, {"content": '{"n": 1}', "answer_model": "kimi-k3"})
    async with connect(sim) as kimi:
        result = await kimi.think(response_schema=SCHEMA)
        sim.play({"content": "It is 1."})
        alone = await kimi.think()
    assert result.rules == ["answer-repaired", "model-answered"]
    first = {**alone.structured["usage"]}
    assert result.structured["usage"]["completion_tokens"] > first["completion_tokens"]
    cheap, dear = cost(result, "kimi-k2.5"), cost(result, "kimi-k3")
    assert cheap < result.structured["usage"]["cost_usd"] < dear, "each by the price of the model that answered it"


async def test_a_repair_that_breaks_off_has_no_known_cost(sim: Simulator) -> None:
    sim.play({"content": "It is 1."}, {"content": '{"n": 1}', "no_finish": True})
    async with connect(sim) as kimi:
        result = await kimi.think(response_schema=SCHEMA)
    assert result.status == "partial"
    assert result.structured["usage"]["cost_usd"] is None


async def test_a_call_beyond_its_limit_is_refused_before_it_is_sent(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_BUDGET_USD_PER_CALL="0.001") as kimi:
        refused = await kimi.think("word " * 20_000)
        assert refused.code == "budget_exceeded"
        assert refused.status == "failed"
        assert refused.structured["run_id"] is None
        assert "KIMI_BUDGET_USD_PER_CALL" in refused.error["fix"]
        assert "0.001" in refused.error["message"]
        assert chats(sim) == []
        assert (await kimi.instant("hi")).status == "completed"


async def test_a_stream_beyond_its_limit_is_cut_and_what_came_is_kept(sim: Simulator, mode: str) -> None:
    sim.play(LONG)
    async with connect(sim, mode, KIMI_BUDGET_USD_PER_CALL="0.03") as kimi:
        result = await kimi.think(max_tokens=100_000)
        await sim.client_gone()
        assert result.status == "partial"
        assert result.code == "budget_exceeded"
        assert not result.is_error
        assert LONG["content"].startswith(result.answer)
        assert 1_000 < len(result.answer) < len(LONG["content"])
        assert "KIMI_BUDGET_USD_PER_CALL" in result.error["fix"]
        assert "0.03" in result.error["message"]
        assert "KIMI_BUDGET_USD_PER_CALL" in result.text
        again = await kimi.run(result.run_id)
        assert again.structured == result.structured
        assert (await kimi.instant("hi")).status == "completed"


@pytest.mark.parametrize("field", ["content", "reasoning"])
async def test_a_stream_is_cut_by_the_chunk_that_goes_beyond_its_limit(sim: Simulator, field: str) -> None:
    unwatched = store_limits(write_every_s=600)  # nobody looks at it meanwhile
    sim.play({"content": "Yes.", **LONG, field: LONG["content"]})
    async with connect(sim, options=unwatched, KIMI_BUDGET_USD_PER_CALL="0.03") as kimi:
        result = await kimi.think(max_tokens=100_000)
        await sim.client_gone()
    assert result.code == "budget_exceeded"
    counted = float(result.error["message"].split("about ")[1].split(" USD")[0])
    assert 0.03 <= counted < 0.04
    assert len(chats(sim)) == 1


@pytest.mark.parametrize(
    ("limit", "looked_at_every_s"),
    [("KIMI_BUDGET_USD_PER_CALL", 600), ("KIMI_BUDGET_USD_PER_CALL", 0.01), ("KIMI_BUDGET_USD_PER_DAY", 0.01)],
)
async def test_an_answer_that_is_whole_with_the_chunk_that_goes_beyond_its_limit_stays_so(
    sim: Simulator, limit: str, looked_at_every_s: float
) -> None:
    quick_end = replace(store_limits(write_every_s=looked_at_every_s), deadlines=Deadlines(after_finish_s=0.5))
    sim.play({"content": "word " * 1_000, "event_tokens": 5_000, "gate": "end of stream", "gate_at": 3})
    async with connect(sim, options=quick_end, **{limit: "0.001"}) as kimi:
        result = await kimi.instant()
    assert (result.status, result.answer) == ("completed", "word " * 1_000)
    assert result.structured["usage"]["cost_usd"] > 0.001
    if limit == "KIMI_BUDGET_USD_PER_CALL":
        (warned,) = result.structured["policy"]
        assert (warned["rule"], warned["action"], warned["asked"]) == ("budget-overrun", "warned", 0.001)
        assert warned["sent"] == pytest.approx(result.structured["usage"]["cost_usd"], abs=1e-6)
        assert "KIMI_BUDGET_USD_PER_CALL" in result.text


async def test_an_answer_whose_usage_is_dearer_than_its_limit_says_so(sim: Simulator, mode: str) -> None:
    sim.play({"answer_model": "kimi-k3", "content": "word " * 600})
    async with connect(sim, mode, KIMI_BUDGET_USD_PER_CALL="0.005") as kimi:
        dear = await kimi.think()
        cheap = await kimi.think()
    assert dear.status == "completed"
    assert dear.structured["usage"]["cost_usd"] > 0.005
    assert "budget-overrun" in dear.rules
    assert (cheap.status, cheap.rules) == ("completed", [])


async def test_a_repair_is_cut_by_the_chunk_that_goes_beyond_the_limit_of_both(
    sim: Simulator,
) -> None:
    unwatched = store_limits(write_every_s=600)
    sim.play({"content": "word " * 6_000, "event_tokens": 50}, {**LONG, "content": "word " * 6_000})
    async with connect(sim, options=unwatched, KIMI_BUDGET_USD_PER_CALL="0.045") as kimi:
        result = await kimi.think(response_schema=SCHEMA, max_tokens=100_000)
    assert result.code == "budget_exceeded"
    assert result.answer == "word " * 6_000, "the first answer was paid for: it stays"


async def test_a_whole_misfit_beyond_the_limit_is_kept_with_its_cost_and_not_asked_for_again(sim: Simulator) -> None:
    sim.play({"content": "word " * 1_000, "event_tokens": 5_000})
    async with connect(sim, KIMI_BUDGET_USD_PER_CALL="0.001") as kimi:
        result = await kimi.instant(response_schema=SCHEMA)
    assert (result.status, result.code, result.rules) == ("partial", "budget_exceeded", [])
    assert result.answer == "word " * 1_000
    assert result.structured["usage"]["cost_usd"] == pytest.approx(cost(result, "kimi-k2.5"))
    assert "would cost about" in result.error["message"]
    assert len(chats(sim)) == 1


async def test_a_stream_that_is_cut_while_it_thinks_has_failed(sim: Simulator) -> None:
    sim.play({**LONG, "reasoning": LONG["content"]})
    async with connect(sim, KIMI_BUDGET_USD_PER_CALL="0.03") as kimi:
        result = await kimi.think(max_tokens=100_000)
    assert result.status == "failed"
    assert result.code == "budget_exceeded"
    assert result.answer == ""
    assert result.structured["reasoning"]["chars"] > 1_000


async def test_a_limit_counts_the_dearest_price_where_the_real_one_is_unknown() -> None:
    highest_price = catalogue.load().highest_price
    tokens = 10_000
    limit = tokens * highest_price.output / 1e6
    async with Simulator(provider="vllm") as sim:
        sim.play({**LONG, "tokens_per_second": 8_000})
        async with connect(sim, provider="vllm", KIMI_BUDGET_USD_PER_CALL=str(limit)) as kimi:
            result = await kimi.think(max_tokens=100_000)
    assert result.code == "budget_exceeded"
    assert result.status == "partial"
    assert len(result.answer) / 5 < tokens * 2.5


async def test_a_repair_counts_what_the_first_answer_cost_though_its_price_is_unknown() -> None:
    highest_price = catalogue.load().highest_price
    limit = 3_000 * highest_price.output / 1e6
    async with Simulator(provider="vllm") as sim:
        sim.play({"content": "word " * 2_200}, {"content": "word " * 2_200})
        async with connect(sim, provider="vllm", KIMI_BUDGET_USD_PER_CALL=str(limit)) as kimi:
            result = await kimi.instant(response_schema=SCHEMA)
    assert result.code == "budget_exceeded", "the first answer and its question are in the second prompt as well"
    assert result.status == "partial", "it was paid for: it stays"
    assert result.answer == "word " * 2_200
    assert result.rules == [], "nothing was asked once more"
    assert len(chats(sim)) == 1


async def test_a_days_limit_holds_over_all_servers(sim: Simulator, mode: str) -> None:
    limit = {"KIMI_BUDGET_USD_PER_DAY": "0.02"}
    sim.play({"content": "word " * 6_000, "event_tokens": 500, "times": "always"})
    async with connect(sim, mode, **limit) as one, connect(sim, mode, **limit) as other:
        first = await one.think("one")
        assert first.status == "completed"
        assert first.structured["usage"]["cost_usd"] > 0.018
        refused = await other.think("word " * 10_000)
        assert refused.code == "budget_exceeded"
        assert "KIMI_BUDGET_USD_PER_DAY" in refused.error["fix"]
        assert f"{first.structured['usage']['cost_usd']:.4f}" in refused.error["message"], "what was spent"
    assert len(chats(sim)) == 1


@pytest.mark.parametrize("journal", ["on", "off"])
async def test_a_whole_answer_that_uses_up_the_day_says_so(sim: Simulator, mode: str, journal: str) -> None:
    sim.play({"content": "word " * 6_000, "event_tokens": 10_000, "times": "always"})
    async with connect(sim, mode, KIMI_BUDGET_USD_PER_DAY="0.03", KIMI_JOURNAL=journal) as kimi:
        first, second, third = [await kimi.think(prompt) for prompt in ("one", "two", "three")]
    assert (first.status, first.rules) == ("completed", [])
    assert (second.status, second.rules) == ("completed", ["budget-overrun"])
    (warned,) = second.structured["policy"]
    assert (warned["field"], warned["asked"]) == ("KIMI_BUDGET_USD_PER_DAY", 0.03)
    both = sum(each.structured["usage"]["cost_usd"] for each in (first, second))
    assert warned["sent"] == pytest.approx(both, abs=1e-6)
    assert "KIMI_BUDGET_USD_PER_DAY" in second.text
    assert third.code == "budget_exceeded"


async def test_a_days_limit_cuts_the_streams_of_every_server(sim: Simulator) -> None:
    limit = {"KIMI_BUDGET_USD_PER_DAY": "0.06"}
    arrives = {"content": LONG["content"], "event_tokens": 50, "gate": "rest", "gate_at": 300}
    sim.play({**arrives, "times": "always"})  # 15,000 tokens each, 0.045 USD: neither is beyond the limit by itself
    results: list[Result] = []
    async with connect(sim, **limit) as one, connect(sim, **limit) as other:

        async def ask(kimi: Any) -> None:
            results.append(await kimi.think(max_tokens=100_000))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, one)
                tasks.start_soon(ask, other)
            await sim.until(lambda: sim.waiting_at("rest") == 0)
    assert {result.code for result in results} == {"budget_exceeded"}
    assert {result.status for result in results} == {"partial"}
    for result in results:
        assert LONG["content"].startswith(result.answer)
        assert "KIMI_BUDGET_USD_PER_DAY" in result.error["fix"]


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="the tests start no PostgreSQL there")
async def test_in_postgresql_a_stream_is_cut_by_the_chunk_with_which_nothing_more_can_be_held_for_it(
    sim: Simulator, database_url: str, tmp_path: Path
) -> None:
    unwatched = store_limits(write_every_s=600)  # nobody looks at it meanwhile
    limit = {"KIMI_BUDGET_USD_PER_DAY": "0.003", "KIMI_DATABASE_URL": database_url}  # 1,000 tokens
    sim.play({**LONG, "reasoning": "", "tokens_per_second": 2_000, "gate": "600 tokens", "gate_at": 12})
    results: list[Result] = []
    async with connect(sim, options=unwatched, **limit) as kimi, run_store(tmp_path, url=database_url) as looking:

        async def ask() -> None:
            results.append(await kimi.think(max_tokens=100_000))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                while await looking.spent_today_usd() < 0.003:  # at first half of it is held
                    await anyio.sleep(0.01)
                await sim.until(lambda: sim.waiting_at("600 tokens") == 1)
                sim.open_gate("600 tokens")
    (result,) = results
    assert (result.status, result.code) == ("partial", "budget_exceeded")
    assert 900 < len(result.answer) / 4 < 2_000
    assert "KIMI_BUDGET_USD_PER_DAY" in result.error["fix"]


async def test_a_repair_beyond_the_days_limit_is_not_sent(sim: Simulator, mode: str) -> None:
    sim.play({"content": "word " * 6_000, "event_tokens": 500}, {"content": '{"n": 3}'})
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    async with connect(sim, mode, KIMI_BUDGET_USD_PER_DAY="0.02") as kimi:
        result = await kimi.think("one", response_schema=schema)
    assert len(chats(sim)) == 1
    assert (result.status, result.code) == ("partial", "budget_exceeded")
    assert result.answer == "word " * 6_000, "it was paid for"
    assert result.rules == [], "nothing was asked once more"
    assert result.structured["usage"]["cost_usd"] == pytest.approx(cost(result, "kimi-k2.5"))
    assert "KIMI_BUDGET_USD_PER_DAY" in result.error["fix"]


async def test_a_call_that_waited_for_its_turn_is_held_against_what_was_spent_meanwhile(sim: Simulator) -> None:
    sim.play({**HELD_STEP, "match": {"text": "first"}}, {"content": "word " * 6_000, "event_tokens": 500})
    async with connect(sim, KIMI_BUDGET_USD_PER_DAY="0.02", KIMI_REPLY_WITHIN_S="0.2") as kimi:
        first = await kimi.think("first")
        waits = await kimi.think("word " * 10_000, conversation_id=first.structured["conversation_id"])
        another = await kimi.run((await kimi.think("another")).run_id, wait_s=20)
        assert another.structured["usage"]["cost_usd"] > 0.018
        sim.open_gate("end")
        assert (await kimi.run(waits.run_id, wait_s=20)).code == "budget_exceeded"
    assert len(chats(sim)) == 2


async def test_yesterday_does_not_count(sim: Simulator, data_dir: Path) -> None:
    sim.play({"content": "word " * 6_000, "event_tokens": 500, "times": "always"})
    async with connect(sim, KIMI_BUDGET_USD_PER_DAY="0.02") as kimi:
        await kimi.think("one")
        assert (await kimi.think("word " * 10_000)).code == "budget_exceeded"
        with opened(data_dir) as file:
            file.execute("UPDATE runs SET started_at = started_at - 86400, ended_at = ended_at - 86400")
        assert (await kimi.think("two")).status == "completed"


async def test_refused_and_cut_calls_count_for_what_they_cost(sim: Simulator, data_dir: Path) -> None:
    sim.play(HELD_STEP, {"status": 400})
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.2") as kimi:
        started = await kimi.think("word " * 1_000)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        cancelled = await kimi.run(started.run_id, "cancel")
        assert cancelled.structured["usage"]["cost_usd"] is None
        await kimi.think("again")
        await wait_until(lambda: not kimi.runs.live)
    with opened(data_dir) as file:
        counted = dict(file.execute("SELECT status, counted_usd FROM runs").fetchall())
    assert counted["cancelled"] > 0.0005, "its prompt was sent"


async def test_without_a_journal_the_limits_hold_for_the_process(sim: Simulator) -> None:
    sim.play({"content": "word " * 6_000, "event_tokens": 500, "times": "always"})
    async with connect(sim, KIMI_BUDGET_USD_PER_DAY="0.02", KIMI_JOURNAL="off") as kimi:
        first = await kimi.think("one")
        refused = await kimi.think("word " * 10_000)
        assert refused.code == "budget_exceeded"
        assert (await kimi.run(first.run_id)).answer == first.answer, "and cost nothing that was there"
        assert (await kimi.think("hi", conversation_id=first.structured["conversation_id"])).code != "run_not_found"
    assert 1 <= len(chats(sim)) <= 2
