"""Where the store is. Pure: it names a folder and touches none."""

from __future__ import annotations

from pathlib import Path

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import Settings

FILE = "journal.sqlite3"
"""The database's name in the data folder."""


def folder_of(settings: Settings) -> Path:
    """The data folder that the settings name; raises ``NotConfigured`` for one in the home of an unknown user."""
    from platformdirs import user_data_dir

    folder = Path(settings.data_dir or user_data_dir("kimi-mcp", appauthor=False))
    try:
        return folder.expanduser()
    except RuntimeError:
        raise NotConfigured(
            "The data folder lies in the home of a user who is not known here.",
            fix="Set KIMI_DATA_DIR to a folder that begins with / or with ~/, or set KIMI_JOURNAL=off.",
        ) from None
