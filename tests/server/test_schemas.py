"""Answers that must fit a ``response_schema``: as they are, after one repair, or not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_mcp.simulator import Simulator
from tests.server.clients import connect
from tests.server.requests import body_of, chats

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
OSLO = '{"city": "Oslo", "people": 717710}'
MISFIT = '{"city": "Oslo", "people": "many"}'
SHORT = {"reasoning": "Hm."}


async def test_an_answer_that_fits_is_parsed(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.instant("Which city?", response_schema=CITY)
    assert result.status == "completed"
    assert set(result.structured["parsed"]) == {"city", "people"}
    assert result.rules == []
    assert result.text == result.answer
    wanted = body_of(chats(sim)[0])["response_format"]
    assert wanted["json_schema"]["schema"]["properties"].keys() == CITY["properties"].keys()


async def test_a_code_fence_around_the_whole_answer_is_looked_through(sim: Simulator) -> None:
    sim.play({"content": f"```json\n{OSLO}\n```"})
    async with connect(sim) as kimi:
        result = await kimi.instant("Which city?", response_schema=CITY)
    assert result.structured["parsed"] == {"city": "Oslo", "people": 717710}
    assert result.answer.startswith("```"), "the answer itself stays as it came"
    assert len(chats(sim)) == 1


async def test_a_null_that_fits_is_an_answer(sim: Simulator) -> None:
    sim.play({"content": "null"})
    async with connect(sim) as kimi:
        result = await kimi.instant("Which city?", response_schema={"type": ["object", "null"]})
    assert result.status == "completed"
    assert result.structured["parsed"] is None


@pytest.mark.parametrize("first", [MISFIT, "Oslo, I think.", "{", OSLO + " and more", '{"city": "Oslo"}'])
async def test_a_misfit_is_asked_for_once_more_and_reported(sim: Simulator, first: str) -> None:
    sim.play({"content": first, **SHORT}, {"content": OSLO, **SHORT})
    async with connect(sim) as kimi:
        result = await kimi.think("Which city?", response_schema=CITY)
    assert result.status == "completed"
    assert result.structured["parsed"] == {"city": "Oslo", "people": 717710}
    assert result.answer == OSLO
    assert result.rules == ["answer-repaired"]
    assert result.attempts == 2
    one, two = map(body_of, chats(sim))
    assert two["messages"][0] == one["messages"][0]
    assert two["messages"][1] == {"role": "assistant", "content": first, "reasoning_content": "Hm."}
    assert two["messages"][2]["role"] == "user"


async def test_a_repair_adds_up_the_usage_of_both_requests(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        sim.play({"content": OSLO, **SHORT})
        alone = (await kimi.think("Which city?", response_schema=CITY)).structured["usage"]
        sim.play({"content": MISFIT, **SHORT}, {"content": OSLO, **SHORT})
        both = (await kimi.think("Which city?", response_schema=CITY)).structured["usage"]
    assert both["prompt_tokens"] > 2 * alone["prompt_tokens"]
    assert both["completion_tokens"] > alone["completion_tokens"]
    assert both["total_tokens"] == both["prompt_tokens"] + both["completion_tokens"]


async def test_two_misfits_are_partial_with_the_answer(sim: Simulator, mode: str) -> None:
    sim.play({"content": MISFIT}, {"content": '{"city": 1, "people": 2}'})
    async with connect(sim, mode) as kimi:
        result = await kimi.think("Which city?", response_schema=CITY)
    assert result.status == "partial"
    assert result.structured["parsed"] is None
    assert result.answer == '{"city": 1, "people": 2}'
    assert "response_schema" in result.error["fix"]
    assert result.rules == ["answer-repaired"]
    assert len(chats(sim)) == 2, "one repair, no more"


async def test_a_repair_that_is_refused_keeps_the_first_answer_and_says_that_it_was_tried(sim: Simulator) -> None:
    sim.play({"content": MISFIT, **SHORT}, {"status": 401})
    async with connect(sim) as kimi:
        result = await kimi.think("Which city?", response_schema=CITY)
    assert result.status == "partial"
    assert result.answer == MISFIT
    assert result.reasoning == "Hm."
    assert result.code == "auth_failed"
    assert result.rules == ["answer-repaired"]
    assert result.structured["usage"]["total_tokens"] is not None, "the first request was paid for"


async def test_a_repair_that_breaks_off_keeps_the_first_answer(sim: Simulator) -> None:
    sim.play({"content": MISFIT, **SHORT}, {"content": OSLO, "no_finish": True})
    async with connect(sim) as kimi:
        result = await kimi.think("Which city?", response_schema=CITY)
    assert result.status == "partial"
    assert result.answer == MISFIT
    assert result.code == "upstream_broken"


@pytest.mark.parametrize(
    "second", [{"length_in_reasoning": True}, {"content": ""}, {"finish_reason": "content_filter"}]
)
async def test_a_repair_without_a_whole_answer_keeps_the_first_one(sim: Simulator, second: dict[str, Any]) -> None:
    sim.play({"content": MISFIT, **SHORT}, {"content": "", **second})
    async with connect(sim) as kimi:
        result = await kimi.think("Which city?", response_schema=CITY)
    assert result.status == "partial"
    assert result.answer == MISFIT
    assert result.rules == ["answer-repaired"]
    assert result.structured["usage"]["total_tokens"] is not None


async def test_a_run_that_is_cancelled_in_its_repair_keeps_the_first_answer(sim: Simulator) -> None:
    sim.play({"content": MISFIT, **SHORT}, {"gate": "never", "gate_at": "start"})
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        running = await kimi.think("Which city?", response_schema=CITY)
        await sim.until(lambda: sim.waiting_at("never") == 1)
        assert (await kimi.run(running.run_id, "status")).answer == MISFIT, "what has arrived, of a running call too"
        cancelled = await kimi.run(running.run_id, "cancel")
        await sim.client_gone()
    assert cancelled.status == "cancelled"
    assert cancelled.answer == MISFIT
    assert cancelled.reasoning == "Hm."


async def test_a_cut_answer_is_not_asked_for_again(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        result = await kimi.instant("Which city?", response_schema=CITY, max_tokens=2)
    assert result.status == "partial"
    assert result.code == "answer_cut_off"
    assert len(chats(sim)) == 1


async def test_an_empty_answer_is_not_asked_for_again(sim: Simulator) -> None:
    sim.play({"content": ""})
    async with connect(sim) as kimi:
        result = await kimi.think("Which city?", response_schema=CITY)
    assert result.status == "failed"
    assert result.code == "answer_cut_off"
    assert len(chats(sim)) == 1


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"type": "object", "properties": []},
        {"required": "city"},
        {"type": "string", "minLength": "three"},
    ],
)
async def test_a_schema_that_is_none_is_refused_before_anything_is_sent(sim: Simulator, schema: dict[str, Any]) -> None:
    async with connect(sim) as kimi:
        result = await kimi.think("Which city?", response_schema=schema)
    assert result.code == "invalid_arguments"
    assert "response_schema" in result.error["message"]
    assert "response_schema" in result.error["fix"]
    assert chats(sim) == []


async def test_a_schema_outside_of_moonshots_dialect_is_rewritten_and_reported(sim: Simulator) -> None:
    schema = {"type": "object", "properties": {"city": {"type": ["string", "null"], "default": None}}}
    async with connect(sim) as kimi:
        result = await kimi.instant("Which city?", response_schema=schema)
    assert result.status == "completed", result.text
    assert result.rules == ["schema-dialect"]
    assert isinstance(result.structured["parsed"], dict)


async def test_a_schema_larger_than_moonshot_takes_is_refused_before_it_is_sent(sim: Simulator) -> None:
    schema = {"type": "object", "description": "x" * 120_000}
    async with connect(sim) as kimi:
        result = await kimi.instant("Which city?", response_schema=schema)
    assert (result.status, result.error["rule"]) == ("failed", "schema-dialect")
    assert "120,000" in result.error["message"] + result.error["fix"]
    assert chats(sim) == []


@pytest.mark.parametrize("schema", [{"$ref": "#/$defs/none"}, {"$ref": "https://example.org/schema.json"}])
async def test_a_schema_that_refers_to_what_it_does_not_hold_fetches_nothing(
    sim: Simulator, schema: dict[str, Any]
) -> None:
    sim.play({"content": OSLO, "times": "always", "unchecked": True})
    async with connect(sim) as kimi:
        result = await kimi.instant("Which city?", response_schema=schema)
    assert result.status in ("partial", "failed")
    assert result.structured["parsed"] is None


@pytest.mark.parametrize("requested", ["first", "again"])
async def test_an_answer_that_could_not_be_held_against_a_pattern_is_partial_and_not_asked_for_again(
    sim: Simulator, requested: str
) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "pattern": "^(?=a)a+$"}},
        "required": ["city"],
    }
    answer = json.dumps({"city": "a" * 60})
    sim.play(
        *([{"content": "{}"}] if requested == "again" else []), {"content": answer}, {"content": "never asked for"}
    )
    async with connect(sim) as kimi:
        result = await kimi.instant("Which city?", response_schema=schema)
    assert (result.status, result.code, result.answer) == ("partial", "invalid_arguments", answer)
    assert result.structured["parsed"] is None
    assert "`pattern`" in result.error["fix"]
    assert result.attempts == (1 if requested == "first" else 2)
