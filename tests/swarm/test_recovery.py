"""A swarm whose server died and that is ended: its result tells what its steps brought and used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.core.callers import LOCAL
from kimi_mcp.core.errors import Cancelled
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs import Run
from kimi_mcp.runs.store.records import RunRecord, StepRecord
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm import recovered_outcome, run_swarm
from kimi_mcp.swarm.call import SwarmCall
from tests.swarm.memory_steps import MemorySteps
from tests.swarm.scenarios import Dying, Tools, agents, chats, pipeline_and_runs, quick, reply, statuses, swarm
from tests.swarm.test_replay import play

START = 1_795_510_000.0
CANCELLED = Cancelled("The run was cancelled.", fix="Call again.")


def recorded(steps: MemorySteps) -> list[StepRecord]:
    """The steps as the store gives them back, begun a second after each other."""
    return [
        StepRecord(
            key=key,
            description=about,
            result=steps.results.get(key),
            began_at=START + number,
            ended_at=START + number + 1 if key in steps.results else None,
        )
        for number, (key, about) in enumerate(steps.descriptions.items())
    ]


def left(run: Run, before: Outcome) -> RunRecord:
    """The record of a swarm whose server has died."""
    assert run.task is not None
    return RunRecord(
        id=run.id,
        caller="local",
        host=None,
        owner="srv_1",
        tool="kimi_swarm",
        prompt_head="Compare",
        started_at=START,
        ended_at=None,
        conversation_id=None,
        follows=None,
        model_id=None,
        request={"task": run.task},
        resumable=True,
        outcome=replace(before, status="cancelled", error=CANCELLED, answer="", usage=None, cost_usd=None, swarm=None),
        orphaned=True,
    )


async def test_of_a_swarm_that_had_finished_it_tells_the_same(sim: Simulator) -> None:
    play(sim)
    steps, run = MemorySteps(), Run(caller="a test", tool="kimi_swarm", prompt="p")
    whole = await swarm(sim, steps=steps, tools=Tools(), run=run)
    recovered = recovered_outcome(left(run, whole), recorded(steps))
    assert recovered.swarm == whole.swarm, "agents, steps, tool calls, critical steps and speed-up"
    assert (recovered.usage, recovered.cost_usd, recovered.policy) == (whole.usage, whole.cost_usd, whole.policy)
    assert recovered.timing.attempts == whole.timing.attempts
    assert recovered.timing.total_s == len(steps.descriptions), "until the last of its steps had ended"
    assert (recovered.status, recovered.answer) == ("partial", whole.answer)


@pytest.mark.soak
@pytest.mark.parametrize("event", range(9, 60, 5))
async def test_killed_anywhere_it_tells_what_its_finished_steps_had_used(sim: Simulator, event: int) -> None:
    play(sim)
    run = Run(caller="a test", tool="kimi_swarm", prompt="p")
    steps = Dying({}, event, run.cancel_soon)
    cut = await swarm(sim, steps=steps, tools=Tools(), run=run)
    recovered = recovered_outcome(left(run, cut), recorded(steps))
    assert recovered.swarm is not None
    requests = {key: result for key, result in steps.results.items() if "tool" not in key}
    assert recovered.usage is not None
    assert recovered.usage.total_tokens == sum(result["usage"]["total_tokens"] for result in requests.values()
                                          if result["usage"])  # fmt: skip
    counted = recovered.swarm["steps"] + sum(agent["steps"] for agent in agents(recovered))
    assert counted == len(requests)
    assert "running" not in statuses(recovered)
    pairs = zip(agents(recovered), agents(cut), strict=False)
    assert [one["name"] for one, _ in pairs] == [agent["name"] for agent in agents(cut)][: len(agents(recovered))]


async def test_each_item_has_its_line_begun_or_not(sim: Simulator) -> None:
    items = tuple(f"city {number}" for number in range(12))
    sim.play(reply({"text": "city 3"}, status=401))
    run = Run(caller="a test", tool="kimi_swarm", prompt="p")
    steps = MemorySteps()
    whole = await swarm(sim, "Tell me about {{item}}.", items=items, steps=steps, run=run)
    kept = MemorySteps()
    kept.descriptions = {
        key: about for key, about in steps.descriptions.items() if about["agent"] in ("agent-3", "agent-4", "agent-11")
    }
    kept.results = {key: steps.results[key] for key in ("agent-4/step-1", "agent-11/step-1")}
    recovered = recovered_outcome(left(run, whole), recorded(kept))
    assert [agent["name"] for agent in agents(recovered)] == list(items)
    wanted = ["cancelled"] * 12
    wanted[3], wanted[10] = "failed", "completed"
    assert statuses(recovered) == wanted
    assert recovered.status == "partial"
    assert recovered.answer.startswith("agent-11 (city 10), completed:\n\n")
    assert recovered.error is not None
    assert (recovered.error.code, "agent-1 (city 0)" in recovered.error.message) == ("cancelled", True)


async def test_where_no_agent_had_finished_it_is_cancelled(sim: Simulator) -> None:
    run = Run(caller="a test", tool="kimi_swarm", prompt="p")
    steps = MemorySteps()
    whole = await swarm(sim, "Tell me about {{item}}.", items=("A", "B"), steps=steps, run=run)
    steps.results = {}
    recovered = recovered_outcome(left(run, whole), recorded(steps))
    assert (recovered.status, recovered.answer, statuses(recovered)) == ("cancelled", "", ["cancelled", "cancelled"])


async def test_what_another_version_wrote_keeps_nobody_from_ending_it(sim: Simulator) -> None:
    play(sim)
    steps, run = MemorySteps(), Run(caller="a test", tool="kimi_swarm", prompt="p")
    record = left(run, await swarm(sim, steps=steps, tools=Tools(), run=run))
    odd = [replace(step, result={"of": "a later version"}) for step in recorded(steps)]
    assert recovered_outcome(record, odd) == record.outcome
    later = replace(record, request={"task": {"kind": "of a later version"}})
    assert recovered_outcome(later, recorded(steps)) == record.outcome


@pytest.mark.parametrize(
    ("caller", "known", "reads"),
    [
        (LOCAL, {}, True),
        (LOCAL, {"first_provider": "simulator"}, False),
        (LOCAL, {"offered_roots": ()}, False),
        ("kimi-mcp#alice", {}, False),
    ],
    ids=["begun here", "begun elsewhere", "begun over HTTP", "of a principal"],
)
async def test_a_process_that_resumes_a_swarm_lends_it_no_folder_of_its_own(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: str, known: dict[str, Any], reads: bool
) -> None:
    (tmp_path / "notes.md").write_text("the notes")
    monkeypatch.chdir(tmp_path)
    call = SwarmCall(prompt="Tell me about {{item}}.", items=("notes.md", "Oslo"), **known)
    run = Run(caller=caller, tool="kimi_swarm", prompt=call.prompt)
    async with pipeline_and_runs(sim) as (pipeline, runs):
        runs.start(run, lambda run: run_swarm(call, run, pipeline, concurrency=quick()))
        await run.done.wait()
    sent = str([request.body for request in chats(sim)])
    assert ("files__read" in sent) is reads
    assert ("the notes" in sent) is (reads and not known)
