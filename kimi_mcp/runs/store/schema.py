"""Whose tables a database holds, in which version, and for which data folder. I/O: in the caller's transaction.

Which servers are alive, and which outcomes are still to be written, is recorded in the data folder. Two folders on one
database would take each other's servers for dead, so a database remembers the first one and refuses every other.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from sqlalchemy import Connection, bindparam, delete, insert, inspect, select
from sqlalchemy.exc import OperationalError, ProgrammingError

from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.pending import write_whole
from kimi_mcp.runs.store.tables import MIGRATIONS, SCHEMA, Migration, about

ID_FILE = "journal.id"
"""The file in the data folder that holds its id."""

_FACT = select(about.c.value).where(about.c.name == bindparam("fact"))
_FACT_FOR_UPDATE = _FACT.with_for_update()


def read_fact(connection: Connection, name: str, *, for_update: bool = False) -> str | None:
    """A fact on the database itself; ``for_update`` keeps other writers out until the transaction ends."""
    return connection.execute(_FACT_FOR_UPDATE if for_update else _FACT, {"fact": name}).scalar()


def write_fact(connection: Connection, name: str, value: str) -> None:
    """Write a fact on the database itself."""
    connection.execute(delete(about).where(about.c.name == name))
    connection.execute(insert(about).values(name=name, value=value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The tables as this version has them, in a database that the folder holds or, ``by_url``, that was named."""

    migrations: Sequence[Migration] = MIGRATIONS
    """What makes version 1 of nothing, version 2 of version 1, and so on."""
    by_url: bool = False
    """Whether KIMI_DATABASE_URL names the database, which may hold other things."""

    def version_of(self, connection: Connection, *, for_update: bool = False) -> int:
        """The version of the tables; refuses another program's, and those of a newer version.

        ``for_update`` keeps other writers out until the transaction ends. SQLite lets a single one write anyway.
        """
        try:
            version = int(read_fact(connection, "version", for_update=for_update) or 0)
        except (ProgrammingError, OperationalError, ValueError) as fault:
            if errors.is_disk_fault(fault):
                raise
            if connection.dialect.name == "sqlite" and _were_ours(inspect(connection).get_table_names()):
                raise errors.Malformed from None
            raise errors.foreign(by_url=self.by_url) from None
        if version > len(self.migrations):
            raise errors.newer(version, len(self.migrations))
        return version

    def version_found(self, connection: Connection, *, for_update: bool = False) -> int:
        """The version of the tables, 0 where there are none yet; refuses what is not ours."""
        tables = set(inspect(connection).get_table_names())
        if about.name in tables:
            return self.version_of(connection, for_update=for_update)
        if not self.by_url and _were_ours(tables):
            raise errors.Malformed
        if tables & set(SCHEMA.tables) if self.by_url else tables:
            raise errors.foreign(by_url=self.by_url)
        return 0

    def migrate(self, connection: Connection) -> None:
        """Bring the tables to this version."""
        missing = self.migrations[self.version_found(connection, for_update=True) :]
        for migration in missing:
            migration(connection)
        if missing:
            write_fact(connection, "version", str(len(self.migrations)))

    def lacks_columns(self, connection: Connection) -> bool:
        """Whether the tables lack something that this version has."""
        found, is_current = inspect(connection), self.version_of(connection) == len(self.migrations)
        return is_current and any(
            not {column.name for column in table.columns} <= {each["name"] for each in found.get_columns(table.name)}
            for table in SCHEMA.sorted_tables
        )


def _were_ours(tables: Iterable[str]) -> bool:
    """Whether a file was ours by the names of its tables, though some of them have changed."""
    return len(set(tables) & set(SCHEMA.tables)) > len(SCHEMA.tables) / 2


def bind(connection: Connection, folder: Path) -> None:
    """Bind a database to a data folder, in a transaction that writes; ``NotConfigured`` where it has another one."""
    bound_to = read_fact(connection, "folder")
    if bound_to is None:
        write_fact(connection, "folder", _create_id(folder))
    else:
        check_folder(connection, folder)
        if _read_id(folder) is None:
            _create_id(folder, bound_to)


def check_folder(connection: Connection, folder: Path) -> None:
    """Raise ``NotConfigured`` where a database is bound to another data folder; writes nothing.

    A folder that has lost its id is still that of a database inside it.
    """
    bound_to, found = read_fact(connection, "folder"), _read_id(folder)
    if bound_to not in (None, found) and not (found is None and _is_inside(connection, folder)):
        raise errors.other_folder()


def _is_inside(connection: Connection, folder: Path) -> bool:
    """Whether a database is a file in that folder."""
    file = connection.engine.url.database
    return connection.dialect.name == "sqlite" and bool(file) and Path(file).resolve().parent == folder.resolve()


def _read_id(folder: Path) -> str | None:
    try:
        return (folder / ID_FILE).read_text(encoding="ascii").strip() or None
    except (FileNotFoundError, ValueError):
        return None


def _create_id(folder: Path, lost: str | None = None) -> str:
    """The folder's id, written where it has none; several servers may do so at once."""
    with FileLock(folder / f"{ID_FILE}.lock", mode=0o600):
        if (known := _read_id(folder)) is not None:
            return known
        created = lost or f"folder_{secrets.token_hex(8)}"
        write_whole(folder / ID_FILE, created)
        return created
