"""What is written to the store's tables. I/O: in the caller's transaction.

In SQLite writers go one at a time; in PostgreSQL transactions overlap. So each statement that relies on what was read
names it, a row that decides is locked, and what belongs to a run is written by its owner alone, as long as it runs: a
server that was taken for dead and comes back changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.redaction import scrub
from kimi_mcp.runs.store import engine, errors, spending
from kimi_mcp.runs.store.day_limits import DayLimit, Held, WantedBudget, midnight
from kimi_mcp.runs.store.looks import forget_looks
from kimi_mcp.runs.store.notifications import notify
from kimi_mcp.runs.store.queries import conversation, spent_since
from kimi_mcp.runs.store.records import (
    RunEnd,
    RunEntry,
    RunRecord,
    TextDelta,
    as_piece,
    as_text,
    outcome_as_json,
    tokens,
)
from kimi_mcp.runs.store.tables import conversations, pieces, runs


def take_budget(
    connection: sa.Connection,
    entry: RunEntry,
    owner: str,
    counted_usd: float,
    limits: Sequence[DayLimit],
    *,
    hold_usd: float,
    now: float,
) -> Held | None:
    """Count what a run costs with its next request, and hold a little more, which PostgreSQL alone does.

    Raises ``BudgetExceeded`` where so much is not left. In SQLite no other transaction writes meanwhile.
    """
    day, is_refused = midnight(now), False
    if limits and connection.dialect.name == "postgresql" and entry.started_at >= day:
        held = spending.take(connection, entry.id, owner, counted_usd, limits, day=day, hold_usd=hold_usd, begins=True)
        if held is not None:
            return held
        is_refused = True
    for limit in limits:  # a run of an earlier day counts for that
        spent = spent_since(connection, day, caller=limit.caller)
        counted = sa.select(runs.c.counted_usd).where(runs.c.id == entry.id)
        following = counted_usd - (connection.execute(counted).scalar() or 0.0)
        if spent + following > limit.usd or (is_refused and limit is limits[-1]):
            raise limit.error(spent, now, following)
    return None


# ── a run's life ──────────────────────────────────────────────────────────────────────────────────────────────────────

# Executed with every call, or several times a second while it streams: built once, as that takes longer.
_HERE: sa.BindParameter[Any] = sa.bindparam("here")

_ONCE = ("id", "caller", "host", "tool", "call_key", "started_at", "traceparent")
_INSERT = sa.insert(runs)
_UPDATE = sa.update(runs).where(runs.c.id == _HERE)
_IS_OWN = (runs.c.owner == sa.bindparam("by")) & (runs.c.status == "running")
_UPDATE_OWN = _UPDATE.where(_IS_OWN)
_KNOWN = sa.select(runs.c.id).where(runs.c.id == _HERE)
_OWN = (
    sa.select(runs.c.id)
    .where(runs.c.id.in_(sa.bindparam("ids", expanding=True)), _IS_OWN)
    .order_by(runs.c.id)
    .with_for_update()
)
_SAME_END = sa.select(runs.c.id).where(
    runs.c.id == _HERE, runs.c.status == sa.bindparam("status"), runs.c.ended_at == sa.bindparam("ended_at")
)
_DELETE_OWN = sa.delete(runs).where(runs.c.id == _HERE, _IS_OWN)
_ADD_PIECES = sa.insert(pieces)
_DELETE_PIECES = sa.delete(pieces).where(pieces.c.run_id == _HERE)
_CONVERSATION = sa.select(conversations.c.id).where(conversations.c.id == _HERE)
_FIRST = ("id", "caller", "writer", "writer_owner")
_START_IF_NEW = sa.insert(conversations).from_select(
    _FIRST, sa.select(*(sa.bindparam(name, type_=sa.Text) for name in _FIRST)).where(~_CONVERSATION.exists())
)
_SET_HEAD = sa.update(conversations).where(conversations.c.id == _HERE)
_LEAVE_TURN = _SET_HEAD.where(
    conversations.c.writer == sa.bindparam("run"), conversations.c.writer_owner == sa.bindparam("by")
).values(writer=None, writer_owner=None)
_LEAVE_TURN_AS_HEAD = _LEAVE_TURN.values(head=sa.bindparam("run"))
_DELETE_EMPTY = sa.delete(conversations).where(
    conversations.c.id == _HERE, ~sa.select(runs.c.id).where(runs.c.conversation_id == conversations.c.id).exists()
)


def write(connection: sa.Connection, entry: RunEntry, owner: str, counted_usd: float, *, is_new: bool = False) -> None:
    """Write what is known of a run by now. Of a conversation that it starts it has the turn: a follow-up waits.

    ``is_new``: there is no row of it yet. Raises ``AnswerCutOff`` where it has ended, or another server has it.
    """
    known = {name: getattr(entry, name) for name in ("conversation_id", "follows", "model_id")} | {
        "resumable": int(entry.resumable),
        "request": as_text(entry.request),
        "model_asked": entry.outcome.model_asked,
        "provider": entry.outcome.provider,
        "counted_usd": counted_usd,
        "outcome": outcome_as_json(entry.outcome, entry.phase),
    }
    if is_new or not engine.execute(connection, _UPDATE_OWN, {"here": entry.id, "by": owner} | known).rowcount:
        if not is_new and connection.execute(_KNOWN, {"here": entry.id}).first():
            raise errors.taken_over()
        first = {name: getattr(entry, name) for name in _ONCE}
        first |= {"owner": owner, "status": "running", "prompt_head": scrub(entry.prompt_head)}
        engine.execute(connection, _INSERT, first | known | {"abandoned": 0, "cancel_requested": 0})
    conversation_id = entry.conversation_id
    if conversation_id is not None:
        writer = {"writer": entry.id, "writer_owner": owner}
        named = {"here": conversation_id, "id": conversation_id, "caller": entry.caller}
        engine.execute(connection, _START_IF_NEW, named | writer)


def append(
    connection: sa.Connection,
    deltas: Sequence[TextDelta],
    changes: Mapping[str, Mapping[str, Any]],
    owner: str,
    wanted: Mapping[str, WantedBudget] | None = None,
) -> dict[str, Held]:
    """Add what has arrived of several runs; ``changes`` are columns of them, the same ones of each.

    Beside the columns, ``phase`` is what a run does. Nothing is added to one that has ended, or that another server
    has. Returns what is held of what is ``wanted`` for runs of today, beside ``counted_usd`` among their columns.
    """
    ids = sorted({delta.run_id for delta in deltas} | changes.keys())
    own = set(connection.execute(_OWN, {"ids": ids, "by": owner}).scalars())
    if arrived := [asdict(one) | {"text": as_piece(one.text)} for one in deltas if one.run_id in own]:
        connection.execute(_ADD_PIECES, arrived)
    rows: list[dict[str, Any]] = [
        {"here": run_id, "by": owner, **columns} for run_id, columns in changes.items() if run_id in own
    ]
    for row in rows:
        notify(connection, "run", row["here"])
        phase = row.pop("phase", None)
        if isinstance(outcome := row.get("outcome"), Outcome):
            row["outcome"] = outcome_as_json(outcome, phase)
    held: dict[str, Held] = {}
    for row in rows:
        run_id, more = row["here"], (wanted or {}).get(row["here"])
        if more is not None and (taken := spending.extend(connection, run_id, owner, row["counted_usd"], more)):
            held[run_id] = taken
            row["counted_usd"] += taken.usd
    if rows:
        connection.execute(_UPDATE_OWN, rows)
    return held


def change(connection: sa.Connection, run_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a run."""
    connection.execute(_UPDATE, {"here": run_id, **values})


def request_cancel(connection: sa.Connection, run_id: str) -> None:
    """Request a run's cancellation by its server."""
    change(connection, run_id, {"cancel_requested": 1})
    notify(connection, "cancel", run_id)


def keep(connection: sa.Connection, run_id: str) -> None:
    """Somebody wants a run that its host gave up on."""
    connection.execute(_UPDATE.where(runs.c.abandoned == 1), {"here": run_id, "abandoned": 2})


def adopt(connection: sa.Connection, record: RunRecord, by: str) -> bool:
    """Take over another server's run; False where it has a new owner already, or has ended."""
    found = sa.update(runs).where(runs.c.id == record.id, runs.c.owner == record.owner, runs.c.status == "running")
    if not connection.execute(found.values(owner=by)).rowcount:
        return False
    if record.resumable:  # what had arrived of its last request comes again
        connection.execute(_DELETE_PIECES, {"here": record.id})
    notify(connection, "run", record.id)
    return True


def reopen(connection: sa.Connection, record: RunRecord, owner: str, started_at: float) -> float | None:
    """Reopen an ended run and keep its outcome; the cost that limits count for it. None: it has changed since."""
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
    append(connection, kept, {}, owner)
    notify(connection, "run", record.id)
    if connection.dialect.name == "postgresql":
        spending.distrust(connection)  # it may count for another day now
    return float(counted)


def end(connection: sa.Connection, end: RunEnd, owner: str) -> bool:
    """Record how a run of ``owner`` ended, and free its conversation; with ``turns`` it becomes the head of that.

    A run that was refused before anything was sent is removed, and the conversation that it would have started. False
    where ``owner`` has no such run, or it has ended otherwise; True where this very end is there already, since the
    answer to its commit may have been lost.
    """
    here, by, outcome = {"here": end.run_id}, {"by": owner}, end.outcome
    notify(connection, "run", end.run_id)
    if end.counted_usd is not None and connection.dialect.name == "postgresql":
        spending.settle(connection, end.run_id, owner, 0.0 if outcome.run_id is None else end.counted_usd)
    if outcome.run_id is None:
        result = engine.execute(connection, _DELETE_OWN, here | by)
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
        result = engine.execute(connection, _UPDATE_OWN, here | by | row | counted)
    found = bool(result.rowcount)
    if found:
        engine.execute(connection, _DELETE_PIECES, here)
        if outcome.swarm is not None:
            forget_looks(connection, [end.run_id])
    elif connection.execute(_SAME_END, here | {"status": outcome.status, "ended_at": end.ended_at}).first():
        return True
    if end.conversation_id is not None:
        conversation = {"here": end.conversation_id}
        turn = conversation | by | {"run": end.run_id}
        notify(connection, "turn", end.conversation_id)
        if not (found and end.turns is not None):
            engine.execute(connection, _LEAVE_TURN, turn)
        elif not engine.execute(connection, _LEAVE_TURN_AS_HEAD, turn).rowcount:  # the turn was another's
            connection.execute(_SET_HEAD, conversation | {"head": end.run_id})
        if outcome.run_id is None:
            connection.execute(_DELETE_EMPTY, conversation)
    return found


# ── conversations ─────────────────────────────────────────────────────────────────────────────────────────────────────


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
