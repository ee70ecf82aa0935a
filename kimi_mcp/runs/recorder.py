"""``RunRecorder``: what the journal is told of the runs of a process, as they begin, grow and end. I/O: the journal's.

What can't be written costs the record, never the answer: it stays readable in memory, and is written when the journal
works again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.redaction import open_end
from kimi_mcp.core.types import Turn
from kimi_mcp.runs.budgets import SpendingLimits
from kimi_mcp.runs.outcome_writer import OutcomeWriter
from kimi_mcp.runs.run import Run
from kimi_mcp.runs.store.records import RunEntry, TextDelta, turn_as_json

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

log = logging.getLogger(__name__)


class RunRecorder:
    """What is written down of the runs of one process. Mutable: it remembers how far it is."""

    def __init__(self, store: RunStore, limits: SpendingLimits) -> None:
        self.ends = OutcomeWriter(store, self._not_written)
        """How its runs ended, until the journal has that."""
        self.said_broken = False
        """Whether the log has been told that the journal fails."""
        self._store, self._limits = store, limits
        self._written: dict[tuple[str, int, str], int] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._stands: dict[str, tuple[int, float]] = {}
        self._writing = False

    async def write(self, run: Run) -> None:
        """Write down what is known of a run that is about to be sent, or that somebody waits for."""
        self._limits.check(run)
        self._limits.watch(run)
        counted = self._limits.counted_usd(run)
        outcome = replace(run.snapshot(), answer="", reasoning=None)
        entry = RunEntry(
            id=run.id,
            caller=run.caller,
            host=run.host,
            tool=run.tool,
            prompt_head=run.prompt_head,
            call_key=run.call_key,
            started_at=run.started_at,
            conversation_id=run.conversation_id,
            follows=run.follows,
            request=request_as_json(run),
            model_id=run.plan and run.plan.profile.model.id,
            outcome=outcome,
            resumable=run.task is not None,
        )
        if run.recorded:
            await self._store.renew(entry, counted_usd=counted, day_limit_usd=self._limits.day_usd)
            return
        before, run.may_be_recorded = run.may_be_recorded, True
        try:
            await self._store.begin(entry, counted_usd=counted, day_limit_usd=self._limits.day_usd)
        except KimiError:
            run.may_be_recorded = before or self._store.is_remote  # else it was refused, whole
            raise
        run.recorded = True
        if run.abandoned:
            await self._store.abandon(run.id, True)

    async def write_end(self, run: Run) -> None:
        """Write down how a run ended; an answer is not held up, nor lost, by a journal that fails."""
        if run.outcome is not None and run.may_be_recorded:
            run.counted_at_end = run.outcome.cost_usd
            if run.counted_at_end is None:
                run.counted_at_end = self._limits.counted_usd(run)
        await self.ends.write(run)

    def write_grown(self, live: Mapping[str, Run]) -> None:
        """What has arrived since the last time; one writing at a time, so that nothing piles up behind a slow disk."""
        if self._writing:
            return
        grown: list[TextDelta] = []
        counted: dict[str, float] = {}
        sent: dict[str, Outcome] = {}
        lived: dict[str, float] = {}
        for run in live.values():
            if not run.recorded or run.outcome is not None:
                continue  # whose end is on its way to the journal has nothing more to say
            if (new := self._grown(run)) or run.progress is not None:
                grown += new
                counted[run.id] = self._limits.counted_usd(run)
            if run.task is not None:
                lived[run.id] = run.active_s()
            stands = run.attempts, counted.get(run.id, 0.0) if run.progress is not None else 0.0
            if stands != self._stands.get(run.id, (0, 0.0)):
                self._stands[run.id] = stands
                sent[run.id] = replace(run.snapshot(), answer="", reasoning=None)

        def done(fault: BaseException | None) -> None:
            self._writing = False
            if fault is not None:
                self._not_written(fault)
                self._write_again(live, grown, sent)

        if grown or counted or sent or lived:
            self._writing = True
            self._store.append(grown, counted, sent, done, lived=lived)

    def _write_again(self, live: Mapping[str, Run], grown: Sequence[TextDelta], sent: Iterable[str]) -> None:
        """What could not be written is tried anew with what comes next: a record has no holes."""
        for one in grown:
            if one.run_id in live:
                self._written[one.run_id, one.request, one.of] = one.start
                self._seen.pop(one.run_id, None)
        for run_id in sent:
            self._stands.pop(run_id, None)

    def _grown(self, run: Run) -> list[TextDelta]:
        accumulator, grown = run.request_state.accumulator, list[TextDelta]()
        if self._seen.get(run.id) == (run.requests, accumulator.pieces):
            return grown
        self._seen[run.id] = (run.requests, accumulator.pieces)
        for of, text in (("reasoning", accumulator.reasoning), ("answer", accumulator.answer)):
            key = (run.id, run.requests, of)
            start = self._written.get(key, 0)
            end = len(text or "")
            if text and text[-1] == "\ufffd":
                end -= 1  # half a character, perhaps: its other half may follow
            if text and end > start:
                end -= open_end(text[start:end])  # half a key, perhaps, which nobody would know in two pieces
            if text and end > start:
                grown.append(TextDelta(run_id=run.id, request=run.requests, of=of, start=start, text=text[start:end]))
                self._written[key] = end
        return grown

    async def attempt(self, writing: Awaitable[object]) -> bool:
        """Whether something could be written; what can't be is no reason to lose an answer."""
        try:
            await writing
        except KimiError as fault:
            self._not_written(fault)
            return False
        return True

    def _not_written(self, fault: BaseException | None) -> None:
        if fault is not None and not self.said_broken:
            self.said_broken = True
            reason = fault.message if isinstance(fault, KimiError) else type(fault).__name__
            log.warning("the journal does not take what arrives, answers are given all the same: %s", reason)

    def forget(self, run: Run) -> None:
        """It has ended: how far it was written does not matter any more."""
        self._seen.pop(run.id, None)
        self._stands.pop(run.id, None)
        for key in [key for key in self._written if key[0] == run.id]:
            del self._written[key]


def request_as_json(run: Run) -> Mapping[str, Any]:
    """What is sent, for whoever looks at the run later: the call's own turns, and what was said beside them."""
    if run.task is not None:
        return {"task": dict(run.task)}
    plan = run.plan
    if plan is None:
        return {}
    own: Sequence[Turn] = run.turns or plan.turns
    return {
        "turns": [turn_as_json(turn) for turn in own],
        "max_tokens": plan.max_tokens,
        "said": dict(plan.sampling),
        "effort": plan.effort,
        "response_schema": plan.response_schema,
    }
