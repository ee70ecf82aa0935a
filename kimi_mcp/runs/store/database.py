"""The journal's database: opened, brought up to date, asked, and set aside where it is damaged. Does I/O, by its hands.

One hand writes, the other reads, and several servers share it. Nothing here is awaited on the way of a token. A fault
of the database becomes one of our errors here; the next call opens it anew.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool, StaticPool

from kimi_mcp.core.errors import KimiError, NotConfigured
from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.binding import bind
from kimi_mcp.runs.store.paths import FILE
from kimi_mcp.runs.store.remote import ANSWERS_WITHIN_S, Connections, connect_arguments
from kimi_mcp.runs.store.tables import MIGRATIONS, SCHEMA, VERSION, about
from kimi_mcp.runs.store.threads import DatabaseThread, Operation, PendingOperation

LOCKED_S = 5.0
"""Seconds for which a lock of another program is waited out."""

REWRITTEN_BYTES = 8 << 20
"""What a file of an older version holds at most that is written anew as it is opened: a tenth of a second."""

PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
"""What is installed for a driver, where that has another name; with what the driver itself stands on."""

_log = logging.getLogger(__name__)

_VERSION = select(about.c.value).where(about.c.name == "version")
_VERSION_ALONE = _VERSION.with_for_update()

T = TypeVar("T")


class Database:
    """One database, opened by the first who needs it.

    ``folder``: where the file lies; None: everything is kept in memory. ``url``: another database than that file.
    ``on_open`` is done in the transaction that opens it. ``answers_within_s``: seconds for which a server is waited
    for; a file keeps ``LOCKED_S`` by itself.
    """

    def __init__(
        self,
        folder: Path | None,
        url: str | None = None,
        *,
        on_open: Operation[None],
        answers_within_s: float = ANSWERS_WITHIN_S,
    ) -> None:
        self._folder = folder
        self._url = url
        self._on_open = on_open
        self._connections = Connections() if url is not None and not _is_file(url) else None
        self._patience_s = math.inf if self._connections is None else answers_within_s
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._file: FileIdentity | None = None
        self._writer = DatabaseThread("journal-writer", self._work)
        self._reader = self._writer if folder is None else DatabaseThread("journal-reader", self._work)

    async def write(self, operation: Operation[T]) -> T:
        """Do it in a transaction; returns once it is committed. A caller that is cancelled meanwhile stops nothing."""
        return await self._answered(self._writer, operation)

    async def read(self, operation: Operation[T]) -> T:
        """Do it on what is committed."""
        return await self._answered(self._reader, operation)

    async def _answered(self, hand: DatabaseThread, operation: Operation[T]) -> T:
        try:
            with anyio.fail_after(self._patience_s):
                return await hand.ask(operation)
        except TimeoutError:
            raise errors.silent() from None

    def post(self, operation: Operation[Any], done: Callable[[BaseException | None], None]) -> None:
        """Do it in a transaction some time soon; ``done`` hears, in the loop, that it is, or why it can't be done."""
        self._writer.post(operation, done)

    def close(self, within_s: float = LOCKED_S) -> None:
        """End both threads once they have done what was asked of them, and close the file. Blocking.

        What they have not done within that time is left to them, for as long as the process lives.
        """
        until = time.monotonic() + within_s
        for hand in {self._writer, self._reader}:
            hand.end(until)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    # ── in the threads ────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self, hand: DatabaseThread, asked: list[PendingOperation]) -> None:
        """All of it in one transaction; one by one where that fails, so that a bad one spoils nobody else's."""
        try:
            results = self._done(hand, [one.operation for one in asked])
        except Exception as fault:  # noqa: BLE001 - handed to everyone who waits for it
            if len(asked) == 1 or _is_trouble(fault) or isinstance(fault, OSError):
                error = self._ours(fault, hand)
                for one in asked:
                    one.failed(error)
                return
            for one in asked:
                self._work(hand, [one])
            return
        for one, result in zip(asked, results, strict=True):
            one.done(result)

    def _done(self, hand: DatabaseThread, operations: list[Operation[Any]]) -> list[Any]:
        writes = hand is self._writer
        known = partial(_is_known, alone=writes)
        with nullcontext() if self._connections is None else self._connections.bounded(self._patience_s):
            return _transaction(self._connection(hand), [known, *operations], writes=writes)[1:]

    def _ours(self, fault: Exception, hand: DatabaseThread) -> KimiError:
        if isinstance(fault, KimiError):
            return fault  # an operation's own word: nothing is wrong with the connection
        if not self._passing:
            hand.let_go()
        if self._own_file is not None and (errors.code_of(fault) in errors.DAMAGED or self._lacks_columns(fault)):
            return errors.damaged(self._set_aside())
        if isinstance(fault, OSError):
            return errors.of_folder(fault, by_url=self._url is not None)
        # Whoever asked is told in our words, and whoever reads the log by them: here is what only a debugger wants.
        _log.info("the journal failed: %s", type(fault).__name__, extra={"sqlite": errors.code_of(fault)})
        return errors.told(fault, by_url=self._url is not None)

    def _lacks_columns(self, fault: Exception) -> bool:
        """Whether a statement failed because the file has lost what its version has: a name in its schema changed."""
        if isinstance(fault, UnicodeDecodeError):
            return True  # SQLite's message cites the schema, and the driver can't read it
        if self._engine is None or errors.is_trouble(fault):
            return False
        try:
            with self._engine.connect() as connection:
                return lacks_columns(connection)
        except (SQLAlchemyError, UnicodeDecodeError) as found:
            return errors.code_of(found) in errors.DAMAGED or not errors.is_trouble(found)

    @property
    def _passing(self) -> bool:
        """Whether it lives in memory alone, in the one connection there is."""
        return self._folder is None and self._url is None

    @property
    def _own_file(self) -> Path | None:
        """The file in the data folder, where that is the database."""
        return None if self._folder is None or self._url is not None else self._folder / FILE

    def _connection(self, hand: DatabaseThread) -> Connection:
        with self._opening:
            file = self._own_file
            if self._engine is not None and file is not None and _identity(file) != self._file:
                self._close_engine()  # another server set it aside, or somebody removed it: there is a new one to open
            if hand.engine is not self._engine:
                hand.let_go()
            if self._engine is None:
                self._engine = self._opened()
            if hand.connection is None:
                hand.engine, hand.connection = self._engine, self._engine.connect()
        return hand.connection

    def _opened(self) -> Engine:
        if self._folder is not None:
            prepare_folder(self._folder, self._url is None)
        file = self._own_file
        self._file = None if file is None else _identity(file)
        engine = _engine(self._url, self._folder)
        if self._connections is not None:
            self._connections.watch(engine)
        try:
            with engine.connect() as connection:
                self._version(connection)  # before anything is changed in a file that may not be ours
                if connection.dialect.name == "sqlite":
                    connection.exec_driver_sql("PRAGMA auto_vacuum = INCREMENTAL")  # of a file that is new
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                self._prepare(connection)
                if self._own_file is not None:
                    _let_shrink(connection)
        except BaseException:
            engine.dispose()
            raise
        return engine

    def _prepare(self, connection: Connection) -> None:
        """Make the tables what they should be; again, where another server made them at the same moment."""
        operations = [self._brought_up_to_date, self._bind, self._on_open]
        try:
            _transaction(connection, operations, writes=True)
        except (IntegrityError, ProgrammingError):
            _transaction(connection, operations, writes=True)

    def _bind(self, connection: Connection) -> None:
        if self._url is not None and self._folder is not None:
            bind(connection, self._folder)

    def _close_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _set_aside(self) -> str | None:
        """Keep a damaged file under another name, so that the next call begins a new one; returns that name.

        None: it can't be renamed, or somebody else was faster, and what is there now is another one.
        """
        with self._opening:
            self._close_engine()
            file = self._own_file
            if file is None or self._file is None or _identity(file) != self._file:
                return None
            self._file = None
            kept = f"{FILE}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
            try:
                for ending in ("-wal", "-shm", ""):
                    part = file.with_name(FILE + ending)
                    if part.exists():
                        part.rename(file.with_name(kept + ending))
            except OSError:
                return None
            return kept

    def _version(self, connection: Connection, *, alone: bool = False) -> int:
        """The version of what is there, 0 where nothing is; refuses what is another program's, or a newer one's."""
        tables = set(inspect(connection).get_table_names())
        if about.name in tables:
            return version_of(connection, by_url=self._url is not None, alone=alone)
        # In a file of our own nothing else has any business; a database that was named may hold other things.
        if self._own_file and _were_ours(tables):
            raise errors.Malformed
        if tables if self._own_file else tables & set(SCHEMA.tables):
            raise errors.foreign(by_url=self._url is not None)
        return 0

    def _brought_up_to_date(self, connection: Connection) -> None:
        version = self._version(connection, alone=True)
        if version == VERSION:
            return
        for migration in MIGRATIONS[version:]:
            migration(connection)
        connection.execute(about.delete().where(about.c.name == "version"))
        connection.execute(about.insert().values(name="version", value=str(VERSION)))


FileIdentity = tuple[int, int]
"""Which file it is, whatever its name."""


def _identity(file: Path) -> FileIdentity | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def prepare_folder(folder: Path, with_file: bool = True) -> None:
    """Make the data folder, for its owner alone; one that is there and holds other people's things stays as it is."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = all(entry.name.startswith(("journal.", "servers")) for entry in folder.iterdir())
        if mine and stat.S_IMODE(folder.stat().st_mode) != 0o700:
            folder.chmod(0o700)
        if with_file:
            _prepare_file(folder / FILE)
    except OSError as fault:
        raise errors.of_folder(fault) from None


def _prepare_file(file: Path) -> None:
    """Make a database's file, for its owner alone: SQLite gives its other files the same mode."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
    os.close(descriptor)


def _transaction(connection: Connection, operations: list[Operation[Any]], *, writes: bool) -> list[Any]:
    """Do it all, or nothing of it. Who only reads in SQLite waits for no writer."""
    immediate = writes and connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
    try:
        results = [operation(connection) for operation in operations]
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        with suppress(SQLAlchemyError):  # a full disk has rolled it back already; what counts is the first fault
            connection.exec_driver_sql("ROLLBACK")
        raise
    return results


def _is_known(connection: Connection, *, alone: bool) -> None:
    """Raise where a newer kimi-mcp has brought the tables further while we had them open."""
    version_of(connection, alone=alone)


def version_of(connection: Connection, *, by_url: bool = False, alone: bool = False) -> int:
    """The version of the tables that are there; refuses what is another program's, or a newer one's.

    ``alone``: until the transaction's end nobody else gets by here so. SQLite lets a single one write anyway.
    """
    try:
        found = connection.execute(_VERSION_ALONE if alone else _VERSION).scalar()
        version = 0 if found is None else int(found)
    except (ProgrammingError, OperationalError, ValueError) as fault:
        if errors.is_trouble(fault):
            raise
        if connection.dialect.name == "sqlite" and _were_ours(inspect(connection).get_table_names()):
            raise errors.Malformed from None
        raise errors.foreign(by_url=by_url) from None
    if version > VERSION:
        raise errors.newer(version, VERSION)
    return version


def _let_shrink(connection: Connection) -> None:
    """Have a file of an older version give free pages back from here on: it is written anew, where that is done soon.

    Does nothing where another program has it locked: the next one who opens it will.
    """
    if connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() != 0:
        return
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    pages -= connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    if pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one() <= REWRITTEN_BYTES:
        connection.exec_driver_sql("PRAGMA auto_vacuum = INCREMENTAL")
        with suppress(OperationalError):
            connection.exec_driver_sql("VACUUM")


def _were_ours(tables: Iterable[str]) -> bool:
    """Whether a file is one of ours by the names of its tables, though not all of them are what they were."""
    return len(set(tables) & set(SCHEMA.tables)) > len(SCHEMA.tables) / 2


def lacks_columns(connection: Connection) -> bool:
    """Whether the tables have not all that those of this version have."""
    if version_of(connection) != VERSION:
        return False
    found = inspect(connection)
    return any(
        not {column.name for column in table.columns} <= {column["name"] for column in found.get_columns(table.name)}
        for table in SCHEMA.sorted_tables
    )


def _is_trouble(fault: BaseException) -> bool:
    """Whether a fault is one of the database or of the way to it, not of what was asked of it."""
    remote = isinstance(fault, OperationalError | InterfaceError) and errors.code_of(fault) is None
    return remote or errors.is_trouble(fault)


def _is_file(url: str) -> bool:
    """Whether a URL names a database that is a file; False where it names none, which is said when it is opened."""
    try:
        return make_url(url).get_backend_name() == "sqlite"
    except (ArgumentError, ValueError, TypeError):
        return False


def _engine(url: str | None, folder: Path | None) -> Engine:
    if url is None and folder is None:
        engine = create_engine(
            "sqlite://", isolation_level="AUTOCOMMIT", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
    else:
        engine = made_engine(url or f"sqlite:///{cast(Path, folder) / FILE}")
        database = engine.url.database or ""
        if url is not None and engine.dialect.name == "sqlite" and not database.startswith("file:"):
            try:
                _prepare_file(Path(database))
            except OSError as fault:
                raise errors.of_folder(fault, by_url=True) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _tuned)
    return engine


def made_engine(url: str) -> Engine:
    """An engine for a database by its URL, not connected yet; raises ``NotConfigured`` for one that names none."""
    driver = ""
    try:
        named = make_url(url)
        driver = named.get_driver_name()
        sqlite = named.get_backend_name() == "sqlite"
        engine = create_engine(
            named,
            isolation_level="AUTOCOMMIT",  # transactions are said in words: SQLite's have to be IMMEDIATE
            poolclass=NullPool,
            connect_args={"timeout": LOCKED_S, "check_same_thread": False} if sqlite else connect_arguments(named),
        )
        if engine.dialect.is_async or (sqlite and named.database in (None, "", ":memory:")):
            raise ValueError
        return engine
    except (ArgumentError, ValueError, TypeError):
        wrong = "KIMI_DATABASE_URL is not the URL of a database."
    except ImportError:
        raise NotConfigured(
            f"The driver {driver} of the database that KIMI_DATABASE_URL names is not installed.",
            fix=f"Install it where kimi-mcp is (`pip install '{PACKAGES.get(driver, driver)}'`), or unset "
            "KIMI_DATABASE_URL to keep the journal in KIMI_DATA_DIR.",
        ) from None
    raise NotConfigured(
        wrong,
        fix="Unset it to keep the journal in KIMI_DATA_DIR, or name one such as sqlite:////folder/journal.sqlite3 "
        "(PostgreSQL: postgresql+psycopg://…).",
    ) from None


def _tuned(connection: Any, record: object) -> None:
    del record
    connection.text_factory = _text
    for pragma in ("synchronous = NORMAL", "journal_size_limit = 16777216", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _text(raw: bytes) -> str:
    """A text as SQLite has it, even where a bit of it flipped: one damaged run hides no other."""
    return str(raw, "utf-8", "replace")
