"""The user's catalogue: the files of ``KIMI_CATALOGUE``, which are laid over the package's. Reads files.

A file of a known name changes what it names, and another one adds a model or a provider. No file of it can send a key
elsewhere: a known provider keeps its hosts and its key variables, and an added one has a variable of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from kimi_mcp.catalogue.loading import INHERITS, KINDS, ROWS, Table, hint, parse
from kimi_mcp.core.errors import CatalogueError, NotConfigured
from kimi_mcp.core.profiles import HOST, Provider

VARIABLE = "KIMI_CATALOGUE"
"""Names the folder."""

AFTER_OURS = 1_000
"""Rank of an added provider that names none; added ones come after the package's in any case."""

LARGEST_FILE = 262_144
"""Bytes of one file."""

MOST_FILES = 500

_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_NOTES = (".md", ".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFile:
    """One file of the user's catalogue."""

    kind: str
    """``models`` or ``providers``."""
    id: str
    """What it is about: its name."""
    adds: bool
    """Whether the package has no file of that name."""
    tables: Table
    """What it says, each table with a source and a date."""

    @property
    def name(self) -> str:
        """As in ``providers/moonshot.toml``."""
        return f"{self.kind}/{self.id}.toml"

    @property
    def models(self) -> frozenset[str]:
        """The models whose rows it has."""
        rows = self.tables.get(ROWS)
        listed = cast("list[Any]", rows) if isinstance(rows, list) else []
        return frozenset(str(cast("Table", row).get("model")) for row in listed if isinstance(row, dict))

    def bears_on(self, model: str) -> bool:
        """Whether it says anything about that model: of a provider's file in the model's row, or beside the rows."""
        return model in self.models or bool(self.tables.keys() - {ROWS, INHERITS})


def read_files(folder: str, package: Path) -> tuple[UserFile, ...]:
    """Every file of a user's folder. Raises ``CatalogueError``, and ``NotConfigured`` where there is no such folder."""
    try:
        root = Path(folder).expanduser()
        entries = sorted(root.iterdir())
        files = list(_files(entries, package))
    except (OSError, RuntimeError, ValueError):
        raise NotConfigured(
            f"{VARIABLE} names no folder that can be read, with all that is in it.",
            fix=f"Set {VARIABLE} to the path of a folder with models/*.toml and providers/*.toml, or unset it.",
        ) from None
    if len(files) > MOST_FILES:
        raise CatalogueError(f"there are {len(files)} files; allowed: {MOST_FILES}", of_user=True)
    return tuple(files)


def _files(entries: list[Path], package: Path) -> Iterator[UserFile]:
    folders = {entry.name: entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    for entry in entries:
        if entry.suffix == ".toml":
            raise CatalogueError(f"{entry.name}: it belongs into {' or '.join(KINDS)}", of_user=True)
    for name in folders:
        if name not in KINDS:
            raise CatalogueError(f"{name} is no folder of a catalogue; {hint(name, list(KINDS))}", of_user=True)
    if not folders:
        raise CatalogueError(f"it has none of the folders {' and '.join(KINDS)}", of_user=True)
    for kind, folder in folders.items():
        for path in sorted(folder.iterdir()):
            name = f"{kind}/{path.name}"
            if path.name.startswith(".") or path.suffix in _NOTES:
                continue
            if path.suffix != ".toml" or not _ID.fullmatch(path.stem):
                what = "a name in small letters, digits, dots and hyphens that ends with .toml"
                raise CatalogueError(f"{name} is no name of a file here; allowed: {what}", of_user=True)
            if not path.is_file() or path.stat().st_size > LARGEST_FILE:
                raise CatalogueError(f"{name}: is no file of at most {LARGEST_FILE:,} bytes", of_user=True)
            adds, tables = not (package / name).exists(), parse(name, path, of_user=True)
            tables = _with_facts(name, {"about": {}, **tables} if adds else tables, path)
            if not adds:
                _check_change(name, tables)
            elif kind == "providers":
                tables = _completed(tables)
            yield UserFile(kind=kind, id=path.stem, adds=adds, tables=tables)


def _with_facts(name: str, tables: Table, path: Path) -> Table:
    """The tables of a file, each with a source and a date: those that name none have the file and its day."""
    facts = {"source": f"{VARIABLE}/{name}", "date": _day(path)}

    def with_facts(value: Any) -> Any:
        if isinstance(value, dict):
            return {**facts, **cast("Table", value)}
        return list(map(with_facts, cast("list[Any]", value))) if isinstance(value, list) else value

    return {key: with_facts(value) for key, value in tables.items()}


def _check_change(name: str, tables: Table) -> None:
    """Raise ``CatalogueError`` where a file would change what is fixed about a known model or provider."""
    if INHERITS in tables:
        raise CatalogueError(f"{name}: {INHERITS} is for an added file, and this one changes ours", of_user=True)
    about: Any = tables.get("about")
    if isinstance(about, dict) and "order" in about:
        raise CatalogueError(f"{name}: about.order can't be changed: keys choose in a fixed order", of_user=True)


def _completed(tables: Table) -> Table:
    """The tables of an added provider with what follows from the others: its rank, its host, that it borrows no key."""
    about, key = tables["about"], tables.get("key")
    if isinstance(about, dict):
        base_url: Any = cast("Table", about).get("base_url")
        host = host_of(base_url) if isinstance(base_url, str) else None
        hosts = {} if base_url is None else {"hosts": [host] if host and re.fullmatch(HOST, host) else []}
        tables = {**tables, "about": {"order": AFTER_OURS, **hosts, **cast("Table", about)}}
    if isinstance(key, dict):
        tables = {**tables, "key": {"borrowed": [], **cast("Table", key)}}
    return tables


def _day(path: Path) -> date:
    """The day on which a file was last changed: what it says is of that day where it names none."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date()


def host_of(base_url: str) -> str | None:
    """The host that a URL leads to; None where that is not certain."""
    try:
        parts = urlsplit(base_url)
        return None if parts.username is not None else (parts.hostname or "").rstrip(".") or None
    except ValueError:
        return None


def check_keys(files: tuple[UserFile, ...], package: Mapping[str, Provider], providers: Mapping[str, Provider]) -> None:
    """Raise ``CatalogueError`` where a key could leave for a host that is not its provider's."""
    owners: dict[str, str] = {}
    for key in ("key_variables", "borrowed_key_variables"):
        for provider in package.values():
            owners.update({name: owners.get(name, provider.id) for name in getattr(provider, key)})
    for file in files:
        if file.kind != "providers":
            continue
        provider, known = providers[file.id], package.get(file.id)
        for key, variables, before in (
            ("key.variables", provider.key_variables, known.key_variables if known else ()),
            ("key.borrowed", provider.borrowed_key_variables, known.borrowed_key_variables if known else ()),
        ):
            for variable in (each for each in variables if each not in before):
                owner = "kimi-mcp" if variable.startswith("KIMI_") else owners.setdefault(variable, file.id)
                if owner != file.id:
                    raise CatalogueError(
                        f"{file.name}: {key} has {variable!r}, which belongs to {owner} and goes to its own hosts "
                        "alone; allowed: a variable that no other provider has",
                        of_user=True,
                    )
        host = host_of(provider.base_url)
        if known is not None and known.key_variables:
            foreign = [each for each in (host, *provider.hosts) if each not in known.hosts]
            if foreign or not provider.base_url.startswith("https:"):
                raise CatalogueError(
                    f"{file.name}: about.base_url and about.hosts would lead the key of {file.id} elsewhere; allowed: "
                    f"https and {', '.join(known.hosts)}. Add a provider of another name, or set KIMI_BASE_URL",
                    of_user=True,
                )
        elif provider.key_variables and provider.hosts and host not in provider.hosts:
            raise CatalogueError(f"{file.name}: about.hosts lacks the host of about.base_url, {host}", of_user=True)
