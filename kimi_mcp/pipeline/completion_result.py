"""The outcome of a finished answer, and the plan that requests a better one. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from kimi_mcp import policy
from kimi_mcp.core.errors import AnswerCutOff, ContentFiltered, KimiError
from kimi_mcp.core.json_schema import Undecided, read_answer
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.pricing import cost_usd
from kimi_mcp.core.types import Completion, TextPart, Turn, Usage, user
from kimi_mcp.runs import Run


def outcome_of(plan: Plan, completion: Completion, run: Run) -> Outcome:
    """The outcome of a run by its finished answer."""
    error = shortfall(plan, completion)
    status = "completed" if error is None else "partial" if completion.answer.strip() else "failed"
    return replace(
        run.snapshot(status, error),
        cost_usd=cost_of(plan, completion),
        answer=completion.answer,
        reasoning=completion.reasoning,
        model_answered=completion.model,
        finish_reason=completion.finish_reason,
        usage=completion.usage,
        policy=(*plan.adjustments, *policy.judge(plan, completion)),
    )


def shortfall(plan: Plan, completion: Completion) -> KimiError | None:
    """What a finished answer lacks; None: it is complete."""
    match completion.finish_reason:
        case "length":
            prompt = completion.usage.prompt_tokens if completion.usage else None
            available = plan.profile.model.context_tokens - (prompt or 0)
            enough = min(plan.max_tokens * 2, plan.profile.output_ceiling, available)
            where = "in the middle of the answer" if completion.answer.strip() else "before the answer began"
            return AnswerCutOff(
                f"The answer used up its {plan.max_tokens:,} tokens {where}.",
                fix=f"Raise `max_tokens` to {enough}."
                if enough > plan.max_tokens
                else "Ask for less at once: `max_tokens` is at the model's limit.",
            )
        case "content_filter":
            return ContentFiltered(
                f"The content filter of {plan.profile.provider.id} stopped the answer.",
                fix="Change `prompt`, or name another `provider`.",
            )
        case _ if not completion.answer.strip():
            return AnswerCutOff(
                f"{plan.profile.provider.id} ended its turn without an answer.",
                fix="Call again; if it happens often, use kimi_instant or raise `max_tokens`.",
            )
        case _:
            return None


def with_parsed(outcome: Outcome, schema: Mapping[str, Any]) -> tuple[Outcome, str | None]:
    """The outcome with its answer parsed, and why the answer does not fit the schema (None: it fits)."""
    try:
        value, misfit = read_answer(outcome.answer, schema)
    except Undecided as undecided:
        return replace(outcome, status="partial", error=outcome.error or undecided.as_error()), None
    return replace(outcome, parsed=value), misfit


def repair_plan(plan: Plan, first: Completion, misfit: str) -> Plan:
    """The plan that requests an answer once more, with the first one and its reasoning before it."""
    note = policy.reported("answer-repaired", field="response_schema", fault=misfit)
    answered = Turn(role="assistant", parts=(TextPart(text=first.answer),), reasoning=first.reasoning)
    request = user(f"That does not fit the JSON schema: {misfit}. Answer again with the JSON value alone.")
    return replace(plan, turns=(*plan.turns, answered, request), adjustments=(*plan.adjustments, note))


def cost_of(plan: Plan, completion: Completion) -> float | None:
    """US dollars that an answer cost, by the price of the model that gave it; None where anything is unknown."""
    return cost_usd(completion.usage, plan.profile.price_of(completion.model))


def add_usage(first: Usage | None, second: Usage | None) -> Usage | None:
    """The tokens of two requests together; a number that one of them lacks is unknown."""
    if first is None or second is None:
        return None
    pairs = {each.name: (getattr(first, each.name), getattr(second, each.name)) for each in fields(Usage)}
    return Usage(**{name: None if None in pair else sum(pair) for name, pair in pairs.items()})
