"""``kimi-mcp doctor``: what is configured, what the provider serves, what is wrong and how to fix it.

I/O: reads the versions of the installed packages, inspects the store without changing it, asks the provider for its
models and, with ``probe``, for tiny answers (``provider``); prints.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

import anyio.to_thread

from kimi_mcp import catalogue
from kimi_mcp.catalogue import Catalogue, credentials
from kimi_mcp.cli.console import Printer, counted, in_a_shell
from kimi_mcp.cli.doctor.cluster import check_cluster
from kimi_mcp.cli.doctor.diagnosis import Diagnosis
from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.profiles import Provider
from kimi_mcp.core.redaction import hide
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.version import __version__

PACKAGES: Mapping[str, int] = {"mcp": 2, "openai": 3, "pydantic": 2}
"""The main dependencies, and the major version of each that is needed."""

CONSOLES: Mapping[str, str] = {
    "platform.moonshot.ai": "https://api.moonshot.ai/v1",
    "platform.kimi.ai": "https://api.moonshot.ai/v1",
    "platform.moonshot.cn": "https://api.moonshot.cn/v1",
    "platform.kimi.com": "https://api.moonshot.cn/v1",
}
"""Web consoles that are mistaken for the API, and the API that is meant."""


async def examine(environment: Mapping[str, str], settings: Settings, probe: bool) -> Diagnosis:
    """Check everything, each thing as far as the one before it allows. Never raises a ``KimiError``."""
    from kimi_mcp.cli.doctor.http import check_http
    from kimi_mcp.cli.doctor.provider import check_balance, check_model, check_provider, policy_context, probe_modes
    from kimi_mcp.policy import admit
    from kimi_mcp.provider import Endpoint

    found = Diagnosis()
    _check_program(found)
    try:
        facts = catalogue.load_for(settings)
    except KimiError as error:
        found.add_error("catalogue", error)
        return found
    if facts.user_files:
        found.user_files = [{"file": each.name, "adds": each.adds} for each in facts.user_files.values()]
        found.add("catalogue", "ok", f"KIMI_CATALOGUE is laid over the catalogue: {facts.user_changes}.")
    hide(*credentials.keys(settings, facts).values(), *settings.secrets)
    _check_variables(found, environment, settings, facts)
    _check_patience(found, settings)
    await check_http(found, settings, probe)
    await anyio.to_thread.run_sync(_check_store, found, settings)
    await anyio.to_thread.run_sync(check_cluster, found, settings)
    try:
        provider = credentials.chosen_provider(settings, facts)
        found.provider, found.why = provider.id, _why(settings, provider, facts)
        found.add("provider", "ok", f"{provider.id} ({provider.name}) would answer: {found.why}.")
        _check_allowed(found, provider, settings, facts)
        access = credentials.access_to(provider, settings, provider)
    except KimiError as error:
        found.add_error("provider", error)
        return found
    found.base_url, found.key_variable = access.base_url, access.key_variable
    _check_key(found, access, settings, facts)
    if (host := _host(access.base_url)) in CONSOLES:
        fix = f"Set KIMI_BASE_URL to {CONSOLES[host]}, or unset it."
        found.add("url", "bad", f"KIMI_BASE_URL is {host}, the web console, not the API.", fix)
        return found
    if refusal := admit(policy_context(found, settings, provider)):
        found.add("policy", "bad", refusal.message, refusal.fix)
        return found
    endpoint = Endpoint(provider=provider, base_url=access.base_url, key=access.key)
    reached = await check_provider(found, endpoint, facts)
    profile = check_model(found, settings, facts, endpoint)
    if probe and reached:
        await check_balance(found, endpoint)
    if probe and reached and profile is not None and not credentials.unreadable(settings, facts):
        await probe_modes(found, settings, profile)
    return found


def show(found: Diagnosis) -> None:
    """Print a diagnosis for a person."""
    page = Printer(label=12)
    page.heading("Findings")
    for check in found.checks:
        page.mark(check.state, in_a_shell(check.message), fix=in_a_shell(check.fix))
    page.line()
    page.heading("Variables", "their values are not shown")
    for row in found.variables:
        if row["state"] != "unset":
            page.row(row["state"], row["name"], label_kind="ok" if row["state"] == "set" else "bad")
    if unset := sum(row["state"] == "unset" for row in found.variables):
        page.row("unset", f"{unset} of {len(found.variables)}: `kimi-mcp doctor --json` names them", "quiet")
    page.line()
    if found.works:
        page.mark("ok", f"A call would work: {found.model} at {found.provider}.", "ok")
    else:
        page.mark("bad", "No call would work until what is marked ✗ is fixed.")


def _check_program(found: Diagnosis) -> None:
    """Whether the packages are recent enough; an older Python could not start this."""
    for name in PACKAGES:
        try:
            found.packages[name] = version(name)
        except PackageNotFoundError:
            found.packages[name] = "missing"
    wrong = [name for name, major in PACKAGES.items() if found.packages[name].partition(".")[0] != str(major)]
    versions = ", ".join(f"{name} {number}" for name, number in found.packages.items())
    python = ".".join(map(str, sys.version_info[:3]))
    if wrong:
        needed = ", ".join(f"{name} {PACKAGES[name]}.x" for name in wrong)
        found.add("program", "bad", f"Not the packages that are needed: {versions}.", f"Install {needed}.")
    else:
        found.add("program", "ok", f"kimi-mcp {__version__} on Python {python}, with {versions}.")


def _check_variables(found: Diagnosis, environment: Mapping[str, str], settings: Settings, facts: Catalogue) -> None:
    """The state of each variable; no value is shown, since any may be a misplaced key."""
    unreadable = credentials.unreadable(settings, facts)
    for error in unreadable:
        found.add_error("settings", error)
    for row in credentials.variables(facts):
        text = environment.get(row.name, "").strip()
        wrong = any(error.message.startswith(f"{row.name} ") for error in unreadable)
        state = "unreadable" if wrong else "unset" if not text else "unexpanded" if "${" in text else "set"
        found.variables.append({"name": row.name, "state": state})
        if state == "unexpanded":
            message = f"{row.name} still reads ${{…}}: it counts as unset."
            fix = "The host that starts kimi-mcp expands no variables: write the value itself into its config."
            found.add("settings", "warn", message, fix)


def _check_patience(found: Diagnosis, settings: Settings) -> None:
    """Until when a call is answered, and the hosts that give up before."""
    from kimi_mcp.server import client_quirks

    limit = settings.reply_within_s
    message = f"A call is answered, or becomes a run to fetch, within {limit:g} s."
    for row in client_quirks.unrecognised_call_timeouts():
        if limit >= row["seconds"]:
            message += (
                f" {row['who']} gives a call {row['seconds']} s unless {row['setting']} is set, and its name does not "
                f"identify it: for it set that, or KIMI_REPLY_WITHIN_S={row['seconds'] - 1}."
            )
    found.add("patience", "ok", message)


def _check_store(found: Diagnosis, settings: Settings) -> None:
    """Where runs are kept, and whether a call could be recorded; otherwise it would be refused. Blocking."""
    from kimi_mcp.runs.store.inspection import inspect_store

    seen = inspect_store(settings)
    found.journal = seen.as_json()
    if not seen.kept:
        found.add("journal", "ok", "KIMI_JOURNAL is off: nothing is recorded, and runs end with their server.")
        return
    where = f"in {seen.folder}" if seen.folder else "in the database of KIMI_DATABASE_URL"
    if seen.error is not None:
        found.add_error("journal", seen.error)
        found.add("journal", "unknown", f"The store is {where}.")
    elif not seen.there:
        found.add("journal", "ok", f"The first call creates the store {where}.")
    else:
        size = f", {seen.size / 1e6:,.1f} MB" if seen.size else ""
        found.add("journal", "ok", f"The store opens: {counted(seen.runs or 0, 'run')}{size}, {where}.")
    if seen.is_tight and seen.free is not None:
        message = f"Only {seen.free / 1e6:,.0f} MB are free on the disk of the store."
        found.add("journal", "warn", message, "Free space, set KIMI_DATA_DIR, or clear with `kimi-mcp runs prune`.")


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _why(settings: Settings, provider: Provider, facts: Catalogue) -> str:
    """What chose the provider."""
    if settings.provider is not None:
        return "KIMI_PROVIDER names it"
    if settings.base_url is not None:
        own = _host(settings.base_url) in provider.hosts
        return "KIMI_BASE_URL is its host" if own else "KIMI_BASE_URL is no other provider's host"
    for variable in credentials.key_variables(facts):
        if variable in settings.possible_keys:
            return f"{variable} is the first key that is set"
    return "KIMI_API_KEY alone is set"


def _check_allowed(found: Diagnosis, provider: Provider, settings: Settings, facts: Catalogue) -> None:
    """Which providers a call may name. An unknown name is not repeated: it may be a key."""
    known = [name for name in settings.allowed_providers if name in facts.providers]
    found.allowed_providers = list(dict.fromkeys((provider.id, *known)))
    if unknown := len(settings.allowed_providers) - len(known):
        message = f"KIMI_ALLOWED_PROVIDERS holds {unknown} name{'s' if unknown > 1 else ''} of no provider."
        found.add("allowed", "warn", message, f"Providers are {', '.join(facts.providers)}.")
    found.add("allowed", "ok", f"A call may name {' or '.join(found.allowed_providers)} as its provider.")


def _check_key(found: Diagnosis, access: credentials.Access, settings: Settings, facts: Catalogue) -> None:
    """Which key is sent, and which is not although it is set."""
    provider = access.provider
    found.add("url", "ok", f"A call goes to {access.base_url}.")
    if access.borrowed:
        message = f"{access.key_variable}, which is another provider's key, is used for {provider.id}."
        found.add("key", "warn", message, f"Set {provider.key_variables[0]} to use its own key.")
    elif access.key_variable is not None:
        found.add("key", "ok", f"It carries the key of {access.key_variable}.")
    else:
        found.add("key", "ok", f"It carries no key; {provider.id} needs none.")
    keys = credentials.keys(settings, facts)
    withheld = [name for name in provider.key_variables if name in keys and name != access.key_variable]
    if not withheld and access.key_variable is None:
        owners = credentials.key_variables(facts).items()
        withheld = [name for name, owner in owners if name in keys and owner != provider.id]
    if withheld and settings.base_url is not None:
        message = f"{withheld[0]} is set, but stays here: {access.base_url} is not where it belongs."
        fix = "Unset KIMI_BASE_URL to use it, or set KIMI_PROVIDER to the provider whose key it is."
        found.add("key", "warn", message, fix)
