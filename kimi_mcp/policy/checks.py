"""One function for each kind of rule. Pure, no I/O.

Each gets its rule and yields a ``Finding`` for every objection; action, message and fix are the rule's. The tables at
the end give each kind its function, in the order in which they are applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile, Provider, same_model
from kimi_mcp.core.types import Completion
from kimi_mcp.policy import content_checks
from kimi_mcp.policy.findings import Finding, Findings, PolicyContext, Rule
from kimi_mcp.policy.schema_dialect import parameters_fault, problems
from kimi_mcp.policy.schema_rewriting import rewritten, rewritten_parameters

# ── before anything is sent ───────────────────────────────────────────────────────────────────────────────────────


def _endpoint(rule: Rule, context: PolicyContext) -> Findings:
    try:
        host = (urlsplit(context.base_url).hostname or "").rstrip(".").lower()
    except ValueError:
        return  # no URL at all: ``access`` says so
    if host in rule.options["hosts"]:
        yield Finding.of(rule, field="KIMI_BASE_URL", asked=host)


def _provider_allowed(rule: Rule, context: PolicyContext) -> Findings:
    asked = context.provider_requested
    if asked is not None and asked not in context.allowed_providers:
        yield Finding.of(rule, field="provider", asked=asked, allowed=" or ".join(context.allowed_providers))


# ── the request ───────────────────────────────────────────────────────────────────────────────────────────────────


def _model_served(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    profile, asked = plan.profile, plan.model_asked
    provider, wire_id, model = profile.provider.id, profile.serving.wire_id, profile.model.id
    found = Finding.of(
        rule, field="model", asked=asked, provider=provider, model=model, when=_end(profile, context.day)
    )
    successor = next((other for other in context.successors if _served(other, context)), None)
    if context.stands_in:  # an engine of the user serves a model under a name that the catalogue does not have
        message = f"{wire_id} is not in the catalogue; it is treated as {model}."
        yield replace(found, sent=wire_id, action="warn", message=message)
    elif _served(profile, context):
        return
    elif asked != "auto":
        yield found
    elif successor is not None:
        changes = {"profile": successor}
        yield replace(found, sent=successor.model.id, action="adjust", left_open=True, changes=changes)
    else:
        listed = f"; it lists {', '.join(sorted(context.served)[:8])}" if context.served else ""
        yield replace(
            found,
            message=f"{provider} serves no model of the catalogue today{listed}.",
            fix="Set KIMI_MODEL to an id that it serves, or choose another provider with KIMI_PROVIDER.",
        )


def _served(profile: Profile, context: PolicyContext) -> bool:
    """By date, and by the provider's own list where it is known.

    A list may still name what has ended (NIM); what was only found to be gone is served again where it is listed.
    """
    row = profile.serving
    if context.served is None:
        return row.served_on(context.day)
    return row.wire_id in context.served and (row.until is None or context.day < row.until)


def _end(profile: Profile, day: date) -> str:
    until, found_gone = profile.serving.until, profile.serving.found_gone
    if until is not None and until <= day:
        return f" (ended {until.isoformat()})"
    if found_gone is not None and found_gone <= day:
        return f" (found to be gone on {found_gone.isoformat()})"
    return " (it is not in its list of models)"


def _mode_offered(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    profile = plan.profile
    if plan.mode != "instant" or profile.can_stop_thinking:
        return
    least = profile.efforts[0] if profile.efforts else None
    always = not profile.model.can_stop_thinking
    allowed = context.allowed_providers
    offers = ", ".join(f"{model} at {provider}" for provider, model in context.instant_offers if provider in allowed)
    yield Finding.of(
        rule,
        field="mode",
        asked="instant",
        sent="thinking",
        cause=f"{profile.model.id} always thinks" if always else f"{profile.provider.id} has no switch for thinking",
        effort=f", with its least effort ({least})" if least else "",
        offers=f"Name one that can answer at once ({offers}), or use kimi_think." if offers else "Use kimi_think.",
        changes={"mode": "thinking", "effort": plan.effort or least},
    )


def _effort_known(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    profile, known = plan.profile, plan.profile.efforts
    if plan.effort is None or plan.effort in known:
        return
    allowed = context.allowed_providers
    offers = ", ".join(dict.fromkeys(model for provider, model in context.effort_offers if provider in allowed))
    yield Finding.of(
        rule,
        field="effort",
        asked=plan.effort,
        note="It thinks as much as by default.",
        cause=f"{profile.model.id} takes the efforts {', '.join(known)}"
        if known
        else f"{profile.provider.id} has no field for an effort"
        if profile.model.efforts
        else f"{profile.model.id} has no efforts",
        offers=f", or name a `model` that has efforts ({offers})" if offers else "",
        changes={"effort": None},
    )


def _fixed_sampling(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    profile = plan.profile
    fixed = profile.fixed(plan.mode)
    if fixed is None and profile.provider.self_hosted:
        return  # nothing is published, and the engine is the operator's own
    sampling = dict(plan.sampling)
    for name in rule.options["fields"]:
        asked = plan.sampling.get(name)
        wanted = None if fixed is None else fixed.get(name)
        if asked is None or asked == wanted:
            continue
        del sampling[name]
        if wanted is not None:
            sampling[name] = wanted
        is_sent = wanted is not None and profile.provider.sends_sampling
        means = "" if wanted is None else f", which means {wanted:g}"
        yield Finding.of(
            rule,
            field=name,
            asked=asked,
            sent=wanted if is_sent else None,
            note="" if is_sent else f"It is left out of the request{means}.",
            model=profile.model.id,
            mode=plan.mode,
            allowed=f"only {name} {wanted:g}" if wanted is not None else f"no {name} that was ever published",
            wanted="nothing" if wanted is None else f"{wanted:g}",
            changes={"sampling": {**sampling}},
        )


def _output_floor(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    floor = min(rule.options["floor"], plan.profile.output_ceiling)
    if plan.mode == "thinking" and 0 < plan.max_tokens < floor:
        changes = {"max_tokens": floor}
        yield Finding.of(rule, field="max_tokens", asked=plan.max_tokens, sent=floor, changes=changes)


def _ceiling(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    limits = dict(plan.limits)
    for name, most in rule.options["ceilings"].items():
        if (asked := plan.limits.get(name, 0)) > most:
            limits[name] = most
            yield Finding.of(rule, field=name, asked=asked, sent=most, changes={"limits": {**limits}})


def _tool_choice(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    choice, allowed = plan.tool_choice, ("auto", "none")
    if plan.profile.model.forced_tool_choice_thinking:
        allowed = (*allowed, "required")  # one function by its name is taken by none of them
    if plan.mode == "thinking" and choice is not None and choice not in allowed:
        yield Finding.of(
            rule,
            field="tool_choice",
            asked=choice,
            sent="auto",
            model=plan.profile.model.id,
            allowed=f"{', '.join(allowed[:-1])} or {allowed[-1]}",
            changes={"tool_choice": "auto"},
        )


def tools_fit(tools: Iterable[Mapping[str, Any]], provider: Provider) -> bool:
    """Whether a provider takes all of these tools as they are."""
    return not provider.moonshot_schemas or not any(_tool_fault(tool) for tool in tools)


def _tool_fault(tool: Mapping[str, Any]) -> str | None:
    parameters = tool.get("parameters")
    return None if parameters is None else parameters_fault(parameters)


def _schema_dialect(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    provider = plan.profile.provider
    if not provider.moonshot_schemas:
        return
    find = partial(Finding.of, rule, provider=provider.id)
    tools: list[Mapping[str, Any] | None] = [*plan.tools]
    forced, choice = _forced(plan.tool_choice), plan.tool_choice
    for index, tool in enumerate(() if plan.tools == context.matching_tools else plan.tools):
        if (fault := _tool_fault(tool)) is None:
            continue
        new = rewritten_parameters(tool["parameters"])
        tools[index] = None if new is None else {**tool, "parameters": new}
        if new is None and forced is not None and forced == tool.get("name"):
            choice = "auto"  # a tool that is left out can't be the one that must be called
        yield find(
            field=f"tools[{index}]",
            asked=tool.get("name"),
            sent="left out" if new is None else "rewritten without loss",
            fault=fault,
            changes={"tools": tuple(tool for tool in tools if tool is not None), "tool_choice": choice},
        )
    schema = plan.response_schema if "json_schema" in provider.response_format else None  # else it is sent in words
    if schema is not None and (fault := next(problems(schema), None)) is not None:
        new = rewritten(schema)
        yield find(
            field="response_schema",
            asked="as given",
            sent="rewritten without loss" if new else None,
            action="adjust" if new else "refuse",
            fault=fault,
            changes={"response_schema": new},
        )


def _forced(choice: Any) -> Any:
    """The name of the function that must be called."""
    function = cast(dict[str, Any], choice).get("function") if isinstance(choice, Mapping) else None
    return cast(dict[str, Any], function).get("name") if isinstance(function, Mapping) else None


# ── the answer ────────────────────────────────────────────────────────────────────────────────────────────────────


def _reasoning_lost(rule: Rule, plan: Plan, completion: Completion) -> Findings:
    if plan.mode != "thinking" or completion.reasoning or not (completion.answer or completion.tool_calls):
        return
    inline = "</think>" in completion.answer
    yield Finding.of(
        rule,
        field="reasoning",
        asked=plan.profile.provider.reasoning_read[0],
        provider=plan.profile.provider.id,
        hint=" It is inside the answer, between <think> tags." if inline else "",
        hint_fix="Start the engine with --reasoning-parser kimi_k2."
        if inline
        else "Look for a proxy that drops fields, or use another provider.",
    )


def _other_model(rule: Rule, plan: Plan, completion: Completion) -> Findings:
    sent, answered = plan.profile.serving.wire_id, completion.model
    if answered and not same_model(answered, sent):
        yield Finding.of(rule, field="model", asked=sent, answered=answered[:120], provider=plan.profile.provider.id)


# ── the tables ────────────────────────────────────────────────────────────────────────────────────────────────────

ADMISSION_KINDS: Mapping[str, Callable[[Rule, PolicyContext], Findings]] = {
    "endpoint": _endpoint,
    "provider-allowed": _provider_allowed,
}
"""Asked before anything at all is sent."""

REQUEST_KINDS: Mapping[str, Callable[[Rule, Plan, PolicyContext], Findings]] = {
    "model-served": _model_served,
    "mode-offered": _mode_offered,
    "effort-known": _effort_known,
    "fixed-sampling": _fixed_sampling,
    "output-floor": _output_floor,
    "ceiling": _ceiling,
    "tool-choice": _tool_choice,
    "schema-dialect": _schema_dialect,
    "media-taken": content_checks.media_taken,
    "media-url": content_checks.media_url,
    "media-format": content_checks.media_format,
    "reasoning-kept": content_checks.reasoning_kept,
    "text-signs": content_checks.text_signs,
    "default-system": content_checks.default_system,
}
"""Asked of a request, in this order: which model and mode first, since the others depend on them."""

ANSWER_KINDS: Mapping[str, Callable[[Rule, Plan, Completion], Findings]] = {
    "reasoning-lost": _reasoning_lost,
    "other-model": _other_model,
}
"""Asked of an answer."""
