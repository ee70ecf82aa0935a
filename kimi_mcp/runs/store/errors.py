"""What can be wrong with the store's file, or missing in it, as our errors; none names a path. Pure, no I/O."""

from __future__ import annotations

import errno
import sqlite3

from kimi_mcp.core.errors import AnswerCutOff, Cancelled, KimiError, NotConfigured, RunNotFound
from kimi_mcp.core.outcome import kimi_run_call

_OFF = "or set KIMI_JOURNAL=off to continue without recording"

_MESSAGES: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("The disk that holds the store is full.", "Free some space on it"),
    sqlite3.SQLITE_READONLY: ("The store can't be written: its file or folder is read-only.", "Make it writable"),
    sqlite3.SQLITE_CANTOPEN: ("The store can't be opened: its folder can't be made or written.", "Look at the folder"),
    sqlite3.SQLITE_BUSY: ("The store is locked by another program, and stayed so.", "Close what holds it open"),
    sqlite3.SQLITE_IOERR: ("The disk that holds the store fails.", "Look at the disk"),
    sqlite3.SQLITE_CORRUPT: ("The store is damaged.", "Repair its file"),
}
"""Message and beginning of the fix, by SQLite's code."""
_MESSAGES[sqlite3.SQLITE_LOCKED] = _MESSAGES[sqlite3.SQLITE_BUSY]
_MESSAGES[sqlite3.SQLITE_PERM] = _MESSAGES[sqlite3.SQLITE_READONLY]
_MESSAGES[sqlite3.SQLITE_NOTADB] = _MESSAGES[sqlite3.SQLITE_CORRUPT]

_CODES: dict[int | None, int] = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EACCES: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EIO: sqlite3.SQLITE_IOERR,
}
"""SQLite's code by that of the operating system."""


CONFLICTS = ("40001", "40P01")
"""PostgreSQL's codes of a serialization failure and of a deadlock."""


class Malformed(Exception):
    """A file that was ours, and whose tables have changed: a bit of it flipped."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Locked(Exception):
    """A file that another program locked as long as somebody waited for it."""

    sqlite_errorcode = sqlite3.SQLITE_BUSY


def code_of(fault: BaseException | None) -> int | None:
    """SQLite's primary error code of a fault or of its cause; None where there is none."""
    while fault is not None:
        code = getattr(fault, "sqlite_errorcode", None)
        if isinstance(code, int):
            return code & 0xFF
        fault = getattr(fault, "orig", None) or fault.__cause__
    return None


def is_disk_fault(fault: BaseException) -> bool:
    """Whether a fault comes from the file or its disk."""
    return code_of(fault) in _MESSAGES


def is_locked(fault: BaseException) -> bool:
    """Whether another program locks the file."""
    return code_of(fault) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_conflict(fault: BaseException | None) -> bool:
    """Whether PostgreSQL gave up a transaction for the sake of another one: it succeeds when it is done again."""
    while fault is not None:
        if getattr(fault, "sqlstate", None) or getattr(fault, "pgcode", None):
            return (getattr(fault, "sqlstate", None) or getattr(fault, "pgcode", None)) in CONFLICTS
        fault = getattr(fault, "orig", None) or fault.__cause__
    return False


def is_damage(fault: BaseException) -> bool:
    """Whether the file is no database, or no longer."""
    return code_of(fault) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def from_fault(fault: BaseException, *, by_url: bool = False) -> NotConfigured:
    """The error for a fault of the database; ``by_url``: of the one that KIMI_DATABASE_URL names."""
    unknown = (
        "The store's database does not answer as it should.",
        "See that its server runs and can be reached" if by_url else "",
    )
    return _error(_MESSAGES.get(code_of(fault) or -1, unknown), by_url)


def from_os_error(fault: OSError, *, by_url: bool = False) -> NotConfigured:
    """The error for a data folder that can't be made or written."""
    return _error(_MESSAGES[_CODES.get(fault.errno, sqlite3.SQLITE_CANTOPEN)], by_url)


def newer(version: int, known: int) -> NotConfigured:
    """The error for a file of a later version than this program knows; it is left as it is."""
    return NotConfigured(
        f"The store was written by a newer kimi-mcp (its version is {version}, this program knows {known}).",
        fix=f"Update kimi-mcp, name another folder in KIMI_DATA_DIR, {_OFF}.",
    )


def foreign(*, by_url: bool) -> NotConfigured:
    """The error for a database that holds another program's tables; it is left as it is."""
    return _error(("The store's database is another program's.", "Move it away"), by_url)


def damaged(new_name: str | None) -> NotConfigured:
    """The error for a file that was set aside; None: it could not be, or another server has done so."""
    if new_name is None:
        return NotConfigured(
            "The store is damaged.",
            fix=f"Call again: a new one is begun. If that does not help, set KIMI_DATA_DIR to another folder, {_OFF}.",
        )
    return NotConfigured(
        f"The store is damaged. It was kept as {new_name} beside the new one.",
        fix="Call again: a new one is begun. What the damaged one holds may be had back by sqlite3's `.recover`.",
    )


def silent(*, by_url: bool) -> NotConfigured:
    """The error for a database that does not answer."""
    if by_url:
        message = "The database that KIMI_DATABASE_URL names did not answer in time."
        return _error((message, "See that its server runs and can be reached"), by_url)
    return _error(("The store did not answer in time.", "See that its disk works and is not overloaded"), by_url)


def other_folder() -> NotConfigured:
    """The error for a database that is bound to another data folder, or to this one before it lost its id."""
    return NotConfigured(
        "The database that KIMI_DATABASE_URL names belongs to another data folder: its servers would look dead here.",
        fix="Set KIMI_DATA_DIR to that folder, or KIMI_DATABASE_URL to another database. If that folder is gone for "
        "good, or this is it and it has lost its file `journal.id`, stop its servers, delete the row `folder` from the "
        "database's table `about`, and this one takes its place.",
    )


def without_thread() -> NotConfigured:
    """The error where the system gives no thread to work in."""
    return NotConfigured(
        "The store can't be used: the system lets this process start no more threads.",
        fix="Raise its limit of processes (`ulimit -u`), or end other programs, and call again.",
    )


def cancelled() -> Cancelled:
    """The error of a run that was cancelled."""
    return Cancelled("The run was cancelled.", fix="Call again if you still want the answer.")


def server_died(run_id: str, *, has_answer: bool) -> AnswerCutOff:
    """The error of a run whose server died, and which no other one can continue by itself."""
    rest = f"Call again; or, where the provider can, {kimi_run_call(run_id, 'continue')} asks for the rest."
    return AnswerCutOff(
        "The server that ran this call was stopped before the answer was complete; what had arrived is kept.",
        fix=rest if has_answer else "Call again if you still need the answer.",
    )


def taken_over() -> AnswerCutOff:
    """The error for a run that has ended, or that another server has, while this one still works on it."""
    return AnswerCutOff(
        "Another server has taken over this run, since this one was not heard of for too long; it writes nothing more.",
        fix="Look at the run with kimi_run, or call again.",
    )


def turn_lost() -> AnswerCutOff:
    """The error for a call that waited for its turn in a conversation, while the database went away for too long."""
    return AnswerCutOff(
        "While this call waited for its turn in the conversation, the database went away; nothing was sent.",
        fix="Call again with the same `conversation_id` once the database answers.",
    )


def lost() -> NotConfigured:
    """The error for a server that was taken for dead, and leaves."""
    return NotConfigured(
        "This server was not heard of for too long: others have taken over its runs, and it leaves.",
        fix="Call again: another server answers, or this one once it has started anew.",
    )


def gone() -> RunNotFound:
    """The error for a conversation of which a part is missing: it is never continued without that."""
    return RunNotFound(
        "An earlier part of that conversation is kept no longer.",
        fix="Start a new one, and put what it needs into `prompt`; KIMI_RUNS_KEEP_DAYS says how long runs are kept, "
        "unless KIMI_JOURNAL is off.",
    )


def of_replica(error: KimiError) -> KimiError:
    """The same error where several replicas share the store, which none can do without."""
    error.fix = error.fix.replace(f", {_OFF}", "")
    return error


def _error(text: tuple[str, str], by_url: bool) -> NotConfigured:
    message, first = text
    elsewhere = "set KIMI_DATABASE_URL to another database" if by_url else "set KIMI_DATA_DIR to another folder"
    fix = f"{first}, {elsewhere}, {_OFF}." if first else f"{elsewhere[0].upper()}{elsewhere[1:]}, {_OFF}."
    return NotConfigured(message, fix=fix)
