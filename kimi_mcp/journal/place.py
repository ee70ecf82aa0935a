"""Where the journal lies. Pure: it names a folder, it looks at none."""

from __future__ import annotations

from pathlib import Path

from kimi_mcp.settings import Settings

FILE = "journal.sqlite3"
"""The journal's name in the data folder."""


def folder_of(settings: Settings) -> Path:
    """The data folder that the settings name."""
    from platformdirs import user_data_dir

    return Path(settings.data_dir or user_data_dir("kimi-mcp", appauthor=False)).expanduser()
