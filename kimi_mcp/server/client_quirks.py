"""Facts about hosts that need special treatment. Reads ``client_quirks.toml``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

LOCAL = "local"
"""The caller of every run requested on this machine, over stdio or in a shell."""


@cache
def _rows() -> dict[str, list[dict[str, Any]]]:
    import tomllib  # late: not needed to start

    return tomllib.loads(Path(__file__).with_name("client_quirks.toml").read_text("utf-8"))


def timed_out(reason: object) -> bool:
    """Whether the reason of a cancellation is the host's own timeout, rather than its user."""
    return isinstance(reason, str) and any(row["phrase"] in reason.lower() for row in _rows()["gave_up"])


def waits_for_progress(client: str | None) -> bool:
    """Whether this host waits for an answer as long as progress comes."""
    return any(row["client"] == client for row in _rows()["waits_for_progress"])


def refuses_links(client: str | None) -> bool:
    """Whether this host fails on a result with a resource link."""
    return any(row["client"] == client for row in _rows()["refuses_links"])
