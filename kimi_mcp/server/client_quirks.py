"""Facts about hosts that need special treatment. Reads ``client_quirks.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

LOCAL = "local"
"""The caller of every run on this machine, over stdio or in a shell."""


@cache
def _rows() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def timed_out(reason: object) -> bool:
    """Whether the reason of a cancellation is the host's own timeout, rather than its user."""
    return isinstance(reason, str) and any(row["phrase"] in reason.lower() for row in _rows()["gave_up"])


def has(quirk: str, client: str | None) -> bool:
    """Whether a host has a quirk: ``waits_for_progress`` or ``refuses_links``, as the file says."""
    return any(row["client"] == client for row in _rows()[quirk])
