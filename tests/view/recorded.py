"""Records of a swarm, as a store has them, with hostile texts where others write."""

from __future__ import annotations

from typing import Any

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
    """A swarm of two agents that took 20 s."""
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
    """A request of an agent, in seconds since the run began; one without an end runs."""
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
    """A tool call of an agent."""
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
