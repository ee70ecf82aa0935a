"""The one path that every call takes, from arguments to outcome. I/O: it asks the rooms below, in this order.

A turn, a shell's ``ask`` and, later, a swarm's step all come through :meth:`Engine.run`; there is no second way to an
upstream. It is where errors become outcomes: what a call cost and what had arrived is never lost on the way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from kimi_mcp import access, catalogue, choice, policy, secrecy, structure, upstream, wire
from kimi_mcp.errors import (
    AnswerCutOff,
    CallRefused,
    ContentFiltered,
    ContextTooLong,
    Internal,
    InvalidArguments,
    KimiError,
    PolicyRefused,
    UpstreamBroken,
)
from kimi_mcp.outcome import Outcome
from kimi_mcp.plan import Plan
from kimi_mcp.runs import Run
from kimi_mcp.settings import Settings
from kimi_mcp.tokens import least_tokens
from kimi_mcp.types import SAMPLING, Completion, Mode, Request, TextPart, Turn, Usage, system, user

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one tool call asks for, once its arguments were validated."""

    mode: Mode
    """The mode of the tool that was called."""
    prompt: str
    """Verbatim."""
    system: str | None = None
    """A system prompt; None: none is sent."""
    response_schema: Mapping[str, Any] | None = None
    """JSON schema of the answer."""
    max_tokens: int | None = None
    """Bound on reasoning plus answer, in tokens."""
    temperature: float | None = None
    """Sampling temperature."""
    model: str | None = None
    """The ``model`` argument; None: the setting decides."""
    provider: str | None = None
    """The ``provider`` argument; None: the settings decide."""


def today() -> date:
    """The day on which catalogue dates are judged (UTC)."""
    return datetime.now(UTC).date()


class Engine:
    """Takes calls along the one path."""

    def __init__(self, settings: Settings, *, day: Callable[[], date] = today) -> None:
        self.settings = settings
        """What the environment said when the server started."""
        self._day = day
        self._said_borrowed = False
        self._upstream = upstream.Upstream(
            deadlines=upstream.Deadlines(
                first_token_s=settings.first_token_timeout_s,
                idle_s=settings.idle_timeout_s,
                total_s=settings.total_timeout_s,
            ),
            max_concurrency=settings.max_concurrency,
        )
        secrecy.SECRETS.add(*settings.keys.values())

    async def aclose(self) -> None:
        """Close every connection."""
        await self._upstream.aclose()

    async def run(self, call: Call, run: Run) -> Outcome:
        """The outcome of a call, good or bad; nothing but a cancellation is raised."""
        try:
            return await self._path(call, run)
        except KimiError as error:
            return run.snapshot("failed", error)
        except Exception:
            log.exception("a call failed by a fault of our own")
            fault = Internal(
                "The server made a mistake; nothing of what you sent is at fault.",
                fix="Call again; if it happens again, report it with the log lines of the server.",
            )
            return run.snapshot("failed", fault)

    async def _path(self, call: Call, run: Run) -> Outcome:
        request, chosen, gathered, endpoint = await self._gather(call, run)
        plan = _decided(policy.decide(request, chosen.profile, gathered))
        _fits(plan)
        run.begin(plan)
        completion = await self._ask(plan, run, endpoint)
        if plan.response_schema is None or _shortfall(plan, completion):
            return _concluded(plan, completion, run)
        return await self._structured(plan, plan.response_schema, completion, run, endpoint)

    async def _gather(self, call: Call, run: Run) -> tuple[Request, choice.Choice, policy.Gathered, upstream.Endpoint]:
        """Everything the policy must know, asked for before it decides."""
        settings, facts, day = self.settings, catalogue.load(), self._day()
        settings.check()
        run.model_asked = call.model or settings.model
        default = access.chosen_provider(settings, facts)
        provider = access.named_provider(call.provider, facts) if call.provider else default
        run.provider, run.mode = provider.id, call.mode
        gathered = policy.Gathered(
            day=day,
            base_url=(settings.base_url if provider is default else None) or provider.base_url,
            allowed_providers=tuple(dict.fromkeys((default.id, *settings.allowed_providers))),
            provider_asked=call.provider and provider.id,
            strict=settings.policy == "strict",
        )
        if refusal := policy.admit(gathered):
            raise _error_of(refusal)
        way = access.access_to(provider, settings, default)
        endpoint = upstream.Endpoint(provider=provider, base_url=way.base_url, key=way.key)
        if way.borrowed and not self._said_borrowed:
            self._said_borrowed = True
            log.warning("%s is used as the key of %s, because KIMI_PROVIDER says so", way.key_variable, provider.id)
        served = await self._served(run.model_asked, provider.self_hosted, endpoint)
        chosen = choice.choose(run.model_asked, provider, facts, served=served, by_setting=call.model is None)
        gathered = replace(
            gathered,
            served=served,
            successors=chosen.successors,
            stands_in=chosen.stands_in,
            video_offers=facts.video_offers(day),
        )
        return _request(call, run.model_asked), chosen, gathered, endpoint

    async def _served(self, asked: str, self_hosted: bool, endpoint: upstream.Endpoint) -> frozenset[str] | None:
        """What the provider lists now, asked only where the answer can change the choice."""
        if not endpoint.provider.lists_models or not (asked == choice.AUTO or self_hosted):
            return None
        return await self._upstream.served_models(endpoint)

    async def _ask(self, plan: Plan, run: Run, endpoint: upstream.Endpoint) -> Completion:
        """One request, streamed and folded; success needs a finish reason."""
        await self._upstream.stream(endpoint, wire.encode(plan), run.fold, on_attempt=run.attempted, on_wait=run.waits)
        if not run.fold.finished:
            raise UpstreamBroken(
                f"{endpoint.provider.id} ended the stream without saying that the answer is whole.",
                fix="Call again; if it happens often, look for a proxy between here and the provider.",
            )
        return run.fold.completion()

    async def _structured(
        self, plan: Plan, schema: Mapping[str, Any], first: Completion, run: Run, endpoint: upstream.Endpoint
    ) -> Outcome:
        """The outcome of an answer that must fit a schema: as it is, or after one repair, which is always reported."""
        value, fault = structure.read_answer(first.answer, schema)
        if fault is None:
            return replace(_concluded(plan, first, run), parsed=value)
        again = _asked_again(plan, first, fault)
        run.begin(again)
        run.begin_anew()
        try:
            second = await self._ask(again, run, endpoint)
        except KimiError as error:  # the first answer was paid for: it stays
            return replace(_concluded(again, first, run), status="partial", error=error)
        usage = _sum(first.usage, second.usage)
        outcome = _concluded(again, replace(second, usage=usage), run)
        if outcome.status == "failed":  # so it does where the second one holds nothing
            return replace(_concluded(again, replace(first, usage=usage), run), status="partial", error=outcome.error)
        value, fault = structure.read_answer(second.answer, schema)
        if fault is None or outcome.error is not None:
            return replace(outcome, parsed=value)
        misfit = UpstreamBroken(
            f"The answer does not fit the response_schema, nor did the one before it: {fault}.",
            fix="Simplify `response_schema`, or name its fields in the prompt.",
        )
        return replace(outcome, status="partial", error=misfit)


def _request(call: Call, model_asked: str) -> Request:
    sampling = {} if call.temperature is None else {SAMPLING[0]: call.temperature}
    return Request(
        mode=call.mode,
        turns=(*((system(call.system),) if call.system else ()), user(call.prompt)),
        sampling=sampling,
        max_tokens=call.max_tokens,
        response_schema=call.response_schema,
        model_asked=model_asked,
    )


def _decided(decision: Plan | policy.Refusal) -> Plan:
    if isinstance(decision, policy.Refusal):
        raise _error_of(decision)
    return decision


def _error_of(refusal: policy.Refusal) -> CallRefused:
    kind = InvalidArguments if refusal.rule is None else PolicyRefused
    return kind(refusal.message, fix=refusal.fix, rule=refusal.rule)


def _fits(plan: Plan) -> None:
    """Refuse what is certainly beyond the model's context, before it is paid for."""
    least, most = least_tokens(plan.turns), plan.profile.model.context_tokens
    if least > most:
        raise ContextTooLong(
            f"The prompt has at least {least:,} tokens; {plan.profile.model.id} takes {most:,} in all.",
            fix="Shorten `prompt`, or name a `model` with a longer context.",
        )


def _asked_again(plan: Plan, first: Completion, fault: str) -> Plan:
    """The plan for a repair, with the first answer and its reasoning in view."""
    note = policy.reported("answer-repaired", field="response_schema", fault=fault)
    answered = Turn(role="assistant", parts=(TextPart(text=first.answer),), reasoning=first.reasoning)
    wish = user(f"That does not fit the JSON schema: {fault}. Answer again with the JSON value alone.")
    return replace(plan, turns=(*plan.turns, answered, wish), adjustments=(*plan.adjustments, note))


def _concluded(plan: Plan, completion: Completion, run: Run) -> Outcome:
    """How a finished answer is to be called."""
    error = _shortfall(plan, completion)
    status = "completed" if error is None else "partial" if completion.answer.strip() else "failed"
    return replace(
        run.snapshot(status, error),
        answer=completion.answer,
        reasoning=completion.reasoning,
        model_answered=completion.model,
        finish_reason=completion.finish_reason,
        usage=completion.usage,
        policy=(*plan.adjustments, *policy.judge(plan, completion)),
    )


def _shortfall(plan: Plan, completion: Completion) -> KimiError | None:
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


def _sum(first: Usage | None, second: Usage | None) -> Usage | None:
    """The tokens of two requests together; a number that one of them lacks is unknown."""
    if first is None or second is None:
        return None
    names = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "total_tokens")
    pairs = {name: (getattr(first, name), getattr(second, name)) for name in names}
    return Usage(**{name: None if None in pair else sum(pair) for name, pair in pairs.items()})
