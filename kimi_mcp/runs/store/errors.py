"""What can be wrong with the journal's file, or gone from it, in our words. Pure, no I/O.

Each says what to change; none names a path, since a result may carry it.
"""

from __future__ import annotations

import errno
import sqlite3

from kimi_mcp.core.errors import NotConfigured, RunNotFound

_OFF = "or set KIMI_JOURNAL=off to go on without a journal"

_SAID: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("The disk that holds the journal is full.", f"Make room on it, {{elsewhere}}, {_OFF}."),
    sqlite3.SQLITE_READONLY: (
        "The journal can't be written: its file or folder is read-only.",
        f"Make it writable, {{elsewhere}}, {_OFF}.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "The journal can't be opened: its folder can't be made or written.",
        f"Look at the folder, {{elsewhere}}, {_OFF}.",
    ),
    sqlite3.SQLITE_BUSY: (
        "The journal is locked by another program, and stayed so.",
        f"Close what holds it open, {{elsewhere}}, {_OFF}.",
    ),
    sqlite3.SQLITE_IOERR: ("The disk that holds the journal fails.", f"Look at the disk, {{elsewhere}}, {_OFF}."),
    sqlite3.SQLITE_CORRUPT: ("The journal is damaged.", f"Mend its file, {{elsewhere}}, {_OFF}."),
}
_SAID[sqlite3.SQLITE_LOCKED] = _SAID[sqlite3.SQLITE_BUSY]
_SAID[sqlite3.SQLITE_PERM] = _SAID[sqlite3.SQLITE_READONLY]
_SAID[sqlite3.SQLITE_NOTADB] = _SAID[sqlite3.SQLITE_CORRUPT]

DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Codes that mean that the file is no database, or no longer."""


class Malformed(Exception):
    """A file that is a database and was ours, and whose tables are no longer what they were: a bit of it flipped."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def code_of(fault: BaseException | None) -> int | None:
    """SQLite's primary error code of a fault or of what lies beneath it; None where there is none."""
    while fault is not None:
        code = getattr(fault, "sqlite_errorcode", None)
        if isinstance(code, int):
            return code & 0xFF
        fault = getattr(fault, "orig", None) or fault.__cause__
    return None


def is_trouble(fault: BaseException) -> bool:
    """Whether a fault is one of the file or its disk, not of what was asked of it."""
    return code_of(fault) in _SAID


def told(fault: BaseException, *, by_url: bool = False) -> NotConfigured:
    """The error for a fault of the database; ``by_url``: of the one that KIMI_DATABASE_URL names."""
    return _error(
        _SAID.get(
            code_of(fault) or -1, ("The journal's database does not answer as it should.", f"{{elsewhere}}, {_OFF}.")
        ),
        by_url,
    )


def of_folder(fault: OSError, *, by_url: bool = False) -> NotConfigured:
    """The error for a data folder that can't be made or written."""
    match fault.errno:
        case errno.ENOSPC | errno.EDQUOT:
            code = sqlite3.SQLITE_FULL
        case errno.EACCES | errno.EPERM | errno.EROFS:
            code = sqlite3.SQLITE_READONLY
        case errno.EIO:
            code = sqlite3.SQLITE_IOERR
        case _:
            code = sqlite3.SQLITE_CANTOPEN
    return _error(_SAID[code], by_url)


def newer(version: int, known: int) -> NotConfigured:
    """The error for a file of a later version than this program knows; it is left as it is."""
    return NotConfigured(
        f"The journal was written by a newer kimi-mcp (its version is {version}, this program knows {known}).",
        fix=f"Update kimi-mcp, name another folder in KIMI_DATA_DIR, {_OFF}.",
    )


def foreign(*, by_url: bool) -> NotConfigured:
    """The error for a database that holds another program's tables; it is left as it is."""
    return _error(("The journal's database is another program's.", f"Move it away, {{elsewhere}}, {_OFF}."), by_url)


def damaged(name: str | None) -> NotConfigured:
    """The error for a file that was moved aside; None: it could not be, or another server has done so."""
    return NotConfigured(
        "The journal is damaged." + ("" if name is None else f" It was kept as {name} beside the new one."),
        fix=f"Call again: a new journal is begun. If that does not help, set KIMI_DATA_DIR to another folder, {_OFF}."
        if name is None
        else "Call again: a new journal is begun. What the damaged one holds may be had back by sqlite3's `.recover`.",
    )


def silent() -> NotConfigured:
    """The error for a database server that does not answer."""
    return _error(
        (
            "The database that KIMI_DATABASE_URL names did not answer in time.",
            f"See that its server runs and can be reached, {{elsewhere}}, {_OFF}.",
        ),
        by_url=True,
    )


def other_folder() -> NotConfigured:
    """The error for a database that belongs to another data folder."""
    return NotConfigured(
        "The database that KIMI_DATABASE_URL names belongs to another data folder: its servers could not be told from "
        "dead ones here.",
        fix="Set KIMI_DATA_DIR to that folder, or KIMI_DATABASE_URL to another database. If that folder is gone for "
        "good, delete the row `folder` from the database's table `about`, and this one takes its place.",
    )


def without_thread() -> NotConfigured:
    """The error where the system gives no thread to work in."""
    return NotConfigured(
        "The journal can't be used: the system lets this process start no more threads.",
        fix="Raise its limit of processes (`ulimit -u`), or end other programs, and call again.",
    )


def gone() -> RunNotFound:
    """The error for a conversation of which something is kept no longer: it is never gone on with without that."""
    return RunNotFound(
        "An earlier part of that conversation is kept no longer.",
        fix="Start a new one and tell it in `prompt` what it needs; KIMI_RUNS_KEEP_DAYS says how long runs are kept, "
        "unless KIMI_JOURNAL is off.",
    )


def _error(said: tuple[str, str], by_url: bool) -> NotConfigured:
    message, fix = said
    elsewhere = "set KIMI_DATABASE_URL to another database" if by_url else "set KIMI_DATA_DIR to another folder"
    fix = fix.format(elsewhere=elsewhere)
    return NotConfigured(message, fix=fix[0].upper() + fix[1:])
