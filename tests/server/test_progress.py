"""Progress: late enough for every host, rising, with the phase, never after the result, never unasked."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, connect, connect_messages

OFTEN = ServerOptions(timings=Timings(warm_up_after_s=3600, first_progress_s=0.15, progress_every_s=0.15))


class Heard:
    """What a host hears of the progress, and when it heard enough."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.messages: list[str] = []
        self._more = anyio.Event()

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        self.values.append(progress)
        self.messages.append(message or "")
        self._more.set()
        self._more = anyio.Event()

    async def until(self, words: str) -> None:
        """Return once a message says so."""
        with anyio.fail_after(60):
            while not any(words in message for message in self.messages):
                await self._more.wait()


def test_the_first_progress_comes_after_five_seconds() -> None:
    assert Timings().first_progress_s == 5.0, "progress before about 5 s disconnects some hosts"
    assert Timings().progress_every_s <= 10


async def test_progress_rises_and_tells_the_phase(sim: Simulator, mode: str) -> None:
    sim.play(
        {"match": {"text": "hi"}, "gate": "thought", "gate_at": "content", "reasoning": "Hm. " * 20, "content": "Hi."},
    )
    sim.play({"match": {"text": "start"}, "gate": "begin"})
    heard, slow = Heard(), Heard()
    async with connect(sim, mode, options=OFTEN) as kimi, anyio.create_task_group() as tasks:

        async def ask(prompt: str, listener: Heard) -> None:
            result = await kimi.call("kimi_think", {"prompt": prompt}, progress_callback=listener)
            assert result.status == "completed"

        tasks.start_soon(ask, "hi", heard)
        tasks.start_soon(ask, "start", slow)
        await slow.until("waiting for the first token")
        await heard.until("answering")
        sim.open_gate("thought")
        sim.open_gate("begin")
    for listener in (heard, slow):
        assert listener.values == sorted(set(listener.values)), "each value is above the one before"
    assert "about" in heard.messages[-1]
    assert "tokens" in heard.messages[-1]


async def test_progress_says_when_the_model_is_thinking(sim: Simulator) -> None:
    sim.play({"gate": "thinking", "gate_at": "reasoning", "reasoning": "Hm. " * 40, "content": "Hi."})
    heard = Heard()
    async with connect(sim, options=OFTEN) as kimi, anyio.create_task_group() as tasks:

        async def ask() -> None:
            await kimi.call("kimi_think", {"prompt": "hi"}, progress_callback=heard)

        tasks.start_soon(ask)
        await heard.until("thinking")
        sim.open_gate("thinking")


async def test_progress_says_why_nothing_comes(sim: Simulator) -> None:
    sim.play({"status": 429, "retry_after": 1}, {"gate": "end", "gate_at": "finish", "content": "Hi."})
    heard, queued = Heard(), Heard()
    async with connect(sim, options=OFTEN, KIMI_MAX_CONCURRENCY="1") as kimi, anyio.create_task_group() as tasks:

        async def ask(listener: Heard) -> None:
            assert (await kimi.call("kimi_think", {"prompt": "hi"}, progress_callback=listener)).status == "completed"

        tasks.start_soon(ask, heard)
        await heard.until("waiting for another attempt in 1 s, after overloaded")
        await heard.until("attempt 2")
        tasks.start_soon(ask, queued)
        await queued.until("waiting for a slot")
        sim.open_gate("end")


async def test_progress_goes_on_through_a_repair(sim: Simulator) -> None:
    sim.play({"content": "no JSON"}, {"gate": "end", "gate_at": "finish", "content": "1"})
    heard = Heard()
    async with connect(sim, options=OFTEN) as kimi, anyio.create_task_group() as tasks:

        async def ask() -> None:
            arguments = {"prompt": "hi", "response_schema": {"type": "integer"}}
            result = await kimi.call("kimi_instant", arguments, progress_callback=heard)
            assert result.structured["parsed"] == 1

        tasks.start_soon(ask)
        await heard.until("answering")
        sim.open_gate("end")


async def test_waiting_for_a_run_reports_progress_too(sim: Simulator, mode: str) -> None:
    sim.play({"gate": "end", "gate_at": "finish", "content": "Hi."})
    heard = Heard()
    async with (
        connect(sim, mode, options=OFTEN, KIMI_REPLY_WITHIN_S="0.05") as kimi,
        anyio.create_task_group() as tasks,
    ):
        started = await kimi.think()

        async def wait() -> None:
            arguments = {"run_id": started.run_id, "wait_s": 10}
            assert (await kimi.call("kimi_run", arguments, progress_callback=heard)).status == "completed"

        tasks.start_soon(wait)
        await heard.until("answering")
        sim.open_gate("end")


async def test_no_progress_comes_after_the_result_and_none_without_a_token(sim: Simulator) -> None:
    async with connect_messages(sim, options=OFTEN) as host:
        sim.play(*({"gate": f"end {number}", "gate_at": "finish", "content": "Hi."} for number in range(2)))
        await host.call("kimi_think", {"prompt": "hi"}, 1, progressToken="mine")
        first: dict[str, Any] = await host.receive()
        assert first["method"] == "notifications/progress"
        assert first["params"]["progressToken"] == "mine"
        sim.open_gate("end 0")
        while (reply := await host.receive()).get("method") == "notifications/progress":
            pass
        assert reply["id"] == 1
        await host.call("kimi_think", {"prompt": "hi"}, 2)
        with anyio.move_on_after(0.6) as silence:
            await host.receive()
        assert silence.cancelled_caught, "nothing was written"
        sim.open_gate("end 1")
        assert (await host.receive())["id"] == 2


async def test_a_short_call_reports_no_progress(sim: Simulator, mode: str) -> None:
    heard = Heard()
    async with connect(sim, mode) as kimi:
        await kimi.call("kimi_think", {"prompt": "hi"}, progress_callback=heard)
    assert heard.values == []


async def test_a_host_that_waits_while_progress_comes_gets_its_answer_at_once(sim: Simulator, mode: str) -> None:
    sim.play({"gate": "end", "gate_at": "finish", "content": "Hi."})
    heard = Heard()
    async with (
        connect(sim, mode, options=OFTEN, host="claude-code", KIMI_REPLY_WITHIN_S="0.1") as kimi,
        anyio.create_task_group() as tasks,
    ):

        async def ask() -> None:
            result = await kimi.call("kimi_think", {"prompt": "hi"}, progress_callback=heard)
            assert result.status == "completed"
            assert result.answer == "Hi."

        tasks.start_soon(ask)
        await heard.until("answering")
        sim.open_gate("end")


@pytest.mark.parametrize(("host", "listens"), [("claude-code", False), ("some-host", True), ("claude-ai", True)])
async def test_any_other_host_gets_a_handle_in_time(sim: Simulator, mode: str, host: str, listens: bool) -> None:
    sim.play({"gate": "end", "gate_at": "finish", "content": "Hi."})
    async with connect(sim, mode, host=host, KIMI_REPLY_WITHIN_S="0.1") as kimi:
        with anyio.fail_after(60):
            result = await kimi.call("kimi_think", {"prompt": "hi"}, progress_callback=Heard() if listens else None)
        assert result.status == "running"
