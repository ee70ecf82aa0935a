"""How an answer is reported, complete or not, and what is noted about it."""

from __future__ import annotations

import pytest

from kimi_mcp.simulator import Simulator
from tests.server.clients import connect
from tests.server.requests import body_of, chats


async def test_a_thinking_call_sends_the_prompt_verbatim_as_the_only_message(sim: Simulator, mode: str) -> None:
    prompt = "  What is 17 * 23?\n\t你好 🌍 \u2028 {{item}} \x00 \\u0041 "
    async with connect(sim, mode) as kimi:
        result = await kimi.think(prompt)
    (request,) = chats(sim)
    sent = body_of(request)
    assert sent["messages"] == [{"role": "user", "content": prompt}]
    assert sent["model"] == "kimi-k2.5"
    assert sent["thinking"] == {"type": "enabled"}
    assert sent["stream"] is True
    assert not {"temperature", "top_p", "n", "presence_penalty", "frequency_penalty"} & set(sent)
    assert result.status == "completed"
    assert result.structured["mode"] == "thinking"
    assert result.structured["finish_reason"] == "stop"
    assert result.structured["model"] == {"asked": "auto", "sent": "kimi-k2.5", "answered": "kimi-k2.5"}
    assert result.structured["provider"] == "simulator"
    assert result.structured["policy"] == []
    assert result.text == result.answer
    assert "17 * 23" in result.answer
    assert "thinking mode" in result.reasoning
    assert result.structured["reasoning"]["truncated"] is False
    assert result.structured["reasoning"]["chars"] == len(result.reasoning)
    usage = result.structured["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["reasoning_tokens"] is None, "null unless the upstream says it"
    timing = result.structured["timing"]
    assert 0 < timing["first_token_s"] <= timing["total_s"]
    assert timing["attempts"] == 1


async def test_an_instant_call_switches_thinking_off_and_has_no_reasoning(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.instant("Name a colour.")
    (request,) = chats(sim)
    assert body_of(request)["thinking"] == {"type": "disabled"}
    assert not {"temperature", "top_p"} & set(body_of(request))
    assert result.structured["mode"] == "instant"
    assert result.structured["reasoning"] is None
    assert result.structured["policy"] == []
    assert "instant mode" in result.answer


async def test_a_system_prompt_is_sent_only_when_it_was_given(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        await kimi.instant("Hi.", system="Speak like a pirate.")
    assert [message["role"] for message in body_of(chats(sim)[0])["messages"]] == ["system", "user"]


async def test_a_prompt_of_a_megabyte_arrives_whole(sim: Simulator) -> None:
    prompt = "abc 123 " * 131_072
    async with connect(sim) as kimi:
        result = await kimi.instant(prompt, model="kimi-k3")
    assert body_of(chats(sim)[0])["messages"][0]["content"] == prompt
    assert result.status == "completed"


async def test_a_fixed_temperature_is_adjusted_and_reported_in_both_forms(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.think(temperature=0.3)
    assert "temperature" not in body_of(chats(sim)[0])
    assert result.rules == ["temperature-fixed"]
    assert result.structured["policy"][0]["action"] == "adjusted"
    assert (result.structured["policy"][0]["asked"], result.structured["policy"][0]["sent"]) == (0.3, None)
    assert "left out" in result.structured["policy"][0]["why"]
    assert result.text.startswith(result.answer + "\n\n[temperature-fixed: ")


async def test_the_strict_policy_refuses_what_was_asked_for_and_sends_nothing(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_POLICY="strict") as kimi:
        refused = await kimi.think(temperature=0.3)
        assert refused.code == "policy_refused"
        assert refused.error["rule"] == "temperature-fixed"
        assert "temperature" in refused.error["fix"]
        assert refused.structured["run_id"] is None
        assert chats(sim) == []
        assert (await kimi.think(temperature=1.0)).status == "completed"


async def test_the_strict_policy_still_chooses_what_was_left_open() -> None:
    async with (
        Simulator(provider="moonshot") as moonshot,
        connect(moonshot, provider="moonshot", KIMI_POLICY="strict", MOONSHOT_API_KEY="sk-any-old-key") as kimi,
    ):
        result = await kimi.think()
    assert result.status == "completed"
    assert result.rules == ["model-served"]
    assert result.structured["model"]["sent"] == "kimi-k2.6"


async def test_a_tiny_token_bound_is_raised_while_thinking(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        result = await kimi.think(max_tokens=100)
    assert result.rules == ["thinking-budget"]
    assert body_of(chats(sim)[0])["max_completion_tokens"] == 16_000


async def test_a_length_during_reasoning_fails_and_says_how_far_to_raise_the_bound(sim: Simulator, mode: str) -> None:
    sim.play({"length_in_reasoning": True})
    async with connect(sim, mode) as kimi:
        result = await kimi.think(max_tokens=20_000)
        assert result.status == "failed"
        assert result.code == "answer_cut_off"
        assert result.answer == ""
        assert result.structured["finish_reason"] == "length"
        assert "max_tokens" in result.error["fix"]
        assert "40000" in result.error["fix"]
        assert result.reasoning, "the reasoning is kept"
        assert result.run_id in result.text, "the text says where the reasoning is"
        page = await kimi.run(result.run_id, "reasoning")
        assert page.structured["page"]["text"] == result.reasoning


async def test_a_length_at_the_providers_ceiling_asks_for_less() -> None:
    async with Simulator(provider="nim") as nim, connect(nim, provider="nim", NVIDIA_API_KEY="nvapi-any-key") as kimi:
        nim.play({"length_in_reasoning": True})
        result = await kimi.think(max_tokens=65_536)
    assert result.code == "answer_cut_off"
    assert "at the model's limit" in result.error["fix"]


async def test_the_limit_that_a_fix_names_is_one_that_the_model_takes(sim: Simulator) -> None:
    sim.play({"length_in_reasoning": True})
    async with connect(sim) as kimi:
        cut = await kimi.think("What is 17 * 23?", max_tokens=200_000)
        enough = int("".join(char for char in cut.error["fix"] if char.isdigit()))
        assert enough > 200_000
        assert (await kimi.think("What is 17 * 23?", max_tokens=enough)).status == "completed"


async def test_a_length_in_the_answer_is_partial(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.instant("Tell me a long story.", max_tokens=5)
    assert result.status == "partial"
    assert result.code == "answer_cut_off"
    assert result.answer
    assert result.text.startswith(result.answer)
    assert "max_tokens" in result.text
    assert "10" in result.error["fix"]


@pytest.mark.parametrize(("content", "status"), [("What I may s", "partial"), ("", "failed")])
async def test_an_answer_that_the_filter_stopped_is_never_whole(sim: Simulator, content: str, status: str) -> None:
    sim.play({"finish_reason": "content_filter", "content": content})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.status == status
    assert result.code == "content_filtered"
    assert result.answer == content
    assert result.structured["finish_reason"] == "content_filter"


async def test_a_finish_without_an_answer_fails(sim: Simulator) -> None:
    sim.play({"content": ""}, {"content": " \n "})
    async with connect(sim) as kimi:
        for _ in range(2):
            result = await kimi.think()
            assert result.status in ("failed", "partial")
            assert result.code == "answer_cut_off"
            assert result.reasoning


async def test_a_blank_answer_is_a_failure_not_a_part_of_an_answer(sim: Simulator) -> None:
    sim.play({"content": " \n "})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.status == "failed"


async def test_empty_choices_fail(sim: Simulator) -> None:
    sim.play({"empty_choices": True, "times": "always"})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.status == "failed"
    assert result.code == "upstream_broken"


async def test_an_answer_without_a_finish_reason_fails_with_what_had_arrived(sim: Simulator, mode: str) -> None:
    sim.play({"no_finish": True, "content": "Forty-two, and so"})
    async with connect(sim, mode) as kimi:
        result = await kimi.think()
    assert result.status == "failed"
    assert result.code in ("upstream_broken", "answer_cut_off")
    assert result.answer == "Forty-two, and so"
    assert result.structured["finish_reason"] is None


async def test_an_unknown_finish_reason_is_none(sim: Simulator) -> None:
    sim.play({"finish_reason": "because", "content": "Forty-two, and so"})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.status == "failed"
    assert result.answer == "Forty-two, and so"


async def test_reasoning_that_was_lost_is_warned_of(sim: Simulator, mode: str) -> None:
    sim.play({"lose_reasoning": True})
    async with connect(sim, mode) as kimi:
        result = await kimi.think()
    assert result.status == "completed"
    assert result.rules == ["reasoning-returned"]
    assert result.structured["reasoning"] is None
    assert "[reasoning-returned: " in result.text


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_reasoning_is_read_under_every_name(sim: Simulator, field: str) -> None:
    sim.play({"reasoning_field": field, "reasoning": "Because."})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.reasoning == "Because."
    assert result.rules == []


async def test_an_answer_by_another_model_is_warned_of(sim: Simulator, mode: str) -> None:
    sim.play({"answer_model": "kimi-k3"})
    async with connect(sim, mode) as kimi:
        result = await kimi.think()
    assert result.rules == ["model-answered"]
    assert result.structured["model"] == {"asked": "auto", "sent": "kimi-k2.5", "answered": "kimi-k3"}


async def test_half_a_tool_call_that_nobody_offered_is_no_answer(sim: Simulator) -> None:
    sim.play({"tool_calls": [{"name": "get_weather", "arguments": {"city": "Oslo"}}], "half_arguments": True})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.status == "failed"
    assert result.code == "answer_cut_off"


@pytest.mark.parametrize("where", ["choice", "top", "both", "every"])
async def test_usage_is_counted_once_wherever_it_stands(sim: Simulator, where: str) -> None:
    sim.play({"usage": where, "reasoning": "Hm.", "content": "Hi."})
    async with connect(sim) as kimi:
        result = await kimi.think()
    usage = result.structured["usage"]
    assert usage["completion_tokens"] is not None
    assert usage["completion_tokens"] < 10
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_usage_that_is_missing_is_null(sim: Simulator) -> None:
    sim.play({"usage": "missing"})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert set(result.structured["usage"].values()) == {None}


async def test_inline_reasoning_is_cut_in_its_middle_and_counted_in_code_points(sim: Simulator) -> None:
    reasoning = "开头" + "🌍" * 5_000 + "结尾"
    sim.play({"reasoning": reasoning, "content": "Done."}, {"reasoning": reasoning, "content": "Done."})
    async with connect(sim) as kimi:
        result = await kimi.think()
        assert result.structured["reasoning"]["chars"] == len(reasoning)
        assert result.structured["reasoning"]["truncated"] is True
        assert len(result.reasoning) <= 2000
        assert result.reasoning.startswith("开头🌍")
        assert result.reasoning.endswith("🌍结尾")
        page = await kimi.run(result.run_id, "reasoning")
        assert page.structured["page"]["text"] == reasoning, "the whole of it can be read"
    async with connect(sim, KIMI_REASONING_INLINE_CHARS="0") as kimi:
        none = await kimi.think()
        assert none.reasoning == ""
        assert none.structured["reasoning"]["chars"] == len(reasoning)


async def test_broken_characters_from_upstream_do_not_break_the_result(sim: Simulator, mode: str) -> None:
    sim.play({"reasoning": "a \ud83d b", "content": "half a pair: \udc00."})
    async with connect(sim, mode) as kimi:
        result = await kimi.think()
    assert result.status == "completed"
    assert "half a pair: \ufffd." in result.answer
