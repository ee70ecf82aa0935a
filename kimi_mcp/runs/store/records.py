"""What the store holds, as values and as JSON; times are seconds since 1970. No I/O, but the clock."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

from kimi_mcp.core.json_values import UNREADABLE, from_json, to_json
from kimi_mcp.core.outcome import ALL_CHARS, Outcome, structured
from kimi_mcp.core.redaction import scrub, scrub_values
from kimi_mcp.core.types import MediaPart, Part, Turn, Usage

JSON = Mapping[str, Any]
"""An object of plain JSON values."""

LINES = 20
"""Reported lines of a run that are recorded: the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What a run does, for those who wait for it in another server."""

    doing: str
    """What it is doing, in a line."""
    again: str = ""
    """What comes behind its seconds: which attempt it is."""
    lines: tuple[str, ...] = ()
    """What it reported last."""
    reported: int = 0
    """How many lines it has reported in all."""
    limits: Mapping[str, float | None] | None = None
    """What a run of many requests may use: ``usd``, ``tokens``, ``tool_calls``, ``steps``; None: it has no such."""

    def line(self, seconds: float) -> str:
        """The line that its own server shows."""
        return f"{self.doing} · {seconds:.0f} s{self.again}"

    def new_lines(self, before: Phase | None) -> tuple[str, ...]:
        """What was reported since then, as far as it is recorded."""
        known = 0 if before is None or before.reported > self.reported else before.reported
        return self.lines[-(self.reported - known) :] if self.reported > known else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """What is recorded of a run before anything is paid for."""

    id: str
    """The run's id."""
    caller: str
    """Whom it belongs to."""
    host: str | None
    """The program that called, by its own name; None: it gave none."""
    tool: str
    """The tool that was called."""
    prompt_head: str
    """The beginning of its prompt, in one line."""
    call_key: str | None = None
    """The hash of tool and arguments."""
    started_at: float
    """When it was created."""
    conversation_id: str | None
    """The conversation it adds to."""
    follows: str | None
    """The run whose turns come before its own."""
    request: Mapping[str, Any]
    """What is sent, as JSON; media by hash and size."""
    model_id: str | None
    """The catalogue's id of the model it is sent to."""
    outcome: Outcome
    """The run so far, or how it ended."""
    resumable: bool = False
    """Whether another server may continue it."""
    traceparent: str | None = None
    """Of the request that began it; None: it is not traced."""
    phase: Phase | None = None
    """What it does; None: it has ended, or that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(RunEntry):
    """A run as the store has it, with all that has arrived."""

    owner: str
    """The server it runs or ran in."""
    ended_at: float | None
    """None as long as it runs."""
    lived_s: float = 0.0
    """Seconds that it ran, in all its servers together; recorded only where another one may continue it."""
    cancel_requested: bool = False
    """Whether another server requested its cancellation."""
    orphaned: bool = False
    """Whether its server is dead, and no outcome is recorded."""
    abandoned: int = 0
    """1: its host gave up on it. 2: and somebody else wants it."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.outcome.status == "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended, as the store is to hold it."""

    run_id: str
    """The run's id."""
    outcome: Outcome
    """How it ended, with all its texts; without a ``run_id`` where it was refused, and is no run."""
    ended_at: float
    """When it ended."""
    conversation_id: str | None = None
    """The conversation in which it has the turn."""
    turns: str | None = None
    """JSON: what it adds to its conversation; None where nothing."""
    counted_usd: float | None = None
    """What spending limits count for it, in US dollars; None: what they counted so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """A piece of text that has arrived."""

    run_id: str
    """The run it belongs to."""
    request: int
    """Which of the run's requests brought it, from 0."""
    of: str
    """``answer`` or ``reasoning``."""
    start: int
    """Where it begins, in code points."""
    text: str
    """The piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A step of a run as the store has it."""

    key: str
    """Which step it is, unique within the run."""
    description: Mapping[str, Any]
    """Who makes it, and what it requests."""
    result: Mapping[str, Any] | None
    """Its result; None: not finished."""
    began_at: float
    """When it began."""
    ended_at: float | None
    """None: not finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What steps of a swarm have used, or may use at most."""

    usd: float = 0.0
    """US dollars, at the highest price where the true one is not known."""
    tokens: int = 0
    """Prompt and completion of requests that ended."""
    tool_calls: int = 0
    """Tools that ran."""

    def __add__(self, other: Used) -> Used:
        return Used(
            usd=self.usd + other.usd,
            tokens=self.tokens + other.tokens,
            tool_calls=self.tool_calls + other.tool_calls,
        )


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
    """How many have ended whose cost is not known."""


_OWN_COLUMNS = ("run_id", "conversation_id", "status", "answer", "reasoning")


def as_text(value: Any) -> str:
    """JSON text without any key in it."""
    return _compact(scrub_values(value))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_piece(text: str) -> str:
    """A piece of a text without any key in it, as long as it was, since others begin behind it."""
    clean = scrub(text)
    return text if clean is text else clean[: len(text)].ljust(len(text), "*")


def outcome_as_json(outcome: Outcome, phase: Phase | None = None) -> str:
    """All of an outcome but its page and what has columns of its own: the texts, ids and status. It holds no key.

    ``phase``: what the run does, which other versions leave out.
    """
    value = {name: value for name, value in to_json(outcome).items() if name not in (*_OWN_COLUMNS, "page")}
    return _compact(value if phase is None else value | {"phase": scrub_values(to_json(phase))})


def phase_from_json(text: str | None) -> Phase | None:
    """What a run does, of its recorded outcome; None where that does not say it."""
    try:
        return from_json(Phase, json.loads(text or "")["phase"])
    except UNREADABLE:
        return None


def outcome_from_json(text: str, **columns: Any) -> Outcome:
    """A recorded outcome, with what has columns of its own; raises ``json_values.UNREADABLE``."""
    return from_json(Outcome, json.loads(text) | columns, lists=True)


def turn_as_json(turn: Turn) -> dict[str, Any]:
    """A turn as JSON, whole and exact but for media: of a data URI the head alone, since it may have megabytes."""
    parts = tuple(map(_without_data, turn.parts))
    return to_json(turn if parts == turn.parts else replace(turn, parts=parts), without_defaults=True)


def _without_data(part: Part) -> Part:
    if isinstance(part, MediaPart) and part.url.startswith("data:"):
        return replace(part, url=part.url[: part.url.find(",") + 1])
    return part


def turns_as_json(turns: Iterable[Turn]) -> str:
    """Turns as JSON text."""
    return as_text([turn_as_json(turn) for turn in turns])


def turns_from_json(text: str) -> tuple[Turn, ...]:
    """Recorded turns; raises ``json_values.UNREADABLE``."""
    return tuple(from_json(Turn, row) for row in cast(list[Any], json.loads(text)))


def in_list(record: RunRecord) -> dict[str, Any]:
    """A run among others: all but its texts, its request and its policy."""
    outcome = record.outcome
    # Of a long list each run counts: its texts, and what its agents did, are not looked at.
    short = replace(outcome, answer="", reasoning=None, parsed=None, policy=(), swarm=None, sources=(), error=None)
    result = structured(short, reasoning_chars=0)
    return {
        "run_id": record.id,
        "tool": record.tool,
        "status": outcome.status,
        "prompt": record.prompt_head,
        **_times(record),
        "conversation_id": record.conversation_id,
        "follows": record.follows,
        "host": record.host,
        **{name: result[name] for name in ("model", "provider", "mode", "finish_reason", "usage")},
        "error": outcome.error and outcome.error.code,
    }


def whole(
    record: RunRecord, steps: Sequence[StepRecord], *, before: Sequence[str], after: Sequence[str]
) -> dict[str, Any]:
    """All of a run: the contract's structured result with nothing cut, then what else is known.

    ``before`` are the runs whose turns come before its own, the oldest first; ``after`` those that follow it directly.
    """
    return structured(record.outcome, reasoning_chars=ALL_CHARS) | {
        "tool": record.tool,
        "host": record.host,
        "caller": record.caller,
        "server": record.owner,
        **_times(record),
        "left_behind": record.orphaned,
        "resumable": record.resumable,
        "model_id": record.model_id,
        "traceparent": record.traceparent,
        "request": dict(record.request),
        "conversation": {"before": list(before), "after": list(after)},
        "steps": [
            {
                "key": step.key,
                "description": dict(step.description),
                "result": step.result,
                "began_at": moment(step.began_at),
                "ended_at": moment(step.ended_at),
            }
            for step in steps
        ],
    }


def _times(record: RunRecord) -> dict[str, Any]:
    return {
        "started_at": moment(record.started_at),
        "ended_at": moment(record.ended_at),
        "seconds": round(seconds(record), 3),
    }


def moment(at: float | None) -> str | None:
    """A time in ISO 8601, UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def seconds(record: RunRecord) -> float:
    """How long a run took, or takes by now."""
    return time.time() - record.started_at if record.running else record.outcome.timing.total_s


def tokens(usage: Usage | None) -> int | None:
    """All tokens of a run; None where they are not known."""
    if usage is None or usage.total_tokens is not None:
        return usage and usage.total_tokens
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return usage.prompt_tokens + usage.completion_tokens
