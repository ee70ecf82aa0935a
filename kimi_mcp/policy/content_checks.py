"""The rules about what turns hold: text, pictures and clips, reasoning. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kimi_mcp.core.plan import Plan
from kimi_mcp.core.types import MediaPart
from kimi_mcp.policy.findings import Finding, Findings, PolicyContext, Rule, signs

READ_CHARS = 4_000
"""How much of either end of a prompt is read for signs, in code points."""

_QUOTED = re.compile(
    r"[“「『«][^“「『«”」』»]{1,2000}[”」』»]"
    r"|\"[^\"\n]{1,400}\""
    r"|(?<!\w)[\x27‘][^\x27’\n]{1,400}[\x27’](?!\w)"
)
"""Quoted text is a topic, not an instruction."""


def media_taken(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    """Media of a kind that the provider can't take for this model."""
    kind = rule.options["media"]
    if plan.profile.takes(kind) or not any(part.kind == kind for part in _media(plan)):
        return
    allowed = [f"{offer[0]} with {offer[1]}" for offer in context.video_offers if offer[0] in context.allowed_providers]
    others = sorted({provider for provider, _ in context.video_offers})
    yield Finding.of(
        rule,
        field=kind,
        asked=plan.profile.provider.id,
        provider=plan.profile.provider.id,
        model=plan.profile.model.id,
        offers=f"Name one that does: {', '.join(allowed)}."
        if allowed
        else f"None of the allowed providers takes {kind}; let the operator choose or allow one that does "
        f"({', '.join(others) or 'none is known'}) by KIMI_PROVIDER or KIMI_ALLOWED_PROVIDERS.",
    )


def media_url(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    """A media URL that would be fetched by the provider."""
    for part in _media(plan):
        found = re.match(r"[a-z][a-z0-9+.-]{0,20}(?=:)", part.url, re.IGNORECASE)
        scheme = found[0].lower() if found else ""  # never more of it: it may be a path
        if scheme in rule.options["inline"]:
            continue
        fetched = scheme in rule.options["fetched"]
        yield Finding.of(
            rule,
            field=f"{part.kind}_url",
            asked=f"{scheme}:" if scheme else None,
            sent="data:" if fetched else None,
            action="adjust" if fetched else "refuse",
            left_open=fetched,  # an https URL is a form we take, and how it is sent is ours to choose
            provider=plan.profile.provider.id,
            scheme=f"`{scheme}:`" if scheme else "text without a scheme",
        )


def media_format(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    """A still format that the model does not take."""
    if context.reads_media:
        return
    for part in _media(plan):
        kind = re.match(r"data:([^;,]{0,60})", part.url, re.IGNORECASE)
        if part.kind == "image" and kind is not None and kind[1].lower() not in rule.options["takes"]:
            yield Finding.of(rule, field="image_url", asked=kind[1].lower() or "unnamed", sent="image/png")


def _media(plan: Plan) -> Iterator[MediaPart]:
    return (part for turn in plan.turns for part in turn.media)


def reasoning_kept(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    """An assistant turn without its reasoning, or with a made-up one."""
    if plan.mode != "thinking":
        return
    for index, turn in enumerate(plan.turns):
        if turn.role != "assistant":
            continue
        blank = bool(turn.reasoning) and not (turn.reasoning or "").strip() and not context.own_record
        if blank or (turn.tool_calls and turn.reasoning is None):
            yield Finding.of(
                rule,
                field=f"messages[{index}]",
                asked=turn.reasoning,
                index=index,
                provider=plan.profile.provider.id,
                fault="carries blank, made-up reasoning" if blank else "calls tools without its reasoning",
            )


def text_signs(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    """A text that shows one of the rule's signs."""
    if plan.mode != rule.options.get("mode", plan.mode):
        return
    users = [turn for turn in plan.turns if turn.role in ("user", "system", "tool")]
    if rule.options["reads"] == "prompt":
        text = _QUOTED.sub(" ", _ends(next((turn.text for turn in reversed(users) if turn.role == "user"), "")))
    else:
        text = "\n".join(turn.text for turn in users if "<|" in turn.text)
    text = text.lower()
    if any(against.search(text) for against in signs(rule.id, "unless")):
        return
    for sign in signs(rule.id) if text else ():
        if seen := sign.search(text):
            words = " ".join(seen[0].split())
            shown = words if len(words) <= 60 else words[:57] + "…"
            yield Finding.of(rule, field=rule.options["field"], asked=shown, note=rule.fix, sign=shown)
            return


def _ends(text: str) -> str:
    return text if len(text) <= 2 * READ_CHARS else f"{text[:READ_CHARS]}\n{text[-READ_CHARS:]}"


def default_system(rule: Rule, plan: Plan, context: PolicyContext) -> Findings:
    """A stock system prompt."""
    for turn in plan.turns:
        if turn.role == "system" and turn.text.strip().rstrip(".。") in rule.options["prompts"]:
            yield Finding.of(rule, field="system", asked=turn.text.strip())
