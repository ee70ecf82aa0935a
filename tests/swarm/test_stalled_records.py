"""A swarm whose record takes no results for a while: what is paid for is neither lost nor forgotten."""

from __future__ import annotations

import anyio

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs import Run
from kimi_mcp.runs.store.records import JSON
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm.limits import SwarmConcurrency, SwarmLimits
from tests.swarm.memory_steps import MemorySteps
from tests.swarm.scenarios import SYNTHESIS, Tools, chats, reply, searching, statuses, swarm


class Stalled(MemorySteps):
    """A record that takes no result until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.stalled, self.refused, self.recovered = True, 0, anyio.Event()
        self.too_early: list[str] = []

    async def begin(self, key: str, description: JSON) -> JSON | None:
        if key.startswith("main") and self.stalled:
            self.too_early.append(key)
        return await super().begin(key, description)

    async def finish(self, key: str, result: JSON) -> None:
        if self.stalled:
            self.refused += 1
            raise NotConfigured("The store is locked.", fix="Close what holds it open.")
        await super().finish(key, result)

    async def sleep(self, seconds: float) -> None:
        """As long as the record is stalled."""
        if self.refused >= 3:
            self.stalled = False
            self.recovered.set()
        await self.recovered.wait()


async def test_a_record_that_is_locked_for_a_while_costs_no_agent_its_result_and_has_it_later(sim: Simulator) -> None:
    steps = Stalled()
    sim.play(*(reply({"text": f"about {item}"}, content=f"{item} is round.") for item in "ABC"))
    sim.play(reply({"system": SYNTHESIS}, content="All are round."))
    concurrency = SwarmConcurrency(64, SwarmLimits(launch_interval_s=0), sleep=steps.sleep)
    requested = "Tell me about {{item}}."
    outcome = await swarm(sim, requested, items=("A", "B", "C"), steps=steps, concurrency=concurrency)
    assert (outcome.status, outcome.answer) == ("completed", "All are round.")
    assert statuses(outcome) == ["completed"] * 3
    assert outcome.timing.attempts == len(chats(sim)) == 4
    assert not steps.too_early, "no step begins before the results of those before it are recorded"
    again = await swarm(sim, requested, items=("A", "B", "C"), steps=steps)
    assert (again.answer, again.cost_usd) == (outcome.answer, outcome.cost_usd)
    assert len(chats(sim)) == 4, "what is recorded is never made again"


class Refusing(MemorySteps):
    """A record that does not take the first result of agent-1, for which it waits until agent-2 uses a tool."""

    def __init__(self) -> None:
        super().__init__()
        self.calling, self.has_first, self.tries = anyio.Event(), anyio.Event(), 0

    async def begin(self, key: str, description: JSON) -> JSON | None:
        if "tool" in key:
            self.calling.set()
        return await super().begin(key, description)

    async def finish(self, key: str, result: JSON) -> None:
        if key.startswith("agent-1"):
            self.tries += 1
            if self.tries == 1:
                await self.calling.wait()
                raise NotConfigured("The store is locked.", fix="Close what holds it open.")
            self.has_first.set()
        await super().finish(key, result)


async def test_a_result_is_recorded_as_soon_as_the_record_takes_it_while_other_agents_work(sim: Simulator) -> None:
    steps, tools = Refusing(), Tools()
    tools.source.held = steps.has_first
    sim.play(reply({"text": "about A"}, content="A is round."), *searching("about B", "b"))
    outcome = await swarm(sim, "Tell me about {{item}}.", items=("A", "B"), steps=steps, tools=tools)
    assert statuses(outcome) == ["completed", "completed"]
    assert steps.tries == 2
    assert steps.results.keys() == steps.descriptions.keys()


class Silent(MemorySteps):
    """A record that never says whether it took a result."""

    def __init__(self) -> None:
        super().__init__()
        self.finishing = anyio.Event()

    async def finish(self, key: str, result: JSON) -> None:
        self.finishing.set()
        await anyio.sleep_forever()


async def test_an_answer_that_is_being_recorded_as_its_swarm_is_cancelled_is_kept(sim: Simulator) -> None:
    steps = Silent()
    sim.play(reply({"text": "about A"}, content="A is round."), reply({"text": "about B"}, gate="never"))
    run = Run(caller="a test", tool="kimi_swarm", prompt="p")
    outcomes: list[Outcome] = []

    async def ask() -> None:
        outcomes.append(await swarm(sim, "Tell me about {{item}}.", items=("A", "B"), steps=steps, run=run))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await steps.finishing.wait()
            await sim.until(lambda: sim.waiting_at("never") == 1)
            run.cancel_soon()
    (outcome,) = outcomes
    assert (outcome.status, statuses(outcome)) == ("partial", ["completed", "cancelled"])
    assert "A is round." in outcome.answer
    assert outcome.cost_usd
