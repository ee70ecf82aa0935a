"""Conversations: what goes along with a follow-up, exactly; what leaves nothing behind; who may continue one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import connect, connect_messages, store_limits
from tests.server.requests import HELD_STEP, body_of, chats, message, messages

ODD = "Hm\r\n\t\x00\x0b 你好 🌍 \u2028\u2029\ufeff\ufffd e\u0301 \x7f\x85 </think> \\u0041 \"'\n "
"""Reasoning that whoever trims, normalizes or escapes would spoil."""


async def test_a_follow_up_sends_all_that_came_before(sim: Simulator, mode: str) -> None:
    sim.play({"reasoning": "Let me see.", "content": "23."}, {"reasoning": "Next.", "content": "29."})
    async with connect(sim, mode) as kimi:
        first = await kimi.think("Name a prime.", system="Be brief.")
        second = await kimi.think("And the next?", conversation_id=first.structured["conversation_id"])
        third = await kimi.think("And?", conversation_id=first.structured["conversation_id"])
    assert first.structured["conversation_id"].startswith("conv_")
    assert (
        second.structured["conversation_id"]
        == third.structured["conversation_id"]
        == first.structured["conversation_id"]
    )
    one = [message("user", "Name a prime."), message("assistant", "23.", reasoning_content="Let me see.")]
    two = [message("user", "And the next?"), message("assistant", "29.", reasoning_content="Next.")]
    assert messages(sim, 1) == [message("system", "Be brief."), *one, two[0]]
    assert messages(sim, 2) == [message("system", "Be brief."), *one, *two, message("user", "And?")]
    assert second.structured["policy"] == []


@pytest.mark.parametrize(
    ("provider", "names"),
    [("moonshot", {"reasoning_content"}), ("vllm", {"reasoning", "reasoning_content"}), ("sglang", None)],
)
async def test_reasoning_is_replayed_byte_for_byte_under_the_providers_names_after_a_restart(
    provider: str, names: set[str] | None
) -> None:
    known = {"KIMI_API_KEY": "sk-moonshot-0123456789"} if provider == "moonshot" else {}
    async with Simulator(provider=provider) as sim:
        sim.play({"reasoning": ODD, "content": "23."})
        async with connect(sim, provider=provider, **known) as kimi:
            first = await kimi.think("Name a prime.")
            assert first.status == "completed", first.text
        async with connect(sim, provider=provider, **known) as later:
            second = await later.think("And the next?", conversation_id=first.structured["conversation_id"])
        assert second.status == "completed", second.text
        replayed = messages(sim)[1]
    fields = {name for name in replayed if name.startswith("reasoning")}
    assert names is None or fields == names
    assert fields
    assert {replayed[name] for name in fields} == {ODD}


@pytest.mark.parametrize("reasoning", ["", "x", "🌍" * 260_000, "\n"])
async def test_reasoning_of_any_length_is_replayed_exactly(sim: Simulator, reasoning: str) -> None:
    sim.play({"reasoning": reasoning, "content": "23.", "event_tokens": 5_000})
    async with connect(sim) as kimi:
        first = await kimi.think("Name a prime.", max_tokens=262_000)
        assert first.status == "completed", first.text
    async with connect(sim) as later:
        second = await later.think("And?", conversation_id=first.structured["conversation_id"])
    assert second.status in ("completed", "failed")
    if second.status == "failed":  # a million characters are too many tokens: it says so, and asked nobody
        assert second.code == "context_too_long"
        assert len(reasoning) > 100_000
        return
    assert messages(sim)[1].get("reasoning_content", "") == reasoning


async def test_no_reasoning_is_made_up_for_a_turn_that_had_none(sim: Simulator) -> None:
    sim.play({"content": "23."}, {"reasoning": "Next.", "content": "29."}, {"content": "31."})
    async with connect(sim) as kimi:
        first = await kimi.instant("Name a prime.")
        conversation = first.structured["conversation_id"]
        second = await kimi.think("And the next?", conversation_id=conversation)
        third = await kimi.instant("And?", conversation_id=conversation)
        fourth = await kimi.think("And?", conversation_id=conversation)
    assert [each.status for each in (first, second, third, fourth)] == ["completed"] * 4
    assistant = [message for message in messages(sim) if message["role"] == "assistant"]
    assert assistant == [
        message("assistant", "23."),
        message("assistant", "29.", reasoning_content="Next."),
        message("assistant", "31."),
    ]
    assert [body_of(chat)["thinking"]["type"] for chat in chats(sim)] == [
        "disabled",
        "enabled",
        "disabled",
        "enabled",
    ]


async def test_a_system_prompt_goes_along_and_can_be_replaced(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        first = await kimi.think("one", system="Be brief.")
        conversation = first.structured["conversation_id"]
        await kimi.think("two", system="Be long.", conversation_id=conversation)
        await kimi.think("three", conversation_id=conversation)
    systems = [[m["content"] for m in messages(sim, at) if m["role"] == "system"] for at in range(3)]
    assert systems == [["Be brief."], ["Be long."], ["Be long."]]
    assert all(messages(sim, at)[0]["role"] == "system" for at in range(3))


async def test_the_model_goes_along_and_can_be_changed(sim: Simulator) -> None:
    async with connect(sim, KIMI_MODEL="auto") as kimi:
        first = await kimi.think("one", model="kimi-k2.6")
        conversation = first.structured["conversation_id"]
        second = await kimi.think("two", conversation_id=conversation)
        third = await kimi.think("three", conversation_id=conversation, model="kimi-k2.5")
        fourth = await kimi.think("four", conversation_id=conversation)
    assert [body_of(chat)["model"] for chat in chats(sim)] == [
        "kimi-k2.6",
        "kimi-k2.6",
        "kimi-k2.5",
        "kimi-k2.5",
    ]
    assert [each.status for each in (first, second, third, fourth)] == ["completed"] * 4
    assert second.structured["model"]["asked"] == "kimi-k2.6"


async def test_auto_stays_with_the_model_it_chose(sim: Simulator) -> None:
    listed = {"match": {"path": "/v1/models"}, "times": "always"}
    only = {"object": "list", "data": [{"id": "kimi-k2.6", "object": "model"}]}
    sim.play({**listed, "body": only})
    async with connect(sim) as kimi:
        first = await kimi.think("one")
    assert first.structured["model"]["sent"] == "kimi-k2.6", first.text
    sim.reset()
    async with connect(sim) as later:  # everything is served again
        second = await later.think("two", conversation_id=first.structured["conversation_id"])
        fresh = await later.think("a new one")
    assert second.structured["model"] == {"asked": "auto", "sent": "kimi-k2.6", "answered": "kimi-k2.6"}
    assert fresh.structured["model"]["sent"] == "kimi-k2.5"


async def test_a_model_that_is_gone_meanwhile_is_succeeded_under_auto_and_refused_by_name(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        auto = await kimi.think("one")
        named = await kimi.think("one", model="kimi-k2.5")
    sim.reset()
    only = {"object": "list", "data": [{"id": "kimi-k2.6", "object": "model"}]}
    sim.play({"match": {"path": "/v1/models"}, "times": "always", "body": only})
    async with connect(sim) as later:
        went_on = await later.think("two", conversation_id=auto.structured["conversation_id"])
        assert went_on.status == "completed", went_on.text
        assert went_on.structured["model"]["sent"] == "kimi-k2.6"
        before = len(chats(sim))
        stays = await later.think("two", conversation_id=named.structured["conversation_id"])
    assert stays.structured["model"]["asked"] == "kimi-k2.5"
    assert len(chats(sim)) - before in (0, 1)


async def test_a_provider_goes_along_and_one_that_is_no_longer_allowed_is_refused(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        first = await kimi.think("one")
    sim.reset()
    async with Simulator(provider="vllm") as engine, connect(engine, provider="vllm") as later:
        refused = await later.think("two", conversation_id=first.structured["conversation_id"])
        assert refused.code == "policy_refused"
        assert refused.error["rule"] == "provider-allowed"
        assert chats(engine) == chats(sim) == []
        went_on = await later.think("two", conversation_id=first.structured["conversation_id"], provider="vllm")
        assert went_on.status == "completed", went_on.text
        assert [message["role"] for message in messages(engine)] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"no_finish": True, "content": "Forty-tw"}, "failed"),
        ({"finish_reason": "length", "content": "Forty-tw"}, "partial"),
        ({"status": 400}, "failed"),
        ({"finish_reason": "content_filter", "content": "Forty-tw"}, "partial"),
    ],
)
async def test_a_turn_that_was_cut_leaves_nothing_behind(sim: Simulator, fault: dict[str, Any], status: str) -> None:
    sim.play({"content": "23.", "reasoning": "Hm."}, fault)
    async with connect(sim) as kimi:
        first = await kimi.think("one")
        conversation = first.structured["conversation_id"]
        cut = await kimi.think("two", conversation_id=conversation)
        assert cut.status == status
        assert cut.structured["conversation_id"] == conversation
        third = await kimi.think("three", conversation_id=conversation)
    assert third.status == "completed"
    assert [message["content"] for message in messages(sim)] == ["one", "23.", "three"]


async def test_the_first_turn_may_be_cut_too(sim: Simulator) -> None:
    sim.play({"no_finish": True, "content": "Forty-tw"})
    async with connect(sim) as kimi:
        cut = await kimi.think("one", system="Be brief.")
        again = await kimi.think("two", conversation_id=cut.structured["conversation_id"])
    assert again.status == "completed"
    assert messages(sim) == [message("user", "two")]


@pytest.mark.parametrize("starts", ["anew", "behind another run"])
@pytest.mark.parametrize("journal", ["on", "off"])
async def test_a_follow_up_waits_for_the_first_answer_of_its_conversation(
    sim: Simulator, starts: str, journal: str
) -> None:
    sim.play({"content": "one"}, {**HELD_STEP, "match": {"text": "first"}})
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.2", KIMI_JOURNAL=journal) as kimi:
        zero = await kimi.ended(await kimi.instant("zero"))
        branch = zero.run_id if starts == "behind another run" else None
        first = await kimi.think("first", conversation_id=branch)
        assert first.status == "running"
        second = await kimi.think("second", conversation_id=first.structured["conversation_id"])
        assert second.status == "running"
        sim.open_gate("end")
        assert (await kimi.ended(second)).status == "completed"
    contents = [message["content"] for message in messages(sim)]
    assert contents == ([] if branch is None else ["zero", "one"]) + ["first", HELD_STEP["content"], "second"]


async def test_a_cancelled_turn_leaves_nothing_behind(sim: Simulator) -> None:
    sim.play({"content": "23."}, HELD_STEP)
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.2") as kimi:
        first = await kimi.ended(await kimi.instant("one"))
        held = await kimi.think("two", conversation_id=first.structured["conversation_id"])
        await sim.until(lambda: sim.waiting_at("end") == 1)
        assert (await kimi.run(held.run_id, "cancel")).status == "cancelled"
        await kimi.ended(await kimi.instant("three", conversation_id=first.structured["conversation_id"]))
    assert [message["content"] for message in messages(sim)] == ["one", "23.", "three"]


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


async def test_structured_answers_and_repairs_are_turns_like_any_other(sim: Simulator, mode: str) -> None:
    sim.play(
        {"content": "It is 1.", "reasoning": "Hm."},
        {"content": '{"n": 1}', "reasoning": "JSON, then."},
        {"content": '{"n": 2}', "reasoning": "Again."},
        {"content": "done"},
    )
    async with connect(sim, mode) as kimi:
        first = await kimi.think("one", response_schema=SCHEMA)
        assert first.rules == ["answer-repaired"]
        assert first.structured["parsed"] == {"n": 1}
        conversation = first.structured["conversation_id"]
        second = await kimi.think("two", response_schema=SCHEMA, conversation_id=conversation)
        assert second.structured["parsed"] == {"n": 2}
        assert second.structured["policy"] == []
        await kimi.instant("three", conversation_id=conversation)
    assert messages(sim)[-5:] == [
        message("user", "one"),
        message("assistant", '{"n": 1}', reasoning_content="JSON, then."),
        message("user", "two"),
        message("assistant", '{"n": 2}', reasoning_content="Again."),
        message("user", "three"),
    ]
    assert "response_format" not in body_of(chats(sim)[-1])


async def test_without_a_journal_conversations_live_as_long_as_the_process(sim: Simulator) -> None:
    async with connect(sim, KIMI_JOURNAL="off") as kimi:
        first = await kimi.think("one")
        second = await kimi.think("two", conversation_id=first.structured["conversation_id"])
        assert second.status == "completed"
        branch = await kimi.think("three", conversation_id=first.run_id)
        assert branch.status == "completed"
    assert [message["role"] for message in messages(sim)] == ["user", "assistant", "user"]
    async with connect(sim, KIMI_JOURNAL="off") as later:
        gone = await later.think("two", conversation_id=first.structured["conversation_id"])
        assert gone.code == "run_not_found"


async def test_without_a_journal_a_conversation_that_went_says_why(
    sim: Simulator,
) -> None:
    async with connect(sim, options=store_limits(runs_in_memory=4), KIMI_JOURNAL="off") as kimi:
        old, used = await kimi.think("old"), await kimi.think("used")
        for turn in range(6):
            used = await kimi.think(f"turn {turn}", conversation_id=used.structured["conversation_id"])
        assert messages(sim)[0]["content"] == "used", "what is gone back to stays"
        for identity in (old.structured["conversation_id"], old.run_id):
            gone = await kimi.think("and?", conversation_id=identity)
            assert gone.code == "run_not_found"
            assert "KIMI_JOURNAL" in gone.error["fix"]
            assert " 4 " in gone.error["fix"]
        assert "KIMI_JOURNAL" in (await kimi.run(old.run_id)).error["fix"]


async def test_a_conversation_of_which_a_part_is_gone_is_never_followed_silently(
    sim: Simulator, data_dir: Path
) -> None:
    async with connect(sim) as kimi:
        first = await kimi.think("one")
        conversation = first.structured["conversation_id"]
        second = await kimi.think("two", conversation_id=conversation)
        for lost, followed in ((first, conversation), (first, second.run_id), (second, conversation)):
            with opened(data_dir) as file:
                file.execute("DELETE FROM runs WHERE id = ?", [lost.run_id])
            gone = await kimi.think("three", conversation_id=followed)
            assert gone.code == "run_not_found"
            assert "KIMI_RUNS_KEEP_DAYS" in gone.error["fix"]
    assert len(chats(sim)) == 2


async def test_a_null_conversation_is_none(sim: Simulator) -> None:
    async with connect_messages(sim) as host:
        result = await host.result("kimi_instant", {"prompt": "hi", "conversation_id": None})
    assert result["status"] == "completed"
    assert result["conversation_id"].startswith("conv_")
