"""What is told of a run that was written down, as JSON: in a list, and whole. No I/O, but the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from kimi_mcp.core.outcome import WHOLE, structured
from kimi_mcp.core.types import Usage
from kimi_mcp.runs.store.records import RunRecord, StepRecord


def in_list(record: RunRecord) -> dict[str, Any]:
    """A run among others: all that is known but its texts, what was sent and what the policy said."""
    outcome = record.outcome
    return {
        "run_id": record.id,
        "tool": record.tool,
        "status": outcome.status,
        "prompt": record.prompt_head,
        "started_at": moment(record.started_at),
        "ended_at": moment(record.ended_at),
        "seconds": round(seconds(record), 3),
        "conversation_id": record.conversation_id,
        "follows": record.follows,
        "host": record.host,
        "model": {"asked": outcome.model_asked, "sent": outcome.model_sent, "answered": outcome.model_answered},
        "provider": outcome.provider,
        "mode": outcome.mode,
        "finish_reason": outcome.finish_reason,
        "usage": structured(outcome, reasoning_chars=0)["usage"],
        "error": outcome.error and outcome.error.code,
    }


def whole(
    record: RunRecord, steps: Sequence[StepRecord], *, before: Sequence[str], after: Sequence[str]
) -> dict[str, Any]:
    """All of a run: the contract's structured result with nothing cut, then what else is known.

    ``before`` are the runs whose turns come before its own, the oldest first; ``after`` those that follow it at once.
    """
    return structured(record.outcome, reasoning_chars=WHOLE) | {
        "tool": record.tool,
        "host": record.host,
        "caller": record.caller,
        "server": record.owner,
        "started_at": moment(record.started_at),
        "ended_at": moment(record.ended_at),
        "seconds": round(seconds(record), 3),
        "left_behind": record.orphaned,
        "resumable": record.resumable,
        "model_id": record.model_id,
        "request": dict(record.request),
        "conversation": {"before": list(before), "after": list(after)},
        "steps": [
            {
                "key": step.key,
                "told": dict(step.told),
                "result": None if step.result is None else dict(step.result),
                "began_at": moment(step.began_at),
                "ended_at": moment(step.ended_at),
            }
            for step in steps
        ],
    }


def moment(at: float | None) -> str | None:
    """A time as ISO 8601 says it, in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def seconds(record: RunRecord) -> float:
    """How long it took, or takes by now."""
    return time.time() - record.started_at if record.running else record.outcome.timing.total_s


def tokens(usage: Usage | None) -> int | None:
    """All tokens of a run; None where they are not known."""
    if usage is None or usage.total_tokens is not None:
        return usage and usage.total_tokens
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return usage.prompt_tokens + usage.completion_tokens
