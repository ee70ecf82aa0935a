"""How a finished answer is to be called, and how one that does not fit is asked for again. Pure, no I/O."""

from __future__ import annotations

from dataclasses import replace

from kimi_mcp import policy
from kimi_mcp.core.errors import AnswerCutOff, ContentFiltered, KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.pricing import cost_usd
from kimi_mcp.core.types import Completion, TextPart, Turn, Usage, user
from kimi_mcp.runs import Run


def asked_again(plan: Plan, first: Completion, fault: str) -> Plan:
    """The plan for a repair, with the first answer and its reasoning in view."""
    note = policy.reported("answer-repaired", field="response_schema", fault=fault)
    answered = Turn(role="assistant", parts=(TextPart(text=first.answer),), reasoning=first.reasoning)
    wish = user(f"That does not fit the JSON schema: {fault}. Answer again with the JSON value alone.")
    return replace(plan, turns=(*plan.turns, answered, wish), adjustments=(*plan.adjustments, note))


def concluded(plan: Plan, completion: Completion, run: Run) -> Outcome:
    """How a finished answer is to be called."""
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
    """What a finished answer lacks; None: it is whole."""
    match completion.finish_reason:
        case "length":
            prompt = completion.usage.prompt_tokens if completion.usage else None
            room = plan.profile.model.context_tokens - (prompt or 0)
            enough = min(plan.max_tokens * 2, plan.profile.output_ceiling, room)
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


def cost_of(plan: Plan, completion: Completion) -> float | None:
    """US dollars that an answer cost, by the price of the model that gave it; None where anything is unknown."""
    return cost_usd(completion.usage, plan.profile.price_of(completion.model))


def summed(first: Usage | None, second: Usage | None) -> Usage | None:
    """The tokens of two requests together; a number that one of them lacks is unknown."""
    if first is None or second is None:
        return None
    names = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens")
    pairs = {name: (getattr(first, name), getattr(second, name)) for name in names}
    return Usage(**{name: None if None in pair else sum(pair) for name, pair in pairs.items()})
