"""The stats and the outcome of a swarm by its recorded steps alone. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.json_values import UNREADABLE
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs.store.records import JSON, RunRecord, StepRecord
from kimi_mcp.swarm.agent import conclude
from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.stats import Agent, StepResult, SwarmStats


def recovered_outcome(record: RunRecord, steps: Sequence[StepRecord]) -> Outcome:
    """The outcome of a swarm that is ended, with the results and the usage of its finished steps.

    The record's own outcome has the reason. Nothing is known of requests that were running. Where another version's
    steps can't be read, it is the record's own.
    """
    try:
        stats = _stats_of(SwarmCall.from_json(record.request["task"]), steps, record.outcome.provider)
    except (NotConfigured, *UNREADABLE):
        return record.outcome
    policy, stats.policy = stats.policy, {}
    stats.report((*record.outcome.policy, *policy.values()))
    ended = [step.ended_at for step in steps if step.ended_at is not None]
    took = max([record.outcome.timing.total_s, *(at - record.started_at for at in ended)])
    timing = replace(record.outcome.timing, total_s=took, attempts=stats.attempts)
    return stats.stopped(replace(record.outcome, timing=timing))


def recovered_stats(call: SwarmCall, steps: Sequence[StepRecord]) -> SwarmStats | None:
    """How far a resumed swarm was; None: it had sent nothing, or another version's steps can't be read."""
    try:
        stats = _stats_of(call, steps, call.first_provider)
    except UNREADABLE:
        return None
    return stats if stats.attempts else None


def _stats_of(call: SwarmCall, steps: Sequence[StepRecord], provider: str | None) -> SwarmStats:
    """The stats of finished steps."""
    stats = SwarmStats()
    agents = {"main": stats.main}
    if call.items:
        stats.begin_stage()
        agents |= {agent.id: agent for agent in map(stats.add_agent, call.names)}
    tool_calls: dict[str, list[JSON]] = {}
    for step in sorted(steps, key=_order):
        about, record = step.description, step.result
        if about["agent"] not in agents:
            agents[about["agent"]] = stats.add_agent(about["name"])
        agent, is_request = agents[about["agent"]], about["kind"] == "request"
        if is_request or record is not None:
            agent.status = "running"  # whatever came before was not its end
        if record is None:
            continue
        if not is_request:
            tool_calls.setdefault(step.key.rpartition("/")[0], []).append(record)
            continue
        result = StepResult.from_json(record)
        add_recorded(stats, agent, result, provider)
    for turn, records in tool_calls.items():
        agents[turn.partition("/")[0]].add_tool_calls(records)
    return stats


def add_recorded(stats: SwarmStats, agent: Agent, result: StepResult, provider: str | None) -> None:
    """Add a recorded request of an agent; it has ended by it, unless another one follows."""
    agent.status = "running"  # whatever came before was not its end
    stats.add(agent, result)
    if result.error is not None:
        agent.end("failed", error=result.error, answer=result.completion.answer)
    elif result.limit is not None or not (result.completion.tool_calls or result.completion.malformed_calls):
        conclude(agent, result, provider or "the provider")


def _order(step: StepRecord) -> tuple[float, int, str]:
    """Steps in the order in which they were begun; at the same moment in the order of their agents."""
    number = str(step.description.get("agent", "")).rpartition("-")[2]
    return step.began_at, int(number) if number.isdecimal() else 0, step.key
