"""``kimi-mcp doctor``: what is configured, what the provider serves, what is wrong and how to mend it.

I/O: asks the provider for its list of models, and with ``probe`` for tiny answers; prints. ``machine`` looks at this
program and its variables, ``provider`` asks, ``probe`` spends; ``diagnosis`` is what they write down.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio.to_thread

from kimi_mcp import catalogue, policy
from kimi_mcp.catalogue import credentials
from kimi_mcp.cli.console import Printer
from kimi_mcp.cli.doctor.diagnosis import Check, Diagnosis
from kimi_mcp.cli.doctor.machine import (
    look_at_allowed,
    look_at_journal,
    look_at_key,
    look_at_program,
    look_at_url,
    look_at_variables,
    packages,
    why,
)
from kimi_mcp.cli.doctor.probe import probe_modes
from kimi_mcp.cli.doctor.provider import gathered_for, look_at_model, look_at_provider
from kimi_mcp.core import json_logs
from kimi_mcp.core.errors import CatalogueError, KimiError
from kimi_mcp.core.settings import Settings
from kimi_mcp.provider import Endpoint

__all__ = ["Check", "Diagnosis", "examine", "show"]


async def examine(environment: Mapping[str, str], settings: Settings, probe: bool) -> Diagnosis:
    """Look at everything, as far as one thing leads to the next. Never raises a ``KimiError``."""
    found = Diagnosis(packages=packages())
    look_at_program(found)
    try:
        facts = catalogue.load()
    except CatalogueError as error:
        found.fails("catalogue", error)
        return found
    json_logs.hide(*credentials.keys(settings, facts).values())
    look_at_variables(found, environment, settings, facts)
    await anyio.to_thread.run_sync(look_at_journal, found, settings)
    try:
        provider = credentials.chosen_provider(settings, facts)
        found.provider, found.why = provider.id, why(settings, provider, facts)
        found.add("provider", "ok", f"{provider.id} ({provider.name}) would answer: {found.why}.")
        look_at_allowed(found, settings, facts)
        way = credentials.access_to(provider, settings, provider)
    except KimiError as error:
        found.fails("provider", error)
        return found
    found.base_url, found.key_variable = way.base_url, way.key_variable
    look_at_key(found, way, settings, facts)
    if not look_at_url(found):
        return found
    if refusal := policy.admit(gathered_for(found, settings, facts, provider)):
        found.add("policy", "bad", refusal.message, refusal.fix)
        return found
    reached = await look_at_provider(found, Endpoint(provider=provider, base_url=way.base_url, key=way.key), facts)
    profile = look_at_model(found, settings, facts, provider)
    if probe and reached and profile is not None and not credentials.unreadable(settings, facts):
        await probe_modes(found, settings, profile)
    return found


def show(found: Diagnosis) -> None:
    """Print a diagnosis for a person."""
    page = Printer(label=12)
    page.heading("Findings")
    for check in found.checks:
        page.mark(check.state, check.said, fix=check.fix)
    page.line()
    page.heading("Variables", "what they hold is not shown")
    for row in found.variables:
        if row["state"] != "unset":
            page.row(row["state"], row["name"], label_kind="ok" if row["state"] == "set" else "bad")
    unset = sum(row["state"] == "unset" for row in found.variables)
    page.row("unset", f"{unset} of {len(found.variables)}: `kimi-mcp doctor --json` names them", "quiet")
    page.line()
    if found.works:
        page.mark("ok", f"A call would work: {found.model} at {found.provider}.", "ok")
    else:
        page.mark("bad", "No call would work until what is marked ✗ is mended.")
