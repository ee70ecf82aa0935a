"""``kimi_run``: a run belongs to the server, and can be waited for, read in pages and cancelled, again and again."""

from __future__ import annotations

import anyio
import pytest

from kimi_mcp.server.results import PAGE_CHARS
from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, connect, store_limits
from tests.server.requests import body_of, chats

HELD = {"gate": "end", "gate_at": "finish", "reasoning": "Hm, let me see.", "content": "It is 391."}
"""Everything arrives but the finish reason."""


async def running(sim: Simulator, kimi: KimiClient) -> str:
    """A run that has brought its whole text and waits for its end."""
    sim.play(HELD)
    result = await kimi.think()
    assert result.status == "running"
    await sim.until(lambda: sim.waiting_at("end") == 1)
    while (await kimi.run(result.run_id, "status")).answer != HELD["content"]:
        pass
    return result.run_id


async def test_a_call_that_takes_long_returns_a_handle_that_fetches_the_answer(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.2") as kimi:
        first = await kimi.instant()  # imports what calls need
        await kimi.run(first.run_id, "wait", wait_s=10)
        sim.reset()
        sim.play(HELD)
        result = await kimi.think()
        assert result.status == "running"
        assert not result.is_error
        assert f'kimi_run(run_id="{result.run_id}", action="wait")' in result.text
        assert result.structured["model"] == {"asked": "auto", "sent": "kimi-k2.5", "answered": "kimi-k2.5"}
        assert result.structured["finish_reason"] is None
        sim.open_gate("end")
        fetched = await kimi.run(result.run_id)
        assert fetched.status == "completed"
        assert fetched.answer == "It is 391."
        assert fetched.text == "It is 391."
        assert fetched.reasoning == "Hm, let me see."
        assert fetched.run_id == result.run_id
    assert len(chats(sim)) == 1, "it was paid for once"


async def test_a_running_call_shows_what_has_arrived(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        run_id = await running(sim, kimi)
        status = await kimi.run(run_id, "status")
    assert status.status == "running"
    assert status.answer == "It is 391."
    assert status.reasoning == "Hm, let me see."
    assert status.text.startswith("It is 391.\n\n[still running")


async def test_a_wait_that_is_over_says_running(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        run_id = await running(sim, kimi)
        assert (await kimi.run(run_id, "wait", wait_s=0)).status == "running"
        assert (await kimi.run(run_id, "wait", wait_s=0.1)).status == "running"
        assert (await kimi.run(run_id, "wait")).status == "running", "as long as a first call waits"
        sim.open_gate("end")
        assert (await kimi.run(run_id, "wait", wait_s=10)).status == "completed"


async def test_a_finished_run_can_be_read_again_and_again(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        first = await kimi.think()
        for action in (None, "wait", "status"):
            again = await kimi.run(first.run_id, action)
            assert again.structured == first.structured
            assert again.text == first.text


async def test_a_failed_run_can_be_read_again_too(sim: Simulator) -> None:
    sim.play({"no_finish": True, "content": "Forty-tw"})
    async with connect(sim) as kimi:
        first = await kimi.think()
        again = await kimi.run(first.run_id)
    assert again.is_error
    assert again.structured == first.structured


async def test_without_an_id_the_latest_runs_are_listed_newest_first(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        assert (await kimi.run()).answer == "No run is known to this server yet."
        run_id = await running(sim, kimi)
        done = await kimi.instant("Second\nprompt \u2028 of two lines " + "and much more " * 100)
        while done.status == "running":
            done = await kimi.run(done.run_id)
        newest, oldest = (await kimi.run()).answer.splitlines()
    assert newest.split()[:3] == [done.run_id, "completed", "kimi_instant"]
    assert "Second prompt of two lines and much more" in newest
    assert len(newest) < 200
    assert oldest.split()[:3] == [run_id, "running", "kimi_think"]
    assert oldest.endswith("What is 17 * 23?")


async def test_a_long_answer_comes_in_pages_that_add_up(sim: Simulator, mode: str) -> None:
    answer = "".join(f"{number} 你好🌍\n" for number in range(PAGE_CHARS // 4))
    reasoning = "🌍" * (PAGE_CHARS * 2)
    sim.play({"content": answer, "reasoning": reasoning})
    async with connect(sim, mode) as kimi:
        run_id = (await kimi.think(max_tokens=262_000)).run_id
        for of, whole in (("answer", answer), ("reasoning", reasoning)):
            read, offset = "", 0
            while offset is not None:
                result = await kimi.run(run_id, of, offset=offset)
                page = result.structured["page"]
                assert page["of"] == of
                assert page["offset"] == offset == len(read), "offsets count code points"
                assert result.answer == "", "a page stands alone"
                assert result.text.startswith(page["text"])
                read, offset = read + page["text"], page["next_offset"]
                assert (offset is None) == (len(read) == len(whole))
                assert offset is None or f"offset={offset}" in result.text
            assert read == whole


async def test_a_page_may_begin_anywhere_but_beyond_the_end(sim: Simulator) -> None:
    sim.play({"content": "你好🌍!"})
    async with connect(sim) as kimi:
        run_id = (await kimi.think()).run_id
        assert (await kimi.run(run_id, "answer", offset=2)).structured["page"]["text"] == "🌍!"
        end = await kimi.run(run_id, "answer", offset=4)
        assert end.structured["page"] == {"of": "answer", "text": "", "offset": 4, "next_offset": None}
        beyond = await kimi.run(run_id, "answer", offset=5)
    assert beyond.code == "invalid_arguments"
    assert "offset" in beyond.error["fix"]


async def test_the_pages_of_a_running_call_show_what_has_arrived(sim: Simulator) -> None:
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        run_id = await running(sim, kimi)
        page = await kimi.run(run_id, "answer")
    assert page.status == "running"
    assert page.structured["page"]["text"] == "It is 391."


async def test_reasoning_that_never_came_is_an_empty_page(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        page = await kimi.run((await kimi.instant()).run_id, "reasoning")
    assert page.structured["page"] == {"of": "reasoning", "text": "", "offset": 0, "next_offset": None}


async def test_cancelling_a_run_closes_its_request_and_keeps_what_had_arrived(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        run_id = await running(sim, kimi)
        cancelled = await kimi.run(run_id, "cancel")
        await sim.client_gone()
        assert cancelled.status == "cancelled"
        assert cancelled.code == "cancelled"
        assert cancelled.answer == "It is 391."
        assert cancelled.reasoning == "Hm, let me see."
        assert "cancelled" in cancelled.text
        assert (await kimi.run(run_id)).structured == cancelled.structured


async def test_cancelling_a_finished_run_changes_nothing(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        first = await kimi.think()
        assert (await kimi.run(first.run_id, "cancel")).structured == first.structured


async def test_a_run_that_waits_for_a_free_place_can_be_cancelled(sim: Simulator) -> None:
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05", KIMI_MAX_CONCURRENCY="1") as kimi:
        await running(sim, kimi)
        waiting = await kimi.think("the second one")
        assert waiting.status == "running"
        assert waiting.attempts == 0
        assert waiting.structured["model"]["sent"] is None, "nothing was sent yet"
        assert (await kimi.run(waiting.run_id, "cancel")).status == "cancelled"
    assert len(chats(sim)) == 1


async def test_a_run_that_waits_for_another_attempt_can_be_cancelled(sim: Simulator) -> None:
    sim.play({"status": 429, "retry_after": 60, "times": "always"})
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.2") as kimi:
        waiting = await kimi.think()
        assert waiting.status == "running"
        with anyio.fail_after(60):
            while (await kimi.run(waiting.run_id, "status")).attempts == 0:
                await anyio.sleep(0.01)
        assert (await kimi.run(waiting.run_id, "cancel")).status == "cancelled"
    assert len(chats(sim)) == 1


@pytest.mark.parametrize("action", [None, "wait", "status", "answer", "reasoning", "cancel"])
async def test_an_unknown_run_is_not_found_whatever_is_asked(sim: Simulator, mode: str, action: str | None) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.run("run_0123456789", action)
    assert result.code == "run_not_found"
    assert result.is_error
    assert "run_id" in result.error["fix"]
    assert "run_0123456789" not in result.text


async def test_every_finished_run_is_kept(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        ids = [(await kimi.instant("hi")).run_id for _ in range(80)]
        assert {(await kimi.run(run_id, "status")).status for run_id in ids} == {"completed"}
        assert [line.split()[0] for line in (await kimi.run()).answer.splitlines()] == ids[:-11:-1]


async def test_without_a_journal_only_the_latest_finished_runs_are_kept(
    sim: Simulator,
) -> None:
    async with connect(sim, options=store_limits(runs_in_memory=8), KIMI_JOURNAL="off") as kimi:
        ids = [(await kimi.instant("hi")).run_id for _ in range(30)]
        assert len(set(ids)) == 30
        kept = [run_id for run_id in ids if (await kimi.run(run_id, "status")).code != "run_not_found"]
        assert kept == ids[-8:]
        assert [line.split()[0] for line in (await kimi.run()).answer.splitlines()] == ids[:-9:-1]


@pytest.mark.soak
async def test_three_hundred_calls_leave_nothing_in_memory(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        for _ in range(300):
            assert (await kimi.instant("hi")).status == "completed"
        assert not kimi.runs.live
        assert kimi.state.waiting == {}


async def test_refused_calls_are_no_runs(sim: Simulator) -> None:
    async with connect(sim, KIMI_POLICY="strict") as kimi:
        done = await kimi.think()
        for _ in range(3):
            assert (await kimi.think(temperature=0.3)).code == "policy_refused"
        assert (await kimi.run(done.run_id)).structured == done.structured
        assert len((await kimi.run()).answer.splitlines()) == 1


async def test_a_long_run_outlasts_the_many_short_ones_that_ended_meanwhile(sim: Simulator) -> None:
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.1") as kimi:
        run_id = await running(sim, kimi)
        sim.play({"match": {"text": "short"}, "content": "Hi.", "times": "always"})
        for _ in range(20):
            await kimi.instant("short")
        sim.open_gate("end")
        assert (await kimi.run(run_id)).status == "completed"
        await kimi.instant("short")
        assert (await kimi.run(run_id)).answer == "It is 391.", "it ended only just now"


async def test_a_run_that_is_refused_after_its_caller_received_its_id_can_be_asked_for() -> None:
    held = {"match": {"path": "/v1/models"}, "gate": "models"}
    async with (
        Simulator(provider="vllm") as sim,
        connect(sim, provider="vllm", KIMI_REPLY_WITHIN_S="0.05") as kimi,
    ):
        sim.play(held)
        started = await kimi.think(model="nobody-knows-it")
        assert started.status == "running"
        sim.open_gate("models")
        refused = await kimi.run(started.run_id, wait_s=10)
        assert refused.code == "invalid_arguments"
        assert refused.run_id == started.run_id
        assert (await kimi.run(started.run_id)).structured == refused.structured


@pytest.mark.parametrize("action", ["answer", "reasoning", "cancel"])
async def test_an_action_on_no_run_is_refused(sim: Simulator, mode: str, action: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.run(None, action)
    assert result.code == "invalid_arguments"
    assert "run_id" in result.error["message"]


async def test_a_page_of_a_running_answer_names_where_the_rest_will_begin(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode, KIMI_REPLY_WITHIN_S="0.05") as kimi:
        run_id = await running(sim, kimi)
        page = await kimi.run(run_id, "answer")
        sim.open_gate("end")
        await kimi.run(run_id, "wait")
    assert page.structured["page"] == {"of": "answer", "text": "It is 391.", "offset": 0, "next_offset": 10}
    assert "more will come" in page.text


async def test_a_page_that_was_read_is_no_error_though_its_run_failed(sim: Simulator, mode: str) -> None:
    sim.play({"length_in_reasoning": True})
    async with connect(sim, mode) as kimi:
        failed = await kimi.think()
        page = await kimi.run(failed.run_id, "reasoning")
    assert failed.is_error
    assert not page.is_error
    assert page.structured["page"]["text"] == failed.reasoning
    assert failed.error["fix"] in page.text


async def test_a_whole_number_may_be_written_with_a_point(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        assert (await kimi.think(max_tokens=20_000.0)).status == "completed"
    assert body_of(chats(sim)[0])["max_completion_tokens"] == 20_000
