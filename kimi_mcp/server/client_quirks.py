"""Facts about hosts that need special treatment. Reads ``client_quirks.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _rows() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def host_of(context: Any) -> str | None:
    """The name that the host of a request gives itself."""
    client = context.session.client_params
    return None if client is None else client.client_info.name


def timed_out(reason: object) -> bool:
    """Whether the reason of a cancellation is the host's own timeout, rather than its user."""
    return isinstance(reason, str) and any(row["phrase"] in reason.lower() for row in _rows()["gave_up"])


def has(quirk: str, client: str | None) -> bool:
    """Whether a host has a quirk that the file describes: ``waits_for_progress``, ``refuses_links`` and so on."""
    return any(row["client"] == client for row in _rows()[quirk])


def call_timeout_s(client: str | None) -> float | None:
    """Seconds that a host gives a call by default, whatever progress comes; None: it is not known for that."""
    return next((float(row["seconds"]) for row in _rows()["call_timeout"] if row.get("client") == client), None)


def unrecognised_call_timeouts() -> tuple[dict[str, Any], ...]:
    """The hosts with such a timeout whose name does not identify them: ``who``, ``seconds``, and their ``setting``."""
    return tuple(row for row in _rows()["call_timeout"] if "client" not in row)
