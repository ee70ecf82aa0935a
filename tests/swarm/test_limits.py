"""What a swarm may use: money, tokens, time, tool calls, steps; at each limit it concludes with what it has."""

from __future__ import annotations

import anyio

from kimi_mcp.runs import Run
from kimi_mcp.runs.store.records import JSON, Used
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm import SwarmCall, run_swarm
from kimi_mcp.swarm.ledger import BudgetLedger, Wanted
from kimi_mcp.swarm.limits import SwarmConcurrency, SwarmLimits
from tests.loop_time import others_wait
from tests.swarm.memory_steps import MemorySteps
from tests.swarm.scenarios import (
    MAIN_AGENT,
    Tools,
    agents,
    calling,
    chats,
    leading,
    messages,
    no_tools,
    pipeline_and_runs,
    quick,
    reply,
    searching,
    statuses,
    swarm,
    task_of,
)

A = (("reader", "Look at A."),)
CONCLUDE = "Write your final message now"


# ── the ledger ────────────────────────────────────────────────────────────────────────────────────────────────────


NEXT = Wanted(usd=0.4, then=0.4, reserved=0.1)
"""Of an agent whose requests may cost 40 cents, where ten are left for another one."""


async def test_an_agent_goes_on_as_long_as_it_could_still_conclude_afterwards() -> None:
    ledger = BudgetLedger(SwarmLimits(usd=1.0))
    assert await ledger.request_permission("1", NEXT) == (True, None)
    ledger.count("1", Used(usd=0.3))
    assert await ledger.request_permission("2", NEXT) == (True, "usd"), "this is its last one"
    ledger.count("2", Used(usd=0.3))
    assert await ledger.request_permission("3", NEXT) == (False, "usd")


async def test_an_agent_that_has_not_begun_is_not_begun_for_nothing() -> None:
    ledger = BudgetLedger(SwarmLimits(usd=1.0))
    wanted = Wanted(usd=0.6, then=0.6, reserved=0.0, begins=True)
    assert not (await ledger.request_permission("1", wanted))[0]


async def test_requests_at_once_never_spend_the_same_dollar() -> None:
    ledger, most = BudgetLedger(SwarmLimits(usd=1.0)), 0.0
    granted: list[bool] = []
    held = 0.0

    async def request(key: str) -> None:
        nonlocal most, held
        is_granted, _ = await ledger.request_permission(key, Wanted(usd=0.3, then=0.0, reserved=0.0))
        granted.append(is_granted)
        if is_granted:
            held += 0.3
            most = max(most, held + ledger.used.usd)
            await anyio.lowlevel.checkpoint()
            held -= 0.3
            ledger.count(key, Used(usd=0.1))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(request, str(number))
    assert most <= 1.0
    assert ledger.used.usd <= 1.0
    assert granted.count(True) >= 7, "what was held and not spent is there for others"


async def test_without_a_limit_on_money_nobody_waits() -> None:
    ledger = BudgetLedger(SwarmLimits(usd=None))
    for number in range(100):
        wanted = Wanted(usd=1e6, then=1e6, reserved=0.0)
        assert await ledger.request_permission(str(number), wanted) == (True, None)


# ── money ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_budget_too_small_for_a_first_request_costs_nothing(sim: Simulator) -> None:
    outcome = await swarm(sim, max_cost_usd=0.01)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.code == "budget_exceeded"
    assert "`max_cost_usd`" in outcome.error.fix
    assert not chats(sim)
    assert outcome.run_id is None


async def test_the_smaller_of_argument_and_setting_holds_and_is_the_one_that_is_named(sim: Simulator) -> None:
    small = {"KIMI_BUDGET_USD_PER_SWARM": "0.01"}
    outcome = await swarm(sim, max_cost_usd=5.0, variables=small)
    assert outcome.error is not None
    assert "KIMI_BUDGET_USD_PER_SWARM" in outcome.error.fix
    assert not chats(sim)


async def test_at_the_end_of_its_budget_a_swarm_concludes_with_what_it_has(sim: Simulator) -> None:
    sim.play(
        leading(*A), reply({"system": MAIN_AGENT, "turns": 1}, content="What I have."), *searching("Look at A.", "a")
    )
    outcome = await swarm(sim, tools=Tools(), max_cost_usd=0.13)
    assert outcome.status == "partial"
    assert outcome.answer == "What I have."
    assert outcome.error is not None
    assert outcome.error.code == "budget_exceeded"
    assert "Incomplete: agent-1 (reader)." in outcome.error.message
    assert statuses(outcome) == ["failed"]
    assert not chats(sim, "Look at A."), "it could not have brought anything"
    assert [agent["steps"] for agent in agents(outcome)] == [0], "nothing was sent"
    assert outcome.swarm is not None
    assert (outcome.swarm["steps"], outcome.swarm["critical_steps"]) == (2, 2)


class CountingSteps(MemorySteps):
    """A record that counts how many requests of sub-agents it has, and may be slow with the first one."""

    def __init__(self, *, most: int = 0, slow: bool = False) -> None:
        super().__init__()
        self.full, self.begun, self.go_on = anyio.Event(), anyio.Event(), anyio.Event()
        self._most, self._slow = most, slow

    async def finish(self, key: str, result: JSON) -> None:
        await super().finish(key, result)
        if len(self.results) == self._most:
            self.full.set()
        if self._slow and not self.begun.is_set():
            self.begun.set()
            await self.go_on.wait()


EXPENSIVE = {"answer_model": "kimi-k3", "content_tokens": 8_000}
"""An answer that costs more than was held for it: 0.12 USD."""


async def test_no_agent_begins_once_the_money_is_gone(sim: Simulator) -> None:
    steps = CountingSteps(most=2)

    async def sleep(seconds: float) -> None:
        await steps.full.wait()

    sim.play(reply({"text": "Tell me"}, **EXPENSIVE), reply({"system": "Several agents"}, content="What I have."))
    outcome = await swarm(
        sim,
        "Tell me of {{item}}.",
        items=tuple(f"city {number}" for number in range(12)),
        steps=steps,
        concurrency=SwarmConcurrency(64, SwarmLimits(launch_burst=2, launch_interval_s=60), sleep=sleep),
        max_cost_usd=1.0 / 6,
    )
    assert len(chats(sim, "Tell me")) == 2
    assert statuses(outcome) == ["completed", "completed", *["failed"] * 10]
    assert [agent["steps"] for agent in agents(outcome)] == [1, 1, *[0] * 10]
    assert outcome.status == "partial"


async def test_no_agent_that_waits_for_a_slot_begins_once_the_money_is_gone(sim: Simulator) -> None:
    answer = {"answer_model": "kimi-k3", "content_tokens": 14_000}  # 0.21 USD
    sim.play(reply({"text": "Tell me"}, **answer, times="always"), reply({"system": "Several agents"}, content="Two."))
    cities = tuple(f"city {number}" for number in range(12))
    outcome = await swarm(sim, "Tell me of {{item}}.", items=cities, concurrency=quick(slots=2), max_cost_usd=0.3)
    assert len(chats(sim, "Tell me")) == 2
    assert [agent["steps"] for agent in agents(outcome)] == [1, 1, *[0] * 10]
    assert outcome.status == "partial"


async def test_what_a_request_was_granted_is_held_until_it_is_counted(sim: Simulator) -> None:
    steps = CountingSteps(slow=True)
    run = Run(caller="a test", tool="kimi_swarm", prompt="p")
    call = SwarmCall(prompt="Tell me of {{item}}.", items=("A", "B"), max_cost_usd=0.15)
    sim.play(reply({"text": "Tell me"}, content="It is round."))
    async with pipeline_and_runs(sim) as (pipeline, runs):
        runs.start(run, lambda run: run_swarm(call, run, pipeline, steps=steps, concurrency=quick(), tools=no_tools))
        with anyio.fail_after(60):
            await steps.begun.wait()
            await others_wait()
            assert run.attempts == 1, "there is no money for two at once"
            steps.go_on.set()
            await run.done.wait()
    assert run.outcome is not None
    assert run.outcome.status == "completed"


async def test_an_agent_whose_turn_comes_when_the_time_is_over_does_not_begin(sim: Simulator) -> None:
    over: list[str] = []

    class Late(MemorySteps):
        async def finish(self, key: str, result: JSON) -> None:
            await super().finish(key, result)
            over.append(key)

    concurrency = quick(slots=2, clock=lambda: 1e9 if over else 0.0)  # one of them is left for others
    items = ("A", "B", "C")
    outcome = await swarm(sim, "Tell me of {{item}}.", items=items, steps=Late(), concurrency=concurrency)
    assert outcome.status == "partial"
    sent = [request for request in chats(sim) if task_of(request).startswith("Tell me of")]
    assert len(sent) < 3
    assert sum(agent["steps"] for agent in agents(outcome)) == len(sent)


async def test_a_swarm_that_costs_more_than_its_budget_says_so(sim: Simulator) -> None:
    sim.play(reply({"system": MAIN_AGENT}, **EXPENSIVE))
    outcome = await swarm(sim, max_cost_usd=0.1, tools=Tools())
    assert outcome.cost_usd is not None
    assert outcome.cost_usd > 0.1
    assert outcome.status == "completed"
    (warned,) = [entry for entry in outcome.policy if entry.rule == "budget-overrun"]
    assert (warned.field, warned.asked, warned.action) == ("max_cost_usd", 0.1, "warned")


async def test_what_a_swarm_costs_stays_within_its_budget(sim: Simulator) -> None:
    tasks = tuple(("reader", f"Look at {number}.") for number in range(30))
    sim.play(leading(*tasks), *(step for _, task in tasks for step in searching(task, *"abcd")))
    sim.play(reply({"text": "Look at", "system": CONCLUDE}, content_tokens=4_000))
    outcome = await swarm(sim, tools=Tools(), max_cost_usd=0.2)
    assert outcome.cost_usd is not None
    assert 0 < outcome.cost_usd <= 0.2
    assert outcome.status in ("completed", "partial")


async def test_where_no_price_is_known_the_limit_counts_the_dearest_and_the_cost_is_null() -> None:
    async with Simulator(provider="vllm") as sim:
        outcome = await swarm(sim, provider="vllm", max_cost_usd=0.2)
        assert outcome.status == "failed", "16,000 tokens at the highest_price price are more than that"
        outcome = await swarm(sim, provider="vllm")
        assert outcome.status == "completed"
        assert outcome.cost_usd is None
        assert outcome.usage is not None
        assert outcome.usage.total_tokens


# ── steps, tool calls, tokens, time ───────────────────────────────────────────────────────────────────────────────


async def test_the_main_agent_concludes_at_its_last_step(sim: Simulator) -> None:
    sim.play(reply({"system": CONCLUDE}, content="What I have."), leading(*A), leading(*A, turn=1), leading(*A, turn=2))
    outcome = await swarm(sim, max_steps=3)
    assert outcome.status == "partial"
    assert outcome.answer == "What I have."
    assert outcome.swarm is not None
    assert outcome.swarm["steps"] == 3
    assert outcome.error is not None
    assert (outcome.error.code, "max_steps" in outcome.error.fix) == ("budget_exceeded", True)
    assert len(agents(outcome)) == 2
    last = chats(sim, MAIN_AGENT)[-1]
    assert last.body is not None
    assert last.body["tool_choice"] == "none"
    assert "the last of your 3 steps" in messages(last)[-1]["content"]


async def test_more_steps_than_the_paper_has_are_lowered_and_reported(sim: Simulator) -> None:
    outcome = await swarm(sim, max_steps=40, max_agent_steps=1_000)
    found = {entry.field: (entry.rule, entry.asked, entry.sent) for entry in outcome.policy}
    assert found["max_steps"] == ("swarm-steps", 40, 15)
    assert found["max_agent_steps"] == ("swarm-steps", 1_000, 100)


async def test_more_steps_are_refused_under_strict_before_anything_is_paid_for(sim: Simulator) -> None:
    outcome = await swarm(sim, max_steps=40, variables={"KIMI_POLICY": "strict"})
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code, outcome.error.rule) == ("failed", "policy_refused", "swarm-steps")
    assert not chats(sim)


async def test_no_agent_ever_makes_more_steps_than_it_may(sim: Simulator) -> None:
    endless = [reply({"system": MAIN_AGENT, "turns": turn}, tool_calls=[calling("assign_task", {}, turn=turn)])
               for turn in range(40)]  # fmt: skip
    sim.play(*endless)
    outcome = await swarm(sim)
    assert outcome.swarm is not None
    assert outcome.swarm["steps"] == 15
    assert len(chats(sim)) == 15


async def test_tool_calls_of_all_agents_together_are_counted(sim: Simulator) -> None:
    six = [calling("search", {"query": str(number)}, number) for number in range(6)]
    sim.play(
        reply({"text": "Look at A.", "system": CONCLUDE}, content="Four of six."),
        leading(*A),
        reply({"text": "Look at A.", "turns": 0}, tool_calls=six),
        reply({"system": CONCLUDE}, content="What I have."),
    )
    tools = Tools()
    outcome = await swarm(sim, tools=tools, limits=SwarmLimits(tool_calls=4))
    assert len(tools.calls) == 4
    assert agents(outcome)[0]["tool_calls"] == 4
    assert statuses(outcome) == ["partial"]
    assert outcome.status == "partial"
    assert outcome.error is not None
    assert "4 tool calls" in outcome.error.message
    results = [message["content"] for message in messages(chats(sim, "Look at A.")[-1]) if message["role"] == "tool"]
    assert sum("did not run" in text for text in results) == 2


async def test_at_the_end_of_its_tokens_a_swarm_concludes(sim: Simulator) -> None:
    sim.play(leading(*A), reply({"system": CONCLUDE}, content="What I have."))
    outcome = await swarm(sim, limits=SwarmLimits(tokens=300))
    assert (outcome.status, outcome.answer) == ("partial", "What I have.")
    assert outcome.error is not None
    assert "300 tokens" in outcome.error.message


async def test_at_the_end_of_its_time_a_swarm_concludes(sim: Simulator) -> None:
    sim.play(reply({"system": CONCLUDE}, content="What I have."))
    outcome = await swarm(sim, limits=SwarmLimits(seconds=0.0))
    assert (outcome.status, outcome.answer) == ("partial", "What I have.")
