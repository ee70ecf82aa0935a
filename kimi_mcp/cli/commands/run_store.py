"""The store of recorded runs, as a command reads it, and a run or a principal by name. I/O: the store's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from kimi_mcp.cli.commands.arguments import read_environment
from kimi_mcp.core.errors import NotConfigured, RunNotFound

if TYPE_CHECKING:
    from kimi_mcp.core.settings import Settings
    from kimi_mcp.runs.store.records import RunRecord
    from kimi_mcp.runs.store.store import RunStore

T = TypeVar("T")

MOST_MATCHES = 100
"""Runs that are looked up at most whose id begins as given."""

MOST_NAMED = 10
"""Principals that an error names at most."""


def store_settings() -> Settings:
    """The settings of this shell; ``NotConfigured`` where it records nothing."""
    from kimi_mcp import catalogue
    from kimi_mcp.catalogue import credentials

    settings = read_environment()
    credentials.check(settings, catalogue.load_for(settings))
    if settings.journal == "off":
        raise NotConfigured(
            "KIMI_JOURNAL is off: runs are not recorded, and end with their server.",
            fix="Unset it where the server is started, and here.",
        )
    return settings


def from_store(work: Callable[[RunStore], Awaitable[T]], missing: T | None = None) -> T:
    """What ``work`` finds; ``missing``, or an error, where there is no store: opening it would create one."""
    import anyio

    from kimi_mcp.runs.store.store import open_store

    settings = store_settings()

    async def within() -> T:
        store = open_store(settings)
        try:
            return await work(store)
        finally:
            with anyio.CancelScope(shield=True):
                await store.aclose()

    if has_store(settings):
        return anyio.run(within)
    if missing is None:
        raise unknown_run()
    return missing


def has_store(settings: Settings) -> bool:
    """Whether there is a store: reading creates none."""
    from kimi_mcp.runs.store.config import FILE, folder_of

    return settings.database_url is not None or (folder_of(settings) / FILE).exists()


async def find_run(store: RunStore, name: str) -> RunRecord:
    """A run by its id or by the beginning of its id; the ``run_`` may be left out."""
    from kimi_mcp.runs.store import queries

    prefix = "run_" + name.strip().removeprefix("run_")
    if record := await store.find(prefix, None):
        return record
    found = await store.read(queries.ids_with_prefix, prefix, MOST_MATCHES)
    matches = [each for each in found if each.startswith(prefix)]
    if len(matches) > 1:
        many = f"{len(matches)} or more" if len(matches) == MOST_MATCHES else str(len(matches))
        raise RunNotFound(
            f"{many} runs have an id that begins so: {', '.join(matches[:4])}{', …' if matches[4:] else '.'}",
            fix="Give more of the id.",
        )
    record = await store.find(matches[0], None) if matches else None
    if record is None:
        raise unknown_run()
    return record


def unknown_run() -> RunNotFound:
    """The error where there is no such run."""
    return RunNotFound(
        "No run of that id was recorded here.",
        fix="`kimi-mcp runs` lists them. KIMI_DATA_DIR must be the one of the server that it ran in.",
    )


async def find_caller(store: RunStore, principal: str) -> str:
    """The caller that a principal's name or id means; ``RunNotFound`` where that has no run."""
    from kimi_mcp.core.callers import name_of
    from kimi_mcp.runs.store.costs import callers

    known = await store.read(callers)
    for caller in known:
        if principal.strip() in (caller, name_of(caller)):
            return caller
    names = ", ".join(map(name_of, known[:MOST_NAMED])) + (", …" if known[MOST_NAMED:] else "")
    raise RunNotFound(
        "No run of a principal of that name was recorded here.",
        fix=f"There are runs of {names}." if known else "Nothing was recorded yet.",
    )
