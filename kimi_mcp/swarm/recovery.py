"""What a swarm whose server died had done, from its steps: as its end, or while its replay is behind. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.json_values import UNREADABLE
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs.steps import JSON
from kimi_mcp.runs.store.records import RunRecord, StepRecord
from kimi_mcp.swarm.agent import conclude
from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.stats import StepResult, SwarmStats


def recovered_outcome(record: RunRecord, steps: Sequence[StepRecord]) -> Outcome:
    """The outcome of a swarm that is ended, with the results and the usage of its finished steps.

    The record's own outcome says why it is ended. The outcome is the one of a swarm that was ended in its own server,
    except for requests that were running: of those nothing is known. Where another version's steps can't be read it is
    the record's own.
    """
    try:
        stats = _stats_of(SwarmCall.from_json(record.request["task"]), steps, record.outcome.provider)
    except (InvalidArguments, *UNREADABLE):
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
        stats.add(agent, result)
        if result.error is not None:
            agent.end("failed", error=result.error, answer=result.completion.answer)
        elif result.limit is not None or not (result.completion.tool_calls or result.completion.malformed_calls):
            conclude(agent, result, provider or "the provider")
    for turn, records in tool_calls.items():
        agents[turn.partition("/")[0]].add_tool_calls(records)
    return stats


def _order(step: StepRecord) -> tuple[float, int, str]:
    """Steps in the order in which they were begun; at the same moment in the order of their agents."""
    number = str(step.description.get("agent", "")).rpartition("-")[2]
    return step.began_at, int(number) if number.isdecimal() else 0, step.key
