"""Stalls: deadlines of our own, which comments don't move, and whose variable the result names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from kimi_mcp.provider import Deadlines
from kimi_mcp.simulator import Simulator
from tests.loop_time import LoopTime, fail_after_real, others_wait
from tests.server.clients import KimiClient, ServerOptions, connect, wait_until
from tests.server.requests import chats
from tests.server.results import Result

NO_TOKEN: dict[str, dict[str, Any]] = {
    "no bytes": {"gate": "never"},
    "only the headers": {"gate": "never", "gate_at": "head"},
    "comments only": {"comments_every": 3},
}


@asynccontextmanager
async def thinking(kimi: KimiClient) -> AsyncIterator[list[Result]]:
    """Make one call beside the block, which is left once its result is there."""
    results: list[Result] = []

    async def call() -> None:
        results.append(await kimi.think())

    with fail_after_real(90):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            yield results


@pytest.mark.parametrize("case", NO_TOKEN)
async def test_an_answer_that_never_begins_times_out(sim: Simulator, loop_time: LoopTime, mode: str, case: str) -> None:
    sim.play({**NO_TOKEN[case], "times": "always"})
    async with connect(sim, mode, KIMI_FIRST_TOKEN_TIMEOUT_S="20") as kimi, thinking(kimi) as results:
        await sim.until(lambda: sim.open_streams == 1)
        await loop_time.until(lambda: results)
        await sim.client_gone()
    (result,) = results
    assert result.status == "failed"
    assert result.code == "upstream_timeout"
    assert "KIMI_FIRST_TOKEN_TIMEOUT_S" in result.error["fix"]
    assert result.error["retryable"] is True
    assert len(chats(sim)) == 1, "a timeout is not asked again: it may have been paid for"


@pytest.mark.parametrize("where", ["content", "finish"])
async def test_an_answer_that_falls_silent_times_out_with_what_had_arrived(
    sim: Simulator, loop_time: LoopTime, mode: str, where: str
) -> None:
    sim.play({"reasoning": "Hm.", "content": "It is 391, as before.", "gate": "never", "gate_at": where})
    async with connect(sim, mode, KIMI_IDLE_TIMEOUT_S="20") as kimi, thinking(kimi) as results:
        await sim.until(lambda: sim.open_streams == 1)
        await wait_until(lambda: any(run.request_state.accumulator.answer for run in kimi.runs.live.values()))
        await loop_time.until(lambda: results)
        await sim.client_gone()
    (result,) = results
    assert result.code == "upstream_timeout"
    assert "KIMI_IDLE_TIMEOUT_S" in result.error["fix"]
    assert result.reasoning == "Hm."
    assert "It is 391, as before.".startswith(result.answer)
    assert result.answer
    assert result.answer in result.text


async def test_tokens_move_the_idle_deadline_and_the_total_one_ends_it(sim: Simulator, loop_time: LoopTime) -> None:
    sim.play({"reasoning": "Hm.", "content": "word " * 1_000, "token_every": 3})
    async with (
        connect(sim, KIMI_IDLE_TIMEOUT_S="10", KIMI_TOTAL_TIMEOUT_S="25") as kimi,
        thinking(kimi) as results,
    ):
        await sim.until(lambda: sim.open_streams == 1)
        await loop_time.until(lambda: results)
    (result,) = results
    assert result.code == "upstream_timeout"
    assert "KIMI_TOTAL_TIMEOUT_S" in result.error["fix"]
    assert loop_time.passed > 20
    assert result.answer.startswith("word word")


async def test_the_total_deadline_covers_all_attempts(sim: Simulator) -> None:
    sim.play({"status": 429, "retry_after": 1, "times": "always"})
    async with connect(sim, KIMI_TOTAL_TIMEOUT_S="1.9") as kimi:
        with anyio.fail_after(60):
            result = await kimi.think()
    assert result.code == "overloaded"
    assert "KIMI_TOTAL_TIMEOUT_S" in result.error["fix"]
    assert result.attempts == 2


async def test_waiting_for_a_free_place_costs_no_deadline(sim: Simulator, loop_time: LoopTime) -> None:
    sim.play({"gate": "end", "gate_at": "finish", "content": "first"})
    statuses: list[str] = []

    async def second(kimi: KimiClient) -> None:
        statuses.append((await kimi.think("the second")).status)

    async with (
        connect(sim, KIMI_MAX_CONCURRENCY="1", KIMI_FIRST_TOKEN_TIMEOUT_S="20") as kimi,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(kimi.think, "the first")
        await sim.until(lambda: sim.waiting_at("end") == 1)
        tasks.start_soon(second, kimi)
        await others_wait()
        await loop_time.forward(21)
        assert statuses == []
        sim.open_gate("end")
    assert statuses == ["completed"]


async def test_a_finish_that_came_is_not_spoilt_by_a_connection_that_stays_open(
    sim: Simulator,
) -> None:
    sim.play({"content": "It is 391.", "no_done": True, "stall_at": 100_000, "framing": "close"})
    async with connect(sim, options=ServerOptions(deadlines=Deadlines(after_finish_s=0.2))) as kimi:
        result = await kimi.think()
    assert result.status == "completed"
    assert result.answer == "It is 391."
