"""One function for each kind of rule: it looks, and says what it found. Pure, no I/O.

Each gets its row and yields a ``Finding`` for every objection; what the row says (action, message, fix) is not repeated
here. The tables at the end give each kind its function, in the order in which a request passes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal
from urllib.parse import urlsplit

from kimi_mcp.catalogue.profile import Profile
from kimi_mcp.errors import Code
from kimi_mcp.plan import Plan
from kimi_mcp.policy.rules import Action, Rule, signs
from kimi_mcp.schemas import problems, rewritten
from kimi_mcp.types import SAMPLING, Adjustment, Completion, MediaPart, Request, TextPart, Turn

READ_CHARS = 4_000
"""How much of a prompt is read for signs, in code points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What was found out about the world before the policy decides; the policy itself asks nobody."""

    day: date
    """Today."""
    base_url: str
    """Where the request would go."""
    allowed_providers: tuple[str, ...]
    """Providers that may be named, the chosen one first."""
    provider_asked: str | None = None
    """The ``provider`` argument; None: left open."""
    strict: bool = False
    """Whether ``KIMI_POLICY`` is ``strict``."""
    served: frozenset[str] | None = None
    """The provider's own ids that it lists now; None: not known."""
    successors: tuple[Profile, ...] = ()
    """Under ``auto`` the provider's other models, in order of preference."""
    stands_in: bool = False
    """Whether the model's id is unknown to the catalogue and its profile is a stand-in."""
    video_offers: tuple[tuple[str, str], ...] = ()
    """Provider and model of every place that takes video today, whether allowed or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why nothing will be sent."""

    rule: str | None
    """The rule that refused; None: a limit outside the table."""
    code: Code = "policy_refused"
    """The contract's code."""
    message: str
    """What is wrong, in the caller's words."""
    fix: str
    """What to change."""


def _as_it_is(plan: Plan) -> Plan:
    return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One objection of one rule, and the mend where there is one."""

    rule: str
    """The rule's id."""
    action: Action
    """What is done about it."""
    field: str
    """The argument or wire field it is about."""
    asked: Any
    """What was asked for, as JSON."""
    sent: Any
    """What will be sent instead, as JSON."""
    message: str
    """What is wrong, in one sentence."""
    fix: str
    """What the caller can change."""
    left_open: bool = False
    """Whether the caller left it open, so that even ``strict`` chooses."""
    mend: Callable[[Plan], Plan] = _as_it_is
    """What makes the plan right."""

    @classmethod
    def of(
        cls,
        rule: Rule,
        *,
        field: str,
        asked: Any,
        sent: Any = None,
        action: Action | None = None,
        left_open: bool = False,
        mend: Callable[[Plan], Plan] = _as_it_is,
        **places: Any,
    ) -> Finding:
        """A finding with its row's sentences filled in."""
        filled = {"field": field, "asked": asked, "sent": sent, **places}
        return cls(
            rule=rule.id,
            action=action or rule.action,
            field=field,
            asked=asked,
            sent=sent,
            message=rule.message.format_map(filled),
            fix=rule.fix.format_map(filled),
            left_open=left_open,
            mend=mend,
        )

    @classmethod
    def beside_the_table(cls, refusal: Refusal) -> Finding:
        """A limit that has no row, in the form of a finding."""
        return cls(
            rule=refusal.code,
            action="refuse",
            field="max_tokens",
            asked=None,
            sent=None,
            message=refusal.message,
            fix=refusal.fix,
        )

    def as_adjustment(self) -> Adjustment:
        """The entry of a result's ``policy`` list."""
        action: Literal["adjusted", "warned"] = "adjusted" if self.action == "adjust" else "warned"
        return Adjustment(
            rule=self.rule, action=action, field=self.field, asked=self.asked, sent=self.sent, why=self.message
        )

    def as_json(self) -> dict[str, Any]:
        """The finding as ``kimi-mcp policy check --json`` prints it."""
        names = ("rule", "action", "field", "asked", "sent", "message", "fix")
        return {name: getattr(self, name) for name in names}


Findings = Iterator[Finding]


# ── before anything is sent ───────────────────────────────────────────────────────────────────────────────────────


def _endpoint(rule: Rule, gathered: Gathered) -> Findings:
    host = (urlsplit(gathered.base_url).hostname or "").rstrip(".").lower()
    if host in rule.options["hosts"]:
        yield Finding.of(rule, field="KIMI_BASE_URL", asked=host)


def _provider_allowed(rule: Rule, gathered: Gathered) -> Findings:
    asked = gathered.provider_asked
    if asked is not None and asked not in gathered.allowed_providers:
        yield Finding.of(rule, field="provider", asked=asked, allowed=" or ".join(gathered.allowed_providers))


# ── the request ───────────────────────────────────────────────────────────────────────────────────────────────────


def _model_served(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    first = plan.profile
    if gathered.stands_in:
        message = (
            f"{first.serving.wire_id} is not in the catalogue; it is taken for {first.model.id}, which {first.provider.id} "
            "prefers."
        )
        warned = Finding.of(rule, field="model", asked=request.model_asked, action="warn", **_served_places(first))
        yield replace(warned, message=message, sent=first.serving.wire_id)
        return
    if _served(first, gathered):
        return
    places = _served_places(first)
    if request.model_asked != "auto":
        chosen = next((other for other in gathered.successors if _served(other, gathered)), None)
        instead = f", or name {chosen.model.id}" if chosen else ""
        yield Finding.of(rule, field="model", asked=request.model_asked, **{**places, "instead": instead})
        return
    for successor in gathered.successors:
        if _served(successor, gathered):
            yield Finding.of(
                rule,
                field="model",
                asked="auto",
                sent=successor.model.id,
                action="adjust",
                left_open=True,
                mend=lambda plan, successor=successor: replace(plan, profile=successor),
                **places,
            )
            return
    listed = ", ".join(sorted(gathered.served or ())[:8])
    lost = Finding.of(rule, field="model", asked="auto", **places)
    yield replace(
        lost,
        message=f"{first.provider.id} serves no model of the catalogue today"
        + (f"; it lists {listed}." if listed else "."),
        fix="Set KIMI_MODEL to an id that it serves, or choose another provider with KIMI_PROVIDER.",
    )


def _served(profile: Profile, gathered: Gathered) -> bool:
    """By date, and by the provider's own list where it is known: a list may still name what is gone (NIM)."""
    return profile.serving.served_on(gathered.day) and (
        gathered.served is None or profile.serving.wire_id in gathered.served
    )


def _served_places(profile: Profile) -> dict[str, str]:
    until = profile.serving.until
    return {
        "provider": profile.provider.id,
        "model": profile.model.id,
        "when": f" (ended {until.isoformat()})" if until else " (it is not in its list of models)",
        "instead": "",
    }


def _mode_offered(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del request, gathered
    model = plan.profile.model
    if plan.mode == "instant" and not model.can_stop_thinking:
        least = model.efforts[0] if model.efforts else None
        yield Finding.of(
            rule,
            field="mode",
            asked="instant",
            sent="thinking",
            model=model.id,
            effort=f" ({least})" if least else "",
            mend=lambda plan: replace(plan, mode="thinking", effort=plan.effort or least),
        )


def _fixed_sampling(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
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
        yield Finding.of(
            rule,
            field=name,
            asked=asked,
            sent=wanted,
            model=profile.model.id,
            mode=plan.mode,
            allowed=f"{name} {wanted:g} alone" if wanted is not None else f"no {name} that was ever published",
            wanted="nothing" if wanted is None else f"{wanted:g}",
            mend=lambda plan, name=name, wanted=wanted: replace(plan, said=_with(plan.said, name, wanted)),
        )


def _with(said: Mapping[str, float], name: str, value: float | None) -> dict[str, float]:
    return {key: said[key] for key in said if key != name} | ({} if value is None else {name: value})


def _output_floor(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del gathered
    floor = min(rule.options["floor"], plan.profile.output_ceiling)
    if plan.mode == "thinking" and request.max_tokens is not None and request.max_tokens < floor:
        yield Finding.of(
            rule,
            field="max_tokens",
            asked=request.max_tokens,
            sent=floor,
            mend=lambda plan: replace(plan, max_tokens=floor),
        )


def _ceiling(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del plan, gathered
    for name, most in rule.options["ceilings"].items():
        if request.limits.get(name, 0) > most:
            yield Finding.of(
                rule,
                field=name,
                asked=request.limits[name],
                sent=most,
                mend=lambda plan, name=name, most=most: replace(plan, limits={**plan.limits, name: most}),
            )


def _tool_choice(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del request, gathered
    choice, forced_is_fine = plan.tool_choice, plan.profile.model.forced_tool_choice_thinking
    if plan.mode == "thinking" and choice not in (None, "auto", "none") and not forced_is_fine:
        yield Finding.of(
            rule,
            field="tool_choice",
            asked=choice,
            sent="auto",
            model=plan.profile.model.id,
            mend=lambda plan: replace(plan, tool_choice="auto"),
        )


def _schema_dialect(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del gathered
    if not plan.profile.provider.moonshot_schemas:
        return
    provider = plan.profile.provider.id
    for index, tool in enumerate(request.tools):
        fault = next(problems(tool.get("parameters", {})), None)
        if fault is not None:
            mended = rewritten(tool["parameters"])
            new = None if mended is None else {**tool, "parameters": mended}
            yield Finding.of(
                rule,
                field=f"tools[{index}]",
                asked=tool.get("name"),
                sent="rewritten without loss" if new else "left out",
                provider=provider,
                fault=fault,
                mend=lambda plan, tool=tool, new=new: replace(plan, tools=_swapped(plan.tools, tool, new)),
            )
    schema = request.response_schema
    fault = next(problems(schema), None) if schema is not None else None
    if schema is not None and fault is not None:
        mended = rewritten(schema)
        yield Finding.of(
            rule,
            field="response_schema",
            asked="as given",
            sent="rewritten without loss" if mended else None,
            action="adjust" if mended else "refuse",
            provider=provider,
            fault=fault,
            mend=lambda plan: replace(plan, response_schema=mended),
        )


def _swapped(
    tools: tuple[Mapping[str, Any], ...], old: Mapping[str, Any], new: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], ...]:
    swapped = (new if tool is old else tool for tool in tools)
    return tuple(tool for tool in swapped if tool is not None)


def _media_taken(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del request
    kind = rule.options["media"]
    if plan.profile.takes(kind) or not any(part.kind == kind for part in _media(plan.turns)):
        return
    offers = [f"{provider} with {model}" for provider, model in gathered.video_offers
              if provider in gathered.allowed_providers]  # fmt: skip
    others = sorted({provider for provider, _ in gathered.video_offers})
    yield Finding.of(
        rule,
        field=kind,
        asked=plan.profile.provider.id,
        provider=plan.profile.provider.id,
        model=plan.profile.model.id,
        offers=f"Name one that does: {', '.join(offers)}."
        if offers
        else "No allowed provider takes video; let the operator choose or allow one that does: "
        + f"{', '.join(others) or 'none is known'} (KIMI_PROVIDER, KIMI_ALLOWED_PROVIDERS).",
    )


def _media_url(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del request, gathered
    for part in _media(plan.turns):
        scheme = part.url.partition(":")[0].lower()
        if scheme in rule.options["inline"]:
            continue
        fetched = scheme in rule.options["fetched"]
        yield Finding.of(
            rule,
            field=f"{part.kind}_url",
            asked=f"{scheme}:",
            sent="data:" if fetched else None,
            action="adjust" if fetched else "refuse",
            provider=plan.profile.provider.id,
            scheme=scheme,
        )


def _media_format(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del request, gathered
    for part in _media(plan.turns):
        kind = re.match(r"data:([^;,]*)", part.url, re.IGNORECASE)
        if part.kind == "image" and kind is not None and kind[1].lower() not in rule.options["takes"]:
            yield Finding.of(rule, field="image_url", asked=kind[1].lower() or "unnamed", sent="image/png")


def _media(turns: tuple[Turn, ...]) -> Iterator[MediaPart]:
    return (part for turn in turns for part in turn.media)


def _reasoning_kept(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del request, gathered
    if plan.mode != "thinking":
        return
    for index, turn in enumerate(plan.turns):
        if turn.role != "assistant":
            continue
        blank = turn.reasoning is not None and turn.reasoning != "" and not turn.reasoning.strip()
        if blank or (turn.tool_calls and turn.reasoning is None):
            yield Finding.of(
                rule,
                field=f"messages[{index}]",
                asked=turn.reasoning,
                index=index,
                provider=plan.profile.provider.id,
                fault="carries blank, made-up reasoning" if blank else "calls tools without its reasoning",
            )


def _text_signs(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del gathered
    if request.mode != rule.options.get("mode", request.mode):
        return
    users = [turn for turn in plan.turns if turn.role in ("user", "system", "tool")]
    if rule.options["reads"] == "prompt":
        text = next((turn.text[:READ_CHARS] for turn in reversed(users) if turn.role == "user"), "")
    else:
        text = "\n".join(turn.text for turn in users if "<|" in turn.text)
    text = text.lower()
    for sign in signs(rule.id) if text else ():
        if seen := sign.search(text):
            words = " ".join(seen[0].split())
            shown = words if len(words) <= 60 else words[:57] + "…"
            yield Finding.of(rule, field=rule.options["field"], asked=shown, sign=shown)
            return


def _default_system(rule: Rule, request: Request, plan: Plan, gathered: Gathered) -> Findings:
    del request, gathered
    for turn in plan.turns:
        if turn.role == "system" and any(turn.text.strip().startswith(stock) for stock in rule.options["prompts"]):
            if len(turn.text.strip()) <= max(map(len, rule.options["prompts"])) + 1:
                yield Finding.of(rule, field="system", asked=turn.text.strip())
                return


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
        hint=" It stands inside the answer, between <think> tags." if inline else "",
        hint_fix="Start the engine with --reasoning-parser kimi_k2."
        if inline
        else "Look for a proxy that drops fields, or use another provider.",
    )


def _other_model(rule: Rule, plan: Plan, completion: Completion) -> Findings:
    sent, answered = plan.profile.serving.wire_id, completion.model
    if answered and _bare(answered) != _bare(sent):
        yield Finding.of(
            rule, field="model", asked=sent, answered=answered[:120], provider=plan.profile.provider.id
        )


def _bare(model: str) -> str:
    """A model's id without the path before it, a route after it, or the date of its build."""
    return re.sub(r"(:[a-z0-9_.-]+|[-@](?:20)?\d{6}|-\d{4})$", "", model.rsplit("/", 1)[-1].lower())


# ── the tables ────────────────────────────────────────────────────────────────────────────────────────────────────

ADMISSION_KINDS: Mapping[str, Callable[[Rule, Gathered], Findings]] = {
    "endpoint": _endpoint,
    "provider-allowed": _provider_allowed,
}
"""Asked before anything at all is sent."""

REQUEST_KINDS: Mapping[str, Callable[[Rule, Request, Plan, Gathered], Findings]] = {
    "model-served": _model_served,
    "mode-offered": _mode_offered,
    "fixed-sampling": _fixed_sampling,
    "output-floor": _output_floor,
    "ceiling": _ceiling,
    "tool-choice": _tool_choice,
    "schema-dialect": _schema_dialect,
    "media-taken": _media_taken,
    "media-url": _media_url,
    "media-format": _media_format,
    "reasoning-kept": _reasoning_kept,
    "text-signs": _text_signs,
    "default-system": _default_system,
}
"""Asked of a request, in this order: which model and mode first, since the others depend on them."""

ANSWER_KINDS: Mapping[str, Callable[[Rule, Plan, Completion], Findings]] = {
    "reasoning-lost": _reasoning_lost,
    "other-model": _other_model,
}
"""Asked of an answer."""

REPORTED_KINDS = frozenset({"reported"})
"""Seen elsewhere on the path and only worded here."""
