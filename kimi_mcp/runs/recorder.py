"""``RunRecorder``: what is recorded of a process's runs as they begin, grow and end. I/O: the store's.

What can't be written costs the record, never the answer: that stays readable in memory, and is written once the store
works again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.redaction import open_end
from kimi_mcp.runs.budgets import SpendingLimits
from kimi_mcp.runs.outcome_writer import OutcomeWriter
from kimi_mcp.runs.run import Run
from kimi_mcp.runs.store.records import RunEntry, TextDelta
from kimi_mcp.runs.store.serializers import turn_as_json

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

log = logging.getLogger(__name__)


class RunRecorder:
    """Records the runs of one process."""

    def __init__(self, store: RunStore, limits: SpendingLimits) -> None:
        self.outcomes = OutcomeWriter(store, self._on_fault)
        """How its runs ended, until the store has that."""
        self.failure_logged = False
        """Whether the log says that the store fails."""
        self._store, self._limits = store, limits
        self._written: dict[str, _Written] = {}
        self._is_writing = False

    async def write(self, run: Run) -> None:
        """Record what is known of a run that is about to be sent, or that a caller waits for."""
        self._limits.check(run)
        self._limits.watch(run)
        counted, before = self._limits.counted_usd(run), run.may_be_recorded
        run.may_be_recorded = True
        try:
            await self._store.record(run_entry(run), counted_usd=counted, day_limit_usd=self._limits.day_usd)
        except KimiError:
            run.may_be_recorded = before or self._store.is_remote  # else nothing of it was written
            raise
        was_recorded, run.recorded = run.recorded, True
        if run.abandoned and not was_recorded:
            await self._store.abandon(run.id, True)

    async def write_end(self, run: Run) -> None:
        """Record how a run ended; a store that fails neither delays nor loses an answer."""
        counted = 0.0
        if run.outcome is not None and run.may_be_recorded:
            known = run.outcome.cost_usd
            counted = self._limits.counted_usd(run) if known is None else known
        await self.outcomes.write(run, counted)

    def write_new_text(self, live: Mapping[str, Run]) -> None:
        """Record what has arrived since the last time, once that is written: a slow disk piles nothing up."""
        if self._is_writing:
            return
        deltas: list[TextDelta] = []
        changes: dict[str, dict[str, Any]] = {}
        for run in live.values():
            if not run.recorded or run.outcome is not None:
                continue
            written, columns = self._written.setdefault(run.id, _Written()), dict[str, Any]()
            new = written.deltas(run)
            deltas += new
            if new or run.progress is not None:
                columns["counted_usd"] = self._limits.counted_usd(run)
            if run.task is not None:
                columns["lived_s"] = run.active_s()
            state = run.attempts, columns["counted_usd"] if run.progress is not None else 0.0
            if state != written.state:
                written.state = state
                columns["outcome"] = replace(run.snapshot(), answer="", reasoning=None)
            if columns:
                changes[run.id] = columns

        def done(fault: BaseException | None) -> None:
            self._is_writing = False
            if fault is not None:
                self._on_fault(fault)
                for run_id in changes:  # it is written again with what comes next: a record has no holes
                    if (written := self._written.get(run_id)) is not None:
                        written.reset([one for one in deltas if one.run_id == run_id])

        if changes:
            self._is_writing = True
            self._store.append(deltas, changes, done)

    async def attempt(self, writing: Awaitable[object]) -> None:
        """Write something whose loss is no reason to lose an answer."""
        try:
            await writing
        except KimiError as fault:
            self._on_fault(fault)

    def _on_fault(self, fault: BaseException) -> None:
        if not self.failure_logged:
            self.failure_logged = True
            reason = fault.message if isinstance(fault, KimiError) else type(fault).__name__
            log.warning("the store does not take what arrives, answers are given all the same: %s", reason)

    def forget(self, run: Run) -> None:
        """It has ended: how far it was written does not matter any more."""
        self._written.pop(run.id, None)


class _Written:
    """How far a run is written."""

    def __init__(self) -> None:
        self.state: tuple[int, float] = (0, 0.0)
        """Requests sent and US dollars counted, as written."""
        self._seen: tuple[int, int] | None = None
        self._lengths: dict[tuple[int, str], int] = {}

    def deltas(self, run: Run) -> list[TextDelta]:
        """What has arrived since the last time."""
        accumulator, found = run.request_state.accumulator, list[TextDelta]()
        if self._seen == (run.requests, accumulator.pieces):
            return found
        self._seen = (run.requests, accumulator.pieces)
        for of, text in (("reasoning", accumulator.reasoning or ""), ("answer", accumulator.answer)):
            key = (run.requests, of)
            start, end = self._lengths.get(key, 0), len(text)
            if text.endswith("\ufffd"):
                end -= 1  # perhaps half a character, whose other half may follow
            if end > start:
                end -= open_end(text[start:end])  # perhaps half a key, which is not known in two pieces
            if end > start:
                found.append(TextDelta(run_id=run.id, request=run.requests, of=of, start=start, text=text[start:end]))
                self._lengths[key] = end
        return found

    def reset(self, lost: list[TextDelta]) -> None:
        """What was written last is lost."""
        self.state, self._seen = (0, 0.0), None
        for delta in lost:
            self._lengths[delta.request, delta.of] = delta.start


def run_entry(run: Run) -> RunEntry:
    """What the store holds of a run that has not ended."""
    return RunEntry(
        id=run.id,
        caller=run.caller,
        host=run.host,
        tool=run.tool,
        prompt_head=run.prompt_head,
        call_key=run.call_key,
        started_at=run.started_at,
        conversation_id=run.conversation_id,
        follows=run.follows,
        request=_request_as_json(run),
        model_id=run.plan and run.plan.profile.model.id,
        outcome=replace(run.snapshot(), answer="", reasoning=None),
        resumable=run.task is not None,
    )


def _request_as_json(run: Run) -> Mapping[str, Any]:
    """What is sent, for whoever looks at the run later: the call's own turns and parameters."""
    if run.task is not None:
        return {"task": dict(run.task)}
    plan = run.plan
    if plan is None:
        return {}
    return {
        "turns": [turn_as_json(turn) for turn in run.turns or plan.turns],
        "max_tokens": plan.max_tokens,
        "said": dict(plan.sampling),
        "effort": plan.effort,
        "response_schema": plan.response_schema,
    }
