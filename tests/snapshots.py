"""Snapshots: JSON files that a test holds a value against; a mismatch prints the command that accepts the new value."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

UPDATE = "UPDATE_SNAPSHOTS"
"""Set to 1, the files are written instead of compared."""


def matches_snapshot(value: Any, file: Path, test: str) -> None:
    """Fail, naming the way to accept it, where ``value`` is not what the file holds."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    if os.environ.get(UPDATE) == "1":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
        return
    accept = f"Read the difference; to accept it: {UPDATE}=1 python -m pytest {test}"
    assert file.is_file(), f"{file.name} does not exist. {accept}"
    assert text == file.read_text(encoding="utf-8"), f"{file.name} is another. {accept}"


def stale(folder: Path, wanted: set[str]) -> set[str]:
    """The files of a folder that no test holds anything against any more."""
    return {file.name for file in folder.glob("*.json")} - wanted
