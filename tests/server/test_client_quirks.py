"""Hosts that need special treatment, by the name they give: a short timeout, a model that sees the text alone."""

from __future__ import annotations

import pytest
from mcp_types import TextContent

from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ERAS, ServerOptions, connect
from tests.server.requests import HELD_STEP

AT_ONCE = ServerOptions(timings=Timings(reply_earlier_s=4.95))
"""A host that gives a call 5 s is answered after a twentieth of a second."""

THOUGHT = {"reasoning": "Hm, let me see.", "content": "It is 391."}


@pytest.mark.parametrize("mode", ERAS.values(), ids=ERAS)
async def test_a_host_that_gives_a_call_5_s_gets_its_run_before_that(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP)
    async with connect(sim, mode, host="google-adk", options=AT_ONCE) as kimi:
        running = await kimi.think()
        assert running.status == "running"
        assert (await kimi.run(running.run_id)).status == "running", "a wait is a call, too"
        assert (await kimi.run(running.run_id, wait_s=60)).status == "running", "however long its model would wait"
        sim.open_gate("end")
        assert (await kimi.ended(running)).answer == "It is 391."


async def test_what_the_operator_has_set_holds_for_such_a_host_too(sim: Simulator) -> None:
    async with connect(sim, host="google-adk", options=AT_ONCE, KIMI_REPLY_WITHIN_S="30") as kimi:
        assert (await kimi.think()).status == "completed"


async def test_any_other_host_waits_for_its_answer(sim: Simulator) -> None:
    async with connect(sim, options=AT_ONCE) as kimi:
        assert (await kimi.think()).status == "completed"


@pytest.mark.parametrize("mode", ERAS.values(), ids=ERAS)
async def test_a_model_that_sees_the_text_alone_reads_run_conversation_and_reasoning(sim: Simulator, mode: str) -> None:
    sim.play(THOUGHT)
    async with connect(sim, mode, host="gemini-cli-mcp-client") as kimi:
        result = await kimi.client.call_tool("kimi_think", {"prompt": "What is 17 * 23?"})
    (block,), structure = result.content, result.structured_content
    assert isinstance(block, TextContent)
    assert structure is not None
    run_id = structure["run_id"]
    assert block.text == (
        f"It is 391.\n\n[run {run_id}; conversation_id {structure['conversation_id']}; 15 characters of reasoning, "
        f'which kimi_run(run_id="{run_id}", action="reasoning") shows]'
    )


async def test_a_refusal_of_such_a_host_names_no_run(sim: Simulator) -> None:
    async with connect(sim, host="gemini-cli-mcp-client") as kimi:
        refused = await kimi.think(temperature=9)
        assert refused.text == f"{refused.code}: {refused.error['message']}\n{refused.error['fix']}"


@pytest.mark.parametrize("mode", ERAS.values(), ids=ERAS)
async def test_the_structure_says_what_to_call_next(sim: Simulator, mode: str) -> None:
    sim.play(HELD_STEP, {"length_in_reasoning": True})
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        running = await kimi.think()
        assert f'kimi_run(run_id="{running.run_id}", action="wait")' in running.structured["next_step"]
        page = await kimi.run(running.run_id, "answer")
        assert f'action="answer", offset={len(page.structured["page"]["text"])})' in page.structured["next_step"]
        sim.open_gate("end")
        ended = await kimi.ended(running)
        assert f'conversation_id="{ended.structured["conversation_id"]}"' in ended.structured["next_step"]
        assert (await kimi.run(running.run_id, "answer")).structured["next_step"] is None, "that was the last page"
        assert (await kimi.think(temperature=9)).structured["next_step"] is None, "the fix says what to do"
        cut = await kimi.ended(await kimi.think())
        assert cut.code == "answer_cut_off"
        assert f'kimi_run(run_id="{cut.run_id}", action="reasoning")' in cut.structured["next_step"]


async def test_an_answer_that_was_cut_says_how_to_read_on(sim: Simulator) -> None:
    sim.play({"content": "x" * 200_001, "event_tokens": 400, "ignore_limit": True})
    async with connect(sim) as kimi:
        result = await kimi.think()
        assert f'kimi_run(run_id="{result.run_id}", action="answer", offset=200000)' in result.structured["next_step"]
