"""Many calls at once: no more at the provider than the limit says, and each caller gets its own answer."""

from __future__ import annotations

import hashlib

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, connect
from tests.server.requests import chats

LIMIT = 8


@pytest.mark.parametrize("offered", [100, pytest.param(1_000, marks=pytest.mark.soak)])
async def test_any_number_of_calls_is_answered_and_none_is_mixed_up(sim: Simulator, offered: int) -> None:
    answered = dict[int, str]()

    async def ask(kimi: KimiClient, number: int) -> None:
        result = await kimi.instant(f"call {number}")
        assert result.status == "completed"
        answered[number] = result.answer

    async with connect(sim, KIMI_MAX_CONCURRENCY=str(LIMIT)) as kimi:
        sim.play({"gate": "full", "times": LIMIT})
        async with anyio.create_task_group() as callers:
            for number in range(offered):
                callers.start_soon(ask, kimi, number)
            await sim.until(lambda: sim.waiting_at("full") == LIMIT)
            assert len(chats(sim)) == LIMIT, "the rest waits here, not there"
            sim.open_gate("full")
        assert kimi.state.waiting == {}
    assert len(answered) == offered
    for number, answer in answered.items():
        assert hashlib.sha256(f"call {number}".encode()).hexdigest()[:16] in answer
    assert len(chats(sim)) == offered, "none was asked twice"


@pytest.mark.parametrize("waves", [5, pytest.param(25, marks=pytest.mark.soak)])
async def test_never_more_than_the_limit_are_open_at_the_provider(sim: Simulator, waves: int) -> None:
    sim.play(*({"gate": f"wave {wave}", "times": LIMIT} for wave in range(waves)))
    done = 0

    async def ask(kimi: KimiClient) -> None:
        nonlocal done
        assert (await kimi.instant("hi")).status == "completed"
        done += 1

    async with connect(sim, KIMI_MAX_CONCURRENCY=str(LIMIT)) as kimi, anyio.create_task_group() as callers:
        for _ in range(waves * LIMIT):
            callers.start_soon(ask, kimi)
        for wave in range(waves):
            await sim.until(lambda wave=wave: sim.waiting_at(f"wave {wave}") == LIMIT)
            assert sim.open_streams == LIMIT
            assert len(chats(sim)) == (wave + 1) * LIMIT, "none is sent before another one has ended"
            sim.open_gate(f"wave {wave}")
    assert done == waves * LIMIT


async def test_a_call_that_fails_or_is_cancelled_gives_its_place_back(sim: Simulator) -> None:
    sim.play({"status": 400}, {"no_finish": True}, {"gate": "never"}, {"html": True, "status": 403})
    async with connect(sim, KIMI_MAX_CONCURRENCY="1") as kimi:
        assert (await kimi.think()).is_error
        assert (await kimi.think()).is_error
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kimi.think)
            await sim.until(lambda: sim.waiting_at("never") == 1)
            tasks.cancel_scope.cancel()
        assert (await kimi.think()).is_error
        with anyio.fail_after(60):
            assert (await kimi.think()).status == "completed"
