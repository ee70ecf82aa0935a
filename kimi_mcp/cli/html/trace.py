"""A run's record and its steps become lanes and bars: who did what, from when to when, and what all waited for. Pure.

A stage is a step of the main agent and the sub-agents that it set to work; of each stage the sub-agent that ended last
is on the critical path, with every step of the main agent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kimi_mcp.runs.store.records import RunRecord, StepRecord

MAIN = "main"
"""The id of the main agent's lane."""

BarKind = Literal["request", "tool"]
"""What a bar stands for: an upstream request, or a call of a tool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One step on its lane."""

    key: str
    """The step's key, unique within the run."""
    kind: BarKind
    """What it stands for."""
    label: str
    """What it is called: ``step 2``, or the tool's name."""
    start_s: float
    """Seconds since the run began."""
    end_s: float
    """Seconds since the run began; where it did not end, the end of the run."""
    state: Literal["done", "failed", "unfinished"]
    """How it ended."""
    asked: str
    """What was asked for: a tool's arguments; empty for a request."""
    reasoning: str
    """What was thought; empty for a tool."""
    brought: str
    """The answer, or what the tool brought."""
    calls: tuple[str, ...]
    """Names of the tools that the answer calls."""
    tokens: int | None
    """Tokens, prompt and completion together; None: not known."""
    cost_usd: float | None
    """US dollars; None: not known."""
    why: str
    """Why it failed, or what limit it met; empty where all went well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One agent."""

    id: str
    """``main``, ``agent-1`` and so on."""
    name: str
    """What it is called."""
    number: int | None
    """Which of the tasks that an agent of that name was given, from 1; None: it was given one."""
    status: str
    """How it ended."""
    system: str
    """Its system prompt."""
    task: str
    """What it was asked."""
    bars: tuple[Bar, ...]
    """Its steps, in the order in which they began."""
    critical: bool
    """Whether all others waited for it."""

    @property
    def label(self) -> str:
        """What tells it apart for people: its name, and which of its tasks this is."""
        return self.name + self.which

    @property
    def which(self) -> str:
        """Which of its tasks this is, to be written behind the name; empty where it had one."""
        return "" if self.number is None else f" · task {self.number}"

    @property
    def requests(self) -> tuple[Bar, ...]:
        """Its upstream requests."""
        return tuple(bar for bar in self.bars if bar.kind == "request")

    @property
    def tokens(self) -> int | None:
        """Tokens of all its requests; None where one is not known."""
        counts = [bar.tokens for bar in self.requests]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    @property
    def cost_usd(self) -> float | None:
        """US dollars of all its requests; None where one is not known."""
        costs = [bar.cost_usd for bar in self.requests]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    @property
    def answer(self) -> str:
        """What it brought: the answer of its last request."""
        return self.requests[-1].brought if self.requests else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A run, laid out."""

    record: RunRecord
    """The run."""
    lanes: tuple[Lane, ...]
    """The main agent first, then the others in the order of their ids."""
    seconds: float
    """From the run's beginning to its end, or to the end of its last step."""


@dataclass(slots=True, kw_only=True)
class _GrowingLane:
    """A lane while its steps are read."""

    name: str = ""
    system: str = ""
    task: str = ""
    bars: list[Bar] = field(default_factory=list[Bar])


def trace(record: RunRecord, steps: Sequence[StepRecord]) -> Trace:
    """The lanes of a run; one that had no steps has one lane, with its one request."""
    ends = [step.ended_at for step in steps if step.ended_at is not None]
    ended = record.ended_at or max(ends, default=record.started_at + record.outcome.timing.total_s)
    seconds = max(ended - record.started_at, 0.001)
    if not steps:
        return Trace(record=record, lanes=(_alone(record, seconds),), seconds=seconds)
    growing: dict[str, _GrowingLane] = {}
    for step in steps:
        info = step.told
        lane = growing.setdefault(str(info.get("agent", MAIN)), _GrowingLane())
        lane.name = lane.name or str(info.get("name", ""))
        lane.system = lane.system or str(info.get("system", ""))
        lane.task = lane.task or str(info.get("task", ""))
        lane.bars.append(_bar(step, record.started_at, seconds))
    statuses = _statuses(record)
    ordered = sorted(growing.items(), key=lambda one: _place(one[0]))
    numbers = _numbers([lane.name or agent for agent, lane in ordered])
    lanes = tuple(
        Lane(
            id=agent,
            name=lane.name or agent,
            number=number,
            status=statuses.get(agent, "running" if record.running else record.outcome.status),
            system=lane.system,
            task=lane.task,
            bars=tuple(lane.bars),
            critical=False,
        )
        for (agent, lane), number in zip(ordered, numbers, strict=True)
    )
    slowest = _slowest(lanes)
    marked = tuple(replace(lane, critical=lane.id == MAIN or lane.id in slowest) for lane in lanes)
    return Trace(record=record, lanes=marked, seconds=seconds)


def _statuses(record: RunRecord) -> dict[str, str]:
    agents: Sequence[Mapping[str, Any]] = record.outcome.swarm["agents"] if record.outcome.swarm else ()
    return {str(agent["id"]): str(agent["status"]) for agent in agents}


def _numbers(names: Sequence[str]) -> list[int | None]:
    """Which of its name each one is, from 1; None where there is no other of that name."""
    count, seen = Counter(names), Counter[str]()
    numbers: list[int | None] = []
    for name in names:
        seen[name] += 1
        numbers.append(seen[name] if count[name] > 1 else None)
    return numbers


def _place(agent: str) -> tuple[int, int, str]:
    number = agent.rpartition("-")[2]
    return (0, 0, "") if agent == MAIN else (1, int(number) if number.isdecimal() else 0, agent)


def _slowest(lanes: Sequence[Lane]) -> set[str]:
    """Of each stage the sub-agent that ended last."""
    main = next((lane for lane in lanes if lane.id == MAIN), None)
    turns = [bar.end_s for bar in main.bars] if main else []
    last: dict[int, tuple[float, str]] = {}
    for lane in lanes:
        if lane.id == MAIN or not lane.bars:
            continue
        stage = sum(end <= lane.bars[0].start_s for end in turns)
        last[stage] = max(last.get(stage, (-1.0, "")), (max(bar.end_s for bar in lane.bars), lane.id))
    return {agent for _, agent in last.values()}


def _bar(step: StepRecord, started_at: float, seconds: float) -> Bar:
    info, result = step.told, step.result or {}
    kind: BarKind = "tool" if info.get("kind") == "tool" else "request"
    error: Mapping[str, Any] = result.get("error") or {}
    failed = bool(error) or bool(result.get("is_error"))
    start = step.began_at - started_at
    took = result.get("took_s")
    end = seconds if step.ended_at is None else step.ended_at - started_at
    if step.ended_at is not None and isinstance(took, int | float):
        start = max(start, end - took)  # what comes before is waiting for its turn
    usage: Mapping[str, Any] = result.get("usage") or {}
    calls: Sequence[Mapping[str, Any]] = result.get("tool_calls") or ()
    limit = result.get("limit")
    return Bar(
        key=step.key,
        kind=kind,
        label=str(info.get("tool")) if kind == "tool" else f"step {info.get('step', '?')}",
        start_s=max(0.0, start),
        end_s=max(start, end),
        state="unfinished" if step.result is None else "failed" if failed else "done",
        asked=str(info.get("arguments", "")),
        reasoning=str(result.get("reasoning") or ""),
        brought=str(result.get("text" if kind == "tool" else "answer") or ""),
        calls=tuple(str(call.get("name")) for call in calls),
        tokens=usage.get("total_tokens"),
        cost_usd=result.get("cost_usd") if kind == "request" else None,
        why=f"{error['code']}: {error['message']}" if error else f"had to conclude: {limit}" if limit else "",
    )


def _alone(record: RunRecord, seconds: float) -> Lane:
    outcome = record.outcome
    bar = Bar(
        key=MAIN,
        kind="request",
        label=record.tool,
        start_s=0.0,
        end_s=seconds,
        state="unfinished" if record.running else "done" if outcome.error is None else "failed",
        asked="",
        reasoning=outcome.reasoning or "",
        brought=outcome.answer,
        calls=(),
        tokens=outcome.usage.total_tokens if outcome.usage else None,
        cost_usd=outcome.cost_usd,
        why=f"{outcome.error.code}: {outcome.error.message}" if outcome.error else "",
    )
    return Lane(
        id=MAIN,
        name=record.tool,
        number=None,
        status=outcome.status,
        system="",
        task=record.prompt_head,
        bars=(bar,),
        critical=True,
    )
