"""The store's database: opened, migrated, read, written, and set aside where it is damaged. I/O, in two threads."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
from sqlalchemy import ARRAY, BigInteger, Connection, Engine, bindparam, func, select
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from kimi_mcp.core import observing
from kimi_mcp.core.errors import KimiError, NotConfigured
from kimi_mcp.runs.store import engine, errors, notifications
from kimi_mcp.runs.store.config import FILE, StoreLimits, is_postgresql
from kimi_mcp.runs.store.tables import MIGRATIONS, Migration, TableSchema, bind
from kimi_mcp.runs.store.threads import DatabaseThread, Operation, PendingOperation, settle_all

_HOLD = select(func.pg_advisory_xact_lock(func.unnest(bindparam("numbers", type_=ARRAY(BigInteger)))))

VACUUM_BYTES = 8 << 20
"""What a file of an older version holds at most that is rewritten as it is opened: a tenth of a second."""

READERS_LOOK_EVERY_S = 1.0
"""Seconds between two looks of readers at PostgreSQL's version, which stays the same; writers look each time."""

WAL_RETRY_S = 0.01
"""Seconds until the next attempt to switch a file to WAL."""

CONFLICTS = 10
"""How often a transaction is given up for the sake of another one, until its caller gets the fault."""

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """One database, opened by the first who needs it.

    ``folder``: where the file is; None: everything is kept in memory. ``url``: another database than that file.
    ``on_open`` runs in the transaction that opens it, ``check`` first in each that writes.

    ``of_replica``: no error advises to do without a store.

    In SQLite writers go one at a time, as in any database that is not known to this module. In PostgreSQL they overlap,
    and wait for each other where they name the same locks, or a row.
    """

    def __init__(
        self,
        folder: Path | None,
        url: str | None = None,
        *,
        on_open: Operation[None],
        check: Callable[[Connection, TableSchema], None] | None = None,
        limits: StoreLimits | None = None,
        migrations: Sequence[Migration] = MIGRATIONS,
        of_replica: bool = False,
    ) -> None:
        self._folder, self._url, self._on_open = folder, url, on_open
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that waits for it; None before the first operation."""
        self.wrote_at = -math.inf
        """When it last went on to write, by the event loop's clock: not while it waits for a lock or a disk."""
        self._overlaps = is_postgresql(url)
        self._check, self._of_replica = check, of_replica
        self._own_file = None if folder is None or url is not None else folder / FILE
        is_server = url is not None and not url.startswith("sqlite")
        self._watchdog = engine.ConnectionWatchdog() if is_server else None
        self._limits = limits or StoreLimits()
        self._answers_within_s = self._limits.answers_within_s  # whatever the patience: a busy machine is not away
        self._schema = TableSchema(migrations=migrations, by_url=url is not None)
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._was_locked_at = self._looks_again_at = -math.inf
        self._file: tuple[int, int] | None = None
        gather_s = self._limits.gather_s if self._overlaps else 0.0
        self._writer = DatabaseThread("store-writer", self._execute, gather_s)
        self._reader = self._writer if folder is None else DatabaseThread("store-reader", self._execute, gather_s)

    async def write(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        """The result of a query that writes, once it is committed. A caller that is cancelled stops nothing."""
        return await self._run(self._writer, lambda connection: query(connection, *args, **named))

    async def write_locked(
        self, locks: tuple[str, ...], query: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs
    ) -> T:
        """The same, in a transaction that no other server has at the same time which names one of these locks."""
        return await self._run(self._writer, lambda connection: query(connection, *args, **named), locks)

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        """The result of a query, on what is committed."""
        return await self._run(self._reader, lambda connection: query(connection, *args, **named))

    async def _run(self, thread: DatabaseThread, operation: Operation[T], locks: tuple[str, ...] = ()) -> T:
        self.loop = asyncio.get_running_loop()
        if not observing.is_observed():
            return await self._answer(thread, operation, locks)
        began, failed = anyio.current_time(), False
        try:
            return await self._answer(thread, operation, locks)
        except NotConfigured:  # what the store's own errors are; an operation may raise others
            failed = True
            raise
        finally:
            kind = "write" if thread is self._writer else "read"
            took_s = anyio.current_time() - began
            observing.emit(observing.StoreUsed(operation=kind, took_s=took_s, failed=failed))

    async def _answer(self, thread: DatabaseThread, operation: Operation[T], locks: tuple[str, ...]) -> T:
        if self._watchdog is None:  # a file's own lock bounds it
            return await thread.run(operation)
        try:
            return await thread.run(operation, locks, self._answers_within_s)
        except TimeoutError:
            raise self._advised(errors.silent(by_url=True)) from None

    def close(self, within_s: float | None = None) -> None:
        """End both threads after what waits is done, within that time (None: as for a locked file). Blocking."""
        until = time.monotonic() + (self._limits.locked_s if within_s is None else within_s)
        for thread in {self._writer, self._reader}:
            thread.end(until)
        self._close_engine()

    def _execute(self, thread: DatabaseThread, pending: list[PendingOperation]) -> None:
        """All in one transaction; one by one where that fails, so that a bad one spoils no other."""
        try:
            with nullcontext() if self._watchdog is None else self._watchdog.limit(self._answers_within_s):
                results = self._results(thread, pending)
        except Exception as fault:  # noqa: BLE001 - handed to everyone who waits
            if len(pending) == 1 or _is_database_fault(fault) or isinstance(fault, OSError):
                error = self._advised(self._as_error(fault, thread))
                for one in pending:
                    one.settle(fault=error)
            else:
                for one in pending:
                    self._execute(thread, [one])
            return
        self._note_progress(thread is self._writer)
        settle_all(pending, results)

    def _results(self, thread: DatabaseThread, pending: list[PendingOperation]) -> list[Any]:
        """The results of one transaction; it is done again where PostgreSQL gave it up for the sake of another one."""
        is_writer = thread is self._writer
        first: list[Operation[Any]] = [partial(self._begin, writes=is_writer)]
        if self._overlaps and (locks := sorted({lock for one in pending for lock in one.locks})):
            first.append(partial(_lock, locks))
        operations, renew = [*first, *(one.operation for one in pending)], partial(self._renew, is_writer)
        for _ in range(CONFLICTS):
            try:
                connection = self._connection(thread, pending[0].queued_at)
                return _transaction(connection, operations, writes=is_writer, renew=renew)[len(first) :]
            except DBAPIError as fault:
                if not errors.is_conflict(fault):
                    raise
        raise errors.Locked

    def _renew(self, is_writer: bool) -> None:
        """Let the next operation of a transaction have the time of one: all of them may take longer together."""
        self._note_progress(is_writer)
        if self._watchdog is not None:
            self._watchdog.renew(self._answers_within_s)

    def _note_progress(self, is_writer: bool) -> None:
        if is_writer and self.loop is not None:
            self.wrote_at = self.loop.time()

    def _begin(self, connection: Connection, *, writes: bool) -> None:
        """Look at the version: a newer kimi-mcp may have migrated meanwhile."""
        if writes and self._check is not None:
            self._check(connection, self._schema)
        elif writes or not self._overlaps:
            self._schema.version_of(connection, for_update=writes and not self._overlaps)
        elif (now := time.monotonic()) >= self._looks_again_at:
            self._schema.version_of(connection)
            self._looks_again_at = now + READERS_LOOK_EVERY_S

    def _advised(self, error: KimiError) -> KimiError:
        return errors.of_replica(error) if self._of_replica else error

    def _as_error(self, fault: Exception, thread: DatabaseThread) -> KimiError:
        if isinstance(fault, KimiError):
            return fault  # raised by the operation: the connection is fine
        if self._folder is not None or self._url is not None:  # else all there is would be lost
            thread.disconnect()
        if self._own_file is not None and (errors.is_damage(fault) or self._lacks_columns(fault)):
            return errors.damaged(self._set_aside())
        by_url = self._url is not None
        if isinstance(fault, OSError):
            return errors.from_os_error(fault, by_url=by_url)
        _log.info("the store failed: %s", type(fault).__name__, extra={"sqlite": errors.code_of(fault)})
        return errors.from_fault(fault, by_url=by_url)

    def _lacks_columns(self, fault: Exception) -> bool:
        """Whether a statement failed because a name in the file's schema changed: a bit of it flipped."""
        if isinstance(fault, UnicodeDecodeError):
            return True  # SQLite's message quotes the schema, and the driver can't read it
        if self._engine is None or errors.is_disk_fault(fault):
            return False
        try:
            with self._engine.connect() as connection:
                return self._schema.lacks_columns(connection)
        except (SQLAlchemyError, UnicodeDecodeError) as found:
            return errors.is_damage(found) or not errors.is_disk_fault(found)

    def _connection(self, thread: DatabaseThread, queued_at: float) -> Connection:
        with self._opening:
            file = self._own_file
            if self._engine is not None and file is not None and _identity(file) != self._file:
                self._close_engine()  # it was set aside or removed: there is a new one to open
            if thread.engine is not self._engine:
                thread.disconnect()
            if self._engine is None:
                with nullcontext() if self._watchdog is None else self._watchdog.limit(self._limits.opens_within_s):
                    self._engine = self._open_once(queued_at)
            if thread.connection is None:
                thread.engine, thread.connection = self._engine, self._engine.connect()
        return thread.connection

    def _open_once(self, queued_at: float) -> Engine:
        """Open it; where it was locked for somebody else since this was queued, that was this one's attempt too."""
        if queued_at <= self._was_locked_at:
            raise errors.Locked
        try:
            return self._open()
        except OperationalError as fault:
            if errors.is_locked(fault):
                self._was_locked_at = time.monotonic()
            raise

    def _open(self) -> Engine:
        if self._folder is not None:
            engine.prepare_folder(self._folder, with_file=self._url is None)
        self._file = None if self._own_file is None else _identity(self._own_file)
        opened = engine.open_engine(self._url, self._folder, self._limits)
        if self._watchdog is not None:
            self._watchdog.watch(opened)
        try:
            with opened.connect() as connection:
                self._schema.version_found(connection)  # before a foreign file is changed
                if connection.dialect.name == "sqlite":
                    connection.exec_driver_sql("PRAGMA auto_vacuum = INCREMENTAL")  # counts for a new file
                    _use_wal(connection)
                try:
                    _transaction(connection, [self._prepare], writes=True)
                except (IntegrityError, ProgrammingError):  # another server created the tables at the same moment
                    _transaction(connection, [self._prepare], writes=True)
                if self._own_file is not None:
                    _enable_shrinking(connection)
        except BaseException:
            opened.dispose()
            raise
        return opened

    def _prepare(self, connection: Connection) -> None:
        if self._overlaps:
            for name in ("statement_timeout", "lock_timeout"):  # another server may be making the tables
                milliseconds = str(int(self._limits.opens_within_s * 1000))
                connection.execute(select(func.set_config(name, milliseconds, True)))
        self._schema.migrate(connection)
        if self._url is not None and self._folder is not None and not self._overlaps:
            bind(connection, self._folder)
        self._on_open(connection)

    def _close_engine(self) -> None:
        opened, self._engine = self._engine, None
        if opened is not None:
            opened.dispose()

    def _set_aside(self) -> str | None:
        """Rename a damaged file, so that the next call begins a new one; its new name, None where that fails."""
        with self._opening:
            self._close_engine()
            file = self._own_file
            if file is None or self._file is None or _identity(file) != self._file:
                return None
            self._file = None
            new_name = f"{FILE}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
            try:
                for ending in ("-wal", "-shm", ""):
                    part = file.with_name(FILE + ending)
                    if part.exists():
                        part.rename(file.with_name(new_name + ending))
            except OSError:
                return None
            return new_name


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file it is, whatever its name."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


_BEGIN = {
    ("sqlite", True): "BEGIN IMMEDIATE",
    ("postgresql", True): "BEGIN ISOLATION LEVEL READ COMMITTED",  # a row that was waited for is seen as it is then
    ("postgresql", False): "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",  # a run and its pieces fit each other
}
"""How a transaction begins, by the database and whether it writes."""


def _lock(names: Sequence[str], connection: Connection) -> None:
    """Hold PostgreSQL's advisory locks of these names until the transaction ends."""
    hashes = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    connection.execute(_HOLD, {"numbers": [int.from_bytes(each, signed=True) for each in hashes]})


def _transaction(
    connection: Connection,
    operations: list[Operation[Any]],
    *,
    writes: bool,
    renew: Callable[[], None] = lambda: None,
) -> list[Any]:
    """Do all of it, or nothing; ``renew`` is called before each operation. In SQLite a reader waits for no writer."""
    begin = _BEGIN.get((connection.dialect.name, writes), "BEGIN")
    try:
        engine.execute(connection, begin)
    except OperationalError as fault:
        if not fault.connection_invalidated:
            raise
        connection.rollback()  # a server that was restarted has ended it: nothing was asked of it yet
        engine.execute(connection, begin)  # on a new one
    notifications.discard(connection)
    try:
        results: list[Any] = []
        for operation in operations:
            renew()
            results.append(operation(connection))
        engine.execute(connection, "COMMIT")
    except BaseException:
        with suppress(SQLAlchemyError):  # a full disk has rolled it back already; the first fault counts
            engine.execute(connection, "ROLLBACK")
        raise
    notifications.send(connection)
    return results


def _use_wal(connection: Connection) -> None:
    """Switch a file to WAL, for as long as a lock is waited for.

    While another server writes to it, or switches it, SQLite refuses at once instead of waiting.
    """
    until = time.monotonic() + connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() / 1000
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except OperationalError as fault:
            if not errors.is_locked(fault) or time.monotonic() + WAL_RETRY_S >= until:
                raise
            time.sleep(WAL_RETRY_S)
        else:
            return


def _enable_shrinking(connection: Connection) -> None:
    """Let a file of an older version give free pages back: it is rewritten, unless that takes time or it is locked."""
    if connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() != 0:
        return
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    pages -= connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    if pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one() <= VACUUM_BYTES:
        connection.exec_driver_sql("PRAGMA auto_vacuum = INCREMENTAL")
        with suppress(OperationalError):
            connection.exec_driver_sql("VACUUM")


def _is_database_fault(fault: BaseException) -> bool:
    """Whether a fault comes from the database or the connection, not from the operation."""
    is_remote = isinstance(fault, OperationalError | InterfaceError) and errors.code_of(fault) is None
    return is_remote or errors.is_disk_fault(fault)
