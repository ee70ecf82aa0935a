"""Where the store is, and its limits. Pure: it names a folder and touches none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import Settings

FILE = "journal.sqlite3"
"""The database's name in the data folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """For how long the store is waited for, in seconds, and what it keeps."""

    locked_s: float = 5.0
    """While another program locks the file."""
    locked_least_s: float = 1.0
    """The same at least, however short the patience is: a busy machine is no locked file."""
    answers_within_s: float = 5.0
    """Until a database server has answered."""
    gather_s: float = 0.004
    """For which what is to be done in PostgreSQL waits for more that shares its transaction, while there is much."""
    patience_s: float = math.inf
    """For which a caller may be kept waiting."""
    opens_within_s: float = 60.0
    """Until the tables of a database server are there, which one of several that start makes."""
    outage_s: float = 60.0
    """For which a call that waits for its turn waits for a database that went away meanwhile."""
    look_every_s: float = 2.0
    """Between two looks at what other servers do, where they are heard as well."""
    write_every_s: float = 0.5
    """Between two writes of what has arrived: what a server that is killed may lose at most, with the commit."""
    written_within_s: float = 0.5
    """In which the store writes nothing, until an outcome that waits for it goes into a file beside it."""
    queued_s: float = 1.5
    """For which an outcome waits longer than that while the store goes on to write: many runs may end at once."""
    lease_s: float = 5.0
    """For which a server on PostgreSQL is not heard of until it counts as dead."""
    beat_s: float = 1.0
    """Between two beats of it."""
    runs_in_memory: int = 64
    """Finished runs that stay readable where nothing is written to disk."""


def is_postgresql(url: str | None) -> bool:
    """Whether a database's URL names one in PostgreSQL, whatever the driver."""
    return url is not None and url.partition(":")[0].partition("+")[0] == "postgresql"


def folder_of(settings: Settings) -> Path:
    """The data folder that the settings name; raises ``NotConfigured`` for one in the home of an unknown user."""
    from platformdirs import user_data_dir

    folder = Path(settings.data_dir or user_data_dir("kimi-mcp", appauthor=False))
    try:
        return folder.expanduser()
    except RuntimeError:
        raise NotConfigured(
            "The data folder is in the home of a user who is not known here.",
            fix="Set KIMI_DATA_DIR to a folder that begins with / or with ~/, or set KIMI_JOURNAL=off.",
        ) from None
