"""Which data folder a database belongs to: one id, in a file of the folder and in a row of ``about``. I/O.

Which servers are alive, and which ends are still to be written, stands in the data folder. Two folders on one database
would take each other's servers for dead, so a database remembers the first one and refuses every other.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from filelock import FileLock
from sqlalchemy import Connection, insert, select

from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.tables import about

FILE = "journal.id"
"""The file's name in the data folder."""

ROW = "folder"
"""The row's name in ``about``."""

_BOUND_TO = select(about.c.value).where(about.c.name == ROW)


def bind(connection: Connection, folder: Path) -> None:
    """Let a database belong to a data folder; ``NotConfigured`` where it belongs to another one.

    In a transaction that writes.
    """
    found = connection.execute(_BOUND_TO).scalar()
    if found is None:
        connection.execute(insert(about).values(name=ROW, value=_made_id(folder)))
    elif found != _id(folder):
        raise errors.other_folder()


def check(connection: Connection, folder: Path) -> None:
    """Raise ``NotConfigured`` where a database belongs to another data folder; nothing is written."""
    found = connection.execute(_BOUND_TO).scalar()
    if found is not None and found != _id(folder):
        raise errors.other_folder()


def _id(folder: Path) -> str | None:
    try:
        return (folder / FILE).read_text(encoding="ascii").strip() or None
    except (FileNotFoundError, ValueError):
        return None


def _made_id(folder: Path) -> str:
    """The folder's id, made where it has none yet; several servers may do so at once."""
    with FileLock(folder / f"{FILE}.lock", mode=0o600):
        if (known := _id(folder)) is not None:
            return known
        made, begun = f"folder_{secrets.token_hex(8)}", folder / f"{FILE}.new"
        with os.fdopen(os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as writing:
            writing.write(made)
        begun.replace(folder / FILE)
        return made
