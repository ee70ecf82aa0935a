"""What hosts do, read from the rows of ``hosts.toml``. Reads that one file of the package."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path


@cache
def _phrases() -> tuple[str, ...]:
    rows = tomllib.loads(Path(__file__).with_name("hosts.toml").read_text("utf-8"))
    return tuple(row["phrase"] for row in rows["gave_up"])


def gave_up(reason: object) -> bool:
    """Whether a cancellation's reason says that the host's own clock ran out, rather than that a user cancelled."""
    return isinstance(reason, str) and any(phrase in reason.lower() for phrase in _phrases())
