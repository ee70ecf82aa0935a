"""The settings with which an HTTP server does not start, since it would refuse every call. I/O: what they name.

Over stdio a host has to be answered whatever the settings are, and learns of a mistake by its first call. Whoever
starts a service wants to know at once. A key that is missing is no mistake: such a server answers what needs none.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import kimi_mcp
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.setting_values import is_https_or_local
from kimi_mcp.core.settings import VARIABLES, Settings
from kimi_mcp.server.entry_point import KEY_SUFFIXES

if TYPE_CHECKING:
    from kimi_mcp.runs.jobs import Role

_GROUPS = tuple(
    f"KIMI_{group}_" for group in ("HTTP", "OIDC", "INTROSPECTION", "QUOTA", "BUDGET", "DRAIN", "METRICS", "CLUSTER")
)
"""How settings begin that say who may call, and how much: all that begins so is ours."""


def check_settings(settings: Settings) -> None:
    """Raise ``NotConfigured`` for the first setting that can't be meant."""
    for error in settings.unreadable:
        raise error
    check_names(settings)
    check_cluster(settings)
    _check_provider(settings)
    _check_store(settings)
    if settings.swarm_mcp is not None:
        from kimi_mcp.swarm.tools.config import read_servers

        read_servers(settings.swarm_mcp, os.environ)
    check_roots(settings)


def check_names(settings: Settings) -> None:
    """Raise ``NotConfigured`` for a misspelt setting: without the one that is meant anybody might be let in."""
    unknown = sorted(name for name in {*settings.possible_keys, *settings.impossible_keys} if name[:5] == "KIMI_")
    if not unknown:
        return
    from difflib import get_close_matches

    known = [variable.name for variable in VARIABLES]
    for name in unknown:
        if not name.startswith(_GROUPS) and (name.endswith(KEY_SUFFIXES) or not get_close_matches(name, known, 1, 0.9)):
            continue
        meant = get_close_matches(name, known, 1)
        fix = f"Is {meant[0]} meant? Correct the name, or unset it." if meant else "Correct the name, or unset it."
        raise NotConfigured(f"{name} is no setting of kimi-mcp.", fix=fix)


def check_cluster(settings: Settings) -> None:
    """Raise ``NotConfigured`` where ``KIMI_CLUSTER=on`` misses what replicas share."""
    if settings.cluster == "off":
        return
    if settings.journal == "off":
        raise NotConfigured(
            "KIMI_CLUSTER=on needs the store, which KIMI_JOURNAL=off leaves out: it is what replicas share.",
            fix="Unset KIMI_JOURNAL or KIMI_CLUSTER.",
        )
    scheme = (settings.database_url or "").partition(":")[0]
    if scheme not in ("postgresql", "postgresql+psycopg"):
        raise NotConfigured(
            "KIMI_CLUSTER=on needs a PostgreSQL, which all replicas share.",
            fix="Set KIMI_DATABASE_URL to its URL (postgresql+psycopg://…), or unset KIMI_CLUSTER.",
        )
    if find_spec("dbos") is None:
        raise NotConfigured(
            "KIMI_CLUSTER=on needs the extra `cluster` of kimi-mcp, which is not installed.",
            fix="Install it (`pip install 'kimi-mcp[cluster]'`), or unset KIMI_CLUSTER.",
        )


def check_role(settings: Settings, role: Role) -> None:
    """Raise ``NotConfigured`` for a role that needs others, where there are none."""
    if role != "all" and settings.cluster == "off":
        raise NotConfigured(
            f"--role {role} is for one replica of several, and KIMI_CLUSTER is off.",
            fix="Set KIMI_CLUSTER=on and KIMI_DATABASE_URL, or leave out --role.",
        )


def check_roots(settings: Settings) -> None:
    """Raise ``NotConfigured`` where a folder of ``KIMI_ROOTS`` is not there."""
    if settings.roots is None:
        return
    from kimi_mcp.media.roots import find_roots

    if not all(Path(root.path).is_dir() for root in find_roots(settings.roots, remote=True).folders):
        raise NotConfigured(
            "KIMI_ROOTS names a folder that is not there.", fix="Name existing folders in KIMI_ROOTS, or unset it."
        )


def _check_provider(settings: Settings) -> None:
    if not _deserves_a_look(settings):
        return
    from kimi_mcp import catalogue
    from kimi_mcp.catalogue import credentials

    facts = catalogue.load_for(settings)
    credentials.check(settings, facts)
    chosen = next(iter(facts.providers.values()))
    if settings.provider is not None or settings.base_url is not None:
        chosen = credentials.chosen_provider(settings, facts)
        keyless = chosen.model_copy(update={"needs_key": False})
        credentials.access_to(keyless, settings, keyless)  # whether the base URL can be used
    credentials.allowed_providers(settings, facts, chosen)


def _deserves_a_look(settings: Settings) -> bool:
    """Whether the catalogue might refuse something; to read it for nothing would delay each start by some 50 ms."""
    url, providers = settings.base_url, Path(kimi_mcp.__file__).parent / "catalogue" / "providers"
    return bool(
        settings.catalogue
        or settings.allowed_providers
        or (settings.provider is not None and settings.provider not in {file.stem for file in providers.iterdir()})
        or (url is not None and (not is_https_or_local(url) or "?" in url or "#" in url))
        or any(name.endswith(KEY_SUFFIXES) for name in settings.impossible_keys)
    )


def _check_store(settings: Settings) -> None:
    if settings.journal == "off":
        if settings.budget_usd_per_principal_day is not None:
            raise NotConfigured(
                "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY is counted in the store, which KIMI_JOURNAL=off leaves out.",
                fix="Unset one of the two.",
            )
        return
    if settings.database_url is not None:
        from kimi_mcp.runs.store.config import StoreLimits
        from kimi_mcp.runs.store.engine import engine_of

        engine_of(settings.database_url, StoreLimits()).dispose()
    if settings.data_dir is not None and not _is_writable(settings.data_dir):
        from kimi_mcp.runs.store.config import folder_of
        from kimi_mcp.runs.store.engine import prepare_folder  # with SQLAlchemy: it says what is wrong

        prepare_folder(folder_of(settings), with_file=True)


def _is_writable(name: str) -> bool:
    """Whether a folder can be made, or is there, and written to."""
    try:
        folder = Path(name).expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return os.access(folder, os.W_OK | os.X_OK)
