"""One function for each kind of rule. Pure, no I/O.

Each gets its rule and yields a ``Finding`` for every objection; action, message and fix are the rule's. The tables at
the end give each kind its function, in the order in which they are applied. Kinds that check the content of turns
(media, reasoning, texts) are in ``content_checks.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any, cast
from urllib.parse import urlsplit

from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile, Provider, same_model
from kimi_mcp.core.types import Completion, Request
from kimi_mcp.policy import content_checks
from kimi_mcp.policy.findings import Finding, Findings, PolicyContext
from kimi_mcp.policy.rules import Rule
from kimi_mcp.policy.schema_dialect import parameters_fault, problems, rewritten, rewritten_parameters

# ── before anything is sent ───────────────────────────────────────────────────────────────────────────────────────


def _endpoint(rule: Rule, gathered: PolicyContext) -> Findings:
    try:
        host = (urlsplit(gathered.base_url).hostname or "").rstrip(".").lower()
    except ValueError:
        return  # no URL at all: ``access`` says so
    if host in rule.options["hosts"]:
        yield Finding.of(rule, field="KIMI_BASE_URL", asked=host)


def _provider_allowed(rule: Rule, gathered: PolicyContext) -> Findings:
    asked = gathered.provider_asked
    if asked is not None and asked not in gathered.allowed_providers:
        yield Finding.of(rule, field="provider", asked=asked, allowed=" or ".join(gathered.allowed_providers))


# ── the request ───────────────────────────────────────────────────────────────────────────────────────────────────


def _model_served(rule: Rule, request: Request, plan: Plan, gathered: PolicyContext) -> Findings:
    first, asked = plan.profile, request.model_asked
    if gathered.stands_in:
        yield _stand_in(rule, first, asked, gathered.day)
        return
    if _served(first, gathered):
        return
    successor = next((other for other in gathered.successors if _served(other, gathered)), None)
    places = _places(first, gathered.day)
    if asked != "auto":
        yield Finding.of(rule, field="model", asked=asked, **places)
    elif successor is not None:
        yield Finding.of(
            rule,
            field="model",
            asked=asked,
            sent=successor.model.id,
            action="adjust",
            left_open=True,
            adjust=lambda plan: replace(plan, profile=successor),
            **places,
        )
    else:
        yield _nothing_served(Finding.of(rule, field="model", asked=asked, **places), first, gathered)


def _stand_in(rule: Rule, profile: Profile, asked: str, day: date) -> Finding:
    """An engine of the user serves a model under a name that the catalogue does not have."""
    wire_id = profile.serving.wire_id
    found = Finding.of(rule, field="model", asked=asked, sent=wire_id, action="warn", **_places(profile, day))
    return replace(found, message=f"{wire_id} is not in the catalogue; it is treated as {profile.model.id}.")


def _nothing_served(found: Finding, profile: Profile, gathered: PolicyContext) -> Finding:
    listed = ", ".join(sorted(gathered.served or ())[:8])
    return replace(
        found,
        message=f"{profile.provider.id} serves no model of the catalogue today"
        + (f"; it lists {listed}." if listed else "."),
        fix="Set KIMI_MODEL to an id that it serves, or choose another provider with KIMI_PROVIDER.",
    )


def _served(profile: Profile, gathered: PolicyContext) -> bool:
    """By date, and by the provider's own list where it is known: a list may still name what is gone (NIM)."""
    return profile.serving.served_on(gathered.day) and (
        gathered.served is None or profile.serving.wire_id in gathered.served
    )


def _places(profile: Profile, day: date) -> dict[str, Any]:
    serving = profile.serving
    when = " (it is not in its list of models)"
    if serving.until is not None and serving.until <= day:
        when = f" (ended {serving.until.isoformat()})"
    elif serving.found_gone is not None and serving.found_gone <= day:
        when = f" (found to be gone on {serving.found_gone.isoformat()})"
    return {"provider": profile.provider.id, "model": profile.model.id, "when": when}


def _mode_offered(rule: Rule, request: Request, plan: Plan, gathered: PolicyContext) -> Findings:
    del request
    profile = plan.profile
    if plan.mode != "instant" or profile.can_stop_thinking:
        return
    least = profile.model.efforts[0] if profile.model.efforts else None
    always = not profile.model.can_stop_thinking
    offers = ", ".join(f"{model} at {provider}" for provider, model in gathered.instant_offers
                       if provider in gathered.allowed_providers)  # fmt: skip
    yield Finding.of(
        rule,
        field="mode",
        asked="instant",
        sent="thinking",
        cause=f"{profile.model.id} always thinks" if always else f"{profile.provider.id} has no switch for thinking",
        effort=f", with its least effort ({least})" if least else "",
        offers=f"Name one that can answer at once ({offers}), or use kimi_think." if offers else "Use kimi_think.",
        adjust=lambda plan: replace(plan, mode="thinking", effort=plan.effort or least),
    )


def _fixed_sampling(rule: Rule, request: Request, plan: Plan, gathered: PolicyContext) -> Findings:
    del gathered
    profile = plan.profile
    fixed = profile.fixed(plan.mode)
    if fixed is None and profile.provider.self_hosted:
        return  # nothing is published, and the engine is the operator's own
    for name in rule.options["fields"]:
        asked = request.sampling.get(name)
        wanted = None if fixed is None else fixed.get(name)
        if asked is None or asked == wanted:
            continue
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
            allowed=f"{name} {wanted:g} alone" if wanted is not None else f"no {name} that was ever published",
            wanted="nothing" if wanted is None else f"{wanted:g}",
            adjust=lambda plan, name=name, wanted=wanted: replace(plan, sampling=_with(plan.sampling, name, wanted)),
        )


def _with(sampling: Mapping[str, float], name: str, value: float | None) -> dict[str, float]:
    return {key: sampling[key] for key in sampling if key != name} | ({} if value is None else {name: value})


def _output_floor(rule: Rule, request: Request, plan: Plan, gathered: PolicyContext) -> Findings:
    del gathered
    floor = min(rule.options["floor"], plan.profile.output_ceiling)
    if plan.mode == "thinking" and request.max_tokens is not None and request.max_tokens < floor:
        yield Finding.of(
            rule,
            field="max_tokens",
            asked=request.max_tokens,
            sent=floor,
            adjust=lambda plan: replace(plan, max_tokens=floor),
        )


def _ceiling(rule: Rule, request: Request, plan: Plan, gathered: PolicyContext) -> Findings:
    del plan, gathered
    for name, most in rule.options["ceilings"].items():
        if request.limits.get(name, 0) > most:
            yield Finding.of(
                rule,
                field=name,
                asked=request.limits[name],
                sent=most,
                adjust=lambda plan, name=name, most=most: replace(plan, limits={**plan.limits, name: most}),
            )


def _tool_choice(rule: Rule, request: Request, plan: Plan, gathered: PolicyContext) -> Findings:
    del request, gathered
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
            adjust=lambda plan: replace(plan, tool_choice="auto"),
        )


def tools_fit(tools: Iterable[Mapping[str, Any]], provider: Provider) -> bool:
    """Whether a provider takes all of these tools as they are."""
    return not provider.moonshot_schemas or not any(_tool_fault(tool) for tool in tools)


def _tool_fault(tool: Mapping[str, Any]) -> str | None:
    parameters = tool.get("parameters")
    return None if parameters is None else parameters_fault(parameters)


def _schema_dialect(rule: Rule, request: Request, plan: Plan, gathered: PolicyContext) -> Findings:
    if not plan.profile.provider.moonshot_schemas:
        return
    provider = plan.profile.provider.id
    known = request.tools == gathered.fitting_tools
    for index, tool in enumerate(() if known else request.tools):
        fault = _tool_fault(tool)
        if fault is not None:
            new_schema = rewritten_parameters(tool["parameters"])
            new = None if new_schema is None else {**tool, "parameters": new_schema}
            yield Finding.of(
                rule,
                field=f"tools[{index}]",
                asked=tool.get("name"),
                sent="rewritten without loss" if new else "left out",
                provider=provider,
                fault=fault,
                adjust=lambda plan, tool=tool, new=new: _with_tool(plan, tool, new),
            )
    schema = request.response_schema
    fault = next(problems(schema), None) if schema is not None else None
    if schema is not None and fault is not None:
        new_schema = rewritten(schema)
        yield Finding.of(
            rule,
            field="response_schema",
            asked="as given",
            sent="rewritten without loss" if new_schema else None,
            action="adjust" if new_schema else "refuse",
            provider=provider,
            fault=fault,
            adjust=lambda plan: replace(plan, response_schema=new_schema),
        )


def _with_tool(plan: Plan, old: Mapping[str, Any], new: Mapping[str, Any] | None) -> Plan:
    """The plan with a tool replaced or left out; a tool that is left out can't be the one that must be called."""
    swapped = (new if tool is old else tool for tool in plan.tools)
    plan = replace(plan, tools=tuple(tool for tool in swapped if tool is not None))
    forced = plan.tool_choice.get("function") if isinstance(plan.tool_choice, Mapping) else None
    if new is None and isinstance(forced, Mapping) and cast(dict[str, Any], forced).get("name") == old.get("name"):
        return replace(plan, tool_choice="auto")
    return plan


# ── the answer ────────────────────────────────────────────────────────────────────────────────────────────────────


def _reasoning_lost(rule: Rule, plan: Plan, completion: Completion) -> Findings:
    if plan.mode != "thinking" or completion.reasoning or not (completion.answer or completion.tool_calls):
        return
    inline = "</think>" in completion.answer
    yield Finding.of(
        rule,
        field="reasoning",
        asked=plan.profile.provider.reasoning_read[0] if plan.profile.provider.reasoning_read else None,
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

REQUEST_KINDS: Mapping[str, Callable[[Rule, Request, Plan, PolicyContext], Findings]] = {
    "model-served": _model_served,
    "mode-offered": _mode_offered,
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

REPORTED_KINDS = frozenset({"reported"})
"""Seen elsewhere on the path and only worded here."""
