"""The outcome of a finished answer: its state, what it lacks, its cost, and its value where a schema is asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kimi_mcp import policy
from kimi_mcp.core import observing
from kimi_mcp.core.errors import AnswerCutOff, ContentFiltered, KimiError, UpstreamBroken
from kimi_mcp.core.json_schema import Undecided, read_answer
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import cost_usd
from kimi_mcp.core.types import Completion
from kimi_mcp.provider.request_state import RequestState
from kimi_mcp.runs import Run


def outcome_of(plan: Plan, completion: Completion, run: Run) -> Outcome:
    """The outcome of a run by its finished answer."""
    error = _shortfall(plan, completion)
    status = "completed" if error is None else "partial" if completion.answer.strip() else "failed"
    cut = status == "partial" and completion.finish_reason == "length"
    return replace(
        run.snapshot(status, error),
        can_continue=cut and plan.profile.provider.continues_answers,
        cost_usd=None if (cost := cost_of(plan, completion)) is None else cost + run.tools_usd,
        answer=completion.answer,
        reasoning=completion.reasoning,
        model_answered=completion.model,
        finish_reason=completion.finish_reason,
        usage=completion.usage,
        policy=(*plan.adjustments, *policy.judge(plan, completion)),
    )


def _shortfall(plan: Plan, completion: Completion) -> KimiError | None:
    prompt = completion.usage.prompt_tokens if completion.usage else None
    available = plan.profile.model.context_tokens - (prompt or 0)
    enough = min(plan.max_tokens * 2, plan.profile.output_ceiling, available)
    where = "in the middle of the answer" if completion.answer.strip() else "before the answer began"
    used_up = AnswerCutOff(
        f"The answer used up its {plan.max_tokens:,} tokens {where}.",
        fix=f"Raise `max_tokens` to {enough}."
        if enough > plan.max_tokens
        else "Ask for less at once: `max_tokens` is at the model's limit.",
    )
    again = "Call again; if it happens often, use kimi_instant or raise `max_tokens`."
    return shortfall(completion, plan.profile.provider.id, used_up=used_up, again=again)


def shortfall(completion: Completion, provider: str, *, used_up: AnswerCutOff, again: str) -> KimiError | None:
    """What a finished answer lacks; None: it is complete.

    ``used_up``: the error of an answer that its limit of tokens has cut; ``again``: the fix where there is no answer.
    """
    match completion.finish_reason:
        case "length":
            return used_up
        case "content_filter":
            fix = "Change `prompt`, or name another `provider`."
            return ContentFiltered(f"The content filter of {provider} stopped the answer.", fix=fix)
        case _ if not completion.answer.strip():
            return AnswerCutOff(f"{provider} ended its turn without an answer.", fix=again)
        case _:
            return None


def parsed(outcome: Outcome, schema: Mapping[str, Any], *, again: str = "") -> Outcome:
    """The outcome with its answer parsed; partial where that does not fit the schema (``again``: nor did others)."""
    outcome, misfit = with_parsed(outcome, schema)
    if misfit is None or outcome.error is not None:
        return outcome
    error = UpstreamBroken(
        f"The answer does not fit the response_schema{again}: {misfit}.",
        fix="Simplify `response_schema`, or name its fields in the prompt.",
    )
    return replace(outcome, status="partial", error=error)


def with_parsed(outcome: Outcome, schema: Mapping[str, Any]) -> tuple[Outcome, str | None]:
    """The outcome with its answer parsed, and why the answer does not fit the schema (None: it fits)."""
    try:
        value, misfit = read_answer(outcome.answer, schema)
    except Undecided as undecided:
        return replace(outcome, status="partial", error=outcome.error or undecided.as_error()), None
    return replace(outcome, parsed=value), misfit


def cost_of(plan: Plan, completion: Completion) -> float | None:
    """US dollars that an answer cost, by the price of the model that gave it; None where anything is unknown."""
    return cost_usd(completion.usage, plan.price_of(completion.model))


def emit_cost(plan: Plan, request_state: RequestState) -> None:
    """Emit what a request cost, as far as that is known."""
    if observing.is_observed() and (usd := cost_of(plan, request_state.accumulator.completion())):
        observing.emit(observing.Spent(provider=plan.profile.provider, usd=usd))
