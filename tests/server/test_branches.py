"""Runs and conversations that a call follows: branches, and what cannot be followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import connect
from tests.server.requests import HELD_STEP, chats, message, messages


async def test_a_run_can_be_branched_off_from(sim: Simulator, mode: str) -> None:
    sim.play(*({"content": f"answer {number}", "reasoning": f"reason {number}"} for number in range(5)))
    async with connect(sim, mode) as kimi:
        first = await kimi.think("q0", system="Be brief.")
        conversation = first.structured["conversation_id"]
        second = await kimi.think("q1", conversation_id=conversation)
        branch = await kimi.think("q2", conversation_id=first.run_id)
        assert branch.structured["conversation_id"] not in (conversation, None)
        assert [m["content"] for m in messages(sim)] == ["Be brief.", "q0", "answer 0", "q2"]
        await kimi.think("q3", conversation_id=branch.structured["conversation_id"])
        assert [m["content"] for m in messages(sim)] == ["Be brief.", "q0", "answer 0", "q2", "answer 2", "q3"]
        await kimi.think("q4", conversation_id=conversation)
    assert second.status == "completed"
    assert [m["content"] for m in messages(sim)] == ["Be brief.", "q0", "answer 0", "q1", "answer 1", "q4"]


async def test_a_swarm_can_be_branched_off_from(sim: Simulator, mode: str) -> None:
    sim.play({"match": {"system": "You lead a swarm"}, "content": "A is older.", "reasoning": "Both were read."})
    async with connect(sim, mode) as kimi:
        swarm = await kimi.call("kimi_swarm", {"prompt": "Compare A and B."})
    async with connect(sim, mode) as later:
        follow = await later.think("By how much?", conversation_id=swarm.run_id)
        assert follow.status == "completed", follow.text
        answer = message("assistant", "A is older.", reasoning_content="Both were read.")
        assert messages(sim) == [message("user", "Compare A and B."), answer, message("user", "By how much?")]
        await later.think("Why?", conversation_id=follow.structured["conversation_id"])
    assert [m["content"] for m in messages(sim)[:3]] == ["Compare A and B.", "A is older.", "By how much?"]


async def test_a_swarm_of_items_is_followed_with_its_items(sim: Simulator) -> None:
    sim.play({"match": {"system": "Several agents"}, "content": "All are cities."})
    async with connect(sim) as kimi:
        swarm = await kimi.call("kimi_swarm", {"prompt": "Tell me about {{item}}.", "items": ["Rome", "Oslo"]})
        assert swarm.status == "completed", swarm.text
        follow = await kimi.instant("Which is larger?", conversation_id=swarm.run_id)
    assert follow.status == "completed", follow.text
    requested, answer, _ = messages(sim)
    assert "Tell me about {{item}}." in requested["content"]
    assert requested["content"].index("Rome") < requested["content"].index("Oslo")
    assert answer["content"] == "All are cities."


async def test_a_swarm_that_is_not_whole_can_not_be_followed(sim: Simulator) -> None:
    sim.play({"match": {"text": "Tell me about Oslo."}, "status": 400, "times": "always"})
    async with connect(sim) as kimi:
        swarm = await kimi.call("kimi_swarm", {"prompt": "Tell me about {{item}}.", "items": ["Rome", "Oslo"]})
        assert swarm.status == "partial"
        refused = await kimi.think("And?", conversation_id=swarm.run_id)
    assert refused.code == "invalid_arguments"
    assert "partial" in refused.error["message"]


async def test_a_run_whose_turns_are_not_there_is_never_followed_silently(sim: Simulator, data_dir: Path) -> None:
    async with connect(sim) as kimi:
        first = await kimi.think("one")
        with opened(data_dir) as file:
            file.execute("UPDATE runs SET turns = NULL")
        refused = await kimi.think("two", conversation_id=first.run_id)
    assert refused.code == "invalid_arguments"
    assert "start a new conversation" in refused.error["fix"]
    assert len(chats(sim)) == 1


@pytest.mark.parametrize("identity", ["conv_0123456789", "run_0123456789", "nonsense", " ", "kimi://runs/x"])
async def test_an_unknown_conversation_is_not_found(sim: Simulator, mode: str, identity: str) -> None:
    async with connect(sim, mode) as kimi:
        refused = await kimi.think(conversation_id=identity)
    assert refused.is_error
    assert refused.code in ("run_not_found", "invalid_arguments")
    assert "conversation_id" in refused.error["fix"]
    assert chats(sim) == []


async def test_another_callers_conversations_and_runs_are_unknown(sim: Simulator, data_dir: Path) -> None:
    async with connect(sim) as kimi:
        first = await kimi.think("a secret")
        with opened(data_dir) as file:
            file.execute("UPDATE runs SET caller = 'somebody'")
            file.execute("UPDATE conversations SET caller = 'somebody'")
        for identity in (first.structured["conversation_id"], first.run_id):
            assert (await kimi.think(conversation_id=identity)).code == "run_not_found"
        for action in ("wait", "status", "answer", "reasoning", "cancel"):
            assert (await kimi.run(first.run_id, action)).code == "run_not_found"
        assert "secret" not in (await kimi.run()).text
    assert len(chats(sim)) == 1


async def test_a_run_that_has_not_ended_or_failed_can_not_be_followed(sim: Simulator) -> None:
    sim.play({"no_finish": True, "content": "Forty-tw"}, HELD_STEP)
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.2") as kimi:
        failed = await kimi.ended(await kimi.think("one"))
        refused = await kimi.think("two", conversation_id=failed.run_id)
        assert refused.code == "invalid_arguments"
        assert "failed" in refused.error["message"]
        held = await kimi.think("one")
        assert held.status == "running"
        refused = await kimi.think("two", conversation_id=held.run_id)
        assert refused.code == "invalid_arguments"
        assert "kimi_run" in refused.error["fix"]
    assert len(chats(sim)) == 2


async def test_a_conversation_beyond_the_context_says_by_how_much_and_what_to_do(sim: Simulator) -> None:
    long = "word " * 262_144 * 4
    async with connect(sim) as kimi:
        first = await kimi.instant("one")
        refused = await kimi.instant(long, conversation_id=first.structured["conversation_id"])
    assert refused.code == "context_too_long"
    assert refused.error["message"].startswith("The conversation has at least ")
    assert "more than the 262,144 " in refused.error["message"]
    assert "run_id" in refused.error["fix"]
    assert len(chats(sim)) == 1
