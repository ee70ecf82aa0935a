"""``Totals``: what many runs took and cost together, told from an index and not from the runs. Does I/O.

Runs are many and long: a hundred thousand of them are half a gigabyte, of which the index on their times is a sixtieth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, func, select

from kimi_mcp.core.types import Usage, from_record
from kimi_mcp.runs.store.serializers import tokens
from kimi_mcp.runs.store.tables import runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What runs took and cost together."""

    runs: int
    """How many there are."""
    running: int
    """How many of them have not ended."""
    took_s: float
    """Seconds."""
    tokens: int | None
    """Tokens; None where they are known of none."""
    cost_usd: float | None
    """US dollars; None where they are known of none."""
    cost_unknown: int
    """How many have ended of which nobody knows what they cost."""


def totals(connection: Connection, now: float, *, status: str | None = None, since: float | None = None) -> Totals:
    """The totals of all runs, or of those with a status or that began since then (seconds since 1970)."""
    fitting = [runs.c.started_at >= (0.0 if since is None else since)]
    if status is not None:
        fitting.append(runs.c.status + "" == status)  # as an expression: the index on it holds less than is asked for
    whole = select(
        func.count(),
        func.coalesce(func.sum(runs.c.took_s), 0.0),
        func.count(runs.c.tokens),
        func.coalesce(func.sum(runs.c.tokens), 0),
        func.count(runs.c.cost_usd),
        func.coalesce(func.sum(runs.c.cost_usd), 0.0),
    ).where(*fitting, runs.c.took_s.is_not(None))
    count, took, with_tokens, token_sum, with_cost, cost = connection.execute(whole).one()
    unknown, running = count - with_cost, 0
    # Those that run, and those that an older version wrote down: what they took stands in their outcome alone.
    for row in connection.execute(
        select(runs.c.status, runs.c.started_at, runs.c.outcome).where(*fitting, runs.c.took_s.is_(None))
    ):
        outcome = _outcome(row.outcome)
        usage = outcome.get("usage")
        count += 1
        running += row.status == "running"
        took += now - row.started_at if row.status == "running" else outcome.get("timing", {}).get("total_s", 0.0)
        if usage is not None and (known := tokens(from_record(Usage, usage))) is not None:
            with_tokens, token_sum = with_tokens + 1, token_sum + known
        if outcome.get("cost_usd") is not None:
            with_cost, cost = with_cost + 1, cost + outcome["cost_usd"]
        elif row.status != "running":
            unknown += 1
    return Totals(
        runs=count,
        running=running,
        took_s=float(took),
        tokens=int(token_sum) if with_tokens else None,
        cost_usd=float(cost) if with_cost else None,
        cost_unknown=unknown,
    )


def _outcome(written: str | None) -> dict[str, Any]:
    """What was written down of how a run stands; nothing where that is damaged."""
    try:
        outcome = json.loads(written or "{}")
    except ValueError:
        return {}
    return cast(dict[str, Any], outcome) if isinstance(outcome, dict) else {}
