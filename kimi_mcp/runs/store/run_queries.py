"""What is written of a run through its life: begun, grown, ended. I/O: in the caller's transaction.

It happens several times a second while a call streams. So each statement is built once, which takes longer than to
execute it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select, update

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.redaction import scrub
from kimi_mcp.runs.store.records import RunEnd, RunEntry, TextDelta, as_piece, as_text, outcome_as_json, tokens
from kimi_mcp.runs.store.tables import conversations, pieces, runs

_HERE: BindParameter[Any] = bindparam("here")

_INSERT = insert(runs)
_UPDATE = update(runs).where(runs.c.id == _HERE)
_UPDATE_RUNNING = _UPDATE.where(runs.c.status == "running")
_SAME_END = select(runs.c.id).where(
    runs.c.id == _HERE, runs.c.status == bindparam("status"), runs.c.ended_at == bindparam("ended_at")
)
_DELETE = delete(runs).where(runs.c.id == _HERE)
_ADD_PIECES = insert(pieces)
_DELETE_PIECES = delete(pieces).where(pieces.c.run_id == _HERE)
_CONVERSATION = select(conversations.c.id).where(conversations.c.id == _HERE)
_START = insert(conversations)
_SET_HEAD = update(conversations).where(conversations.c.id == _HERE)
_LEAVE_TURN = _SET_HEAD.where(conversations.c.writer == bindparam("by")).values(writer=None, writer_owner=None)
_DELETE_EMPTY = delete(conversations).where(
    conversations.c.id == _HERE, ~select(runs.c.id).where(runs.c.conversation_id == conversations.c.id).exists()
)


def record(connection: Connection, entry: RunEntry, owner: str, counted_usd: float) -> None:
    """Record what is known of a run by now, and its conversation where it starts one.

    Who starts a conversation is the first who adds to it: a follow-up waits for that.
    """
    known = {
        "conversation_id": entry.conversation_id,
        "follows": entry.follows,
        "resumable": int(entry.resumable),
        "request": as_text(entry.request),
        "model_asked": entry.outcome.model_asked,
        "model_id": entry.model_id,
        "provider": entry.outcome.provider,
        "counted_usd": counted_usd,
        "outcome": outcome_as_json(entry.outcome),
    }
    if not connection.execute(_UPDATE, {"here": entry.id} | known).rowcount:
        first = {
            "id": entry.id,
            "caller": entry.caller,
            "host": entry.host,
            "owner": owner,
            "tool": entry.tool,
            "status": "running",
            "prompt_head": scrub(entry.prompt_head),
            "call_key": entry.call_key,
            "abandoned": 0,
            "cancel_asked": 0,
            "started_at": entry.started_at,
        }
        connection.execute(_INSERT, first | known)
    conversation_id = entry.conversation_id
    if conversation_id is not None and connection.execute(_CONVERSATION, {"here": conversation_id}).first() is None:
        writer = {"writer": entry.id, "writer_owner": owner}
        connection.execute(_START, {"id": conversation_id, "caller": entry.caller} | writer)


def append(connection: Connection, deltas: Sequence[TextDelta], changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Add what has arrived of several runs; ``changes`` are columns of those that still run, by run.

    An ``Outcome`` among them is written as JSON.
    """
    if deltas:
        rows = [
            {"run_id": one.run_id, "request": one.request, "of": one.of, "start": one.start, "text": as_piece(one.text)}
            for one in deltas
        ]
        connection.execute(_ADD_PIECES, rows)
    for run_id, columns in changes.items():
        if isinstance(outcome := columns.get("outcome"), Outcome):
            columns = {**columns, "outcome": outcome_as_json(outcome)}
        connection.execute(_UPDATE_RUNNING, {"here": run_id, **columns})


def change(connection: Connection, run_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a run."""
    connection.execute(_UPDATE, {"here": run_id, **values})


def end(connection: Connection, end: RunEnd) -> bool:
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
