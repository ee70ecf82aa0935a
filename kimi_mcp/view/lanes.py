"""Turns a run's record and its steps into lanes and bars: who worked when, and what the run waited for. Pure.

A stage is a step of the main agent and the sub-agents that it started. The critical path is every step of the main
agent and, of each stage, the sub-agent that ended last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

from kimi_mcp.runs.store.records import RunRecord, StepRecord, Used

MAIN = "main"
"""The id of the main agent's lane."""


@dataclass(slots=True, kw_only=True)
class Bar:
    """One step on its lane. Nobody changes it; it is not frozen, since that takes long where there are thousands."""

    key: str
    kind: Literal["request", "tool"]
    label: str
    """``step 2``, or the tool's name."""
    start_s: float
    """Seconds since the run began."""
    waited_s: float = 0.0
    """Seconds before that in which it waited for its turn; of an unfinished one they are not known."""
    end_s: float | None
    """None: not finished."""
    state: Literal["done", "failed", "unfinished"]
    arguments: str = ""
    reasoning: str = ""
    result: str = ""
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
    tokens: int | None
    """Tokens of all its requests; None where one is unknown."""
    cost_usd: float | None
    """US dollars of all its requests; None where one is unknown."""

    @property
    def label(self) -> str:
        """Its name, and which of its tasks this is."""
        return self.name + self.task_number

    @property
    def requests(self) -> tuple[Bar, ...]:
        """Its upstream requests."""
        return tuple(bar for bar in self.bars if bar.kind == "request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A run as lanes."""

    lanes: tuple[Lane, ...]
    """The main agent first, then the others in the order of their ids."""
    seconds: float
    """From the run's beginning to its end, or to the end of its last step."""
    used: Used
    """What its steps have used."""
    main_steps: int = 0
    """Requests of the main agent that were made, or run."""


def trace(record: RunRecord, steps: Iterable[StepRecord]) -> Trace:
    """The lanes of a run, with the texts of its steps."""
    lanes = Lanes(record.started_at, texts=True)
    lanes.add(steps)
    return lanes.laid(record)


class _GrowingLane:
    """What is known of an agent."""

    __slots__ = ("bars", "begin_s", "cost_usd", "end_s", "id", "name", "running", "system", "task", "tokens")

    def __init__(self, id: str) -> None:
        self.id, self.name, self.system, self.task = id, "", "", ""
        self.bars: dict[str, Bar] = {}
        self.running: set[str] = set()
        self.begin_s, self.end_s = inf, 0.0
        self.tokens: int | None = 0
        self.cost_usd: float | None = 0.0

    def describe(self, info: Mapping[str, Any]) -> None:
        """What a step says of its agent: its first one all of it."""
        for name in ("name", "system", "task"):
            if not getattr(self, name):
                setattr(self, name, str(info.get(name) or ""))

    def add(self, bar: Bar) -> None:
        """Add a bar that is new, or another than before."""
        if not self.bars:
            self.begin_s = bar.start_s
        self.bars[bar.key] = bar
        if bar.end_s is None:
            self.running.add(bar.key)
            return
        self.running.discard(bar.key)
        self.end_s = max(self.end_s, bar.end_s)
        if bar.kind == "request":
            self.tokens = None if self.tokens is None or bar.tokens is None else self.tokens + bar.tokens
            self.cost_usd = None if self.cost_usd is None or bar.cost_usd is None else self.cost_usd + bar.cost_usd


class Lanes:
    """The lanes of a run, as its steps come. Mutable.

    ``texts``: whether the long texts of steps are kept, which may be many megabytes.
    """

    def __init__(self, started_at: float, *, texts: bool = False) -> None:
        self._started_at, self._texts = started_at, texts
        self._lanes: dict[str, _GrowingLane] = {}
        self._latest_s = 0.0
        self._begun, self._finished = set[str](), set[str]()
        self.changes: list[tuple[str, str]] = []
        """Of each bar that was new, or another than before, the agent's id and its key, in the order they came."""
        self._usd, self._tokens, self._tool_calls = 0.0, 0, 0

    @property
    def latest_at(self) -> float:
        """When the last finished step ended, in seconds since 1970."""
        return self._started_at + self._latest_s

    def is_finished(self, key: str) -> bool:
        """Whether a step is known with its end."""
        return key in self._finished

    def has(self, key: str) -> bool:
        """Whether a step is known."""
        return key in self._begun

    def is_requesting(self, agent: str) -> bool:
        """Whether a request of an agent has begun and not ended."""
        lane = self._lanes.get(agent)
        return lane is not None and any(lane.bars[key].kind == "request" for key in lane.running)

    def add(self, steps: Iterable[StepRecord]) -> None:
        """Add steps that have begun or ended."""
        for step in steps:
            if step.key in self._finished:
                continue  # what is recorded does not change any more
            info, bar = step.description, step_bar(step, self._started_at, texts=self._texts)
            name = str(info.get("agent", MAIN))
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = _GrowingLane(name)
            lane.describe(info)
            if lane.bars.get(step.key) == bar:
                continue
            lane.add(bar)
            self.changes.append((name, step.key))
            self._begun.add(step.key)
            if bar.end_s is not None:
                self._finished.add(step.key)
                self._latest_s = max(self._latest_s, bar.end_s)
                self._count(step)

    @property
    def used(self) -> Used:
        """What finished steps have used, as limits count it."""
        return Used(usd=self._usd, tokens=self._tokens, tool_calls=self._tool_calls)

    def _count(self, step: StepRecord) -> None:
        result = step.result or {}
        if step.description.get("kind") == "tool":
            self._usd += result.get("cost_usd") or 0.0
            self._tool_calls += bool(result.get("ran"))
        else:
            self._usd += result.get("counted_usd") or 0.0
            self._tokens += result.get("counted_tokens") or 0

    def changed_since(self, count: int) -> dict[str, list[Bar]]:
        """The bars that are others since there were so many changes, by the agent's id."""
        found: dict[str, dict[str, Bar]] = {}
        for name, key in self.changes[count:]:
            found.setdefault(name, {})[key] = self._lanes[name].bars[key]
        return {name: list(bars.values()) for name, bars in found.items()}

    def laid(self, record: RunRecord, *, bars: bool = True) -> Trace:
        """All lanes; ``bars``: with their bars.

        A run without steps has one lane with one request, unless it is one whose steps are still to come.
        """
        total_s = record.outcome.timing.total_s
        seconds = max(total_s, self._latest_s) if record.ended_at is None else record.ended_at - record.started_at
        seconds = max(seconds, 0.001)
        if not self._lanes:
            single = () if record.running and record.resumable else (_single_lane(record, seconds, texts=self._texts),)
            return Trace(lanes=single, seconds=seconds, used=self.used)
        growing = sorted(self._lanes.values(), key=lambda lane: _order(lane.id))
        swarm, other = record.outcome.swarm, "running" if record.running else record.outcome.status
        statuses = {each["id"]: each["status"] for each in swarm["agents"]} if swarm else {}
        names = [lane.name or lane.id for lane in growing]
        numbers, critical = _task_numbers(names), {MAIN, *self._slowest()}
        lanes = tuple(
            Lane(
                id=lane.id,
                name=name,
                task_number=number,
                status=statuses.get(lane.id, other),
                system=lane.system,
                task=lane.task,
                bars=tuple(lane.bars.values()) if bars else (),
                critical=lane.id in critical,
                tokens=lane.tokens,
                cost_usd=lane.cost_usd,
            )
            for lane, name, number in zip(growing, names, numbers, strict=True)
        )
        main = self._lanes.get(MAIN)
        main_steps = sum(bar.kind == "request" for bar in main.bars.values()) if main else 0
        return Trace(lanes=lanes, seconds=seconds, used=self.used, main_steps=main_steps)

    def _slowest(self) -> set[str]:
        """Of each stage the sub-agent that ended last; of those that still run the one that began first."""
        main = self._lanes.get(MAIN)
        turns = [inf if bar.end_s is None else bar.end_s for bar in main.bars.values()] if main else []
        last: dict[int, tuple[tuple[float, float], str]] = {}
        for lane in self._lanes.values():
            if lane.id != MAIN:
                stage = sum(end <= lane.begin_s for end in turns)
                end = inf if lane.running else lane.end_s, -lane.begin_s
                last[stage] = max(last.get(stage, ((-1.0, 0.0), "")), (end, lane.id))
        return {agent for _, agent in last.values()}


def _task_numbers(names: Sequence[str]) -> list[str]:
    """Of each name which of its tasks it is, to follow the name; empty where a name is there once."""
    seen: dict[str, int] = {}
    numbers: list[int] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        numbers.append(seen[name])
    return [f" · task {number}" if seen[name] > 1 else "" for name, number in zip(names, numbers, strict=True)]


def _text(info: Mapping[str, Any], name: str) -> str:
    return str(info.get(name) or "")


def _order(agent: str) -> tuple[int, int, str]:
    number = agent.rpartition("-")[2]
    return (0, 0, "") if agent == MAIN else (1, int(number) if number.isdecimal() else 0, agent)


def step_bar(step: StepRecord, started_at: float, *, texts: bool = True) -> Bar:
    """A step of a run that began at ``started_at``; ``texts``: with its long ones."""
    info, result = step.description, step.result or {}
    is_tool = info.get("kind") == "tool"
    error: Mapping[str, Any] = result.get("error") or {}
    failed = bool(error) or bool(result.get("is_error"))
    start, end = max(0.0, step.began_at - started_at), None
    begun = start
    if step.ended_at is not None:
        end = step.ended_at - started_at
        start = max(start, end - result.get("took_s", end))  # before that it waited for its turn
        end = max(start, end)
    usage: Mapping[str, Any] = result.get("usage") or {}
    limit = result.get("limit")
    bar = Bar(
        key=step.key,
        kind="tool" if is_tool else "request",
        label=str(info.get("tool")) if is_tool else f"step {info.get('step', '?')}",
        start_s=start,
        waited_s=start - begun,
        end_s=end,
        state="unfinished" if end is None else "failed" if failed else "done",
        calls=tuple(str(call.get("name")) for call in result.get("tool_calls") or ()),
        tokens=usage.get("total_tokens"),
        cost_usd=None if is_tool else result.get("cost_usd"),
        why=f"{error['code']}: {error['message']}" if error else f"had to conclude: {limit}" if limit else "",
    )
    if not texts:
        return bar
    return replace(
        bar,
        arguments=_text(info, "arguments"),
        reasoning=_text(result, "reasoning"),
        result=_text(result, "text" if is_tool else "answer"),
    )


def _single_lane(record: RunRecord, seconds: float, *, texts: bool) -> Lane:
    outcome = record.outcome
    tokens, cost_usd = outcome.usage.total_tokens if outcome.usage else None, outcome.cost_usd
    bar = Bar(
        key=MAIN,
        kind="request",
        label=record.tool,
        start_s=0.0,
        end_s=None if record.running else seconds,
        state="unfinished" if record.running else "done" if outcome.error is None else "failed",
        reasoning=(outcome.reasoning or "") if texts else "",
        result=outcome.answer if texts else "",
        tokens=tokens,
        cost_usd=cost_usd,
        why=f"{outcome.error.code}: {outcome.error.message}" if outcome.error else "",
    )
    return Lane(
        id=MAIN,
        name=record.tool,
        status=outcome.status,
        task=record.prompt_head,
        bars=(bar,),
        critical=True,
        tokens=tokens,
        cost_usd=cost_usd,
    )
