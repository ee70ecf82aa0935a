"""What is read from the store's tables, and written to them. I/O: in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import groupby, takewhile
from typing import Any, cast, get_args

import sqlalchemy as sa

from kimi_mcp.core.errors import BudgetExceeded, Internal
from kimi_mcp.core.json_values import UNREADABLE
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.profiles import dollars
from kimi_mcp.core.redaction import scrub
from kimi_mcp.core.types import Status, Turn
from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.records import (
    RunEnd,
    RunEntry,
    RunRecord,
    TextDelta,
    Totals,
    as_piece,
    as_text,
    outcome_as_json,
    outcome_from_json,
    tokens,
    turns_from_json,
)
from kimi_mcp.runs.store.tables import conversations, pieces, runs

_IN_LIST = [column for column in runs.c if column.name not in ("request", "turns", "answer", "reasoning")]
"""All but the texts, which may be long where runs are many."""


def check_budget(connection: sa.Connection, run_id: str, counted_usd: float, most_usd: float, since: float) -> None:
    """Raise ``BudgetExceeded`` where a run's next request would exceed the limit; ``counted_usd`` includes it."""
    spent, counted = spent_since(connection, since), sa.select(runs.c.counted_usd).where(runs.c.id == run_id)
    following = counted_usd - (connection.execute(counted).scalar() or 0.0)
    if spent + following > most_usd:
        raise BudgetExceeded(
            f"Today's spending limit is reached: {dollars(spent)} of {dollars(most_usd)} are spent, and the next "
            f"request would start at {dollars(following, estimated=True)}.",
            fix="Raise KIMI_BUDGET_USD_PER_DAY, or call again tomorrow (UTC).",
        )


def spent_since(connection: sa.Connection, since: float, run_id: str | None = None, counted_usd: float = 0.0) -> float:
    """US dollars that limits count for all runs since then; ``run_id``, if it is among them, counts ``counted_usd``."""
    total = sa.select(sa.func.coalesce(sa.func.sum(runs.c.counted_usd), 0.0)).where(runs.c.started_at >= since)
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
    newest: sa.Select[Any] = sa.select(*_IN_LIST).order_by(runs.c.started_at.desc(), runs.c.id)
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


def neighbours(connection: sa.Connection, run_id: str) -> tuple[list[str], list[str]]:
    """The runs whose turns come before a run's own, the oldest first, and those that follow it directly."""
    before: list[str] = []
    earlier = run_id
    while earlier := connection.execute(sa.select(runs.c.follows).where(runs.c.id == earlier)).scalar() or "":
        before.append(earlier)
    after = sa.select(runs.c.id).where(runs.c.follows == run_id).order_by(runs.c.started_at)
    return before[::-1], list(connection.execute(after).scalars())


def totals(connection: sa.Connection, now: float, *, status: str | None = None, since: float | None = None) -> Totals:
    """The totals of all runs, or of those with a status or that began since then; read from an index alone."""
    wanted = [runs.c.started_at >= (0.0 if since is None else since)]
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
    for row in connection.execute(sa.select(*_IN_LIST).where(*wanted, runs.c.took_s.is_(None))):
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


# ── a run's life ──────────────────────────────────────────────────────────────────────────────────────────────────────

# Executed with every call, or several times a second while it streams: built once, as that takes longer.
_JOINABLE = (runs.c.status == "running") | ((runs.c.status == "completed") & (runs.c.ended_at >= sa.bindparam("since")))
_HOST: sa.BindParameter[str | None] = sa.bindparam("host")
NEWEST_ABANDONED = (
    sa.select(runs)
    .where(runs.c.call_key == sa.bindparam("key"), runs.c.abandoned == 1, runs.c.caller == sa.bindparam("caller"))
    .where(runs.c.host.is_not_distinct_from(_HOST), _JOINABLE)
    .order_by(runs.c.started_at.desc(), runs.c.id)
    .limit(1)
)
"""The newest abandoned run of the same call that is running or was completed since then."""

_HERE: sa.BindParameter[Any] = sa.bindparam("here")

_INSERT = sa.insert(runs)
_UPDATE = sa.update(runs).where(runs.c.id == _HERE)
_UPDATE_RUNNING = _UPDATE.where(runs.c.status == "running")
_SAME_END = sa.select(runs.c.id).where(
    runs.c.id == _HERE, runs.c.status == sa.bindparam("status"), runs.c.ended_at == sa.bindparam("ended_at")
)
_DELETE = sa.delete(runs).where(runs.c.id == _HERE)
_ADD_PIECES = sa.insert(pieces)
_DELETE_PIECES = sa.delete(pieces).where(pieces.c.run_id == _HERE)
_CONVERSATION = sa.select(conversations.c.id).where(conversations.c.id == _HERE)
_START = sa.insert(conversations)
_SET_HEAD = sa.update(conversations).where(conversations.c.id == _HERE)
_LEAVE_TURN = _SET_HEAD.where(conversations.c.writer == sa.bindparam("by")).values(writer=None, writer_owner=None)
_DELETE_EMPTY = sa.delete(conversations).where(
    conversations.c.id == _HERE, ~sa.select(runs.c.id).where(runs.c.conversation_id == conversations.c.id).exists()
)


def write(connection: sa.Connection, entry: RunEntry, owner: str, counted_usd: float) -> None:
    """Write what is known of a run by now. Of a conversation that it starts it has the turn: a follow-up waits."""
    known = {name: getattr(entry, name) for name in ("conversation_id", "follows", "model_id")} | {
        "resumable": int(entry.resumable),
        "request": as_text(entry.request),
        "model_asked": entry.outcome.model_asked,
        "provider": entry.outcome.provider,
        "counted_usd": counted_usd,
        "outcome": outcome_as_json(entry.outcome),
    }
    if not connection.execute(_UPDATE, {"here": entry.id} | known).rowcount:
        first = {name: getattr(entry, name) for name in ("id", "caller", "host", "tool", "call_key", "started_at")}
        first |= {"owner": owner, "status": "running", "prompt_head": scrub(entry.prompt_head)}
        connection.execute(_INSERT, first | known)
    conversation_id = entry.conversation_id
    if conversation_id is not None and connection.execute(_CONVERSATION, {"here": conversation_id}).first() is None:
        writer = {"writer": entry.id, "writer_owner": owner}
        connection.execute(_START, {"id": conversation_id, "caller": entry.caller} | writer)


def append(connection: sa.Connection, deltas: Sequence[TextDelta], changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Add what has arrived of several runs; ``changes`` are columns of those that still run, by run."""
    if deltas:
        connection.execute(_ADD_PIECES, [asdict(one) | {"text": as_piece(one.text)} for one in deltas])
    for run_id, columns in changes.items():
        if isinstance(outcome := columns.get("outcome"), Outcome):
            columns = {**columns, "outcome": outcome_as_json(outcome)}
        connection.execute(_UPDATE_RUNNING, {"here": run_id, **columns})


def change(connection: sa.Connection, run_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a run."""
    connection.execute(_UPDATE, {"here": run_id, **values})


def reopen(connection: sa.Connection, record: RunRecord, owner: str, started_at: float) -> float | None:
    """Let an ended run run again, with what it has brought; what limits count for it. None: it has changed since."""
    same_end = sa.select(runs.c.counted_usd).where(
        runs.c.id == record.id, runs.c.status == record.outcome.status, runs.c.ended_at == record.ended_at
    )
    counted = connection.execute(same_end.with_for_update()).scalar()
    if counted is None:
        return None
    running = {"status": "running", "owner": owner, "started_at": started_at, "cancel_requested": 0, "resumable": 0}
    ended = dict.fromkeys(("ended_at", "took_s", "tokens", "cost_usd"))
    outcome = replace(record.outcome, status="running", error=None)
    connection.execute(_UPDATE, {"here": record.id, "outcome": outcome_as_json(outcome), **running, **ended})
    texts = {"answer": outcome.answer, "reasoning": outcome.reasoning}
    kept = [TextDelta(run_id=record.id, request=0, of=of, start=0, text=text) for of, text in texts.items() if text]
    append(connection, kept, {})
    return float(counted)


def end(connection: sa.Connection, end: RunEnd) -> bool:
    """Record how a run ended, and free its conversation; with ``turns`` it becomes the head of that.

    A run that was refused before anything was sent is removed, and the conversation that it would have started. False
    where there is no such run, or it has ended otherwise; True where this very end is there already, since the answer
    to its commit may have been lost.
    """
    here, outcome = {"here": end.run_id}, end.outcome
    if outcome.run_id is None:
        result = connection.execute(_DELETE, here)
    else:
        row: dict[str, Any] = {
            "status": outcome.status,
            "ended_at": end.ended_at,
            "turns": end.turns,
            "took_s": outcome.timing.total_s,
            "tokens": tokens(outcome.usage),
            "cost_usd": outcome.cost_usd,
            "outcome": outcome_as_json(outcome),
            "answer": outcome.answer,
            "reasoning": outcome.reasoning,
        }
        counted = {} if end.counted_usd is None else {"counted_usd": end.counted_usd}
        result = connection.execute(_UPDATE_RUNNING, here | row | counted)
    found = bool(result.rowcount)
    if found:
        connection.execute(_DELETE_PIECES, here)
    elif connection.execute(_SAME_END, here | {"status": outcome.status, "ended_at": end.ended_at}).first():
        return True
    if end.conversation_id is not None:
        conversation = {"here": end.conversation_id}
        if found and end.turns is not None:
            connection.execute(_SET_HEAD, conversation | {"head": end.run_id})
        connection.execute(_LEAVE_TURN, conversation | {"by": end.run_id})
        if outcome.run_id is None:
            connection.execute(_DELETE_EMPTY, conversation)
    return found


# ── conversations ─────────────────────────────────────────────────────────────────────────────────────────────────


def conversation(connection: sa.Connection, conversation_id: str) -> sa.Row[Any] | None:
    """A conversation by its id: its ``caller``, and its ``head``, the run with its latest turns (None: none yet)."""
    return connection.execute(sa.select(conversations).where(conversations.c.id == conversation_id)).first()


def take_turn(
    connection: sa.Connection, conversation_id: str, run_id: str, owner: str, alive: Callable[[str, str], bool]
) -> bool:
    """Become the one who adds to a conversation; False while another run that is ``alive`` does."""
    found = conversation(connection, conversation_id)
    if found is None:
        raise errors.gone()
    writer: str | None = found.writer
    if writer is not None and writer != run_id:
        status = connection.execute(sa.select(runs.c.status).where(runs.c.id == writer)).scalar()
        if status in (None, "running") and alive(writer, found.writer_owner):  # else its end is recorded
            return False
    still = conversations.c.writer.is_not_distinct_from(writer)  # where transactions may overlap, the first one has it
    taken = sa.update(conversations).where(conversations.c.id == conversation_id, still)
    return bool(connection.execute(taken.values(writer=run_id, writer_owner=owner)).rowcount)


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
