"""Deadlines that nothing but tokens moves, cancellation that leaves nothing behind, and who waits for a slot."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kimi_mcp.provider import Deadlines, Upstream
from kimi_mcp.provider.connections import LARGE_READ, PacedStream
from kimi_mcp.provider.endpoint import InlineMedium
from kimi_mcp.simulator import Simulator
from tests.loop_time import LoopTime
from tests.provider.loopback import response, saying
from tests.provider.requests import OPEN, SHORT, CallOutcome, Clock, ask, asking, connections, endpoint, upstream

SHORTER = Deadlines(first_token_s=20, idle_s=20, total_s=1_000)
"""A test lets this time pass by the clock of its event loop."""


@pytest.mark.parametrize(
    "step",
    [
        {"gate": "never"},
        {"gate": "never", "gate_at": "head"},
        {"comments_every": 3},
        {"stall_at": 40, "over": "raw"},
        {"stall_at": 40},
    ],
    ids=str,
)
async def test_no_token_in_time_is_a_timeout_whatever_else_comes(
    sim: Simulator, loop_time: LoopTime, step: dict[str, Any]
) -> None:
    sim.play(step)
    async with asking(upstream(deadlines=SHORTER), sim) as outcome:
        await sim.until(lambda: sim.open_streams == 1)
        await loop_time.forward(15)
        assert outcome.error is None
        await loop_time.until(lambda: outcome.error)
    assert (outcome.code, outcome.attempts) == ("upstream_timeout", [1])
    assert "KIMI_FIRST_TOKEN_TIMEOUT_S" in outcome.error.fix  # type: ignore[union-attr]
    await sim.client_gone()


@pytest.mark.parametrize("step", [{"gate": "never", "gate_at": "content"}, {"stall_at": 900}], ids=str)
async def test_silence_after_a_token_is_a_timeout_and_what_came_is_kept(
    sim: Simulator, loop_time: LoopTime, step: dict[str, Any]
) -> None:
    sim.play({"reasoning_tokens": 40, "content_tokens": 40, **step})
    async with asking(upstream(deadlines=SHORTER), sim) as outcome:
        while not outcome.accumulator.reasoning:
            await anyio.lowlevel.checkpoint()
        await loop_time.until(lambda: outcome.error)
    assert (outcome.code, outcome.attempts) == ("upstream_timeout", [1])
    assert "KIMI_IDLE_TIMEOUT_S" in outcome.error.fix  # type: ignore[union-attr]
    assert outcome.accumulator.reasoning
    await sim.client_gone()


async def test_slow_tokens_are_no_silence(sim: Simulator, loop_time: LoopTime) -> None:
    sim.play({"reasoning_tokens": 3, "content_tokens": 2, "token_every": 12})
    async with asking(upstream(deadlines=SHORTER), sim) as outcome:
        await sim.until(lambda: sim.open_streams == 1)
        await loop_time.until(lambda: outcome.accumulator.finished or outcome.error)
    assert outcome.error is None
    assert outcome.accumulator.finished
    assert loop_time.passed > 2 * SHORTER.idle_s


async def test_a_body_that_is_still_being_sent_is_no_silence(loop_time: LoopTime) -> None:
    picture = InlineMedium(mime="image/png", size=30_000_000, read_at=lambda at, length: bytes(length))
    answer = response(b'data: {"choices":[{"index":0,"delta":{"content":"Hi."},"finish_reason":"stop"}]}\n\n')
    async with saying(answer, reads_mb_every_s=1) as slow:
        prompt = picture.placeholder
        async with asking(upstream(deadlines=SHORTER), slow.base_url, prompt=prompt, inline=picture) as outcome:
            while not (outcome.accumulator.finished or outcome.error):
                taken = slow.taken_mb
                await loop_time.forward(1)
                while slow.taken_mb == taken and not (outcome.accumulator.finished or outcome.error):
                    await anyio.lowlevel.checkpoint()
        assert outcome.error is None
        assert outcome.accumulator.finished
        assert loop_time.passed > SHORTER.first_token_s, "as a whole it took longer"


async def test_a_body_that_nobody_takes_is_a_timeout(loop_time: LoopTime) -> None:
    picture = InlineMedium(mime="image/png", size=30_000_000, read_at=lambda at, length: bytes(length))
    async with saying(b"", reads_mb_every_s=3_600) as stuck:
        prompt = picture.placeholder
        async with asking(upstream(deadlines=SHORTER), stuck.base_url, prompt=prompt, inline=picture) as outcome:
            await loop_time.until(lambda: outcome.error)
    assert (outcome.code, outcome.attempts) == ("upstream_timeout", [1])


async def test_the_total_deadline_ends_an_answer_that_goes_on_and_on(sim: Simulator, loop_time: LoopTime) -> None:
    sim.play({"reasoning_tokens": 500, "token_every": 1})
    async with asking(upstream(deadlines=Deadlines(total_s=20)), sim) as outcome:
        await sim.until(lambda: sim.open_streams == 1)
        await loop_time.until(lambda: outcome.error)
    assert outcome.code == "upstream_timeout"
    assert "KIMI_TOTAL_TIMEOUT_S" in outcome.error.fix  # type: ignore[union-attr]
    assert outcome.accumulator.reasoning


def _sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except OSError:
            pass
    return count


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
async def test_a_thousand_cancellations_leave_no_socket_and_no_task(sim: Simulator) -> None:
    up = upstream(max_concurrency=50)
    places: list[dict[str, Any]] = [
        {"gate": "never"},
        {"gate": "never", "gate_at": "head"},
        {"token_every": 0.002, "reasoning_tokens": 100_000},
        {"comments_every": 0.005},
    ]
    sim.play(*({**places[n % 4], "match": {"text": f"<{n % 4}>"}, "times": "always"} for n in range(4)))
    before, tasks = _sockets(), len(asyncio.all_tasks())
    await up.list_models(endpoint(sim.base_url))  # on a busy machine all would be cancelled before openai is imported

    async def one(number: int) -> None:
        with anyio.move_on_after(0.001 * (number % 97)):
            await up.stream(
                endpoint(sim.base_url),
                {"model": "kimi-k2.6", "messages": [{"role": "user", "content": f"<{number % 4}>"}], "stream": True},
                CallOutcome().accumulator,
            )

    with anyio.fail_after(60):
        async with anyio.create_task_group() as calls:
            for number in range(1_000):
                calls.start_soon(one, number)
    assert all(connection.is_idle() for connection in connections(up))
    assert up._slots.free == 50
    await up.aclose()
    with anyio.fail_after(60):
        await sim.until(lambda: sim.open_streams == 0)
        while _sockets() > before or len(asyncio.all_tasks()) > tasks:
            await anyio.lowlevel.checkpoint()
    sim.reset()
    sim.play(SHORT)
    assert (await ask(up, sim)).error is None


@pytest.mark.parametrize("gate_at", ["start", "head", "content"])
async def test_a_cancelled_call_closes_its_socket(sim: Simulator, gate_at: str) -> None:
    sim.play({"gate": "held", "gate_at": gate_at})
    up = upstream()
    async with anyio.create_task_group() as calls:
        calls.start_soon(ask, up, sim)
        await sim.until(lambda: sim.waiting_at("held") == 1)
        calls.cancel_scope.cancel()
    await sim.client_gone()


async def test_a_call_cancelled_while_it_waits_to_ask_again_asks_no_more(sim: Simulator) -> None:
    sim.play({"status": 503, "times": "always"})
    waiting = anyio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await anyio.sleep_forever()

    up = Upstream(sleep=sleep)
    OPEN.append(up)
    async with anyio.create_task_group() as calls:
        calls.start_soon(ask, up, sim)
        with anyio.fail_after(60):
            await waiting.wait()
        calls.cancel_scope.cancel()
    assert len(sim.requests) == 1
    assert up._slots.free == 16


async def test_no_more_requests_than_allowed_are_out_at_once_and_who_waits_is_served_in_order(sim: Simulator) -> None:
    count = 12
    sim.play(*({**SHORT, "gate": f"g{n}", "match": {"text": f"<{n}>"}} for n in range(count)))
    up = upstream(max_concurrency=3, deadlines=Deadlines(first_token_s=60, idle_s=60, total_s=60))
    order: list[int] = []
    done: list[CallOutcome] = []

    async def one(number: int) -> None:
        outcome = CallOutcome()
        body = {"model": "kimi-k2.6", "messages": [{"role": "user", "content": f"<{number}>"}], "stream": True}
        await up.stream(endpoint(sim.base_url), body, outcome.accumulator, on_attempt=lambda _: order.append(number))
        done.append(outcome)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as calls:
            for number in range(count):
                calls.start_soon(one, number)
                await anyio.lowlevel.checkpoint()
            for number in range(count):
                await sim.until(lambda number=number: sim.waiting_at(f"g{number}") == 1)
                assert sim.open_streams <= 3
                sim.open_gate(f"g{number}")
    assert order == list(range(count))
    assert all(outcome.accumulator.finished for outcome in done)


async def test_waiting_for_a_slot_counts_against_no_deadline_and_can_be_cancelled(sim: Simulator) -> None:
    sim.play({"gate": "held", **SHORT}, {**SHORT, "times": "always"})
    clock = Clock()
    up = upstream(clock, max_concurrency=1, deadlines=Deadlines(first_token_s=60, idle_s=60, total_s=60))
    results: list[CallOutcome] = []

    async def one() -> None:
        results.append(await ask(up, sim))

    async with anyio.create_task_group() as calls:
        calls.start_soon(one)
        await sim.until(lambda: sim.waiting_at("held") == 1)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(one)
            waiting.start_soon(one)
            await anyio.lowlevel.checkpoint()
            waiting.cancel_scope.cancel()
        assert len(sim.requests) == 1
        calls.start_soon(one)
        await anyio.lowlevel.checkpoint()
        clock.now += 1_000  # longer than any deadline, while the second call waits for the first
        sim.open_gate("held")
    assert [outcome.error for outcome in results] == [None, None]


class _Inner:
    """A socket whose reads are of a given size."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = list(sizes)

    async def receive(self, max_bytes: int) -> bytes:
        return b"x" * self.sizes.pop(0)


async def _waits(monkeypatch: pytest.MonkeyPatch, sizes: list[int], *, live: bool) -> int:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    inner: Any = _Inner(*sizes)
    stream = PacedStream(inner)
    assert await stream.receive()
    if live:
        stream.live_at(0.1)
    for _ in sizes[1:]:
        await stream.receive()
    assert all(0 < wait <= 0.1 for wait in waits)
    return len(waits)


async def test_reads_are_put_off_only_while_an_answer_streams_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await _waits(monkeypatch, [200] * 5, live=True) == 4
    assert await _waits(monkeypatch, [200] * 5, live=False) == 0
    assert await _waits(monkeypatch, [LARGE_READ] * 5, live=True) == 0
    assert await _waits(monkeypatch, [200, LARGE_READ, 65_536, 200, 200], live=True) == 2


async def test_the_models_that_are_served_are_asked_for_seldom(sim: Simulator) -> None:
    clock = Clock()
    up = upstream(clock)
    there = endpoint(sim.base_url)
    assert "kimi-k2.6" in (await up.served_models(there) or ())
    clock.now += 599
    assert "kimi-k2.6" in (await up.served_models(there) or ())
    assert len(sim.requests) == 1
    clock.now += 2
    await up.served_models(there)
    assert len(sim.requests) == 2


@pytest.mark.parametrize(
    "step", [{"status": 500}, {"body": "no json"}, {"body": {"data": 1}}, {"truncate_at": 5}, {"html": True}], ids=str
)
async def test_models_that_cannot_be_known_are_none_and_asked_for_again_after_a_minute(
    sim: Simulator, step: dict[str, Any]
) -> None:
    sim.play({**step, "match": {"path": "/v1/models"}, "unchecked": True})
    clock = Clock()
    up = upstream(clock)
    there = endpoint(sim.base_url)
    assert await up.served_models(there) is None
    clock.now += 59
    assert await up.served_models(there) is None
    assert len(sim.requests) == 1
    clock.now += 2
    assert "kimi-k2.6" in (await up.served_models(there) or ())


async def test_many_who_want_the_list_at_once_ask_once(sim: Simulator) -> None:
    up = upstream()
    found: list[object] = []

    async def one() -> None:
        found.append(await up.served_models(endpoint(sim.base_url)))

    async with anyio.create_task_group() as calls:
        for _ in range(10):
            calls.start_soon(one)
    assert len(sim.requests) == 1
    assert len(set(map(id, found))) == 1
