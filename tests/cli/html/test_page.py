"""The page of a run: what is on it, what it says of whom, and that nothing in it can act or be fetched."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from kimi_mcp.cli.html import page
from kimi_mcp.cli.html.trace import trace
from kimi_mcp.core.errors import UpstreamTimeout
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.types import Timing, Usage
from kimi_mcp.runs.store.records import RunRecord, StepRecord

START = 1_795_510_000.0
HOSTILE = "<script>alert('x')</script><img src=https://example.org/x.png onerror=y()>&\"'\u2028"
SWARM = {
    "agents": [
        {"id": "agent-1", "name": "north", "status": "completed"},
        {"id": "agent-2", "name": HOSTILE, "status": "failed"},
    ],
    "steps": 2,
    "critical_steps": 4,
    "speedup": 1.7,
}


def run(**changed: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "id": "run_1",
        "caller": "local",
        "host": None,
        "owner": "srv_1",
        "tool": "kimi_swarm",
        "prompt_head": "Compare them",
        "started_at": START,
        "ended_at": START + 20,
        "conversation_id": None,
        "follows": None,
        "request": {"task": {"prompt": f"Compare them {HOSTILE}"}},
        "model_id": "kimi-k2.6",
        "resumable": True,
        "outcome": Outcome(
            status="completed",
            answer=f"The answer {HOSTILE}",
            model_answered="kimi-k2.6",
            provider="moonshot",
            usage=Usage(total_tokens=1_234),
            timing=Timing(total_s=20),
            swarm=SWARM,
        ),
    }
    return RunRecord(**{**fields, **changed})


def request(agent: str, number: int, start: float, end: float | None, **result: Any) -> StepRecord:
    info: dict[str, Any] = {"kind": "request", "agent": agent, "name": agent, "step": number}
    if number == 1:
        info |= {"system": f"You are {agent}.", "task": f"The task of {agent} {HOSTILE}"}
    took = None if end is None else end - start - 0.5
    return StepRecord(
        key=f"{agent}/step-{number}",
        description=info,
        result=None if end is None else {"answer": "", "took_s": took, **result},
        began_at=START + start,
        ended_at=None if end is None else START + end,
    )


def tool(agent: str, number: int, start: float, end: float, **result: Any) -> StepRecord:
    return StepRecord(
        key=f"{agent}/step-{number}/tool-1",
        description={"kind": "tool", "agent": agent, "tool": "search", "arguments": f'{{"q": "{HOSTILE}"}}'},
        result={"text": f"found {HOSTILE}", "is_error": False, "took_s": end - start, **result},
        began_at=START + start,
        ended_at=START + end,
    )


STEPS = [
    request("main", 1, 0, 4, tool_calls=[{"name": "assign_task"}], usage={"total_tokens": 100}, cost_usd=0.5),
    request("agent-1", 1, 5, 8, answer="north is done", usage={"total_tokens": 10}, cost_usd=0.25),
    request("agent-2", 1, 5, 9, tool_calls=[{"name": "search"}], usage={"total_tokens": 20}, cost_usd=0.25),
    tool("agent-2", 1, 9, 10),
    request("agent-2", 2, 10, 14, error={"code": "upstream_timeout", "message": f"silent {HOSTILE}", "fix": "wait"}),
    request("main", 2, 15, 20, answer="All in all", reasoning=f"Weighing {HOSTILE}"),
]


class Read(HTMLParser):
    """What stands on a page: its elements, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def having(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]


def test_the_page_has_a_lane_an_agent_and_a_bar_a_step() -> None:
    read = Read(page(run(), STEPS))
    assert [lane["id"] for lane in read.having("lane")] == ["main", "agent-1", "agent-2"]
    assert len(read.having("bar")) == len(STEPS)
    assert len([bar for bar in read.having("bar") if "tool" in (bar["class"] or "")]) == 1
    assert len([bar for bar in read.having("bar") if "failed" in (bar["class"] or "")]) == 1


def test_task_reasoning_answer_tokens_and_cost_can_be_read() -> None:
    text = Read(page(run(), STEPS)).text
    for words in ("The task of agent-1", "You are agent-1.", "north is done", "All in all", "Weighing", "found"):
        assert words in text
    for fact in ("1,234", "1.7 ×", "0.2500 USD", "20.0 s", "moonshot", "upstream_timeout: silent"):
        assert fact in text


def test_nothing_that_a_model_or_a_tool_says_becomes_part_of_the_page() -> None:
    text = page(run(), STEPS)
    read = Read(text)
    tags = {tag for tag, _ in read.elements}
    assert not tags & {"script", "img", "link", "iframe", "a", "object", "form"}
    assert not [
        name for _, attrs in read.elements for name in attrs if name.startswith("on") or name in ("src", "href")
    ]
    assert HOSTILE in read.text
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import", text)


def test_the_last_mark_of_the_axis_ends_within_the_page() -> None:
    marks = Read(page(run(), STEPS)).elements
    ends = {attrs["style"]: attrs.get("class") for _, attrs in marks if "style" in attrs}
    assert ends["left: 100.000%"] == "end", "its text stands before it, not half of it behind the edge"
    assert ends["left: 50.000%"] is None


@pytest.mark.parametrize(
    ("seconds", "marks"),
    [
        (20, ["0 s", "5 s", "10 s", "15 s", "20 s"]),
        (170, ["0 min", "1 min", "2 min"]),
        (1_200, ["0 min", "5 min", "10 min", "15 min", "20 min"]),
        (14_400, ["0 min", "30 min", "60 min", "90 min", "120 min", "150 min", "180 min", "210 min", "240 min"]),
        (100_000, ["0 min", "240 min", "480 min", "720 min", "960 min", "1200 min", "1440 min"]),
    ],
)
def test_the_axis_counts_in_round_numbers(seconds: float, marks: list[str]) -> None:
    text = page(run(ended_at=START + seconds), STEPS)
    ticks = text[text.index("<div class='ticks'>") : text.index("<details")]
    assert re.findall(r">([^<>\n]+)<", ticks) == marks


def test_the_critical_path_is_the_main_agent_and_the_last_of_each_stage() -> None:
    laid = trace(run(), STEPS)
    assert {lane.id for lane in laid.lanes if lane.critical} == {"main", "agent-2"}


def test_a_bar_begins_when_its_request_was_sent_not_when_it_began_to_wait() -> None:
    bar = trace(run(), STEPS).lanes[0].bars[0]
    assert (bar.start_s, bar.end_s) == (0.5, 4.0)


def test_a_step_that_never_ended_lasts_to_the_end_of_the_run() -> None:
    laid = trace(run(), [*STEPS[:2], request("agent-2", 1, 6, None)])
    bar = laid.lanes[2].bars[0]
    assert (bar.end_s, bar.state) == (20.0, "unfinished")


def test_a_run_without_steps_has_one_lane_with_its_answer() -> None:
    outcome = Outcome(
        status="failed",
        answer="Half an",
        reasoning="Hm.",
        error=UpstreamTimeout("moonshot fell silent.", fix="Call again."),
        timing=Timing(total_s=3),
    )
    read = Read(page(run(tool="kimi_think", request={"turns": []}, outcome=outcome), []))
    assert len(read.having("lane")) == 1
    for words in ("Half an", "Hm.", "moonshot fell silent.", "Compare them"):
        assert words in read.text


def test_an_unknown_cost_is_shown_as_unknown() -> None:
    steps = [request("main", 1, 0, 4, answer="x", usage={"total_tokens": 3}, cost_usd=None)]
    assert "cost unknown" in Read(page(run(), steps)).text


def test_the_tasks_of_one_sub_agent_have_lanes_that_can_be_distinguished() -> None:
    def named(agent: str, name: str, start: float) -> StepRecord:
        step = request(agent, 1, start, start + 3, answer="done")
        return replace(step, description={**step.description, "name": name})

    steps = [STEPS[0], named("agent-1", "reader", 5), named("agent-2", "critic", 5), named("agent-3", "reader", 6)]
    labels = [lane.label for lane in trace(run(), steps).lanes]
    assert labels == ["main", "reader · task 1", "critic", "reader · task 2"]
    read = Read(page(run(), steps))
    lanes = read.having("lane")
    assert [lane["id"] for lane in lanes] == ["main", "agent-1", "agent-2", "agent-3"], "a link names one of them"
    titles = [attrs["title"] or "" for tag, attrs in read.elements if tag == "b" and "title" in attrs]
    assert [title.split(": ")[0] for title in titles] == [
        "main", "agent-1, reader · task 1", "agent-2, critic", "agent-3, reader · task 2",
    ]  # fmt: skip
    assert titles[3].endswith(f"The task of agent-3 {' '.join(HOSTILE.split())}")
    for words in ("reader · task 1", "reader · task 2", "agent-1 · ", "agent-3 · "):
        assert words in read.text
