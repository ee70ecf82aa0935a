"""What the store holds, as values: runs, conversations, steps, totals. Pure, no I/O. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kimi_mcp.core.outcome import Outcome

JSON = Mapping[str, Any]
"""An object of plain JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """What is recorded of a run before anything is paid for."""

    id: str
    """The run's id."""
    caller: str
    """Whom it belongs to."""
    host: str | None
    """The program that asked, by its own name; None: it gave none."""
    tool: str
    """The tool that was called."""
    prompt_head: str
    """The beginning of its prompt, in one line."""
    call_key: str | None = None
    """The hash of tool and arguments."""
    started_at: float
    """When it was asked for."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(RunEntry):
    """A run as the store has it, with all that has arrived."""

    owner: str
    """The server it runs or ran in."""
    ended_at: float | None
    """None as long as it runs."""
    lived_s: float = 0.0
    """Seconds that it ran, in all its servers together; recorded only where another one may continue it."""
    cancel_asked: bool = False
    """Whether its server was asked to cancel it."""
    orphaned: bool = False
    """Whether its server is dead, and no outcome is recorded."""

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
    """Who makes it, and what it asks for."""
    result: Mapping[str, Any] | None
    """Its result; None: not finished."""
    began_at: float
    """When it began."""
    ended_at: float | None
    """None: not finished."""


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
