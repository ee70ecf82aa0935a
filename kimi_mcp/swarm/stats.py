"""``SwarmStats``: who works in a swarm, what each has used, and how far the whole is. Pure, no I/O.

It is what a run shows while a swarm lives (``runs.Work``) and what its result's ``swarm`` block is made of. Times come
from the steps' own records, so that a swarm that was resumed tells the same as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.outcome import Outcome, shortened, standing
from kimi_mcp.core.pricing import dollars, rounded
from kimi_mcp.core.profiles import Price
from kimi_mcp.core.types import Adjustment, Status, Usage
from kimi_mcp.pipeline.completion_result import summed
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs.steps import JSON
from kimi_mcp.swarm.limits import SWARM_WIDE, Limit
from kimi_mcp.swarm.step_result import StepResult

MAX_NAMED_AGENTS = 8
"""How many agents a sentence names at most."""


@dataclass(slots=True, kw_only=True)
class Agent:
    """One agent's line. Mutable: it grows as the agent works."""

    id: str
    """``main``, or ``agent-1`` and so on, in the order in which they were given their tasks."""
    name: str
    """What the main agent called it, or the item that it works on."""
    status: Status = "running"
    """How it stands."""
    steps: int = 0
    """Its requests so far that were sent."""
    asked: int = 0
    """Its requests so far, sent or refused before they were: the keys of its steps count these."""
    tool_calls: int = 0
    """Tools that ran for it."""
    answer: str = ""
    """Its message, once there is one; what had arrived of it where it failed."""
    error: KimiError | None = None
    """Why it is not whole."""
    limit: Limit | None = None
    """The limit for which it concluded."""
    last: StepResult | None = None
    """What its last request brought."""
    request_state: RequestState | None = None
    """The request that is under way."""
    attempts: int = 0
    """Upstream requests of its steps that ended."""
    usage: Usage | None = field(default_factory=lambda: _NOTHING)
    """Tokens of all of them; None where one is not known."""
    cost_usd: float | None = 0.0
    """What they cost; None where that of one is not known."""
    counted_usd: float = 0.0
    """What limits count for them, at the dearest price where the true one is not known."""
    tokens: int = 0
    """Tokens of all of them, estimated where the provider did not say."""
    busy_s: float = 0.0
    """Seconds of all its requests and tools."""
    elapsed_s: float = 0.0
    """Seconds from its first step to its last, waiting for its turn included, tools of one turn side by side."""

    @property
    def arrived(self) -> str:
        """What has arrived of the answer to the request that is under way."""
        return self.request_state.accumulator.completion().answer if self.request_state else ""

    def add(self, said: StepResult) -> None:
        """A request has ended."""
        self.asked, self.steps = self.asked + 1, self.steps + said.was_sent
        self.last, self.limit = said, said.limit or self.limit
        self.attempts += said.attempts
        self.tokens += said.counted_tokens
        self.counted_usd += said.counted_usd
        self.busy_s += said.took_s
        self.elapsed_s += said.waited_s + said.took_s
        if said.pieces or said.completion.usage:
            self.usage = summed(self.usage, said.completion.usage)
        self.cost_usd = None if self.cost_usd is None or said.cost_usd is None else self.cost_usd + said.cost_usd

    def use(self, records: Sequence[JSON]) -> float:
        """The tools of a turn have ended, by their records; what they cost, in US dollars."""
        took = [float(record["took_s"]) for record in records]
        usd = sum(float(record["cost_usd"]) for record in records)
        self.tool_calls += sum(bool(record["ran"]) for record in records)
        self.cost_usd = None if self.cost_usd is None else self.cost_usd + usd
        self.counted_usd += usd
        self.busy_s, self.elapsed_s = self.busy_s + sum(took), self.elapsed_s + max(took)
        return usd

    def end(self, status: Status, *, error: KimiError | None = None, answer: str = "") -> None:
        """It has ended, one way or the other."""
        self.status, self.error, self.answer, self.request_state = status, error, answer, None

    def as_json(self) -> dict[str, Any]:
        """Its entry in the result."""
        usage = self.usage or Usage()
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "steps": self.steps,
            "tool_calls": self.tool_calls,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
                "cached_tokens": usage.cached_tokens,
                "total_tokens": usage.total_tokens,
                "cost_usd": None if self.cost_usd is None else rounded(self.cost_usd),
            },
        }


def agent_report(agent: Agent, most_chars: int) -> str:
    """An agent's message for whoever goes on from it; where it failed, that it did, and what it had."""
    who = f"{agent.id} ({agent.name})"
    answer = shortened(agent.answer, most_chars)
    if agent.status == "completed":
        return f"{who}, completed:\n\n{answer}"
    why = f"{agent.error.code}: {agent.error.message}" if agent.error else "it had to conclude early"
    if not answer.strip():
        return f"{who} failed. {why}"
    return f"{who}, {'failed' if agent.status == 'failed' else 'not whole'} ({why}). What it had:\n\n{answer}"


def with_missing_agents(error: KimiError, missing: Sequence[Agent]) -> KimiError:
    """The error, with the agents whose work is missing."""
    if not missing:
        return error
    names = ", ".join(f"{agent.id} ({agent.name})" for agent in missing[:MAX_NAMED_AGENTS])
    more = f" and {len(missing) - MAX_NAMED_AGENTS} more" if len(missing) > MAX_NAMED_AGENTS else ""
    return type(error)(f"{error.message} Not whole: {names}{more}.", fix=error.fix, rule=error.rule)


_NOTHING = Usage(prompt_tokens=0, completion_tokens=0, reasoning_tokens=0, cached_tokens=0, total_tokens=0)


@dataclass(slots=True, kw_only=True)
class _Stage:
    """A step of the main agent, and the agents whose work it gave out; or agents alone."""

    steps: int = 0
    seconds: float = 0.0
    agents: list[Agent] = field(default_factory=list[Agent])


class SwarmStats:
    """The lines of one swarm. Mutable."""

    def __init__(self) -> None:
        self.main = Agent(id="main", name="main")
        """The main agent, or the one that puts the items' results together."""
        self.agents: list[Agent] = []
        """The sub-agents, in the order of their ids."""
        self.policy: dict[tuple[Any, ...], Adjustment] = {}
        """What the policy changed and warned of, each once."""
        self.before: SwarmStats | None = None
        """How far the swarm was when its server died: it tells that until its replay is as far again."""
        self._stages: list[_Stage] = []

    def begin_stage(self) -> None:
        """Agents begin that follow on no step of the main agent."""
        self._stages.append(_Stage())

    def add_agent(self, name: str) -> Agent:
        """A line for one more sub-agent, in the stage that runs."""
        agent = Agent(id=f"agent-{len(self.agents) + 1}", name=name)
        self.agents.append(agent)
        self._stages[-1].agents.append(agent)
        return agent

    def add(self, agent: Agent, said: StepResult) -> None:
        """A request of an agent has ended."""
        agent.add(said)
        self.report(said.policy)
        if agent is self.main:
            self._stages.append(_Stage(steps=int(said.was_sent), seconds=said.waited_s + said.took_s))

    def report(self, adjustments: Iterable[Adjustment]) -> None:
        """Keep what a rule said, once."""
        for each in adjustments:
            self.policy.setdefault((each.rule, each.field, repr(each.asked), repr(each.sent), each.why), each)

    @property
    def limit(self) -> Limit | None:
        """A limit of the whole swarm that somebody met."""
        met = (agent.limit for agent in (self.main, *self.agents))
        return next((limit for limit in met if limit in SWARM_WIDE), None)

    # ── runs.Work ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def attempts(self) -> int:
        """Upstream requests so far."""
        return max(self._attempts, self.before.attempts if self.before else 0)

    def counted_usd(self, dearest: Price | None) -> float:
        """What spending limits count for it so far: never less than what is spent already."""
        counted = sum(agent.counted_usd for agent in (self.main, *self.agents))
        return max(counted, self.before.counted_usd(dearest) if self.before else 0.0)

    def phase(self) -> str:
        """What it is at, in a line: agents by their state, steps, tokens, cost."""
        if (before := self._further) is not None:
            return before.phase()
        everyone = (self.main, *self.agents)
        flowing = sum(agent.request_state.accumulator.tokens for agent in everyone if agent.request_state)
        tokens = sum(agent.tokens for agent in everyone) + flowing
        leading = f"main agent {self.main.request_state.doing()}" if self.main.request_state else "main agent"
        parts = [standing(agent.status for agent in self.agents) or leading]
        steps = sum(agent.steps for agent in everyone)
        parts.append(f"{steps} step{'' if steps == 1 else 's'}")
        if tokens:
            parts.append(f"about {tokens:,} tokens")
        if (cost := self._cost()) is not None:
            parts.append(dollars(cost))
        return " · ".join(parts)

    def so_far(self, outcome: Outcome) -> Outcome:
        """A run's outcome, with what its many requests have brought."""
        if (before := self._further) is not None:
            return before.so_far(outcome)
        everyone = (self.main, *self.agents)
        last, flowing = self.main.last, self.main.request_state
        completion = flowing.accumulator.completion() if flowing else last.completion if last else None
        usage = _NOTHING
        for agent in everyone:
            usage = summed(usage, agent.usage)
        if outcome.status != "running":
            for agent in self.agents:
                agent.status = "cancelled" if agent.status == "running" else agent.status
        return replace(
            outcome,
            answer=completion.answer if completion else "",
            reasoning=completion.reasoning if completion else None,
            finish_reason=completion.finish_reason if completion else None,
            model_sent=(last and last.sent) or outcome.model_sent,
            model_answered=completion.model if completion and completion.model else last and last.completion.model,
            usage=usage if self.attempts else None,
            cost_usd=self._cost() if self.attempts else None,
            policy=tuple(self.policy.values()),
            swarm=self.block() if self._stages or self.attempts else None,
        )

    def stopped(self, outcome: Outcome) -> Outcome:
        """The outcome of a run that did not come to its own end: partial with the answers that are finished.

        These are the main agent's, or those of all sub-agents that have one, behind what had arrived of the main
        agent's. Where nobody has finished the outcome keeps its status.
        """
        if (before := self._further) is not None:
            return before.stopped(outcome)
        main = self.main
        missing = [agent for agent in self.agents if agent.status != "completed"]
        arrived = self.so_far(replace(outcome, error=outcome.error and with_missing_agents(outcome.error, missing)))
        if main.status in ("completed", "partial"):
            return replace(arrived, status="partial", answer=main.answer)
        if not (results := self.results()):
            return arrived
        begun = (main.arrived or main.answer).strip()
        return replace(
            arrived, status="partial", answer=f"{begun}\n\n{results}" if begun else results, finish_reason=None
        )

    def results(self) -> str:
        """The answers of all sub-agents that have one, each under its name; empty where none has."""
        return "\n\n".join(agent_report(agent, len(agent.answer)) for agent in self.agents if agent.answer.strip())

    def block(self) -> Mapping[str, Any]:
        """The result's ``swarm``."""
        longest = [max((agent.steps for agent in stage.agents), default=0) for stage in self._stages]
        slowest = [max((agent.elapsed_s for agent in stage.agents), default=0.0) for stage in self._stages]
        path = sum(stage.seconds for stage in self._stages) + sum(slowest)
        alone = sum(agent.busy_s for agent in (self.main, *self.agents))
        return {
            "agents": [agent.as_json() for agent in self.agents],
            "steps": self.main.steps,
            "critical_steps": sum(stage.steps for stage in self._stages) + sum(longest),
            "speedup": round(alone / path, 2) if path else None,
        }

    @property
    def _attempts(self) -> int:
        everyone = (self.main, *self.agents)
        return sum(agent.attempts + (agent.request_state.attempts if agent.request_state else 0) for agent in everyone)

    @property
    def _further(self) -> SwarmStats | None:
        """What is known from before, as long as the replay is not as far."""
        return self.before if self.before is not None and self._attempts < self.before.attempts else None

    def _cost(self) -> float | None:
        costs = [agent.cost_usd for agent in (self.main, *self.agents)]
        known = [cost for cost in costs if cost is not None]
        return rounded(sum(known)) if len(known) == len(costs) else None
