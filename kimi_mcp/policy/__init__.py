"""The policy: what may be sent, what is adjusted first, what is refused, and what an answer must hold. Pure, no I/O.

``admit`` decides whether anything may be sent; ``decide`` makes a plan of a request or refuses it; ``judge`` checks the
answer; ``check`` lists the findings for a body that somebody else wrote. All apply the rows of ``rules.toml``: a rule
is a row there, and a function in ``checks.py`` only where no function of its kind exists yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any, TypeVar

from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.tokens import estimated_tokens, with_margin
from kimi_mcp.core.types import Adjustment, Completion, Mode, Request
from kimi_mcp.policy.checks import ADMISSION_KINDS, ANSWER_KINDS, REQUEST_KINDS, tools_fit
from kimi_mcp.policy.findings import OUTSIDE_THE_TABLE, Finding, PolicyContext, Rule, load_rules

__all__ = [
    "Finding",
    "PolicyContext",
    "Rule",
    "admit",
    "check",
    "decide",
    "judge",
    "least_output",
    "load_rules",
    "reported",
    "tools_fit",
]

T = TypeVar("T")

DEFAULT_OUTPUT_TOKENS = 32_768
"""Sent where neither the caller nor the catalogue has a limit (Moonshot's default for K2.5, K2.6: kimi-help-center)."""

LEAST_OUTPUT_TOKENS = 1_024
"""The least limit in instant mode, however long the prompt is: the provider then reports by how much it is too long."""


def admit(context: PolicyContext) -> Finding | None:
    """Why nothing may be sent to that provider at that URL; called before the first byte is sent."""
    found = (finding for rule, find in _with_functions(ADMISSION_KINDS) for finding in find(rule, context))
    return next(found, None)


def decide(request: Request, profile: Profile, context: PolicyContext) -> Plan | Finding:
    """What will be sent for a request, or why nothing will.

    Total: every request gets a plan or a refusal, none raises. Under ``strict`` a finding that would adjust what the
    caller asked for refuses instead; what the caller left open is chosen and reported either way.
    """
    if refusal := admit(context):
        return refusal
    plan = _first_draft(request, profile)
    for rule, find in _with_functions(REQUEST_KINDS):
        for finding in find(rule, plan, context):
            if finding.action == "refuse" or (finding.action == "adjust" and context.strict and not finding.left_open):
                return finding
            plan = replace(plan, **finding.changes or {}, adjustments=(*plan.adjustments, finding.as_adjustment()))
    return _settled(plan)


def check(request: Request, profile: Profile, context: PolicyContext) -> tuple[Finding, ...]:
    """Every objection to a request, adjusted or not: what ``kimi-mcp policy check`` prints."""
    plan = _first_draft(request, profile)
    found: list[Finding] = []
    for rule, find in _with_functions(REQUEST_KINDS):
        for finding in find(rule, plan, context):
            found.append(finding)
            plan = replace(plan, **finding.changes or {})
    settled = _settled(plan)
    return (*found, settled) if isinstance(settled, Finding) else tuple(found)


def judge(plan: Plan, completion: Completion) -> tuple[Adjustment, ...]:
    """What an answer's caller is warned of: another model answered, or the reasoning was lost."""
    rules = _with_functions(ANSWER_KINDS)
    return tuple(finding.as_adjustment() for rule, find in rules for finding in find(rule, plan, completion))


def reported(rule_id: str, *, field: str, asked: Any = None, sent: Any = None, **places: Any) -> Adjustment:
    """The entry for a rule whose case is seen elsewhere on the path (kind ``reported``)."""
    rule = load_rules()[rule_id]
    return Finding.of(rule, field=field, asked=asked, sent=sent, **places).as_adjustment()


def _with_functions(kinds: Mapping[str, T]) -> Sequence[tuple[Rule, T]]:
    """The rules of these kinds, each with its function, in the order of ``kinds``."""
    return [(rule, find) for kind, find in kinds.items() for rule in _by_kind().get(kind, ())]


@cache
def _by_kind() -> Mapping[str, Sequence[Rule]]:
    rules = load_rules().values()
    return {kind: [rule for rule in rules if rule.kind == kind] for kind in {rule.kind for rule in rules}}


def _first_draft(request: Request, profile: Profile) -> Plan:
    """The request as a plan, before any rule is applied."""
    values: dict[str, Any] = {each.name: getattr(request, each.name) for each in fields(request)}
    values["max_tokens"] = request.max_tokens or 0
    return Plan(**values, profile=profile)


def _settled(plan: Plan) -> Plan | Finding:
    """The plan with what the caller left open filled in, and with sampling values only where they are wanted."""
    profile = plan.profile
    ceiling = profile.output_ceiling
    max_tokens = plan.max_tokens or _default_output(plan)
    if max_tokens > ceiling:
        at = f"{profile.model.id} at {profile.provider.id}"
        return Finding(
            rule=OUTSIDE_THE_TABLE,
            action="refuse",
            field="max_tokens",
            message=f"`max_tokens` is {plan.max_tokens}; {at} allows {ceiling} at most.",
            fix=f"Leave `max_tokens` out, or set it to {ceiling} or less.",
        )
    fixed = profile.fixed(plan.mode) or {}
    if profile.provider.sends_sampling:
        sampling = {name: fixed[name] for name in ("temperature", "top_p") if name in fixed} | dict(plan.sampling)
    else:
        sampling = {name: value for name, value in plan.sampling.items() if fixed.get(name) != value}
    cache_ttl = plan.cache_ttl if plan.cache_ttl in profile.cache_ttls else None
    return replace(plan, max_tokens=max_tokens, sampling=sampling, cache_ttl=cache_ttl)


def _default_output(plan: Plan) -> int:
    """The limit where the caller left it open: the model's own default, or what a long prompt leaves of the context."""
    profile = plan.profile
    wanted = min(profile.model.default_output_tokens or DEFAULT_OUTPUT_TOKENS, profile.output_ceiling)
    left = profile.model.context_tokens - with_margin(estimated_tokens(plan.turns, plan.tools))
    return max(min(wanted, left), least_output(plan.mode, profile))


def least_output(mode: Mode, profile: Profile) -> int:
    """Least tokens for reasoning and answer, however long a prompt is; fewer would be wasted."""
    floor = load_rules()["thinking-budget"].options["floor"] if mode == "thinking" else LEAST_OUTPUT_TOKENS
    return min(floor, profile.output_ceiling)
