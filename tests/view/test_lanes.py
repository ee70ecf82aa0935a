"""Lanes and bars of a run, and what its file has of them."""

from __future__ import annotations

import json
from dataclasses import replace

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs.store.records import StepRecord, Used
from kimi_mcp.view.documents import still_document
from kimi_mcp.view.lanes import Lanes, trace
from kimi_mcp.view.model import INLINE_CHARS, TASK_CHARS, run_view
from tests.view.recorded import HOSTILE, START, STEPS, request, run, tool


def test_the_critical_path_is_the_main_agent_and_the_last_of_each_stage() -> None:
    laid = trace(run(), STEPS)
    assert {lane.id for lane in laid.lanes if lane.critical} == {"main", "agent-2"}


def test_a_bar_begins_when_its_request_was_sent_not_when_it_began_to_wait() -> None:
    bar = trace(run(), STEPS).lanes[0].bars[0]
    assert (bar.start_s, bar.waited_s, bar.end_s) == (0.5, 0.5, 4.0)


def test_a_step_that_never_ended_has_no_end() -> None:
    laid = trace(run(), [*STEPS[:2], request("agent-2", 1, 6, None)])
    bar = laid.lanes[2].bars[0]
    assert (bar.start_s, bar.end_s, bar.state) == (6.0, None, "unfinished")


def test_an_agent_that_still_runs_is_what_its_stage_waits_for() -> None:
    running = run(ended_at=None, outcome=Outcome(status="running"))
    laid = trace(running, [*STEPS[:5], request("agent-1", 2, 9, None)])
    assert {lane.id for lane in laid.lanes if lane.critical} == {"main", "agent-1"}


def test_the_sums_of_a_lane_are_unknown_where_one_of_them_is() -> None:
    lanes = {lane.id: lane for lane in trace(run(), STEPS).lanes}
    assert (lanes["agent-1"].tokens, lanes["agent-1"].cost_usd) == (10, 0.25)
    assert (lanes["agent-2"].tokens, lanes["agent-2"].cost_usd) == (None, None)


def test_lanes_that_grow_step_by_step_are_those_of_all_steps_at_once() -> None:
    lanes = Lanes(START, texts=True)
    for step in STEPS:
        begun = replace(step, result=None, ended_at=None)
        for same, state in ((begun, "unfinished"), (step, "done")):
            before = len(lanes.changes)
            lanes.add([same])
            changed = [bar for bars in lanes.changed_since(before).values() for bar in bars]
            assert [(bar.key, bar.state.replace("failed", "done")) for bar in changed] == [(step.key, state)]
            lanes.add([same])
            assert len(lanes.changes) == before + 1
    assert lanes.laid(run()) == trace(run(), STEPS)


def test_what_steps_have_used_is_what_limits_count() -> None:
    steps = [
        request("main", 1, 0, 4, counted_usd=0.75, counted_tokens=30),
        request("agent-1", 1, 5, 8, counted_usd=0.25, counted_tokens=12),
        tool("agent-1", 1, 9, 10, ran=True, cost_usd=0.5),
        tool("agent-1", 2, 9, 10, ran=False, cost_usd=0.0),
        request("agent-2", 1, 5, None),
    ]
    assert trace(run(), steps).used == Used(usd=1.5, tokens=42, tool_calls=1)


def test_agents_are_in_the_order_of_their_numbers() -> None:
    steps = [request(name, 1, 0, 1) for name in ("agent-10", "agent-2", "main")]
    assert [lane.id for lane in trace(run(), steps).lanes] == ["main", "agent-2", "agent-10"]


def test_a_long_task_is_cut_beside_its_lane_which_says_so() -> None:
    step = request("main", 1, 0, 4)
    step = replace(step, description={**step.description, "task": "x" * (TASK_CHARS + 1)})
    lane = run_view(run(), trace(run(), [step]))["lanes"][0]
    assert (len(lane["task"]), lane["cut"]) == (TASK_CHARS, {"task": TASK_CHARS + 1})


def test_the_tasks_of_one_sub_agent_have_lanes_that_can_be_distinguished() -> None:
    def named(agent: str, name: str, start: float) -> StepRecord:
        step = request(agent, 1, start, start + 3, answer="done")
        return replace(step, description={**step.description, "name": name})

    steps = [STEPS[0], named("agent-1", "reader", 5), named("agent-2", "critic", 5), named("agent-3", "reader", 6)]
    labels = [lane.label for lane in trace(run(), steps).lanes]
    assert labels == ["main", "reader · task 1", "critic", "reader · task 2"]


def test_the_file_of_a_run_has_the_texts_of_its_steps() -> None:
    view = run_view(run(), trace(run(), STEPS), inline=True)
    main, _, second = view["lanes"]
    assert main["steps"][1]["reasoning"] == f"Weighing {HOSTILE}"
    assert second["steps"][1]["arguments"] == f'{{"q": "{HOSTILE}"}}'
    assert second["steps"][1]["result"] == f"found {HOSTILE}"
    assert "reasoning" not in run_view(run(), trace(run(), STEPS))["lanes"][0]["steps"][1]
    assert "<script>alert" not in still_document(view)


def test_a_long_text_of_a_step_is_cut_in_a_file_which_says_so() -> None:
    steps = [request("main", 1, 0, 4, answer="x" * (INLINE_CHARS + 1))]
    step = run_view(run(), trace(run(), steps), inline=True)["lanes"][0]["steps"][0]
    assert (len(step["result"]), step["cut"]) == (INLINE_CHARS, {"result": INLINE_CHARS + 1})


def test_the_file_of_a_run_of_ten_thousand_steps_stays_small_enough_to_open() -> None:
    steps = [request("main", number, number, number + 1, answer="x" * 2_000) for number in range(10_000)]
    view = run_view(run(), trace(run(), steps), inline=True)
    assert len(json.dumps(view)) < 15_000_000
    assert len(view["lanes"][0]["steps"]) == len(steps)
