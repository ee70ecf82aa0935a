"""Inspects the store without changing a byte of it. I/O: reads the data folder. Blocking."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from kimi_mcp.core.errors import KimiError, NotConfigured
from kimi_mcp.core.settings import Settings
from kimi_mcp.runs.store import engine, errors
from kimi_mcp.runs.store.config import FILE, StoreLimits, folder_of, is_postgresql
from kimi_mcp.runs.store.tables import TableSchema, about, check_folder, runs

LOCKED_S = 1.0
"""Seconds to wait while another program locks the file."""

CHECKED_BYTES = 256 << 20
"""The largest file that is checked from end to end."""

TIGHT_BYTES = 64 << 20
"""Free bytes on its disk below which a warning is due."""

_FAULTS = (KimiError, SQLAlchemyError, errors.Malformed, sqlite3.Error, ValueError)
"""What reading a database raises; ``ValueError``: a text in it is none any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInspection:
    """What was found of the store."""

    kept: bool = True
    """Whether anything is recorded."""
    folder: Path | None = None
    """The data folder; None: the store is a database elsewhere, or there is none."""
    there: bool = False
    """Whether it exists."""
    size: int = 0
    """Bytes on disk."""
    runs: int | None = None
    """How many runs it holds; None: it can't be read."""
    free: int | None = None
    """Free bytes on its disk."""
    error: KimiError | None = None
    """Why no call could use it."""

    @property
    def is_tight(self) -> bool:
        """Whether its disk is nearly full."""
        return self.free is not None and self.free < TIGHT_BYTES

    def as_json(self) -> dict[str, Any]:
        """What was found, as JSON."""
        return {
            "kept": self.kept,
            "folder": None if self.folder is None else str(self.folder),
            "there": self.there,
            "bytes": self.size,
            "runs": self.runs,
            "opens": self.kept and self.error is None,
        }


def inspect_store(settings: Settings, limits: StoreLimits | None = None) -> StoreInspection:
    """Inspect the store that the settings name."""
    if settings.journal == "off":
        return StoreInspection(kept=False)
    folder = folder_of(settings)
    if settings.database_url is not None:
        return _of_url(settings.database_url, folder, limits or StoreLimits())
    file = folder / FILE
    try:
        is_there = file.exists()
        files = [file, *(file.with_name(file.name + ending) for ending in ("-wal", "-shm"))]
        size = sum(each.stat().st_size for each in files if each.exists())
        free, error = _look_around(folder, file if is_there else None)
    except OSError as fault:
        return StoreInspection(folder=folder, there=True, error=errors.from_os_error(fault))
    if not is_there:
        return StoreInspection(folder=folder, free=free, error=error)
    count = None
    try:
        opened = create_engine("sqlite://", poolclass=NullPool, creator=lambda: _opened(file))
        with closing(opened.connect()) as connection:
            count = _count(connection) or 0
            if size <= CHECKED_BYTES and connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
                raise errors.Malformed
    except _FAULTS as fault:
        count, error = None, _as_error(fault)
    return StoreInspection(folder=folder, there=True, size=size, runs=count, free=free, error=error)


def _of_url(url: str, folder: Path, limits: StoreLimits) -> StoreInspection:
    """Inspect a database by its URL, of which nothing is shown: it may hold a password."""
    try:
        opened = engine.engine_of(url, limits)
        if opened.dialect.name == "sqlite" and not Path(opened.url.database or "").exists():
            return StoreInspection()  # connecting would create it
        watchdog = engine.ConnectionWatchdog()
        watchdog.watch(opened)
        with watchdog.limit(limits.answers_within_s), closing(opened.connect()) as connection:
            count = _count(connection, by_url=True)
            if count is not None and not is_postgresql(url):
                check_folder(connection, folder)
    except _FAULTS as fault:
        return StoreInspection(error=_as_error(fault, by_url=True))
    return StoreInspection(there=count is not None, runs=count)


def _count(connection: Connection, *, by_url: bool = False) -> int | None:
    """How many runs a database holds; None where it has no tables. Raises what a call that opens it would."""
    if not inspect(connection).has_table(about.name):
        return None
    TableSchema(by_url=by_url).version_of(connection)
    return connection.execute(select(func.count()).select_from(runs)).scalar_one()


def _as_error(fault: Exception, *, by_url: bool = False) -> KimiError:
    if isinstance(fault, KimiError):
        return fault
    if not errors.is_damage(fault):
        return errors.from_fault(fault, by_url=by_url)
    return NotConfigured(
        "The store is damaged: the next call is refused, and keeps the file under another name beside a new one.",
        fix="What it holds may be had back by sqlite3's `.recover`; copy it first.",
    )


def _opened(file: Path) -> sqlite3.Connection:
    """A connection that can't write, and makes no file beside this one where nobody has it open."""
    in_use = file.with_name(file.name + "-wal").exists()

    def connect(how: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True, timeout=LOCKED_S)

    connection = connect("mode=ro" if in_use else "immutable=1")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if os.access(file.parent, os.W_OK):
            raise
        return connect("immutable=1")  # SQLite may not put its other files there: what they hold is missed
    return connection


def _look_around(folder: Path, file: Path | None) -> tuple[int | None, NotConfigured | None]:
    """The free bytes on the disk of a folder, which may not be there yet; and why no store could be written there."""
    there = next((each for each in (folder, *folder.absolute().parents) if each.exists()), folder)
    free: int | None = None
    with suppress(OSError):
        free = shutil.disk_usage(there).free
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK) and (file is None or os.access(file, os.W_OK)):
        return free, None
    fault = PermissionError(13, "") if there.is_dir() else NotADirectoryError(20, "")
    return free, errors.from_os_error(fault)
