"""The store's tables, and how those of an older version are migrated. Pure: it executes nothing by itself.

One schema for SQLite and PostgreSQL: text, numbers and JSON as text, no type or statement that only one of them has.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    inspect,
    text,
)
from sqlalchemy.schema import CreateColumn


class ForeignText(TypeDecorator[str]):
    """A text that others wrote. PostgreSQL can't hold the character NUL: there another one stands in its place.

    What is replayed is JSON, which escapes it, and stays exact everywhere.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text as it is written down, as long as it was."""
        return value if value is None or dialect.name == "sqlite" else value.replace("\0", "\ufffd")


SCHEMA = MetaData()
"""Every table."""

about = Table("about", SCHEMA, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
"""Facts on the file itself: its ``version``."""

runs = Table(
    "runs",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("caller", Text, nullable=False),  # whom it belongs to
    Column("host", ForeignText),  # the program that asked, by its own name
    Column("owner", Text, nullable=False),  # the server it runs in
    Column("tool", Text, nullable=False),
    Column("status", Text, nullable=False),  # the contract's words
    Column("prompt_head", ForeignText, nullable=False),
    Column("call_key", Text),  # the hash of tool and arguments: the same call has the same one
    Column("abandoned", Integer, nullable=False, default=0),  # 1: its host gave up on it
    Column("resumable", Integer, nullable=False, default=0),  # 1: another server may go on with it
    Column("cancel_asked", Integer, nullable=False, default=0),  # 1: another server asked to cancel it
    Column("started_at", Float, nullable=False),  # seconds since 1970
    Column("ended_at", Float),
    Column("lived_s", Float, nullable=False, server_default="0"),  # seconds in all its servers, so far
    Column("conversation_id", Text),
    Column("follows", Text),  # the run whose turns come before its own
    Column("request", Text, nullable=False),  # JSON: what was sent, media by hash and size
    Column("turns", Text),  # JSON: what it adds to its conversation; null unless it was completed
    Column("model_asked", Text),
    Column("model_id", Text),  # the catalogue's id of the model that was sent
    Column("provider", Text),
    Column("counted_usd", Float, nullable=False, default=0.0),  # what spending limits count for it, so far
    Column("took_s", Float),  # seconds; null as long as it runs, and where an older version wrote it
    Column("tokens", Integer),  # null where they are not known
    Column("cost_usd", Float),  # the same
    Column("outcome", Text),  # JSON: all of the outcome but its texts; null as long as it runs
    Column("answer", ForeignText),  # as it was when the run ended; until then see ``pieces``
    Column("reasoning", ForeignText),
    Index("runs_by_caller", "caller", "started_at"),
    Index("runs_by_status", "status", "owner"),
    Index("runs_by_call", "call_key", "abandoned", "started_at"),
    Index("runs_by_time", "started_at", "status", "took_s", "tokens", "cost_usd"),  # all that totals need
    Index("runs_by_predecessor", "follows"),
    Index("runs_by_conversation", "conversation_id"),
    Index("runs_by_end", "ended_at", "id"),
)
"""One row a run."""

pieces = Table(
    "pieces",
    SCHEMA,
    Column("run_id", Text, nullable=False),
    Column("request", Integer, nullable=False),  # which request of the run, from 0
    Column("of", Text, nullable=False),  # "answer" or "reasoning"
    Column("start", Integer, nullable=False),  # where it begins, in code points
    Column("text", ForeignText, nullable=False),
    PrimaryKeyConstraint("run_id", "request", "of", "start"),
)
"""What has arrived of runs that are under way."""

conversations = Table(
    "conversations",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("caller", Text, nullable=False),
    Column("head", Text),  # the run with its latest turns
    Column("writer", Text),  # the run that is adding to it
    Column("writer_owner", Text),  # the server of that run
    Index("conversations_by_writer", "writer"),
)
"""One row a conversation; its turns are those of its runs, from the head backwards."""

steps = Table(
    "steps",
    SCHEMA,
    Column("run_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("told", Text, key="description", nullable=False),  # JSON: who makes it, and what it asks for
    Column("result", Text),  # JSON; null: begun and not finished
    Column("began_at", Float, nullable=False),
    Column("ended_at", Float),
    PrimaryKeyConstraint("run_id", "key"),
)
"""One row a step of a longer work."""

Migration = Callable[[Connection], None]


def _create(connection: Connection) -> None:
    SCHEMA.create_all(connection, checkfirst=True)


def _complete(connection: Connection) -> None:
    """Add what an older version lacks."""
    for table in SCHEMA.sorted_tables:
        known = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                added = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {added}"))
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    connection.execute(text("DROP INDEX IF EXISTS runs_by_start"))


MIGRATIONS: tuple[Migration, ...] = (_create, _complete, _complete)
"""What makes version 1 of nothing, version 2 of version 1, and so on. Old entries are never changed once released."""
