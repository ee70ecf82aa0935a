"""What the simulator answers where nothing is wrong."""

from __future__ import annotations

import hashlib
import json

import jsonschema
import pytest

from kimi_mcp.simulator import Simulator
from kimi_mcp.simulator.instances import instance
from tests.simulator.requests import INSTANT, SCHEMAS, THINK, WEATHER, answer, deltas, post, sdk, streamed

pytestmark = pytest.mark.anyio

PROMPT = "Why is the sky blue?"
DIGEST = hashlib.sha256(PROMPT.encode()).hexdigest()[:16]


async def test_a_thinking_answer_comes_through_the_sdk(sim: Simulator) -> None:
    async with sdk(sim) as client:
        got = await client.chat.completions.create(**THINK)
    message = got.choices[0].message
    assert message.content is not None
    assert message.content.startswith(f"[simulator] kimi-k2.6 in thinking mode was asked: {PROMPT}")
    assert message.model_extra is not None
    reasoning = message.model_extra["reasoning_content"]
    assert reasoning.startswith("[simulator] I am kimi-k2.6 in thinking mode.")
    assert f"The prompt has {len(PROMPT)} characters, sha256 {DIGEST}; system: none; turns: 1" in reasoning
    assert got.choices[0].finish_reason == "stop"
    assert got.usage is not None
    assert got.usage.completion_tokens > 50


async def test_a_streamed_answer_comes_through_the_sdk(sim: Simulator) -> None:
    reasoning, content, finish = "", "", None
    async with sdk(sim) as client:
        async for chunk in await client.chat.completions.create(**THINK, stream=True):
            delta = chunk.choices[0].delta
            reasoning += (delta.model_extra or {}).get("reasoning_content", "")
            content += delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
    assert reasoning.startswith("[simulator] I am kimi-k2.6")
    assert content.startswith("[simulator] kimi-k2.6")
    assert finish == "stop"


async def test_reasoning_comes_wholly_before_content(sim: Simulator) -> None:
    sent = deltas(await streamed(sim, THINK))
    assert sent[0] == {"role": "assistant", "content": ""}
    kinds = ["reasoning" if "reasoning_content" in delta else "content" for delta in sent[1:]]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"reasoning", "content"}


async def test_streamed_and_whole_answers_say_the_same(sim: Simulator) -> None:
    whole = await answer(sim, THINK)
    sent = deltas(await streamed(sim, THINK))
    for field in ("reasoning_content", "content"):
        assert "".join(delta.get(field, "") for delta in sent) == whole[field]


async def test_instant_mode_has_no_reasoning(sim: Simulator) -> None:
    message = await answer(sim, INSTANT)
    assert "reasoning_content" not in message
    assert "in instant mode" in message["content"]
    assert not any("reasoning_content" in delta for delta in deltas(await streamed(sim, INSTANT)))


async def test_usage_is_in_the_last_choice_and_in_a_chunk_of_its_own_where_asked(sim: Simulator) -> None:
    chunks = await streamed(sim, {**THINK, "stream_options": {"include_usage": True}})
    *_, finish, last = chunks
    assert last["choices"] == []
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert finish["choices"][0]["usage"] == last["usage"]
    assert set(last["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"}
    without = await streamed(sim, THINK)
    assert all("usage" not in chunk for chunk in without)


async def test_a_limit_that_reasoning_eats_leaves_no_content(sim: Simulator) -> None:
    got = (await post(sim, {**THINK, "max_completion_tokens": 10})).json()
    choice = got["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == ""
    assert choice["message"]["reasoning_content"]
    assert got["usage"]["completion_tokens"] == 10


async def test_a_limit_within_the_answer_cuts_it(sim: Simulator) -> None:
    got = (await post(sim, {**INSTANT, "max_tokens": 5})).json()
    assert got["choices"][0]["finish_reason"] == "length"
    assert got["choices"][0]["message"]["content"] == "[simulator] kimi-k2."


async def test_a_stop_string_ends_the_content(sim: Simulator) -> None:
    assert (await answer(sim, {**INSTANT, "stop": ["was asked"]}))["content"].endswith("in instant mode ")


async def test_reasoning_that_is_given_back_is_reported_by_its_digest(sim: Simulator) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi", "reasoning_content": "They greet me."},
        {"role": "user", "content": "Again"},
    ]
    reasoning = (await answer(sim, {**THINK, "messages": turns}))["reasoning_content"]
    digest = hashlib.sha256(b"They greet me.").hexdigest()[:16]
    assert f"turns: 4; reasoning received in turns: [2: {digest}]" in reasoning
    assert "system: 9 characters" in reasoning


async def test_the_answer_reports_the_sampling_of_the_request(sim: Simulator) -> None:
    assert "temperature not set, top_p not set, token limit not set" in (await answer(sim, INSTANT))["content"]
    sent = await answer(sim, {**INSTANT, "temperature": 0.6, "top_p": 0.95, "max_completion_tokens": 500})
    assert "temperature 0.6, top_p 0.95, token limit 500" in sent["content"]


async def test_json_object_answers_are_json(sim: Simulator) -> None:
    message = await answer(sim, {**THINK, "response_format": {"type": "json_object"}})
    assert json.loads(message["content"])["prompt"] == PROMPT


async def test_json_object_answers_have_the_keys_that_the_prompt_puts_in_quotes(sim: Simulator) -> None:
    prompt = 'Describe Paris as JSON with the keys \'name\' and "river"; the user\'s "turns" come last.'
    requested = {"messages": [{"role": "user", "content": prompt}], "response_format": {"type": "json_object"}}
    got = json.loads((await answer(sim, {**THINK, **requested}))["content"])
    assert got == {**got, "name": "[simulator] name", "river": "[simulator] river", "turns": 1}


PATTERNS = [
    "^[a-z]+$",
    r"^\d{4}-\d{2}-\d{2}$",
    r"^(?:[A-Z]{2}|x)-[^a\]]{3,}\.?$",
    r'^[^"\s]+@[\w.]+\.com$',
    "[\u4e00-\u9fa5]",
    r"^(?P<year>\x32\d*)\Z",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_made_value_fits_the_pattern_of_its_schema(pattern: str) -> None:
    schema: dict[str, object] = {"type": "string", "pattern": pattern}
    jsonschema.validate(instance(schema, "Words"), schema)


def test_a_made_value_of_a_pattern_is_as_long_as_it_must_be() -> None:
    schema: dict[str, object] = {"type": "string", "pattern": "^[a-z]+x*$", "minLength": 9, "maxLength": 18}
    jsonschema.validate(instance(schema, "Words"), schema)


@pytest.mark.parametrize("pattern", ["(a{1000}){1000}", "(" * 3000, r"(\w)\1", "(?=x)y", "[", "a**"])
def test_a_pattern_that_is_not_understood_costs_nothing_and_is_left_alone(pattern: str) -> None:
    made = instance({"type": "string", "pattern": pattern}, "Words")
    assert isinstance(made, str)
    assert len(made) <= 1000


@pytest.mark.parametrize("name", SCHEMAS)
async def test_json_schema_answers_satisfy_their_schema(sim: Simulator, name: str) -> None:
    sent = {"type": "json_schema", "json_schema": {"name": name, "schema": SCHEMAS[name], "strict": True}}
    message = await answer(sim, {**THINK, "response_format": sent})
    jsonschema.validate(json.loads(message["content"]), SCHEMAS[name])


async def test_a_forced_tool_is_called_with_arguments_of_its_schema(sim: Simulator) -> None:
    body = {**THINK, "model": "kimi-k3", "tools": [WEATHER], "tool_choice": "required"}
    got = (await post(sim, body)).json()["choices"][0]
    call = got["message"]["tool_calls"][0]
    assert got["finish_reason"] == "tool_calls"
    assert call["id"] == "get_weather:0"
    assert PROMPT in json.loads(call["function"]["arguments"])["city"]


async def test_an_answer_is_continued_behind_its_beginning_without_thinking_again(sim: Simulator) -> None:
    whole = await answer(sim, THINK)
    begun = {"role": "assistant", "content": whole["content"][:40], "partial": True}
    rest = await answer(sim, {**THINK, "messages": [*THINK["messages"], {**begun, "reasoning_content": "So."}]})
    assert whole["content"] == whole["content"][:40] + rest["content"]
    assert "reasoning_content" not in rest
    assert (await answer(sim, {**THINK, "messages": [*THINK["messages"], begun]}))["reasoning_content"]


async def test_k3_takes_an_effort_instead_of_a_thinking_object(sim: Simulator) -> None:
    got = await answer(sim, {**THINK, "model": "kimi-k3", "reasoning_effort": "low"})
    assert "kimi-k3 in thinking mode, effort low" in got["content"]
    assert "effort max" in (await answer(sim, {**THINK, "model": "kimi-k3"}))["content"]
