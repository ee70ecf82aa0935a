"""What a swarm had done whose server died, told from its steps: as its end, or while its replay is behind. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs.steps import JSON
from kimi_mcp.runs.store.records import RunRecord, StepRecord
from kimi_mcp.swarm.agent import conclude
from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.stats import Agent, SwarmStats
from kimi_mcp.swarm.step_result import StepResult

_UNREADABLE = (KeyError, TypeError, ValueError)
"""What a step raises that another version wrote."""


def recovered_outcome(record: RunRecord, steps: Sequence[StepRecord]) -> Outcome:
    """The outcome of a swarm that is ended, with what its finished steps brought and used.

    The record's own outcome says why it is ended. It tells what the swarm would have told had it been ended in its own
    server, but for requests under way: of those nobody knows. What another version wrote may not be readable; then it
    tells what it told before.
    """
    stats = SwarmStats()
    stats.report(record.outcome.policy)
    try:
        _retell(stats, SwarmCall.from_json(record.request["task"]), steps, record.outcome.provider)
    except (InvalidArguments, *_UNREADABLE):
        return record.outcome
    ended = [step.ended_at for step in steps if step.ended_at is not None]
    took = max([record.outcome.timing.total_s, *(at - record.started_at for at in ended)])
    timing = replace(record.outcome.timing, total_s=took, attempts=stats.attempts)
    return stats.stopped(replace(record.outcome, timing=timing))


def recovered_stats(call: SwarmCall, steps: Sequence[StepRecord]) -> SwarmStats | None:
    """How far a swarm was that is gone on with; None where another version wrote what can't be read."""
    stats = SwarmStats()
    try:
        _retell(stats, call, steps, call.first_provider)
    except _UNREADABLE:
        return None
    return stats


def _retell(stats: SwarmStats, call: SwarmCall, steps: Sequence[StepRecord], provider: str | None) -> None:
    """Put into a stats what finished steps brought and used."""
    lines = {"main": stats.main}
    if call.items:
        stats.begin_stage()
        lines |= {agent.id: agent for agent in map(stats.add_agent, call.names)}
    used: dict[str, list[JSON]] = {}
    for step in sorted(steps, key=_order):
        told, result = step.told, step.result
        if told["agent"] not in lines:
            lines[told["agent"]] = stats.add_agent(told["name"])
        agent = lines[told["agent"]]
        if told["kind"] == "request":
            agent.status = "running"  # whatever came before was not its end
            if result is not None:
                _add(stats, agent, StepResult.from_json(result), provider or "the provider")
        elif result is not None:
            used.setdefault(step.key.rpartition("/")[0], []).append(result)
            agent.status = "running"
    for turn, results in used.items():
        lines[turn.partition("/")[0]].use(results)


def _add(stats: SwarmStats, agent: Agent, said: StepResult, provider: str) -> None:
    """A request of an agent had ended, and perhaps the agent with it."""
    stats.add(agent, said)
    done = said.completion
    if said.error is not None:
        agent.end("failed", error=said.error, answer=done.answer)
    elif said.limit is not None or not (done.tool_calls or done.malformed_calls):
        conclude(agent, said, provider)


def _order(step: StepRecord) -> tuple[float, int, str]:
    """As they were begun; at the same moment in the order of their agents."""
    number = str(step.told.get("agent", "")).rpartition("-")[2]
    return step.began_at, int(number) if number.isdecimal() else 0, step.key
