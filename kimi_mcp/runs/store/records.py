"""Values of the journal: what a run's record holds, and outcomes and turns as JSON and back. Pure, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from kimi_mcp.core.errors import remembered
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.redaction import scrub, scrub_values
from kimi_mcp.core.types import (
    Adjustment,
    MediaPart,
    Part,
    Status,
    TextPart,
    Timing,
    ToolCall,
    Turn,
    Usage,
    from_record,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """What is written down of a run before anything is paid for."""

    id: str
    """The run's id."""
    caller: str
    """Whom it belongs to."""
    host: str | None
    """The program that asked, by its own name; None: not said."""
    tool: str
    """The tool that was called."""
    prompt_head: str
    """The beginning of its prompt, in one line."""
    call_key: str | None
    """The hash of tool and arguments."""
    started_at: float
    """Seconds since 1970."""
    conversation_id: str | None
    """The conversation it adds to."""
    follows: str | None
    """The run whose turns come before its own."""
    request: Mapping[str, Any]
    """What is sent, as JSON; media by hash and size."""
    model_id: str | None
    """The catalogue's id of the model it is sent to."""
    outcome: Outcome
    """The run as it stands."""
    resumable: bool = False
    """Whether another server may go on with it where this one dies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """A stretch of text that has arrived."""

    run_id: str
    """The run it belongs to."""
    request: int
    """Which of the run's requests brought it, from 0."""
    of: str
    """``answer`` or ``reasoning``."""
    start: int
    """Where it begins, in code points."""
    text: str
    """The stretch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as the journal has it."""

    id: str
    """The run's id."""
    caller: str
    """Whom it belongs to."""
    host: str | None
    """The program that asked."""
    owner: str
    """The server it lives or lived in."""
    tool: str
    """The tool that was called."""
    prompt_head: str
    """The beginning of its prompt, in one line."""
    started_at: float
    """Seconds since 1970."""
    ended_at: float | None
    """Seconds since 1970; None as long as it runs."""
    conversation_id: str | None
    """The conversation it adds to."""
    follows: str | None
    """The run whose turns come before its own."""
    request: Mapping[str, Any]
    """What was sent, as JSON."""
    model_id: str | None
    """The catalogue's id of the model it was sent to."""
    resumable: bool
    """Whether another server may go on with it."""
    outcome: Outcome
    """How it stands or ended, with all that has arrived."""
    lived_s: float = 0.0
    """Seconds that it has lived, in all its servers together; written down only where another one may go on with it."""
    cancel_asked: bool = False
    """Whether its server was told to cancel it."""
    orphaned: bool = False
    """Whether it runs no longer, though nobody has said how it ended: its server is dead."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.outcome.status == "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation as the journal has it."""

    id: str
    """Its id."""
    caller: str
    """Whom it belongs to."""
    head: str | None
    """The run with its latest turns; None: there are none yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A step of a longer work as the journal has it."""

    key: str
    """Which step it is, unique within the run."""
    told: Mapping[str, Any]
    """Who makes it, and what it asks for."""
    result: Mapping[str, Any] | None
    """What it brought; None: it was begun and not finished."""
    began_at: float
    """Seconds since 1970."""
    ended_at: float | None
    """Seconds since 1970; None: not finished."""


def outcome_as_json(outcome: Outcome) -> str:
    """All of an outcome but its two texts, its page, and the ids, which have columns of their own."""
    error, usage = outcome.error, outcome.usage
    return as_text(
        {
            "parsed": outcome.parsed,
            "model_asked": outcome.model_asked,
            "model_sent": outcome.model_sent,
            "model_answered": outcome.model_answered,
            "provider": outcome.provider,
            "mode": outcome.mode,
            "finish_reason": outcome.finish_reason,
            "usage": usage and {field.name: getattr(usage, field.name) for field in fields(Usage)},
            "cost_usd": outcome.cost_usd,
            "policy": [adjustment.as_json() for adjustment in outcome.policy],
            "timing": {field.name: getattr(outcome.timing, field.name) for field in fields(Timing)},
            "error": error and {"code": error.code, "message": error.message, "fix": error.fix, "rule": error.rule},
            "swarm": outcome.swarm,
        }
    )


def outcome_from_json(
    told: str, *, run_id: str, conversation_id: str | None, status: Status, answer: str, reasoning: str | None
) -> Outcome:
    """The outcome that was written down; what only a newer version knows of it is left out."""
    row: dict[str, Any] = json.loads(told)
    error, usage = row["error"], row["usage"]
    return from_record(
        Outcome,
        row
        | {
            "run_id": run_id,
            "conversation_id": conversation_id,
            "status": status,
            "answer": answer,
            "reasoning": reasoning,
            "usage": usage and from_record(Usage, usage),
            "policy": tuple(from_record(Adjustment, adjustment) for adjustment in row["policy"]),
            "timing": from_record(Timing, row["timing"]),
            "error": error and remembered(error["code"], error["message"], fix=error["fix"], rule=error["rule"]),
            "page": None,
        },
    )


def turns_as_json(turns: Iterable[Turn]) -> str:
    """Turns, whole and exact: reasoning byte for byte, an empty one apart from none."""
    return as_text([turn_as_json(turn) for turn in turns])


def turns_from_json(told: str) -> tuple[Turn, ...]:
    """The turns that were written down."""
    return tuple(_turn_from_json(row) for row in cast(list[dict[str, Any]], json.loads(told)))


def turn_as_json(turn: Turn) -> dict[str, Any]:
    """A turn as JSON; ``turns_from_json`` reads it back."""
    row: dict[str, Any] = {"role": turn.role, "parts": [_part_as_json(part) for part in turn.parts]}
    if turn.reasoning is not None:
        row["reasoning"] = turn.reasoning
    if turn.tool_calls:
        row["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in turn.tool_calls
        ]
    if turn.tool_call_id is not None:
        row["tool_call_id"] = turn.tool_call_id
    return row


def _turn_from_json(row: dict[str, Any]) -> Turn:
    return Turn(
        role=row["role"],
        parts=tuple(_part_from_json(part) for part in row["parts"]),
        reasoning=row.get("reasoning"),
        tool_calls=tuple(from_record(ToolCall, call) for call in row.get("tool_calls", ())),
        tool_call_id=row.get("tool_call_id"),
    )


def _part_as_json(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"text": text}
        case MediaPart(kind=kind, url=url, sha256=sha256, size=size):
            # Of a data URI its head alone: what was shown is not ours to keep, and may have many megabytes.
            named = url[: url.find(",") + 1] if url.startswith("data:") else url
            return {"kind": kind, "url": named, "sha256": sha256, "size": size}


def _part_from_json(row: dict[str, Any]) -> Part:
    return TextPart(text=row["text"]) if "text" in row else from_record(MediaPart, row)


def as_text(value: Any) -> str:
    """JSON, as it is written down: no key is in it."""
    return json.dumps(scrub_values(value), ensure_ascii=False, separators=(",", ":"))


def as_piece(text: str) -> str:
    """A piece of a text, as it is written down: no key is in it, and it is as long, since others begin behind it."""
    clean = scrub(text)
    return text if clean is text else clean[: len(text)].ljust(len(text), "*")
