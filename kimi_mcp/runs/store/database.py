"""The store's database: opened, migrated, read, written, and set aside where it is damaged. I/O, in two threads."""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, ProgrammingError, SQLAlchemyError

from kimi_mcp.core.errors import KimiError
from kimi_mcp.runs.store import engine, errors
from kimi_mcp.runs.store.config import FILE, StoreLimits
from kimi_mcp.runs.store.tables import MIGRATIONS, Migration, TableSchema, bind

MOST_AT_ONCE = 256
"""Operations that share a transaction at most."""

VACUUM_BYTES = 8 << 20
"""What a file of an older version holds at most that is rewritten as it is opened: a tenth of a second."""

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Operation = Callable[[Connection], T]
"""What is done with a connection, inside a transaction; may be repeated where the transaction failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingOperation:
    """An operation, and who waits for it."""

    operation: Operation[Any]
    """What to do."""
    queued_at: float
    """By the monotonic clock."""
    future: asyncio.Future[Any]
    """Its result, or its fault; for the event loop alone."""

    def settle(self, result: Any = None, fault: BaseException | None = None) -> None:
        """Give its caller the result or the fault, from another thread; the first of several counts."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self.future.get_loop().call_soon_threadsafe(_settle, self.future, result, fault)


def _settle(future: asyncio.Future[Any], result: Any, fault: BaseException | None) -> None:
    if future.done():
        return  # its caller was cancelled
    if fault is None:
        future.set_result(result)
    else:
        future.set_exception(fault)


class DatabaseThread:
    """Does operations in order on a connection of its own, all that wait in one transaction; started by the first."""

    def __init__(self, name: str, execute: Callable[[DatabaseThread, list[PendingOperation]], None]) -> None:
        self.connection: Connection | None = None
        """Its own, once it is open."""
        self.engine: Engine | None = None
        """Where that came from."""
        self._name, self._execute = name, execute
        self._queue: queue.SimpleQueue[PendingOperation | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, operation: Operation[T]) -> T:
        """The result of an operation, once it is done. A caller that is cancelled meanwhile stops nothing."""
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                raise errors.without_thread() from None
            self._thread = thread
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(PendingOperation(operation=operation, queued_at=time.monotonic(), future=future))
        return await future

    def disconnect(self) -> None:
        """Close the connection: the next operation opens a new one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except Exception:  # noqa: BLE001 - it is broken already
                _log.debug("a broken connection could not be closed")

    def end(self, until: float) -> None:
        """End it after what waits is done; waits for that until then, by the monotonic clock. Blocking."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        is_last = False
        while not is_last and (first := self._queue.get()) is not None:
            together: list[PendingOperation | None] = [first]
            while len(together) < MOST_AT_ONCE and not self._queue.empty():
                together.append(self._queue.get())
            pending = [each for each in together if each is not None]
            is_last = len(pending) < len(together)
            try:
                self._execute(self, pending)
            except BaseException as fault:  # noqa: BLE001 - whoever waits gets it, and the thread goes on
                _log.warning("%s failed: %s", self._name, type(fault).__name__)
                for each in pending:
                    each.settle(fault=errors.from_fault(fault))
        self.disconnect()


class Database:
    """One database, opened by the first who needs it.

    ``folder``: where the file is; None: everything is kept in memory. ``url``: another database than that file.
    ``on_open`` runs in the transaction that opens it.
    """

    def __init__(
        self,
        folder: Path | None,
        url: str | None = None,
        *,
        on_open: Operation[None],
        limits: StoreLimits | None = None,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._folder, self._url, self._on_open = folder, url, on_open
        self._own_file = None if folder is None or url is not None else folder / FILE
        is_server = url is not None and not url.startswith("sqlite")
        self._watchdog = engine.ConnectionWatchdog() if is_server else None
        self._limits = limits or StoreLimits()
        answers_within_s = min(self._limits.answers_within_s, self._limits.patience_s)
        self._answers_within_s = answers_within_s if is_server else math.inf
        self._schema = TableSchema(migrations=migrations, by_url=url is not None)
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._was_locked_at = -math.inf
        self._file: tuple[int, int] | None = None
        self._writer = DatabaseThread("store-writer", self._execute)
        self._reader = self._writer if folder is None else DatabaseThread("store-reader", self._execute)

    async def write(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        """The result of a query that writes, once it is committed. A caller that is cancelled stops nothing."""
        return await self._run(self._writer, lambda connection: query(connection, *args, **named))

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        """The result of a query, on what is committed."""
        return await self._run(self._reader, lambda connection: query(connection, *args, **named))

    async def _run(self, thread: DatabaseThread, operation: Operation[T]) -> T:
        try:
            with anyio.fail_after(self._answers_within_s):
                return await thread.run(operation)
        except TimeoutError:
            raise errors.silent(by_url=True) from None

    def close(self, within_s: float | None = None) -> None:
        """End both threads after what waits is done, within that time (None: as for a locked file). Blocking."""
        until = time.monotonic() + (self._limits.locked_s if within_s is None else within_s)
        for thread in {self._writer, self._reader}:
            thread.end(until)
        self._close_engine()

    def _execute(self, thread: DatabaseThread, pending: list[PendingOperation]) -> None:
        """All in one transaction; one by one where that fails, so that a bad one spoils no other."""
        is_writer = thread is self._writer
        version = partial(self._schema.version_of, for_update=is_writer)  # a newer kimi-mcp may have migrated meanwhile
        try:
            with nullcontext() if self._watchdog is None else self._watchdog.limit(self._answers_within_s):
                operations = [version, *(one.operation for one in pending)]
                results = _transaction(self._connection(thread, pending[0].queued_at), operations, writes=is_writer)[1:]
        except Exception as fault:  # noqa: BLE001 - handed to everyone who waits
            if len(pending) == 1 or _is_database_fault(fault) or isinstance(fault, OSError):
                error = self._as_error(fault, thread)
                for one in pending:
                    one.settle(fault=error)
            else:
                for one in pending:
                    self._execute(thread, [one])
            return
        for one, result in zip(pending, results, strict=True):
            one.settle(result)

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
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
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
        self._schema.migrate(connection)
        if self._url is not None and self._folder is not None:
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


def _transaction(connection: Connection, operations: list[Operation[Any]], *, writes: bool) -> list[Any]:
    """Do all of it, or nothing. In SQLite a reader waits for no writer."""
    is_immediate = writes and connection.dialect.name == "sqlite"
    begin = "BEGIN IMMEDIATE" if is_immediate else "BEGIN"
    try:
        connection.exec_driver_sql(begin)
    except OperationalError as fault:
        if not fault.connection_invalidated:
            raise
        connection.rollback()  # a server that was restarted has ended it: nothing was asked of it yet
        connection.exec_driver_sql(begin)  # on a new one
    try:
        results = [operation(connection) for operation in operations]
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        with suppress(SQLAlchemyError):  # a full disk has rolled it back already; the first fault counts
            connection.exec_driver_sql("ROLLBACK")
        raise
    return results


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
