"""Cut answers that go on: one text, paid for once, whoever continues it; and why one can't be continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import KimiClient, connect
from tests.server.processes import raw_server_process
from tests.server.requests import body_of, chats, message, messages
from tests.server.results import Result

WHOLE = "One, two, three, four."
CUT = {"reasoning": "Let me count.", "content": WHOLE[:12], "finish_reason": "length"}
REST = {"content": WHOLE}
"""The simulator sends what follows the beginning that it is given."""


async def cut_answer(kimi: KimiClient, **arguments: Any) -> Result:
    cut = await kimi.think("Count.", **arguments)
    assert cut.status == "partial"
    return cut


async def test_a_cut_answer_is_continued_without_a_seam(sim: Simulator, mode: str) -> None:
    sim.play(CUT, REST)
    async with connect(sim, mode) as kimi:
        cut = await cut_answer(kimi)
        call = f'kimi_run(run_id="{cut.run_id}", action="continue")'
        assert call in cut.structured["next_step"]
        assert call in cut.text
        whole = await kimi.run(cut.run_id, "continue")
    assert (whole.status, whole.answer, whole.reasoning) == ("completed", WHOLE, "Let me count.")
    assert whole.run_id == cut.run_id
    assert whole.rules == ["answer-continued"]
    begun = {"reasoning_content": "Let me count.", "partial": True}
    assert messages(sim) == [message("user", "Count."), message("assistant", WHOLE[:12], **begun)]
    assert body_of(chats(sim)[1])["max_completion_tokens"] == body_of(chats(sim)[0])["max_completion_tokens"]


async def test_what_both_requests_took_is_summed(sim: Simulator) -> None:
    sim.play(CUT, REST)
    async with connect(sim) as kimi:
        cut = await cut_answer(kimi)
        whole = await kimi.run(cut.run_id, "continue")
    first, both = cut.structured["usage"], whole.structured["usage"]
    assert whole.attempts == 2
    assert both["completion_tokens"] == first["completion_tokens"] + 3, "'ree, four.' alone is written"
    assert both["prompt_tokens"] > first["prompt_tokens"]
    assert both["cost_usd"] > first["cost_usd"]


async def test_the_conversation_has_the_whole_turn(sim: Simulator) -> None:
    sim.play(CUT, REST)
    async with connect(sim) as kimi:
        cut = await cut_answer(kimi)
        whole = await kimi.run(cut.run_id, "continue")
        assert whole.structured["conversation_id"] == cut.structured["conversation_id"]
        await kimi.think("And five?", conversation_id=whole.structured["conversation_id"])
    answer = message("assistant", WHOLE, reasoning_content="Let me count.")
    assert messages(sim) == [message("user", "Count."), answer, message("user", "And five?")]


async def test_an_answer_whose_conversation_went_on_without_it_begins_one_of_its_own(sim: Simulator) -> None:
    sim.play({"content": "Hello."}, CUT, {"content": "Other."}, REST)
    async with connect(sim) as kimi:
        conversation = (await kimi.think("Hi.")).structured["conversation_id"]
        cut = await cut_answer(kimi, conversation_id=conversation)
        await kimi.think("Something else.", conversation_id=conversation)
        whole = await kimi.run(cut.run_id, "continue")
        assert (whole.status, whole.answer) == ("completed", WHOLE)
        branch = whole.structured["conversation_id"]
        assert branch not in (conversation, None)
        await kimi.think("a", conversation_id=conversation)
        assert [each["content"] for each in messages(sim)] == ["Hi.", "Hello.", "Something else.", "Other.", "a"]
        await kimi.think("b", conversation_id=branch)
    assert [each["content"] for each in messages(sim)] == ["Hi.", "Hello.", "Count.", WHOLE, "b"]


async def test_an_answer_is_continued_after_its_server_has_ended(sim: Simulator) -> None:
    sim.play(CUT, REST)
    async with connect(sim) as kimi:
        cut = await cut_answer(kimi)
    async with connect(sim) as later:
        whole = await later.run(cut.run_id, "continue")
        assert (whole.status, whole.answer) == ("completed", WHOLE)
        await later.run(cut.run_id, "continue")
    assert len(chats(sim)) == 2, "one that is whole is not asked for again"


async def test_two_servers_that_continue_at_once_make_one_request(sim: Simulator) -> None:
    sim.play(CUT, {**REST, "gate": "rest"})
    results: list[Result] = []
    async with connect(sim) as one, connect(sim) as other:
        cut = await cut_answer(one)

        async def go_on(kimi: KimiClient) -> None:
            results.append(await kimi.run(cut.run_id, "continue"))

        async with anyio.create_task_group() as tasks:
            for kimi in (one, other, one):
                tasks.start_soon(go_on, kimi)
            await sim.until(lambda: sim.waiting_at("rest") == 1)
            sim.open_gate("rest")
    assert [each.answer for each in results] == [WHOLE] * 3
    assert len(chats(sim)) == 2


async def test_what_there_is_stays_when_the_rest_fails_and_can_be_continued_again(sim: Simulator) -> None:
    sim.play(CUT, {"status": 401}, {"content": WHOLE[:16], "no_finish": True}, REST)
    async with connect(sim) as kimi:
        cut = await cut_answer(kimi)
        refused = await kimi.run(cut.run_id, "continue")
        assert (refused.status, refused.code, refused.answer) == ("partial", "auth_failed", WHOLE[:12])
        assert refused.structured["usage"]["cost_usd"] == cut.structured["usage"]["cost_usd"]
        broken = await kimi.run(cut.run_id, "continue")
        assert (broken.status, broken.code, broken.answer) == ("partial", "upstream_broken", WHOLE[:16])
        whole = await kimi.run(cut.run_id, "continue")
    assert (whole.status, whole.answer) == ("completed", WHOLE)
    assert messages(sim)[-1]["content"] == WHOLE[:16]


@pytest.mark.soak
async def test_an_answer_whose_server_was_killed_while_it_continued_is_continued_by_another(sim: Simulator) -> None:
    sim.play(CUT, {"content": WHOLE[:16], "gate": "never", "gate_at": "finish"}, REST)
    async with connect(sim) as kimi:
        cut = await cut_answer(kimi)
        # the reasoning ends as a key begins, of which half is never written while more may come
        async with raw_server_process(sim, KIMI_API_KEY="count.0123456789abcdef") as peer:
            await peer.initialize()
            await peer.call("kimi_run", 1, run_id=cut.run_id, action="continue")
            with anyio.fail_after(60):
                while (await kimi.run(cut.run_id, "status")).answer != WHOLE[:16]:
                    await anyio.sleep(0.05)
            peer.process.kill()
            await peer.process.wait()
        left = await kimi.run(cut.run_id, "wait", wait_s=20)
        assert (left.status, left.answer, left.reasoning) == ("failed", WHOLE[:16], "Let me count.")
        whole = await kimi.run(cut.run_id, "continue")
    assert (whole.status, whole.answer) == ("completed", WHOLE)


async def test_json_goes_on_without_a_response_format_and_is_held_against_its_schema(sim: Simulator) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    sim.play({"content": '{"n":', "finish_reason": "length"}, {"content": '{"n": 391}'})
    async with connect(sim) as kimi:
        cut = await kimi.think("17 * 23?", response_schema=schema)
        whole = await kimi.run(cut.run_id, "continue")
    assert (whole.status, whole.structured["parsed"]) == ("completed", {"n": 391})
    assert "response_format" not in body_of(chats(sim)[1])


async def test_by_setting_a_cut_answer_continues_by_itself_three_times_at_most(sim: Simulator, mode: str) -> None:
    ends = (8, 12, 16, 19)
    sim.play(*({"content": WHOLE[:end], "finish_reason": "length"} for end in ends), REST)
    async with connect(sim, mode, KIMI_CONTINUE="auto") as kimi:
        cut = await cut_answer(kimi)
        assert cut.answer == WHOLE[:19]
        assert len(chats(sim)) == 4
        assert cut.rules == ["answer-continued"]
        whole = await kimi.run(cut.run_id, "continue")
    assert (whole.status, whole.answer, whole.rules) == ("completed", WHOLE, ["answer-continued"])
    assert "4 times" in whole.text


async def test_by_setting_it_continues_within_the_budget_of_a_call(sim: Simulator) -> None:
    sim.play({"content": "word " * 2_000, "finish_reason": "length", "reasoning": "Hm."}, REST)
    async with connect(sim, KIMI_CONTINUE="auto", KIMI_BUDGET_USD_PER_CALL="0.009") as kimi:
        cut = await cut_answer(kimi)
    assert cut.code == "budget_exceeded"
    assert cut.answer == "word " * 2_000
    assert len(chats(sim)) == 1


async def test_todays_limit_counts_an_answer_of_yesterday_that_is_continued_today(
    sim: Simulator, data_dir: Path
) -> None:
    sim.play(CUT, REST)
    async with connect(sim, KIMI_BUDGET_USD_PER_DAY="1") as kimi:
        cut = await cut_answer(kimi)
        with opened(data_dir) as file:
            file.execute("UPDATE runs SET started_at = started_at - 86400")
        whole = await kimi.run(cut.run_id, "continue")
        spent = await kimi.runs.store.spent_today_usd()
    assert spent == pytest.approx(whole.structured["usage"]["cost_usd"])


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"length_in_reasoning": True}, "Nothing of it had arrived"),
        ({"content": "No.", "finish_reason": "content_filter"}, "content filter"),
    ],
)
async def test_an_answer_that_can_not_be_continued_says_why(sim: Simulator, step: Any, why: str) -> None:
    sim.play(step)
    async with connect(sim) as kimi:
        cut = await kimi.think("Count.", max_tokens=20_000)
        refused = await kimi.run(cut.run_id, "continue")
    assert refused.code == "invalid_arguments"
    assert why in refused.error["message"]
    assert len(chats(sim)) == 1


async def test_a_provider_that_can_not_continue_is_named_with_those_that_can() -> None:
    async with Simulator(provider="vllm") as sim, connect(sim, provider="vllm", KIMI_CONTINUE="auto") as kimi:
        sim.play(CUT)
        cut = await cut_answer(kimi)
        assert '"continue"' not in cut.text
        refused = await kimi.run(cut.run_id, "continue")
    assert refused.code == "invalid_arguments"
    assert "vllm can't continue" in refused.error["message"]
    assert "moonshot" in refused.error["fix"]
    assert len(chats(sim)) == 1


async def test_a_provider_that_is_not_allowed_any_more_is_refused_and_the_run_stays_as_it_is(sim: Simulator) -> None:
    sim.play(CUT)
    async with connect(sim) as kimi:
        cut = await cut_answer(kimi)
    async with connect(sim, provider="vllm") as later:
        refused = await later.run(cut.run_id, "continue")
        assert (refused.code, refused.error["rule"]) == ("policy_refused", "provider-allowed")
        assert "KIMI_ALLOWED_PROVIDERS" in refused.error["fix"]
        assert "`provider`" not in refused.error["fix"], "kimi_run has no such argument"
        assert (await later.run(cut.run_id)).code == cut.code
    assert len(chats(sim)) == 1


async def test_a_swarm_is_not_continued(sim: Simulator) -> None:
    sim.play({"match": {"text": "Tell me about Oslo."}, "status": 400, "times": "always"})
    async with connect(sim) as kimi:
        swarm = await kimi.call("kimi_swarm", {"prompt": "Tell me about {{item}}.", "items": ["Rome", "Oslo"]})
        refused = await kimi.run(swarm.run_id, "continue")
    assert refused.code == "invalid_arguments"
    assert "swarm" in refused.error["message"]


async def test_continuing_needs_a_run_that_there_is(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        assert (await kimi.run("run_0", "continue")).code == "run_not_found"
        assert (await kimi.run(None, "continue")).code == "invalid_arguments"
