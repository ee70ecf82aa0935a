"""The part of a diagnosis that needs nobody's answer: this program, its variables, whom they choose.

I/O: reads the versions of the installed packages, and looks at the journal without touching it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

from kimi_mcp.catalogue import Catalogue, credentials
from kimi_mcp.cli.doctor.diagnosis import Diagnosis
from kimi_mcp.core.profiles import Provider
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.version import __version__

PYTHON = (3, 11)
"""The oldest Python that will do."""

PACKAGES: Mapping[str, int] = {"mcp": 2, "openai": 3, "pydantic": 2}
"""What we stand on, and the major version that is needed."""

CONSOLES: Mapping[str, str] = {
    "platform.moonshot.ai": "https://api.moonshot.ai/v1",
    "platform.kimi.ai": "https://api.moonshot.ai/v1",
    "platform.moonshot.cn": "https://api.moonshot.cn/v1",
    "platform.kimi.com": "https://api.moonshot.cn/v1",
}
"""Web consoles that are taken for the API, and the API that is meant."""


def packages() -> dict[str, str]:
    """What is installed of what we stand on."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def look_at_program(found: Diagnosis) -> None:
    """Whether Python and the packages fit."""
    wrong = [name for name, major in PACKAGES.items() if found.packages[name].partition(".")[0] != str(major)]
    versions = ", ".join(f"{name} {version}" for name, version in found.packages.items())
    python = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        found.add("program", "bad", f"Python {python} is too old.", "Use Python 3.11 or later.")
    elif wrong:
        needed = ", ".join(f"{name} {PACKAGES[name]}.x" for name in wrong)
        found.add("program", "bad", f"Not the packages that are needed: {versions}.", f"Install {needed}.")
    else:
        found.add("program", "ok", f"kimi-mcp {__version__} on Python {python}, with {versions}.")


def look_at_variables(found: Diagnosis, environment: Mapping[str, str], settings: Settings, facts: Catalogue) -> None:
    """How each variable stands, what can't be read, and what was passed on unread.

    What a key is nobody is told; what another variable holds may be a mistaken key, so neither.
    """
    unreadable = credentials.unreadable(settings, facts)
    for row in credentials.variables(facts):
        text = environment.get(row.name, "").strip()
        wrong = any(error.message.startswith(f"{row.name} ") for error in unreadable)
        state = "unreadable" if wrong else "unset" if not text else "unexpanded" if "${" in text else "set"
        found.variables.append({"name": row.name, "state": state})
    for error in unreadable:
        found.fails("settings", error)
    for row in found.variables:
        if row["state"] == "unexpanded":
            found.add(
                "settings",
                "warn",
                f"{row['name']} still reads ${{…}}: it counts as unset.",
                "The host that starts kimi-mcp expands no variables: write the value itself into its config.",
            )


def look_at_journal(found: Diagnosis, settings: Settings) -> None:
    """Where runs are kept, and whether a call could write itself down; without that it would be refused. Blocking."""
    from kimi_mcp.runs.store.inspection import inspect_store

    seen = inspect_store(settings)
    found.journal = seen.as_json()
    if not seen.kept:
        said = "KIMI_JOURNAL is off: nothing is written down, and runs end with their server."
        found.add("journal", "ok", said)
        return
    where = f"in {seen.folder}" if seen.folder else "in the database of KIMI_DATABASE_URL"
    if seen.error is not None:
        found.fails("journal", seen.error)
        found.add("journal", "unknown", f"The journal lies {where}.")
    elif not seen.there:
        found.add("journal", "ok", f"The first call begins the journal {where}.")
    else:
        size = f", {seen.size / 1e6:,.1f} MB" if seen.size else ""
        runs = "1 run" if seen.runs == 1 else f"{seen.runs:,} runs"
        found.add("journal", "ok", f"The journal opens: {runs}{size}, {where}.")
    if seen.is_tight and seen.free is not None:
        said = f"Only {seen.free / 1e6:,.0f} MB are free on the disk of the journal."
        found.add("journal", "warn", said, "Make room, set KIMI_DATA_DIR, or clear with `kimi-mcp runs prune`.")


def look_at_url(found: Diagnosis) -> bool:
    """Whether the base URL is an API's, not a web page for people."""
    host = _host(found.base_url)
    if host not in CONSOLES:
        return True
    mend = f"Set KIMI_BASE_URL to {CONSOLES[host]}, or unset it."
    found.add("url", "bad", f"KIMI_BASE_URL is {host}, the web console, not the API.", mend)
    return False


def _host(url: str | None) -> str:
    try:
        return (urlsplit(url or "").hostname or "").lower()
    except ValueError:
        return ""


def why(settings: Settings, provider: Provider, facts: Catalogue) -> str:
    """What chose the provider."""
    if settings.provider is not None:
        return "KIMI_PROVIDER says so"
    if settings.base_url is not None:
        own = _host(settings.base_url) in provider.hosts
        return "KIMI_BASE_URL is its host" if own else "KIMI_BASE_URL is no other provider's host"
    for variable in credentials.key_variables(facts):
        if variable in settings.possible_keys:
            return f"{variable} is the first key that is set"
    return "KIMI_API_KEY alone is set"


def look_at_allowed(found: Diagnosis, settings: Settings, facts: Catalogue) -> None:
    """Which providers a call may name. What is no provider's name is not repeated: it may be a key."""
    assert found.provider is not None
    known = [name for name in settings.allowed_providers if name in facts.providers]
    found.allowed = list(dict.fromkeys((found.provider, *known)))
    if unknown := len(settings.allowed_providers) - len(known):
        found.add(
            "allowed",
            "warn",
            f"KIMI_ALLOWED_PROVIDERS holds {unknown} name{'s' if unknown > 1 else ''} of no provider.",
            f"Providers are {', '.join(facts.providers)}.",
        )
    found.add("allowed", "ok", f"A call may name {' or '.join(found.allowed)} as its provider.")


def look_at_key(found: Diagnosis, way: credentials.Access, settings: Settings, facts: Catalogue) -> None:
    """Which key goes along, and which stays here though it is set."""
    provider = way.provider
    found.add("url", "ok", f"A call goes to {way.base_url}.")
    if way.borrowed:
        said = f"{way.key_variable}, which is another provider's key, is used for {provider.id}."
        found.add("key", "warn", said, f"Set {provider.key_variables[0]} to use its own key.")
    elif way.key_variable is not None:
        found.add("key", "ok", f"It carries the key of {way.key_variable}.")
    else:
        found.add("key", "ok", f"It carries no key; {provider.id} needs none.")
    keys = credentials.keys(settings, facts)
    withheld = [name for name in provider.key_variables if name in keys and name != way.key_variable]
    if not withheld and way.key_variable is None:
        owners = credentials.key_variables(facts).items()
        withheld = [name for name, owner in owners if name in keys and owner != provider.id]
    if withheld and settings.base_url is not None:
        found.add(
            "key",
            "warn",
            f"{withheld[0]} is set, but stays here: {way.base_url} is not where it belongs.",
            "Unset KIMI_BASE_URL to use it, or set KIMI_PROVIDER to the provider whose key it is.",
        )
