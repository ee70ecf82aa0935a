"""Turns a run's record and its steps into lanes and bars: who worked when, and what the run waited for. Pure.

A stage is a step of the main agent and the sub-agents that it started. The critical path is every step of the main
agent and, of each stage, the sub-agent that ended last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kimi_mcp.runs.store.records import RunRecord, StepRecord

MAIN = "main"
"""The id of the main agent's lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One step on its lane."""

    key: str
    kind: Literal["request", "tool"]
    label: str
    """``step 2``, or the tool's name."""
    start_s: float
    """Seconds since the run began."""
    end_s: float
    """Of an unfinished step the end of the run."""
    state: Literal["done", "failed", "unfinished"]
    arguments: str = ""
    reasoning: str
    result: str
    calls: tuple[str, ...] = ()
    tokens: int | None
    cost_usd: float | None
    why: str = ""
    """Why it failed, or which limit it reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One agent."""

    id: str
    """``main``, ``agent-1`` and so on."""
    name: str
    task_number: str = ""
    """Which of several tasks of agents of that name, to follow the name; empty where there is one."""
    status: str
    system: str = ""
    task: str
    bars: tuple[Bar, ...]
    critical: bool
    """Whether it is on the critical path."""

    @property
    def label(self) -> str:
        """Its name, and which of its tasks this is."""
        return self.name + self.task_number

    @property
    def requests(self) -> tuple[Bar, ...]:
        """Its upstream requests."""
        return tuple(bar for bar in self.bars if bar.kind == "request")

    @property
    def tokens(self) -> int | None:
        """Tokens of all its requests; None where one is unknown."""
        counts = [bar.tokens for bar in self.requests]
        return None if None in counts else sum(filter(None, counts))

    @property
    def cost_usd(self) -> float | None:
        """US dollars of all its requests; None where one is unknown."""
        costs = [bar.cost_usd for bar in self.requests]
        return None if None in costs else sum(filter(None, costs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A run as lanes."""

    lanes: tuple[Lane, ...]
    """The main agent first, then the others in the order of their ids."""
    seconds: float
    """From the run's beginning to its end, or to the end of its last step."""


def trace(record: RunRecord, steps: Sequence[StepRecord]) -> Trace:
    """The lanes of a run; a run without steps has one lane with one request."""
    ends = [step.ended_at for step in steps if step.ended_at is not None]
    ended = record.ended_at or max(ends, default=record.started_at + record.outcome.timing.total_s)
    seconds = max(ended - record.started_at, 0.001)
    if not steps:
        return Trace(lanes=(_single_lane(record, seconds),), seconds=seconds)
    grouped: dict[str, list[StepRecord]] = {}
    for step in sorted(steps, key=lambda step: _order(_agent(step))):
        grouped.setdefault(_agent(step), []).append(step)
    bars = {agent: tuple(_bar(step, record.started_at, seconds) for step in own) for agent, own in grouped.items()}
    names = [_first(own, "name") or agent for agent, own in grouped.items()]
    statuses = {each["id"]: each["status"] for each in record.outcome.swarm["agents"]} if record.outcome.swarm else {}
    critical = {MAIN, *_slowest(bars)}
    lanes = tuple(
        Lane(
            id=agent,
            name=names[at],
            task_number=f" · task {names[: at + 1].count(names[at])}" if names.count(names[at]) > 1 else "",
            status=statuses.get(agent, "running" if record.running else record.outcome.status),
            system=_first(own, "system"),
            task=_first(own, "task"),
            bars=bars[agent],
            critical=agent in critical,
        )
        for at, (agent, own) in enumerate(grouped.items())
    )
    return Trace(lanes=lanes, seconds=seconds)


def _agent(step: StepRecord) -> str:
    return str(step.description.get("agent", MAIN))


def _first(steps: Sequence[StepRecord], name: str) -> str:
    """The first value of that name in the steps' descriptions."""
    return next((str(step.description[name]) for step in steps if step.description.get(name)), "")


def _order(agent: str) -> tuple[int, int, str]:
    number = agent.rpartition("-")[2]
    return (0, 0, "") if agent == MAIN else (1, int(number) if number.isdecimal() else 0, agent)


def _slowest(bars: Mapping[str, Sequence[Bar]]) -> set[str]:
    """Of each stage the sub-agent that ended last."""
    turns = [bar.end_s for bar in bars.get(MAIN, ())]
    last: dict[int, tuple[float, str]] = {}
    for agent, own in bars.items():
        if agent != MAIN:
            stage = sum(end <= own[0].start_s for end in turns)
            last[stage] = max(last.get(stage, (-1.0, "")), (max(bar.end_s for bar in own), agent))
    return {agent for _, agent in last.values()}


def _bar(step: StepRecord, started_at: float, seconds: float) -> Bar:
    info, result = step.description, step.result or {}
    is_tool = info.get("kind") == "tool"
    error: Mapping[str, Any] = result.get("error") or {}
    failed = bool(error) or bool(result.get("is_error"))
    start, end = step.began_at - started_at, seconds
    if step.ended_at is not None:
        end = step.ended_at - started_at
        start = max(start, end - result.get("took_s", end))  # before that it waited for its turn
    usage: Mapping[str, Any] = result.get("usage") or {}
    limit = result.get("limit")
    return Bar(
        key=step.key,
        kind="tool" if is_tool else "request",
        label=str(info.get("tool")) if is_tool else f"step {info.get('step', '?')}",
        start_s=max(0.0, start),
        end_s=max(start, end),
        state="unfinished" if step.result is None else "failed" if failed else "done",
        arguments=str(info.get("arguments", "")),
        reasoning=result.get("reasoning") or "",
        result=str(result.get("text" if is_tool else "answer") or ""),
        calls=tuple(str(call.get("name")) for call in result.get("tool_calls") or ()),
        tokens=usage.get("total_tokens"),
        cost_usd=None if is_tool else result.get("cost_usd"),
        why=f"{error['code']}: {error['message']}" if error else f"had to conclude: {limit}" if limit else "",
    )


def _single_lane(record: RunRecord, seconds: float) -> Lane:
    outcome = record.outcome
    bar = Bar(
        key=MAIN,
        kind="request",
        label=record.tool,
        start_s=0.0,
        end_s=seconds,
        state="unfinished" if record.running else "done" if outcome.error is None else "failed",
        reasoning=outcome.reasoning or "",
        result=outcome.answer,
        tokens=outcome.usage.total_tokens if outcome.usage else None,
        cost_usd=outcome.cost_usd,
        why=f"{outcome.error.code}: {outcome.error.message}" if outcome.error else "",
    )
    return Lane(id=MAIN, name=record.tool, status=outcome.status, task=record.prompt_head, bars=(bar,), critical=True)
