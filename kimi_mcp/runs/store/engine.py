"""Engines for the store: SQLite in the data folder or in memory, or what KIMI_DATABASE_URL names. Does I/O."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast
from weakref import WeakSet

from sqlalchemy import URL, ClauseElement, Connection, Dialect, Engine, Executable, create_engine, event
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, StaticPool
from sqlalchemy.sql.compiler import SQLCompiler

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.config import FILE, StoreLimits

_SHUT_DOWN_EVERY_S = 0.5
_LOOK_EVERY_S = 1.0
_SQLITE = SQLiteDialect_pysqlite(paramstyle="qmark")

DRIVER_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
"""What to install for a driver, where that has another name."""


def open_engine(url: str | None, folder: Path | None, limits: StoreLimits) -> Engine:
    """An engine for a URL, for the file in a folder, or for a database in memory; not connected yet."""
    if url is None and folder is None:
        options: dict[str, Any] = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        engine = create_engine("sqlite://", isolation_level="AUTOCOMMIT", **options)
    else:
        engine = engine_of(url or f"sqlite:///{folder}/{FILE}", limits)
    if engine.dialect.name == "sqlite":
        if url is not None and not (engine.url.database or "").startswith("file:"):
            try:
                _create_file(Path(engine.url.database or ""))
            except OSError as fault:
                raise errors.from_os_error(fault, by_url=True) from None
        event.listen(engine, "connect", _configure_sqlite)
    return engine


def engine_of(url: str, limits: StoreLimits) -> Engine:
    """An engine for a URL; raises ``NotConfigured`` where that names no database, or its driver is missing."""
    driver = ""
    # Half of the patience: whoever comes before a caller may have to wait as well.
    locked_s = min(limits.locked_s, max(limits.locked_least_s, limits.patience_s / 2))
    sqlite_arguments: dict[str, Any] = {"timeout": locked_s, "check_same_thread": False}
    try:
        parsed = make_url(url)
        driver, is_sqlite = parsed.get_driver_name(), parsed.get_backend_name() == "sqlite"
        engine = create_engine(
            parsed,
            isolation_level="AUTOCOMMIT",  # transactions are begun explicitly: SQLite's have to be IMMEDIATE
            poolclass=NullPool,
            connect_args=sqlite_arguments if is_sqlite else connect_arguments(parsed, limits),
        )
        if not engine.dialect.is_async and not (is_sqlite and parsed.database in (None, "", ":memory:")):
            return engine
    except (ArgumentError, ValueError, TypeError):
        pass
    except ImportError:
        raise NotConfigured(
            f"The driver {driver} of the database that KIMI_DATABASE_URL names is not installed.",
            fix=f"Install it where kimi-mcp is (`pip install '{DRIVER_PACKAGES.get(driver, driver)}'`), or unset "
            "KIMI_DATABASE_URL to keep the store in KIMI_DATA_DIR.",
        ) from None
    raise NotConfigured(
        "KIMI_DATABASE_URL is not the URL of a database.",
        fix="Unset it to keep the store in KIMI_DATA_DIR, or name one such as sqlite:////folder/journal.sqlite3 "
        "(PostgreSQL: postgresql+psycopg://…).",
    )


def prepare_folder(folder: Path, *, with_file: bool) -> None:
    """Create the data folder for its owner alone; one that holds other things keeps its mode."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_ours = all(entry.name.startswith(("journal.", "servers")) for entry in folder.iterdir())
        if is_ours and stat.S_IMODE(folder.stat().st_mode) != 0o700:
            folder.chmod(0o700)
        if with_file:
            _create_file(folder / FILE)
    except OSError as fault:
        raise errors.from_os_error(fault) from None


def _create_file(file: Path) -> None:
    """Create a database's file for its owner alone: SQLite gives its other files the same mode."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600))


def _configure_sqlite(connection: Any, record: object) -> None:
    del record
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")  # one damaged run hides no other
    for pragma in ("synchronous = NORMAL", "journal_size_limit = 16777216", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")


def connect_arguments(url: URL, limits: StoreLimits) -> dict[str, Any]:
    """Timeouts for a driver of PostgreSQL, which the URL may override; nothing for any other driver."""
    if url.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    most = int(limits.answers_within_s * 1000)
    # A server that is stopped amid a transaction holds what others wait for: not for longer than a statement.
    timeouts = {"statement_timeout": most, "lock_timeout": most, "idle_in_transaction_session_timeout": most}
    options = [f"-c {name}={value}" for name, value in timeouts.items()]
    known: dict[str, Any] = {
        "connect_timeout": int(limits.answers_within_s),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 3 * most,
    }
    own = url.query.get("options", ())
    options += [own] if isinstance(own, str) else own
    return {name: value for name, value in known.items() if name not in url.query} | {"options": " ".join(options)}


class Executed(NamedTuple):
    """What a statement has brought."""

    row: Sequence[Any] | None
    """The first row that it has found; None: none."""
    rowcount: int
    """How many rows it has changed."""


def execute(connection: Connection, statement: str | Executable, values: Mapping[str, Any] | None = None) -> Executed:
    """Execute a statement that every transaction or call has. Raises ``DBAPIError``.

    ``values``: its parameters, none of which expands. Python's own driver of SQLite gets it as SQLAlchemy compiles it
    for these names, once: for each execution SQLAlchemy would take several times as long as SQLite. SQLAlchemy does not
    hear of it then, not even that the connection is closed, and fills in no default.
    """
    values = values or {}
    if connection.dialect.driver != "pysqlite":
        is_text = isinstance(statement, str)
        result = connection.exec_driver_sql(statement) if is_text else connection.execute(statement, values)
        return Executed(result.first() if result.returns_rows else None, result.rowcount)
    driver = connection.connection.driver_connection
    assert driver is not None
    if isinstance(statement, str):
        text, given = statement, list[Any]()
    else:
        compiled = _for_sqlite(statement, tuple(values))
        text, given = compiled.text, compiled.ordered(values)
    try:
        cursor = driver.execute(text, given)
        return Executed(cursor.fetchone(), cursor.rowcount)
    except sqlite3.Error as fault:
        raise DBAPIError.instance(text, None, fault, sqlite3.Error) from fault


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """A statement as the driver gets it."""

    text: str
    """With a question mark for each parameter."""
    parameters: tuple[tuple[str, Callable[[Any], Any] | None], ...]
    """The name of each one, in order, and what converts its value."""
    own: Mapping[str, Any]
    """The values that it has itself."""

    def ordered(self, values: Mapping[str, Any]) -> list[Any]:
        """The values of its parameters, in order."""
        values = {**self.own, **values}
        return [values[name] if convert is None else convert(values[name]) for name, convert in self.parameters]


@lru_cache(maxsize=64)
def _for_sqlite(statement: Executable, names: tuple[str, ...]) -> _Compiled:
    """A statement that is kept as long as the process, compiled once for each set of names."""
    compiled = cast(ClauseElement, statement).compile(dialect=_SQLITE, column_keys=list(names))
    assert isinstance(compiled, SQLCompiler)
    assert not compiled.prefetch, "a default of Python's has to be among the values"
    types = {name: bind.type.dialect_impl(_SQLITE) for name, bind in compiled.binds.items()}
    return _Compiled(
        text=compiled.string,
        parameters=tuple((name, types[name].bind_processor(_SQLITE)) for name in compiled.positiontup or ()),
        own={name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required},
    )


class ConnectionWatchdog:
    """Shuts down the connections of a thread that waits too long: a frozen server keeps none of its own timeouts.

    One thread watches all that is limited, and ends where nothing is.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        self._limited: dict[int, tuple[float, WeakSet[Any]]] = {}
        self._starting, self._is_watching = threading.Lock(), False

    def watch(self, engine: Engine) -> None:
        """Watch every connection that an engine opens from now on."""
        event.listen(engine, "do_connect", self._connect)

    def _connect(self, dialect: Dialect, record: object, arguments: list[Any], named: dict[str, Any]) -> Any:
        del record
        connection = dialect.connect(*arguments, **named)
        with suppress(TypeError):  # a driver in C without weak references, as SQLite's is: it has no socket either
            self._of_thread().add(connection)
        return connection

    def _of_thread(self) -> WeakSet[Any]:
        if not hasattr(self._local, "connections"):
            self._local.connections = WeakSet[Any]()
        return self._local.connections

    @contextmanager
    def limit(self, within_s: float) -> Generator[None]:
        """Let this thread wait no longer for its connections; after that they fail as if the server were gone.

        A limit within another one counts instead of that.
        """
        thread = threading.get_ident()
        outer = self._limited.get(thread)
        self._limited[thread] = time.monotonic() + within_s, self._of_thread()
        try:
            if not self._is_watching:
                self._start()
            yield
        finally:
            if outer is None:
                del self._limited[thread]
            else:
                self._limited[thread] = outer

    def renew(self, within_s: float) -> None:
        """Let this thread, which is limited, have that much time from here on."""
        thread = threading.get_ident()
        if thread in self._limited:
            self._limited[thread] = time.monotonic() + within_s, self._of_thread()

    def _start(self) -> None:
        with self._starting:
            if not self._is_watching:
                threading.Thread(target=self._work, name="store-watch", daemon=True).start()
                self._is_watching = True

    def _work(self) -> None:
        while True:
            limited, now = list(self._limited.values()), time.monotonic()
            late = [connections for until, connections in limited if until <= now]
            for connection in [each for connections in late for each in list(connections)]:
                _shut_down(connection)
            if late:
                time.sleep(_SHUT_DOWN_EVERY_S)
            elif limited:
                time.sleep(min(_LOOK_EVERY_S, *(until - now for until, _ in limited)))
            else:
                with self._starting:
                    self._is_watching = False  # first: who is limited from here on looks at it
                    if not self._limited:
                        return
                    self._is_watching = True


def _shut_down(connection: Any) -> None:
    try:
        copy = socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)
    except Exception:  # noqa: BLE001 - it is closed already, or its driver shows no socket
        return
    with copy, suppress(OSError):  # the other side was faster
        copy.shutdown(socket.SHUT_RDWR)
