"""``SwarmStats``: the agents of a swarm, their steps' results, and what they have used. Pure, no I/O.

Times come from the steps' own records: a resumed swarm reports the same as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.json_values import from_json, to_json
from kimi_mcp.core.outcome import Outcome, agent_counts, shortened
from kimi_mcp.core.profiles import Price, counted_usd, dollars, rounded
from kimi_mcp.core.tokens import with_margin
from kimi_mcp.core.types import Adjustment, Completion, Status, Usage, add_usage
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs.rounds import ArrivingText
from kimi_mcp.runs.store.records import JSON
from kimi_mcp.swarm.limits import Limit

MAX_NAMED_AGENTS = 8
"""How many agents a sentence names at most."""

_NO_USAGE = Usage(prompt_tokens=0, completion_tokens=0, reasoning_tokens=0, cached_tokens=0, total_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The result of one request, as it is recorded. Agents decide by it alone, so that a replay decides the same."""

    completion: Completion
    """What arrived, whole or cut; empty where nothing did."""
    error: KimiError | None = None
    """Why it is incomplete; None: it ended with a finish reason."""
    limit: Limit | None = None
    """The limit for which it was the agent's last; None: the agent goes on."""
    attempts: int = 0
    """Upstream requests that it took; 0: it was refused before one was sent, and so is no step."""
    pieces: int = 0
    """Pieces of reasoning and answer that arrived: about the number of tokens."""
    waited_s: float = 0.0
    """Seconds that it waited for its turn before it was sent."""
    took_s: float = 0.0
    """Seconds from being sent to its end."""
    cost_usd: float | None = 0.0
    """Its cost; None where the price or the tokens are not known."""
    counted_usd: float = 0.0
    """The cost that limits count: at the highest price where the true one is not known."""
    counted_tokens: int = 0
    """The tokens that limits count: estimated where the provider gave none."""
    sent: str | None = None
    """The model's id on the wire; None: nothing was sent."""
    policy: tuple[Adjustment, ...] = ()
    """What the policy changed and warned of."""

    def as_json(self) -> dict[str, Any]:
        """The record of it: plain JSON, with the completion's fields beside its own."""
        value = to_json(self)
        return value.pop("completion") | value

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StepResult:
        """Read a record; fields that only a newer version knows are ignored."""
        return from_json(cls, {**record, "completion": record})


@dataclass(slots=True, kw_only=True)
class Agent:
    """One agent and what it has used so far."""

    id: str
    """``main``, or ``agent-1`` and so on, in the order in which they were assigned their tasks."""
    name: str
    """The name from the main agent, or the item that it works on."""
    status: Status = "running"
    """Its state."""
    steps: int = 0
    """Its requests so far that were sent and have ended."""
    requested: int = 0
    """Its requests so far, sent or refused before they were: the keys of its steps count these."""
    tool_calls: int = 0
    """Tools that ran for it."""
    answer: str = ""
    """Its message, once there is one; what had arrived of it where it failed."""
    error: KimiError | None = None
    """Why it is incomplete."""
    limit: Limit | None = None
    """The limit for which it concluded."""
    last: StepResult | None = None
    """The result of its last request."""
    request_state: RequestState | None = None
    """The request that is running."""
    attempts: int = 0
    """Upstream requests of its steps that ended."""
    usage: Usage | None = _NO_USAGE
    """Tokens of all of them; None where one is not known."""
    cost_usd: float | None = 0.0
    """Their cost; None where that of one is not known."""
    counted_usd: float = 0.0
    """The cost that limits count: at the highest price where the true one is not known."""
    tokens: int = 0
    """Tokens of all of them, estimated where the provider gave none."""
    busy_s: float = 0.0
    """Seconds of all its requests and tools."""
    elapsed_s: float = 0.0
    """Seconds from its first step to its last, waiting for its turn included, tools of one turn at the same time."""

    @property
    def steps_sent(self) -> int:
        """Its steps that were sent, the running one included."""
        return self.steps + bool(self.request_state and self.request_state.attempts)

    @property
    def arrived(self) -> str:
        """What has arrived of the answer to the request that is running."""
        return self.request_state.accumulator.completion().answer if self.request_state else ""

    def texts(self) -> tuple[str, str]:
        """What has arrived of the reasoning and the answer of the request that is running."""
        now = self.request_state and self.request_state.accumulator
        return ("", "") if now is None else (now.reasoning or "", now.answer)

    def add(self, result: StepResult) -> None:
        """Add a request that has ended."""
        self.requested, self.steps = self.requested + 1, self.steps + (result.attempts > 0)
        self.last, self.limit = result, result.limit or self.limit
        self.attempts += result.attempts
        self.tokens += result.counted_tokens
        self.counted_usd += result.counted_usd
        self.busy_s += result.took_s
        self.elapsed_s += result.waited_s + result.took_s
        if result.pieces or result.completion.usage:
            self.usage = add_usage(self.usage, result.completion.usage)
        self.cost_usd = None if self.cost_usd is None or result.cost_usd is None else self.cost_usd + result.cost_usd

    def add_tool_calls(self, records: Sequence[JSON]) -> None:
        """Add the tool calls of a turn, by their records."""
        took = [float(record["took_s"]) for record in records]
        usd = sum(float(record["cost_usd"]) for record in records)
        self.tool_calls += sum(bool(record["ran"]) for record in records)
        self.cost_usd = None if self.cost_usd is None else self.cost_usd + usd
        self.counted_usd += usd
        self.busy_s, self.elapsed_s = self.busy_s + sum(took), self.elapsed_s + max(took)

    def end(self, status: Status, *, error: KimiError | None = None, answer: str = "") -> None:
        """Record how it ended."""
        self.status, self.error, self.answer, self.request_state = status, error, answer, None

    def as_json(self) -> dict[str, Any]:
        """Its entry in the result."""
        cost = None if self.cost_usd is None else rounded(self.cost_usd)
        return {
            **{name: getattr(self, name) for name in ("id", "name", "status")},
            "steps": self.steps_sent,
            "tool_calls": self.tool_calls,
            "usage": {**to_json(self.usage or Usage()), "cost_usd": cost},
        }

    def report(self, most_chars: int) -> str:
        """Its message for another agent; where it failed, why, and what it had."""
        answer = shortened(self.answer, most_chars)
        if self.status == "completed":
            return f"{self}, completed:\n\n{answer}"
        why = f"{self.error.code}: {self.error.message}" if self.error else "it had to conclude early"
        if not answer.strip():
            return f"{self} failed. {why}"
        return f"{self}, {'failed' if self.status == 'failed' else 'incomplete'} ({why}). What it had:\n\n{answer}"

    def __str__(self) -> str:
        return f"{self.id} ({self.name})"


class SwarmStats:
    """The agents of one swarm and what they have used so far."""

    def __init__(self) -> None:
        self.main = Agent(id="main", name="main")
        """The main agent, or the one that puts the items' results together."""
        self.agents: list[Agent] = []
        """The sub-agents, in the order of their ids."""
        self.policy: dict[tuple[Any, ...], Adjustment] = {}
        """What the policy changed and warned of, each once."""
        self.asks = False
        """Whether it waits for its host's user to raise its budget."""
        self._stages: list[list[Agent]] = []
        """The agents that work at the same time: those without a main agent, or those after each of its steps."""

    @property
    def everyone(self) -> Sequence[Agent]:
        """The main agent and the sub-agents."""
        return (self.main, *self.agents)

    @property
    def _running(self) -> Sequence[RequestState]:
        return [agent.request_state for agent in self.everyone if agent.request_state]

    @property
    def missing(self) -> Sequence[Agent]:
        """The sub-agents that are not completed."""
        return [agent for agent in self.agents if agent.status != "completed"]

    def with_missing(self, error: KimiError) -> KimiError:
        """The error, with the agents whose work is missing."""
        if not (missing := self.missing):
            return error
        names = ", ".join(map(str, missing[:MAX_NAMED_AGENTS]))
        more = f" and {len(missing) - MAX_NAMED_AGENTS} more" if len(missing) > MAX_NAMED_AGENTS else ""
        return type(error)(f"{error.message} Incomplete: {names}{more}.", fix=error.fix, rule=error.rule)

    def begin_stage(self) -> None:
        """Begin a stage: the agents that are added next work at the same time."""
        self._stages.append([])

    def add_agent(self, name: str) -> Agent:
        """Add a sub-agent, in the stage that runs."""
        agent = Agent(id=f"agent-{len(self.agents) + 1}", name=name)
        self.agents.append(agent)
        self._stages[-1].append(agent)
        return agent

    def add(self, agent: Agent, result: StepResult) -> None:
        """Add an agent's request that has ended."""
        agent.add(result)
        self.report(result.policy)
        if agent is self.main:
            self.begin_stage()

    def report(self, adjustments: Iterable[Adjustment]) -> None:
        """Add adjustments, each once."""
        for each in adjustments:
            self.policy.setdefault((each.rule, each.field, repr(each.asked), repr(each.sent), each.why), each)

    @property
    def attempts(self) -> int:
        """Upstream requests so far."""
        return sum(each.attempts for each in (*self.everyone, *self._running))

    def counted_usd(self, highest_price: Price | None) -> float:
        """The cost that limits count so far: of a running request its prompt, and what has arrived."""
        counted = sum(agent.counted_usd for agent in self.everyone)
        for state in self._running:
            price = (state.plan.price or highest_price) if state.plan and state.attempts else None
            counted += counted_usd(with_margin(state.prompt_tokens), state.accumulator.tokens, price) if price else 0.0
        return counted

    def phase(self) -> str:
        """Its progress in a line: agents by their state, steps, tokens, cost."""
        main = f"main agent {self.main.request_state.doing()}" if self.main.request_state else "main agent"
        parts = [agent_counts(agent.status for agent in self.agents) or main]
        steps = sum(agent.steps for agent in self.everyone)
        parts.append(f"{steps} step{'' if steps == 1 else 's'}")
        tokens = sum(agent.tokens for agent in self.everyone) + sum(state.accumulator.tokens for state in self._running)
        if tokens:
            parts.append(f"about {tokens:,} tokens")
        if (cost := self._cost()) is not None:
            parts.append(dollars(cost))
        if self.asks:
            parts.append("waits for its user: its budget may not pay for its next request")
        return " · ".join(parts)

    def arriving(self) -> ArrivingText | None:
        """What arrives of the main agent's answer, or came last of it."""
        main, state = self.main, self.main.request_state
        if state is not None:
            now = state.accumulator
            return ArrivingText(main.requested, now.pieces, now.has_answer, lambda: (now.reasoning or "", now.answer))
        if main.last is None:
            return None
        last = main.last.completion
        return ArrivingText(main.requested - 1, -1, True, lambda: (last.reasoning or "", last.answer))

    def so_far(self, outcome: Outcome) -> Outcome:
        """A run's outcome, with the results of all its requests."""
        last, state = self.main.last, self.main.request_state
        completion = state.accumulator.completion() if state else last.completion if last else None
        usage: Usage | None = _NO_USAGE
        for agent in self.everyone:
            usage = add_usage(usage, agent.usage)
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

        These are the main agent's, or those of all sub-agents that have one, after what had arrived of the main
        agent's. Where no agent has finished the outcome keeps its status.
        """
        error = outcome.error and self.with_missing(outcome.error)
        arrived = self.so_far(replace(outcome, error=error))
        if self.main.status in ("completed", "partial"):
            return replace(arrived, status="partial", answer=self.main.answer)
        if not (results := self.results()):
            return arrived
        answer = "\n\n".join(filter(None, ((self.main.arrived or self.main.answer).strip(), results)))
        return replace(arrived, status="partial", answer=answer, finish_reason=None)

    def results(self) -> str:
        """The answers of all sub-agents that have one, each under its name; empty where none has."""
        return "\n\n".join(agent.report(len(agent.answer)) for agent in self.agents if agent.answer.strip())

    def block(self) -> Mapping[str, Any]:
        """The result's ``swarm``."""
        longest = sum(max((agent.steps_sent for agent in stage), default=0) for stage in self._stages)
        slowest_s = sum(max((agent.elapsed_s for agent in stage), default=0.0) for stage in self._stages)
        path_s, alone_s = self.main.elapsed_s + slowest_s, sum(agent.busy_s for agent in self.everyone)
        return {
            "agents": [agent.as_json() for agent in self.agents],
            "steps": self.main.steps_sent,
            "critical_steps": self.main.steps + longest,
            "speedup": round(alone_s / path_s, 2) if path_s else None,
        }

    def _cost(self) -> float | None:
        known = [agent.cost_usd for agent in self.everyone if agent.cost_usd is not None]
        return rounded(sum(known)) if len(known) == len(self.everyone) else None
