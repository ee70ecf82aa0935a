"""The store's tables, their versions, and the data folder that a database belongs to. I/O: in the caller's transaction.

One schema for SQLite and PostgreSQL: text, numbers and JSON as text, no type or statement that only one of them has.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.schema import CreateColumn

from kimi_mcp.runs.store import engine, errors, shared_tables
from kimi_mcp.runs.store.pending import write_whole

ID_FILE = "journal.id"
"""The file in the data folder that holds its id."""


class ForeignText(sa.TypeDecorator[str]):
    """A text that others wrote, without NUL in PostgreSQL, which can't hold it; what is replayed is exact JSON."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """The text as it is written down, as long as it was."""
        return value if value is None or dialect.name == "sqlite" else value.replace("\0", "\ufffd")


SCHEMA = sa.MetaData()
"""Every table."""

about = sa.Table(
    "about", SCHEMA, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)
"""Facts on the file itself: its ``version``."""

runs = sa.Table(
    "runs",
    SCHEMA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("caller", sa.Text, nullable=False),  # whom it belongs to
    sa.Column("host", ForeignText),  # the program that called, by its own name
    sa.Column("owner", sa.Text, nullable=False),  # the server it runs in
    sa.Column("tool", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),  # the contract's words
    sa.Column("prompt_head", ForeignText, nullable=False),
    sa.Column("call_key", sa.Text),  # the hash of tool and arguments: the same call has the same one
    sa.Column(
        "abandoned", sa.Integer, nullable=False, default=0
    ),  # 1: its host gave up on it; 2: somebody else wants it
    sa.Column("resumable", sa.Integer, nullable=False, default=0),  # 1: another server may go on with it
    sa.Column("cancel_asked", sa.Integer, key="cancel_requested", nullable=False, default=0),  # 1: by another server
    sa.Column("started_at", sa.Float, nullable=False),  # seconds since 1970
    sa.Column("ended_at", sa.Float),
    sa.Column("lived_s", sa.Float, nullable=False, server_default="0"),  # seconds in all its servers, so far
    sa.Column("conversation_id", sa.Text),
    sa.Column("follows", sa.Text),  # the run whose turns come before its own
    sa.Column("traceparent", sa.Text),  # of the request that began it, as W3C Trace Context writes it
    sa.Column("request", sa.Text, nullable=False),  # JSON: what was sent, media by hash and size
    sa.Column("turns", sa.Text),  # JSON: what it adds to its conversation; null unless it was completed
    sa.Column("model_asked", sa.Text),
    sa.Column("model_id", sa.Text),  # the catalogue's id of the model that was sent
    sa.Column("provider", sa.Text),
    sa.Column("counted_usd", sa.Float, nullable=False, default=0.0),  # what spending limits count for it, so far
    sa.Column("took_s", sa.Float),  # seconds; null as long as it runs, and where an older version wrote it
    sa.Column("tokens", sa.Integer),  # null where they are not known
    sa.Column("cost_usd", sa.Float),  # the same
    sa.Column("outcome", sa.Text),  # JSON: all of the outcome but its texts; null as long as it runs
    sa.Column("answer", ForeignText),  # as it was when the run ended; until then see ``pieces``
    sa.Column("reasoning", ForeignText),
    sa.Index("runs_by_caller", "caller", "started_at"),
    sa.Index("runs_by_status", "status", "owner"),
    sa.Index("runs_by_call", "call_key", "abandoned", "started_at"),
    sa.Index("runs_by_time", "started_at", "status", "took_s", "tokens", "cost_usd"),  # all that totals need
    sa.Index("runs_by_predecessor", "follows"),
    sa.Index("runs_by_conversation", "conversation_id"),
    sa.Index("runs_by_end", "ended_at", "id"),
)
"""One row a run."""

pieces = sa.Table(
    "pieces",
    SCHEMA,
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("request", sa.Integer, nullable=False),  # which request of the run, from 0
    sa.Column("of", sa.Text, nullable=False),  # "answer" or "reasoning"
    sa.Column("start", sa.Integer, nullable=False),  # where it begins, in code points
    sa.Column("text", ForeignText, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "request", "of", "start"),
)
"""What has arrived of runs that are under way."""

conversations = sa.Table(
    "conversations",
    SCHEMA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("head", sa.Text),  # the run with its latest turns
    sa.Column("writer", sa.Text),  # the run that is adding to it
    sa.Column("writer_owner", sa.Text),  # the server of that run
    sa.Index("conversations_by_writer", "writer"),
)
"""One row a conversation; its turns are those of its runs, from the head backwards."""

steps = sa.Table(
    "steps",
    SCHEMA,
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("told", sa.Text, key="description", nullable=False),  # JSON: who makes it, and what it requests
    sa.Column("result", sa.Text),  # JSON; null: begun and not finished
    sa.Column("began_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.PrimaryKeyConstraint("run_id", "key"),
    sa.Index("steps_by_end", "run_id", "ended_at", "key"),  # what is new, without a look at their long texts
)
"""One row a step of a longer work."""

looks = sa.Table(
    "looks",
    SCHEMA,
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("until", sa.Float, nullable=False),  # seconds since 1970: from then on nobody looks any more
    sa.Column("step", sa.Text),  # the key of the step that the texts are of; null: none of the agent's runs
    sa.Column("reasoning", ForeignText),  # the end of what has arrived of it
    sa.Column("reasoning_start", sa.Integer),  # where that begins, in code points
    sa.Column("answer", ForeignText),
    sa.Column("answer_start", sa.Integer),
    sa.PrimaryKeyConstraint("run_id", "agent"),
)
"""One row an agent that somebody looks at while it works."""

Migration = Callable[[sa.Connection], None]


def _create(connection: sa.Connection) -> None:
    SCHEMA.create_all(connection, checkfirst=True)


def _complete(connection: sa.Connection) -> None:
    """Add what an older version lacks."""
    _create(connection)
    for table in SCHEMA.sorted_tables:
        known = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                added = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {added}"))
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    connection.execute(sa.text("DROP INDEX IF EXISTS runs_by_start"))


MIGRATIONS: tuple[Migration, ...] = (_create, _complete, _complete, _complete)
"""The first makes the tables as this version has them; the others make version 2 of version 1, and so on.

Old ones are never changed once released.
"""

# ── what only adds ────────────────────────────────────────────────────────────────────────────────────────────────────


def _create_shared(connection: sa.Connection) -> None:
    """What several machines share: in PostgreSQL alone."""
    if connection.dialect.name == "postgresql":
        shared_tables.create(connection)


def _index_ends_of_steps(connection: sa.Connection) -> None:
    for index in steps.indexes:
        index.create(connection, checkfirst=True)


def _create_looks(connection: sa.Connection) -> None:
    looks.create(connection, checkfirst=True)


EXPANSIONS: tuple[Migration, ...] = (_create_shared, _index_ends_of_steps, _create_looks)
"""What makes revision 1 of nothing, revision 2 of revision 1, and so on.

Each only adds (a table, an index, a column with a default): servers of the version before go on beside it, since they
refuse no revision, as they would a version. Old entries are never changed once released. What is no longer used is
removed by a migration of a later release.
"""

_MIGRATING = 7_090_316_527_221_364_736
"""Who migrates holds PostgreSQL's advisory lock of this number."""

# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────

_FACT = sa.select(about.c.value).where(about.c.name == sa.bindparam("fact"))
_FACT_FOR_UPDATE = _FACT.with_for_update()
_SQLITE_VERSION = "SELECT value FROM about WHERE name = 'version'"


def read_fact(connection: sa.Connection, name: str) -> str | None:
    """A fact on the database itself."""
    return connection.execute(_FACT, {"fact": name}).scalar()


def write_fact(connection: sa.Connection, name: str, value: str) -> None:
    """Write a fact on the database itself."""
    if not connection.execute(sa.update(about).where(about.c.name == name).values(value=value)).rowcount:
        connection.execute(sa.insert(about).values(name=name, value=value))


def with_version(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """A statement that reads the version, and whether a condition holds: one instead of two."""
    return _FACT.add_columns(condition.label("holds"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSchema:
    """The tables as this version has them, in a database that the folder holds or, ``by_url``, that was named."""

    migrations: Sequence[Migration] = MIGRATIONS
    """The first makes the tables of nothing, the others version 2 of version 1, and so on."""
    expansions: Sequence[Migration] = EXPANSIONS
    """What makes revision 1 of nothing, and so on."""
    by_url: bool = False
    """Whether KIMI_DATABASE_URL names the database, which may hold other things."""

    def version_of(self, connection: sa.Connection, *, for_update: bool = False) -> int:
        """The version of the tables; refuses another program's, and newer ones. ``for_update`` keeps writers out."""
        if connection.dialect.name == "sqlite":  # by the driver alone: it is read in each transaction
            return self._version(connection, lambda: engine.execute(connection, _SQLITE_VERSION).row)[0]
        statement = _FACT_FOR_UPDATE if for_update else _FACT
        return self._version(connection, lambda: connection.execute(statement, {"fact": "version"}).first())[0]

    def holds(self, connection: sa.Connection, statement: sa.Select[Any], **parameters: Any) -> bool:
        """Whether the condition of a ``with_version`` holds; a version is refused likewise."""
        known = {"fact": "version", **parameters}
        version, *found = self._version(connection, lambda: connection.execute(statement, known).first())
        return bool(version and found[0])

    def _version(
        self, connection: sa.Connection, read: Callable[[], Sequence[Any] | None]
    ) -> tuple[int, *tuple[Any, ...]]:
        """The version of the tables, and what else is read beside it."""
        try:
            version, *found = read() or (0,)
            version = int(version)
        except (ProgrammingError, OperationalError, ValueError) as fault:
            is_sqlite = connection.dialect.name == "sqlite"
            if errors.is_disk_fault(fault) or (isinstance(fault, OperationalError) and not is_sqlite):
                raise  # a server's connection broke, or its lock was waited for too long
            if is_sqlite and _were_ours(sa.inspect(connection).get_table_names()):
                raise errors.Malformed from None
            raise errors.foreign(by_url=self.by_url) from None
        if version > len(self.migrations):
            raise errors.newer(version, len(self.migrations))
        return version, *found

    def version_found(self, connection: sa.Connection, *, for_update: bool = False) -> int:
        """The version of the tables, 0 where there are none yet; refuses what is not ours."""
        tables = set(sa.inspect(connection).get_table_names())
        if about.name in tables:
            return self.version_of(connection, for_update=for_update)
        if not self.by_url and _were_ours(tables):
            raise errors.Malformed
        if tables & {*SCHEMA.tables, *shared_tables.SHARED.tables} if self.by_url else tables:
            raise errors.foreign(by_url=self.by_url)
        return 0

    def migrate(self, connection: sa.Connection) -> None:
        """Bring the tables to this version; of several servers one does it, and the others wait for that."""
        is_shared = connection.dialect.name == "postgresql"
        if is_shared:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
        version = self.version_found(connection, for_update=True)
        missing = self.migrations[version:]
        for migration in missing if version else missing[:1]:  # the first one makes the tables as they are now
            migration(connection)
        if missing:
            write_fact(connection, "version", str(len(self.migrations)))
        revision = int(read_fact(connection, "revision") or 0)
        if revision < len(self.expansions):
            for expansion in self.expansions[revision:]:
                expansion(connection)
            write_fact(connection, "revision", str(len(self.expansions)))

    def lacks_columns(self, connection: sa.Connection) -> bool:
        """Whether the tables lack something that this version has."""
        found, is_current = sa.inspect(connection), self.version_of(connection) == len(self.migrations)
        return is_current and any(
            not {column.name for column in table.columns} <= {each["name"] for each in found.get_columns(table.name)}
            for table in SCHEMA.sorted_tables
        )


def _were_ours(tables: Iterable[str]) -> bool:
    """Whether a file was ours by the names of its tables, though some of them have changed."""
    return len(set(tables) & set(SCHEMA.tables)) > len(SCHEMA.tables) / 2


def bind(connection: sa.Connection, folder: Path) -> None:
    """Bind a database to a data folder, in a transaction that writes; ``NotConfigured`` where it has another one."""
    bound_to = read_fact(connection, "folder")
    if bound_to is None:
        write_fact(connection, "folder", _create_id(folder))
    else:
        check_folder(connection, folder)
        if _read_id(folder) is None:
            _create_id(folder, bound_to)


def check_folder(connection: sa.Connection, folder: Path) -> None:
    """Raise ``NotConfigured`` where a database is bound to another data folder: its servers would look dead here.

    A folder that has lost its id is still that of a database inside it.
    """
    bound_to, found = read_fact(connection, "folder"), _read_id(folder)
    if bound_to not in (None, found) and not (found is None and _is_inside(connection, folder)):
        raise errors.other_folder()


def _is_inside(connection: sa.Connection, folder: Path) -> bool:
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
