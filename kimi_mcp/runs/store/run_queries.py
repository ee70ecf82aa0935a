"""What is written down of a run through its life: begun, renewed, grown, ended. Does I/O, in somebody's transaction.

It happens with every call and several times a second while one streams. So each statement is built once, here, and
what is the same for many runs is asked for many at once: building one costs more than SQLite takes to do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select, update

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.redaction import scrub
from kimi_mcp.runs.store.records import RunEntry, as_piece, as_text, outcome_as_json
from kimi_mcp.runs.store.serializers import tokens
from kimi_mcp.runs.store.tables import conversations, pieces, runs

_HERE: BindParameter[Any] = bindparam("here")

_INSERT = insert(runs)
_UPDATE = update(runs).where(runs.c.id == _HERE)
_UPDATE_RUNNING = update(runs).where(runs.c.id == _HERE, runs.c.status == "running")
_KNOWN = select(runs.c.id).where(runs.c.id == _HERE)
_STARTED = select(runs.c.conversation_id).where(runs.c.id == _HERE)
_REMOVE = delete(runs).where(runs.c.id == _HERE)
_GROW = insert(pieces)
_NO_PIECES = delete(pieces).where(pieces.c.run_id == _HERE)
_CONVERSATION = select(conversations.c.id).where(conversations.c.id == _HERE)
_START = insert(conversations)
_HEAD = update(conversations).where(conversations.c.id == _HERE)
_FREE = _HEAD.where(conversations.c.writer == bindparam("by")).values(writer=None, writer_owner=None)
_EMPTY = delete(conversations).where(
    conversations.c.id == _HERE, ~select(runs.c.id).where(runs.c.conversation_id == conversations.c.id).exists()
)


def begin(connection: Connection, entry: RunEntry, owner: str, counted_usd: float) -> None:
    """Write down a run, and its conversation where it starts one; a run that is there already is renewed.

    Who starts a conversation is the first who adds to it: a follow-up waits for that.
    """
    here = {"here": entry.id}
    if connection.execute(_KNOWN, here).first() is not None:
        renew(connection, entry, counted_usd)
    else:
        told = {
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
        connection.execute(_INSERT, told | _known(entry, counted_usd))
    conversation = {"here": entry.conversation_id}
    if entry.conversation_id is not None and connection.execute(_CONVERSATION, conversation).first() is None:
        first = {"writer": entry.id, "writer_owner": owner}
        connection.execute(_START, {"id": entry.conversation_id, "caller": entry.caller} | first)


def renew(connection: Connection, entry: RunEntry, counted_usd: float) -> None:
    """Write down what more is known of a run by now."""
    connection.execute(_UPDATE, {"here": entry.id} | _known(entry, counted_usd))


def _known(entry: RunEntry, counted_usd: float) -> dict[str, Any]:
    return {
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


def grow(
    connection: Connection,
    grown: Sequence[Mapping[str, Any]],
    counted: Mapping[str, float],
    sent: Mapping[str, Outcome],
    lived: Mapping[str, float],
) -> None:
    """Add what has arrived of several runs, what they are counted for by now, and how those stand that were sent.

    ``lived``: for how many seconds those have lived that another server may go on with.
    """
    if grown:
        connection.execute(_GROW, [{**each, "text": as_piece(each["text"])} for each in grown])
    if counted:
        costs = [{"here": run_id, "counted_usd": usd} for run_id, usd in counted.items()]
        connection.execute(_UPDATE_RUNNING, costs)
    if sent:
        stand = [{"here": run_id, "outcome": outcome_as_json(outcome)} for run_id, outcome in sent.items()]
        connection.execute(_UPDATE_RUNNING, stand)
    if lived:
        connection.execute(_UPDATE_RUNNING, [{"here": run_id, "lived_s": seconds} for run_id, seconds in lived.items()])


def change(connection: Connection, run_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a run."""
    connection.execute(_UPDATE, {"here": run_id, **values})


def end(
    connection: Connection,
    run_id: str,
    outcome: Outcome,
    ended_at: float,
    *,
    turns: str | None = None,
    counted_usd: float | None = None,
) -> bool:
    """Write down how a run ended: the next one may add to its conversation. With ``turns`` it is the head of that.

    ``counted_usd`` None: what it was counted for so far stands. False where there is no such run, or it has ended.
    """
    told: dict[str, Any] = {
        "here": run_id,
        "status": outcome.status,
        "ended_at": ended_at,
        "turns": turns,
        "took_s": outcome.timing.total_s,
        "tokens": tokens(outcome.usage),
        "cost_usd": outcome.cost_usd,
        "outcome": outcome_as_json(outcome),
        "answer": outcome.answer,
        "reasoning": outcome.reasoning,
    }
    if counted_usd is not None:
        told["counted_usd"] = counted_usd
    if not connection.execute(_UPDATE_RUNNING, told).rowcount:
        return False
    connection.execute(_NO_PIECES, {"here": run_id})
    if turns is not None and outcome.conversation_id is not None:
        connection.execute(_HEAD, {"here": outcome.conversation_id, "head": run_id})
    if outcome.conversation_id is not None:
        leave_turn(connection, outcome.conversation_id, run_id)
    return True


def leave_turn(connection: Connection, conversation_id: str, run_id: str) -> None:
    """Let the next one add to a conversation."""
    connection.execute(_FREE, {"here": conversation_id, "by": run_id})


def forget(connection: Connection, run_id: str) -> None:
    """Remove a run that was none: it was refused before anything was sent."""
    here = {"here": run_id}
    started = connection.execute(_STARTED, here).scalar()
    connection.execute(_NO_PIECES, here)
    connection.execute(_REMOVE, here)
    if started is not None:
        connection.execute(_EMPTY, {"here": started})
