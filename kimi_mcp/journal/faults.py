"""What can be wrong with the journal's file, in our words. Pure, no I/O.

Each says what to change; none names a path, since a result may carry it.
"""

from __future__ import annotations

import errno
import sqlite3

from kimi_mcp.errors import NotConfigured

_OFF = "or set KIMI_JOURNAL=off to go on without a journal"

_SAID: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: (
        "The disk that holds the journal is full.",
        f"Make room on it, set KIMI_DATA_DIR to another folder, {_OFF}.",
    ),
    sqlite3.SQLITE_READONLY: (
        "The journal can't be written: its file or folder is read-only.",
        f"Make the folder of KIMI_DATA_DIR writable, name another, {_OFF}.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "The journal can't be opened: its folder can't be made or written.",
        f"Set KIMI_DATA_DIR to a folder that can be written, {_OFF}.",
    ),
    sqlite3.SQLITE_BUSY: (
        "The journal is locked by another program, and stayed so.",
        f"Close what holds it open, set KIMI_DATA_DIR to another folder, {_OFF}.",
    ),
}
_SAID[sqlite3.SQLITE_LOCKED] = _SAID[sqlite3.SQLITE_BUSY]
_SAID[sqlite3.SQLITE_PERM] = _SAID[sqlite3.SQLITE_READONLY]
_SAID[sqlite3.SQLITE_IOERR] = (
    "The disk that holds the journal fails.",
    f"Set KIMI_DATA_DIR to a folder on another disk, {_OFF}.",
)

DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Codes that mean that the file is no database, or no longer."""


def code_of(fault: BaseException | None) -> int | None:
    """SQLite's primary error code of a fault or of what lies beneath it; None where there is none."""
    while fault is not None:
        code = getattr(fault, "sqlite_errorcode", None)
        if isinstance(code, int):
            return code & 0xFF
        fault = getattr(fault, "orig", None) or fault.__cause__
    return None


def told(fault: BaseException) -> NotConfigured:
    """The error for a fault of the database."""
    message, fix = _SAID.get(
        code_of(fault) or -1,
        ("The journal's database does not answer as it should.", f"Look at KIMI_DATABASE_URL and its server, {_OFF}."),
    )
    return NotConfigured(message, fix=fix)


def of_folder(fault: OSError) -> NotConfigured:
    """The error for a data folder that can't be made or written."""
    match fault.errno:
        case errno.ENOSPC | errno.EDQUOT:
            code = sqlite3.SQLITE_FULL
        case errno.EACCES | errno.EPERM | errno.EROFS:
            code = sqlite3.SQLITE_READONLY
        case _:
            code = sqlite3.SQLITE_CANTOPEN
    message, fix = _SAID[code]
    return NotConfigured(message, fix=fix)


def newer(version: int, known: int) -> NotConfigured:
    """The error for a file of a later version than this program knows; it is left as it is."""
    return NotConfigured(
        f"The journal was written by a newer kimi-mcp (its version is {version}, this program knows {known}).",
        fix="Update kimi-mcp, or set KIMI_DATA_DIR to another folder.",
    )


def damaged(name: str) -> NotConfigured:
    """The error for a file that was moved aside."""
    return NotConfigured(
        f"The journal is damaged. It was kept as {name} beside the new one.",
        fix="Call again: a new journal is begun. What the damaged one holds may be had back by sqlite3's `.recover`.",
    )
