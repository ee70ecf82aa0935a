"""``kimi-mcp policy`` and ``policy check``: the rules, and what they find in a body. I/O: reads a file, prints."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_mcp.cli.commands.arguments import read_json_object
from kimi_mcp.cli.console import Printer, change, print_json, shown
from kimi_mcp.core.errors import InvalidArguments, KimiError

if TYPE_CHECKING:
    from kimi_mcp.catalogue import Catalogue
    from kimi_mcp.core.profiles import Profile, Provider
    from kimi_mcp.core.types import Request
    from kimi_mcp.policy import Finding

DEFAULT_PROVIDER = "moonshot"
"""The provider that a saved body is judged for where none is configured or named."""

DOES = {"adjust": "adjusts", "warn": "warns", "refuse": "refuses"}
"""What a rule of each action does."""

FINDINGS = {"adjust": "would be adjusted", "warn": "warning", "refuse": "would be refused"}
"""What happens to a request that breaks a rule of each action."""


def rules(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rules as JSON.")] = False,
) -> None:
    """Show every rule of the policy.

    For each: what it guards, what it does, why, how to fix what it objects to, and where it comes from.
    """
    if context.invoked_subcommand is not None:
        return
    from kimi_mcp.policy import load_rules

    table = list(load_rules().values())
    if as_json:
        print_json([rule.as_json() for rule in table])
        return
    page = Printer(label=8)
    for rule in table:
        page.heading(rule.id)
        page.row("guards", rule.guards)
        page.row("does", DOES[rule.action], rule.action)
        page.row("why", _readable(rule.message))
        page.row("fix", _readable(rule.fix))
        page.row("source", f"{rule.source} ({rule.date.isoformat()})", "quiet")
        page.line()
    page.line("‹…› is filled from the request. Under KIMI_POLICY=strict what would be adjusted is refused.", "quiet")


def _readable(template: str) -> str:
    """A sentence with its fields as a person reads them."""
    return re.sub(r"\{(\w+)[^}]*\}", lambda field: f"‹{field[1].replace('_', ' ')}›", template)


def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The JSON body of a request. - reads it from stdin.")],
    provider: Annotated[
        str | None, typer.Option(help="Who would get it. Left out: the one that you have configured, else moonshot.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Left out: the body's own model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Judge a saved request body.

    The body of a chat-completions request is judged as if it were to be sent today. Exit status: 0 when no rule
    objects, 1 when one does, 2 when the file is no such body. Fields that no rule reads are named and change nothing.
    """
    from kimi_mcp import catalogue, policy
    from kimi_mcp.core.settings import read_settings
    from kimi_mcp.pipeline.route import today
    from kimi_mcp.policy import audit

    body = read_json_object(file, "Save the JSON body that is sent to /chat/completions.")
    facts = catalogue.load_for(read_settings(os.environ))
    profile = _profile(body, facts, provider, model)
    request = audit.read_body(body, profile)
    context = policy.PolicyContext(
        day=today(),
        base_url=profile.provider.base_url,
        allowed_providers=(profile.provider.id,),
        video_offers=facts.video_offers(today()),
        instant_offers=facts.instant_offers(today()),
        effort_offers=facts.effort_offers(today()),
    )
    findings = policy.check(request, profile, context)
    unread = audit.not_judged(body, profile)
    if as_json:
        print_json(
            {
                "provider": profile.provider.id,
                "model": profile.model.id,
                "wire_id": profile.serving.wire_id,
                "mode": request.mode,
                "findings": [finding.as_json() for finding in findings],
                "not_judged": list(unread),
            }
        )
    else:
        _show(profile, request, findings, unread)
    if findings:
        raise typer.Exit(1)


def _show(profile: Profile, request: Request, findings: Sequence[Finding], not_judged: Sequence[str]) -> None:
    page = Printer(label=9)
    page.heading(f"{profile.model.id} at {profile.provider.id}", f"read as {request.mode} mode")
    if not findings:
        page.mark("ok", "No rule objects.")
    for finding in findings:
        state = "bad" if finding.action == "refuse" else "warn"
        page.mark(state, f"{finding.rule}: {FINDINGS[finding.action]}", "name")
        where = finding.field if finding.asked is None else f"{finding.field} {shown(finding.asked)}"
        changed = change(finding.field, finding.asked, finding.sent)
        page.row("  where", changed if finding.action == "adjust" else where)
        page.row("  why", finding.message)
        if finding.fix:
            page.row("  fix", finding.fix)
    if not_judged:
        page.line(f"Not judged: {', '.join(map(shown, not_judged))}.", "quiet")


def _profile(body: Mapping[str, Any], facts: Catalogue, provider: str | None, model: str | None) -> Profile:
    """Which model at which provider the body is judged for."""
    from kimi_mcp.catalogue import credentials

    chosen = credentials.named_provider(provider, facts) if provider else _configured(facts)
    name = model or body.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidArguments("The body names no model.", fix="Name one with --model, such as --model kimi-k2.6.")
    if found := facts.profile(chosen.id, name):
        return found
    others = [profile for other in facts.providers if (profile := facts.profile(other, name))]
    if others and not provider:
        return others[0]
    searched = [chosen] if provider else list(facts.providers.values())
    names = {known for each in searched for row in each.models for known in (row.model, row.wire_id)}
    near = facts.nearest(name, sorted(names)) or tuple(row.model for row in chosen.models)
    elsewhere = " or ".join(profile.provider.id for profile in others)
    raise InvalidArguments(
        f"{shown(name)} is no model of {chosen.id if provider else 'the catalogue'}.",
        fix=f"Name one with --model: {', '.join(near)}."
        + (f" Others list it: --provider {elsewhere}." if elsewhere else ""),
    )


def _configured(facts: Catalogue) -> Provider:
    """The provider of the environment; where none is configured the catalogue's own platform."""
    from kimi_mcp.catalogue import credentials
    from kimi_mcp.core.settings import read_settings

    try:
        return credentials.chosen_provider(read_settings(os.environ), facts)
    except KimiError:
        return facts.providers[DEFAULT_PROVIDER]
