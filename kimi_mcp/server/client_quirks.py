"""What hosts do, read from the rows of ``client_quirks.toml``. Reads that one file of the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

LOCAL = "local"
"""Whom runs belong to that were asked for on this machine, over stdio or in a shell."""


@cache
def _rows() -> dict[str, list[dict[str, Any]]]:
    import tomllib  # at the first cancellation: a host waits for the start

    return tomllib.loads(Path(__file__).with_name("client_quirks.toml").read_text("utf-8"))


def gave_up(reason: object) -> bool:
    """Whether a cancellation's reason says that the host's own clock ran out, rather than that a user cancelled."""
    return isinstance(reason, str) and any(row["phrase"] in reason.lower() for row in _rows()["gave_up"])


def waits_for_progress(client: str | None) -> bool:
    """Whether a host of that name keeps waiting for an answer as long as progress comes."""
    return any(row["client"] == client for row in _rows()["waits_for_progress"])


def refuses_links(client: str | None) -> bool:
    """Whether a host of that name fails over a link to a resource in a result, and shows nothing of it."""
    return any(row["client"] == client for row in _rows()["refuses_links"])
