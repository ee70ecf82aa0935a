"""What is read from the store's tables, and written to them. I/O: in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import fields, replace
from itertools import groupby, takewhile
from typing import Any, cast, get_args

import sqlalchemy as sa

from kimi_mcp.core.errors import Internal
from kimi_mcp.core.json_values import UNREADABLE
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.types import Status, Turn
from kimi_mcp.runs.store import engine, errors
from kimi_mcp.runs.store.records import (
    RunRecord,
    Totals,
    outcome_from_json,
    phase_from_json,
    tokens,
    turns_from_json,
)
from kimi_mcp.runs.store.tables import conversations, pieces, runs

IN_LIST = [column for column in runs.c if column.name not in ("request", "turns", "answer", "reasoning")]
"""All but the texts, which may be long where runs are many."""


def spent_by_caller(connection: sa.Connection, since: float, callers: Collection[str]) -> dict[str, float]:
    """US dollars that limits count for the runs of some callers since then."""
    sums = sa.select(runs.c.caller, sa.func.sum(runs.c.counted_usd)).group_by(runs.c.caller)
    wanted = sums.where(runs.c.caller.in_(callers), runs.c.started_at >= since)
    return {caller: float(spent) for caller, spent in connection.execute(wanted)}


def spent_since(
    connection: sa.Connection,
    since: float,
    run_id: str | None = None,
    counted_usd: float = 0.0,
    caller: str | None = None,
) -> float:
    """US dollars that limits count for the runs of a caller (None: of all) since then.

    ``run_id``, if it is among them, counts ``counted_usd``.
    """
    total = sa.select(sa.func.coalesce(sa.func.sum(runs.c.counted_usd), 0.0)).where(runs.c.started_at >= since)
    if caller is not None:
        total = total.where(runs.c.caller == caller)
    spent = float(connection.execute(total).scalar_one())
    own = sa.select(runs.c.counted_usd).where(runs.c.id == run_id, runs.c.started_at >= since)
    before = None if run_id is None else connection.execute(own).scalar_one_or_none()
    return spent if before is None else spent - before + counted_usd


def overview(
    connection: sa.Connection,
    caller: str | None,
    *,
    status: str | None = None,
    since: float | None = None,
    ended_before: float | None = None,
    most: int | None = None,
) -> list[sa.Row[Any]]:
    """The newest runs without their texts."""
    newest: sa.Select[Any] = sa.select(*IN_LIST).order_by(runs.c.started_at.desc(), runs.c.id)
    if caller is not None:
        newest = newest.where(runs.c.caller == caller)
    if status is not None:
        newest = newest.where(runs.c.status + "" == status)  # an expression: its index would need a sort
    if since is not None:
        newest = newest.where(runs.c.started_at >= since)
    if ended_before is not None:
        newest = newest.where(runs.c.ended_at < ended_before).order_by(None).order_by(runs.c.ended_at.desc())
    return list(connection.execute(newest.limit(most)))


def ids_with_prefix(connection: sa.Connection, prefix: str, most: int) -> list[str]:
    """Ids that begin so."""
    wanted = sa.select(runs.c.id).where(runs.c.id >= prefix, runs.c.id <= f"{prefix}zzzz").order_by(runs.c.id)
    return list(connection.execute(wanted.limit(most)).scalars())


def unique_prefix_length(connection: sa.Connection, ids: Iterable[str]) -> int:
    """How many characters distinguish each of these ids from those of all runs."""
    most = 0
    for run_id in ids:
        earlier = sa.select(sa.func.max(runs.c.id)).where(runs.c.id < run_id)
        later = sa.select(sa.func.min(runs.c.id)).where(runs.c.id > run_id)
        for query in (earlier, later):
            neighbour = connection.execute(query).scalar() or ""
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(run_id, neighbour, strict=False))
            most = max(most, sum(1 for _ in alike) + 1)
    return most


def totals(
    connection: sa.Connection,
    now: float,
    *,
    caller: str | None = None,
    status: str | None = None,
    since: float | None = None,
) -> Totals:
    """The totals of all runs, or of those of a caller, with a status, or that began since then.

    Those of every caller are read from an index alone.
    """
    wanted = [runs.c.started_at >= (0.0 if since is None else since)]
    if caller is not None:
        wanted.append(runs.c.caller == caller)
    if status is not None:
        wanted.append(runs.c.status + "" == status)  # an expression: its index holds less than is needed
    sums = sa.select(
        sa.func.count(),
        sa.func.count(runs.c.cost_usd),
        sa.func.coalesce(sa.func.sum(runs.c.took_s), 0.0),
        sa.func.sum(runs.c.tokens),
        sa.func.sum(runs.c.cost_usd),
    ).where(*wanted, runs.c.took_s.is_not(None))
    count, with_cost, took, token_sum, cost = connection.execute(sums).one()
    unknown, running = count - with_cost, 0
    # Of those that run, and those that an older version wrote, only the outcome knows this.
    for row in connection.execute(sa.select(*IN_LIST).where(*wanted, runs.c.took_s.is_(None))):
        outcome, is_running = record(connection, row, texts=False).outcome, row.status == "running"
        count, running = count + 1, running + is_running
        took += now - row.started_at if is_running else outcome.timing.total_s
        if (known := tokens(outcome.usage)) is not None:
            token_sum = (token_sum or 0) + known
        if outcome.cost_usd is not None:
            cost = (cost or 0.0) + outcome.cost_usd
        elif not is_running:
            unknown += 1
    return Totals(runs=count, running=running, took_s=took, tokens=token_sum, cost_usd=cost, cost_unknown=unknown)


def record(connection: sa.Connection, found: sa.Row[Any], *, texts: bool = True) -> RunRecord:
    """A run with all that has arrived of it; without ``texts``, of a row of ``overview``."""
    row = found._mapping  # pyright: ignore[reportPrivateUsage]  # SQLAlchemy's public name for it
    answer, reasoning = row.get("answer"), row.get("reasoning")
    if texts and row["status"] == "running":
        answer, reasoning = _arrived(connection, row["id"])
    try:
        request = cast(dict[str, Any], json.loads(row.get("request", "{}")))
    except ValueError:  # damaged
        request = {}
    known: dict[str, Any] = {field.name: row[field.name] for field in fields(RunRecord) if field.name in row}
    known |= {name: bool(row[name]) for name in ("resumable", "cancel_requested")}
    known |= {"request": request, "outcome": _outcome(row, answer or "", reasoning)}
    if row["status"] == "running":
        known["phase"] = phase_from_json(row["outcome"])
    return RunRecord(**known)


def _outcome(row: sa.RowMapping, answer: str, reasoning: str | None) -> Outcome:
    """A run's outcome; where a damaged disk changed its JSON, what else is known of it."""
    status: str = row["status"]
    is_known = status in get_args(Status)
    known: dict[str, Any] = {
        "run_id": row["id"],
        "conversation_id": row["conversation_id"],
        "status": status if is_known else "failed",
        "answer": answer,
        "reasoning": reasoning,
    }
    try:
        outcome = outcome_from_json(row["outcome"], **known)
    except UNREADABLE:
        damaged = Internal("A part of what was written down of this run is damaged.", fix="Look at the disk.")
        return Outcome(**known, model_asked=row["model_asked"], provider=row["provider"], error=damaged)
    if is_known:
        return outcome
    newer = Internal(f"A newer version recorded this run as {status!r}.", fix="Look at it with that version.")
    return replace(outcome, error=outcome.error or newer)


def _arrived(connection: sa.Connection, run_id: str) -> tuple[str, str | None]:
    """Answer and reasoning of the latest request that brought an answer, else of the latest one.

    A piece that was written twice counts once, and behind a hole nothing counts.
    """
    ordered = sa.select(pieces).where(pieces.c.run_id == run_id).order_by(pieces.c.request, pieces.c.of, pieces.c.start)
    texts: dict[tuple[int, str], str] = {}
    for key, group in groupby(connection.execute(ordered), lambda piece: (piece.request, piece.of)):
        length, parts = 0, list[str]()
        for piece in group:
            if piece.start <= length < piece.start + len(piece.text):
                parts.append(piece.text[length - piece.start :])
                length = piece.start + len(piece.text)
        texts[key] = "".join(parts)
    if not texts:
        return "", None
    latest = max([request for request, of in texts if of == "answer"] or [request for request, _ in texts])
    return texts.get((latest, "answer"), ""), texts.get((latest, "reasoning"))


# ── calls that are made again ────────────────────────────────────────────────────────────────────────────────────────

# Executed with every call: built once, as that takes longer.
_JOINABLE = (runs.c.status == "running") | ((runs.c.status == "completed") & (runs.c.ended_at >= sa.bindparam("since")))
_HOST: sa.BindParameter[str | None] = sa.bindparam("host")
_NEWEST_ABANDONED = (
    sa.select(runs.c.id)
    .where(runs.c.call_key == sa.bindparam("key"), runs.c.abandoned > 0, runs.c.caller == sa.bindparam("caller"))
    .where(runs.c.host.is_not_distinct_from(_HOST), _JOINABLE)
    .order_by(runs.c.started_at.desc(), runs.c.id)
    .limit(1)
)


def newest_abandoned(
    connection: sa.Connection, *, caller: str, host: str | None, key: str, since: float
) -> sa.Row[Any] | None:
    """The newest abandoned run of the same call that is running or was completed since then."""
    known = {"caller": caller, "host": host, "key": key, "since": since}
    found = engine.execute(connection, _NEWEST_ABANDONED, known).row
    return None if found is None else connection.execute(sa.select(runs).where(runs.c.id == found[0])).first()


# ── conversations ─────────────────────────────────────────────────────────────────────────────────────────────────


def conversation(connection: sa.Connection, conversation_id: str) -> sa.Row[Any] | None:
    """A conversation by its id: its ``caller``, and its ``head``, the run with its latest turns (None: none yet)."""
    return connection.execute(sa.select(conversations).where(conversations.c.id == conversation_id)).first()


def history(connection: sa.Connection, run_id: str | None) -> tuple[Turn, ...]:
    """The turns of a run and of all that it follows, the oldest first; raises ``RunNotFound`` where one is gone."""
    turns: list[tuple[Turn, ...]] = []
    while run_id is not None:
        row = connection.execute(sa.select(runs.c.turns, runs.c.follows).where(runs.c.id == run_id)).first()
        if row is None:
            raise errors.gone()
        try:
            turns.append(turns_from_json(row.turns) if row.turns else ())
        except UNREADABLE:
            raise errors.gone() from None  # damaged: a conversation never goes on with less
        run_id = row.follows
    return tuple(turn for exchange in reversed(turns) for turn in exchange)
