"""``RunRecorder``: what is recorded of a process's runs as they begin, grow and end. I/O: the store's.

What can't be written costs the record, never the answer. An outcome that the store does not take in time goes into a
file beside it, and is retried until it is in the store; until then no other run adds to its conversation.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from kimi_mcp.core import observing
from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.outcome import last_reasoning
from kimi_mcp.core.redaction import open_end
from kimi_mcp.core.types import TextPart, Turn
from kimi_mcp.runs.budgets import SpendingLimits
from kimi_mcp.runs.run import Run
from kimi_mcp.runs.store.day_limits import Held, RunBudget, WantedBudget, midnight
from kimi_mcp.runs.store.records import LINES, Phase, RunEnd, RunEntry, TextDelta, turn_as_json, turns_as_json

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

log = logging.getLogger(__name__)

KEEP = 64
"""Runs that stay readable although the store has no record of them."""

RUNS_AT_ONCE = 100
"""Runs whose new text is written in one piece at most: what begins or ends meanwhile comes between two of them."""

RETRY_AFTER_S = 0.5
"""Seconds before the first retry; then ever longer."""

RETRY_EVERY_S = 5.0
"""Seconds between two retries at most."""


class RunRecorder:
    """Records the runs of one process."""

    def __init__(self, store: RunStore, limits: SpendingLimits, is_ending: Callable[[], bool] = lambda: False) -> None:
        """``is_ending``: whether the server ends, and has little time left for what is still to be written."""
        self.failure_logged = False
        """Whether the log says that the store fails."""
        self._store, self._limits, self._is_ending = store, limits, is_ending
        self._written: dict[str, _Written] = {}
        self._is_writing = False
        self._pending: dict[str, tuple[Run, RunEnd]] = {}
        self._saved: set[str] = set()
        self._unrecorded: deque[Run] = deque(maxlen=KEEP)
        self._ending: dict[str, asyncio.Future[bool]] = {}
        self._retrying: asyncio.Future[None] | None = None

    async def write(self, run: Run) -> None:
        """Record what is known of a run that is about to be sent, or that a caller waits for."""
        self._limits.check(run)
        counted, before = self._limits.counted_usd(run), run.may_be_recorded
        limits, hold = self._limits.of_day(run.caller), self._limits.hold_usd(run)
        run.may_be_recorded = True
        try:
            held = await self._store.record(
                run_entry(run), counted_usd=counted, limits=limits, hold_usd=hold, is_new=not before
            )
        except KimiError:
            run.may_be_recorded = before or self._store.is_remote  # else nothing of it was written
            raise
        run.budget = RunBudget() if held is None else RunBudget(usd=counted + held.usd)
        self._limits.watch(run)
        was_recorded, run.recorded = run.recorded, True
        run.recorded_or_done.set()
        if run.abandoned and not was_recorded:
            await self._store.abandon(run.id, True)

    async def write_new_text(self, live: Mapping[str, Run]) -> None:
        """Record what has arrived since the last time; one write at a time, so that a slow disk piles nothing up."""
        if self._is_writing:
            return
        self._is_writing = True
        try:
            ids = list(live)
            for first in range(0, len(ids), RUNS_AT_ONCE):
                await self._write_text_of(ids[first : first + RUNS_AT_ONCE], live)
        finally:
            self._is_writing = False

    async def _write_text_of(self, ids: Sequence[str], live: Mapping[str, Run]) -> None:
        deltas: list[TextDelta] = []
        changes: dict[str, dict[str, Any]] = {}
        wanted: dict[str, WantedBudget] = {}
        try:
            for run in filter(None, map(live.get, ids)):
                if not run.recorded or run.outcome is not None:
                    continue
                written = self._written.setdefault(run.id, _Written())
                new, counted, phase = written.new_text(run), self._limits.counted_usd(run), _phase_of(run)
                state = run.attempts, counted, phase
                if new or state != written.state or run.task is not None:
                    written.state = state
                    deltas += new
                    outcome = replace(run.snapshot(), answer="", reasoning=None)
                    known = {"counted_usd": counted, "lived_s": run.active_s(), "outcome": outcome, "phase": phase}
                    changes[run.id] = known
                    self._want_budget(run, counted, changes[run.id], wanted)
            if changes:
                held = await self._store.append(deltas, changes, wanted)
                for run_id, budget in wanted.items():
                    self._set_budget(live.get(run_id), changes[run_id]["counted_usd"], budget, held.get(run_id))
        except Exception as fault:  # noqa: BLE001 - whatever it is, answers are given all the same
            self.on_fault(fault)
            for run_id, written in self._written.items():  # it is written again with what comes next, without a hole
                written.reset([delta for delta in deltas if delta.run_id == run_id])

    def _want_budget(self, run: Run, counted: float, changes: dict[str, Any], wanted: dict[str, WantedBudget]) -> None:
        """Let more be held for a run that has used half of what is held; what is held is counted meanwhile."""
        limits, day = self._limits.of_day(run.caller), midnight(self._store.now())
        if not limits or self._store.lease is None:  # SQLite holds nothing
            return
        hold = self._limits.hold_usd(run)
        if run.started_at < day:  # it counts for a day that is over
            run.budget = RunBudget()
        elif run.budget.usd == inf or counted + hold / 2 > run.budget.usd:  # it was resumed, or has used its half
            wanted[run.id] = WantedBudget(usd=hold, limits=limits, day=day)
        else:
            changes["counted_usd"] = run.budget.usd

    def _set_budget(self, run: Run | None, counted: float, wanted: WantedBudget, held: Held | None) -> None:
        if run is None or held is None:
            return
        is_less = held.usd < wanted.usd
        reached = held.limit.error(held.limit.usd, self._store.now()) if is_less else None
        run.budget = RunBudget(usd=counted + held.usd, reached=reached)
        self._limits.watch(run)

    def on_fault(self, fault: BaseException) -> None:
        """Log what keeps a record from being written, once: that is no reason to lose an answer."""
        if not self.failure_logged:
            self.failure_logged = True
            message = "the store does not take what arrives, answers are given all the same: %s"
            if isinstance(fault, KimiError):
                log.warning(message, fault.message)
            else:
                log.warning(message, type(fault).__name__, exc_info=fault)

    def forget(self, run: Run) -> None:
        """Another replica records it from here on."""
        self._written.pop(run.id, None)

    # ── how they end ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def unwritten(self) -> list[Run]:
        """Runs that have ended, and whose outcome is in memory and not in the store."""
        return [*(run for run, end in self._pending.values() if end.outcome.run_id is not None), *self._unrecorded]

    def is_pending(self, run_id: str) -> bool:
        """Whether a run's outcome is still to be written: what it adds to its conversation can't be read yet."""
        return run_id in self._pending

    async def write_end(self, run: Run) -> None:
        """Record how a run ended; a store that fails neither delays nor loses an answer."""
        self._written.pop(run.id, None)
        outcome = run.outcome
        assert outcome is not None
        if not run.may_be_recorded and not run.holds_turn:
            return
        counted = self._limits.counted_usd(run) if outcome.cost_usd is None else outcome.cost_usd
        turns = None
        if outcome.status == "completed" and run.turns:
            reasoning = last_reasoning(outcome.reasoning, run.turns)
            answer = Turn(role="assistant", parts=(TextPart(text=outcome.answer),), reasoning=reasoning)
            turns = turns_as_json((*run.turns, run.answer_turn or answer))
        end = RunEnd(
            run_id=run.id,
            outcome=outcome,
            ended_at=self._store.now(),
            conversation_id=run.conversation_id if run.holds_turn else None,
            turns=turns,
            counted_usd=counted if run.may_be_recorded else 0.0,
        )
        self._pending[run.id] = run, end
        writing = asyncio.ensure_future(self._write(run, end))  # a caller that is cancelled does not cancel it
        self._ending[run.id] = writing
        writing.add_done_callback(lambda _: self._ending.pop(run.id))
        if await self._is_written(writing):
            return
        is_saved = outcome.run_id is None or await self._save(end)
        if run.id not in self._pending:
            return  # it was written meanwhile
        if not is_saved and turns is not None:
            # If this server is killed now, its turn is lost: the result names no conversation that would have it.
            run.outcome = replace(outcome, conversation_id=None)
        if outcome.run_id is None and len(self._pending) > KEEP:
            del self._pending[run.id]  # a refused call: at worst its record is "running" for a while
        elif self._retrying is None or self._retrying.done():
            with observing.without_ids():
                self._retrying = asyncio.ensure_future(self._retry())

    async def _is_written(self, writing: asyncio.Future[bool]) -> bool:
        """Whether an outcome is in the store; waits for those before it, while the store goes on to write them."""
        limits, since = self._store.limits, anyio.current_time()
        while not writing.done():
            last = since if self._is_ending() else min(max(since, self._store.wrote_at), since + limits.queued_s)
            left = last + limits.written_within_s - anyio.current_time()
            if left <= 0:
                break
            await asyncio.wait([writing], timeout=left)
        return writing.done() and writing.result()

    async def _write(self, run: Run, end: RunEnd) -> bool:
        """Whether it is in the store, or never can be."""
        try:
            is_recorded = await self._store.end(end)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is retried, and ends neither run nor server
            if run.may_be_recorded:  # else its caller knows, and only its turn is to be freed
                self.on_fault(fault)
            return False
        if not is_recorded and run.may_be_recorded and end.outcome.run_id is not None:
            self._unrecorded.append(run)  # the store has no record of it any more, or one that another server ended
            if end.turns is not None and run.outcome is not None:
                run.outcome = replace(run.outcome, conversation_id=None)  # its turn is not there
        self._pending.pop(run.id, None)
        if run.id in self._saved:
            self._saved.discard(run.id)
            await anyio.to_thread.run_sync(self._store.pending.remove, run.id)
        return True

    async def _save(self, end: RunEnd) -> bool:
        """Whether it is in a file beside the store."""
        if not await anyio.to_thread.run_sync(self._store.pending.save, end):
            return False
        if end.run_id in self._pending:
            self._saved.add(end.run_id)
        else:  # it was written meanwhile
            await anyio.to_thread.run_sync(self._store.pending.remove, end.run_id)
        return True

    async def _retry(self) -> None:
        """Retry as long as anything is pending."""
        after = RETRY_AFTER_S
        while self._pending:
            await anyio.sleep(after)
            after = min(2 * after, RETRY_EVERY_S)
            pending = [each for run_id, each in self._pending.items() if run_id not in self._ending]
            if any(await asyncio.gather(*(self._write(run, end) for run, end in pending))):
                after = RETRY_AFTER_S  # it works again

    def close(self) -> None:
        """Stop retrying: the process ends. Logs whose outcome the store does not have."""
        if self._retrying is not None:
            self._retrying.cancel()
        ended = {run.id for run in self.unwritten}
        if (lost := sorted(ended - self._saved)) and self._store.is_persistent:
            message = "the end of %s is not in the store (is it locked, or its disk full?): what came last may be lost"
            log.warning(message, ", ".join(lost))
        if saved := sorted(ended & self._saved):
            message = "the end of %s is not in the store yet (is it locked?): it is kept beside it for the next server"
            log.warning(message, ", ".join(saved))


class _Written:
    """How far a run is written."""

    def __init__(self) -> None:
        self.state: tuple[int, float, Phase | None] = (0, 0.0, None)
        """Requests sent, US dollars counted and what it does, as written."""
        self._seen: tuple[int, int] | None = None
        self._lengths: dict[tuple[int, str], int] = {}

    def new_text(self, run: Run) -> list[TextDelta]:
        """What has arrived since the last time."""
        arriving, found = run.arriving(), list[TextDelta]()
        if arriving is None or self._seen == arriving[:2]:
            return found
        self._seen = arriving[:2]
        for of, text in zip(("reasoning", "answer"), arriving.texts(), strict=True):
            key = (arriving.request, of)
            start, end = self._lengths.get(key, 0), len(text)
            if text.endswith("\ufffd"):
                end -= 1  # perhaps half a character, whose other half may follow
            if end > start and not (of == "reasoning" and arriving.has_answer):  # else no more of it comes
                end -= open_end(text[start:end])  # perhaps half a key, which is not known in two pieces
            if end > start:
                found.append(TextDelta(run_id=run.id, request=key[0], of=of, start=start, text=text[start:end]))
                self._lengths[key] = end
        return found

    def reset(self, lost: list[TextDelta]) -> None:
        """What was written last is lost."""
        self.state, self._seen = (0, 0.0, None), None
        for delta in lost:
            self._lengths[delta.request, delta.of] = delta.start


def _phase_of(run: Run) -> Phase:
    (doing, again), lines = run.doing(), run.reports.lines
    return Phase(
        doing=doing, again=again, lines=tuple(lines[-LINES:]), reported=len(lines), limits=run.limits and run.limits()
    )


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
        traceparent=run.traceparent,
        phase=_phase_of(run),
    )


def _request_as_json(run: Run) -> Mapping[str, Any]:
    """What is sent: the call's own turns and parameters."""
    if run.task is not None:
        return {"task": dict(run.task)}
    plan = run.plan
    if plan is None:
        return {}
    return {
        "turns": [turn_as_json(turn) for turn in run.turns or plan.turns],
        "max_tokens": plan.max_tokens,
        "sampling": dict(plan.sampling),
        "effort": plan.effort,
        "web": True if run.task is None and plan.tools else None,
        "response_schema": plan.response_schema,
    }
