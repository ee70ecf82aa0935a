"""Which answers can be continued after they were cut, and the request that continues one. Pure, no I/O.

Moonshot's partial mode (platform.kimi.ai docs/guide/use-partial-mode-feature-of-kimi-api): the last turn is the
assistant's answer so far, with its reasoning and ``partial: true``; what comes is only what follows it. An answer has
to have begun, since reasoning alone can't be continued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from kimi_mcp import policy
from kimi_mcp.core.errors import ContextTooLong, InvalidArguments, PolicyRefused
from kimi_mcp.core.json_values import UNREADABLE, from_json
from kimi_mcp.core.outcome import Outcome, last_reasoning
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Provider
from kimi_mcp.core.tokens import estimated_tokens, with_margin
from kimi_mcp.core.types import Request, TextPart, Turn, add_usage
from kimi_mcp.runs.rounds import with_note
from kimi_mcp.runs.store.records import RunRecord

MOST_TIMES = 3
"""How often ``KIMI_CONTINUE=auto`` continues an answer."""

RULE = "answer-continued"
"""The rule that reports it."""

_CAN_NOT = "This answer can't be continued."
_AGAIN = "Call again with a larger `max_tokens`, or ask for less at once."


def check(record: RunRecord, providers: Mapping[str, Provider], resolve: Callable[[str], object]) -> None:
    """Raise ``InvalidArguments`` where the answer of a run that has ended can't be continued, with what to do.

    ``resolve``: resolves a provider by its name; ``PolicyRefused`` where that is not allowed any more, and what else it
    raises.
    """
    outcome = record.outcome
    provider = providers.get(outcome.provider or "")
    if "task" in record.request:
        raise _refused(
            "It is a swarm's, which puts it together from many.", "Call kimi_swarm again for what is missing."
        )
    if outcome.finish_reason == "content_filter":
        raise _refused("The provider's content filter stopped it.", "Change `prompt`, or name another `provider`.")
    if outcome.finish_reason not in (None, "length"):
        raise _refused("It came to its own end.", "Look at what `error` says of it, and call again.")
    if not outcome.answer.strip():
        raise _refused("Nothing of it had arrived, and reasoning alone can't be continued.", _AGAIN)
    if provider is None or not provider.continues_answers:
        able = " or ".join(name for name, each in providers.items() if each.continues_answers)
        raise _refused(
            f"{outcome.provider} can't continue an answer that was cut: it knows no `partial` turn.",
            f"{_AGAIN} A `provider` that can: {able}.",
        )
    if not turns(record):
        raise _refused("Its request was not recorded.", "Call again.")
    try:
        resolve(provider.id)
    except PolicyRefused as refused:  # its fix is about an argument that continuing has not
        fix = "Let the operator add it to KIMI_ALLOWED_PROVIDERS, or ask for the rest in a new call."
        raise PolicyRefused(f"{_CAN_NOT} {refused.message}", fix=fix, rule=refused.rule) from None


def turns(record: RunRecord) -> tuple[Turn, ...]:
    """What the run added to its conversation, as it was recorded; empty where that can't be read."""
    try:
        return tuple(from_json(Turn, row) for row in cast("list[Any]", record.request.get("turns") or ()))
    except UNREADABLE:
        return ()


def shows_files(record: RunRecord) -> bool:
    """Whether the run showed a picture or a clip of a folder of the user's."""
    return any(part.url.startswith("path:") for turn in turns(record) for part in turn.media)


def request(record: RunRecord, conversation: tuple[Turn, ...]) -> Request:
    """The run's request, as it was recorded; ``conversation``: all of its turns."""
    recorded = record.request
    return Request(
        mode=record.outcome.mode or "thinking",
        turns=conversation,
        sampling=recorded.get("sampling") or {},
        max_tokens=recorded.get("max_tokens"),
        effort=recorded.get("effort"),
        response_schema=recorded.get("response_schema"),
        model_asked=record.outcome.model_asked or "auto",
    )


def plan_rest(plan: Plan, cut: Outcome, added: Sequence[Turn]) -> Plan:
    """The plan that continues a cut answer. Raises ``ContextTooLong`` where it does not fit the model's context.

    ``added``: the turns of the run before the answer.
    """
    reasoning = last_reasoning(cut.reasoning, added)
    begun = Turn(role="assistant", parts=(TextPart(text=cut.answer),), reasoning=reasoning, partial=True)
    before = tuple(turn for turn in plan.turns if not turn.partial)
    available = plan.profile.model.context_tokens - with_margin(estimated_tokens((*before, begun)))
    if available < policy.LEAST_OUTPUT_TOKENS:
        raise ContextTooLong(
            f"The answer can't be continued: with it the context of {plan.profile.model.id} is full.",
            fix="Ask for the rest in a new call, with the end of this answer in `prompt`.",
        )
    times = 1 + max((each.sent for each in cut.policy if each.rule == RULE), default=0)
    note = policy.reported(
        RULE, field="answer", sent=times, chars=len(cut.answer), times=f", {times} times in all" if times > 1 else ""
    )
    return replace(
        plan,
        turns=(*before, begun),
        tool_choice="none" if plan.tools else plan.tool_choice,
        max_tokens=min(plan.max_tokens, available),
        adjustments=with_note(plan.adjustments, (note,)),
    )


def joined(cut: Outcome, rest: Outcome) -> Outcome:
    """The outcome of a continued answer: what all of its requests took and cost, and what the policy did in any."""
    cost = None if cut.cost_usd is None or rest.cost_usd is None else cut.cost_usd + rest.cost_usd
    earlier = tuple(each for each in cut.policy if each.rule != RULE and each not in rest.policy)
    usage = add_usage(cut.usage, rest.usage)
    return replace(rest, usage=usage, cost_usd=cost, policy=(*earlier, *rest.policy))


def _refused(why: str, fix: str) -> InvalidArguments:
    return InvalidArguments(f"{_CAN_NOT} {why}", fix=fix)
