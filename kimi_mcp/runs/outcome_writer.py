"""``OutcomeWriter``: how the outcomes of a process's runs get into the store, though it may fail for a while. I/O: its.

A run is told as ended once its end is in the journal or, where that does not take it in time, in a file beside it. It
is then tried again until it is in the journal, and until then nobody else adds to the run's conversation.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.types import TextPart, Turn
from kimi_mcp.runs.run import Run

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

KEEP = 64
"""Runs that stay readable although the journal has no record of them."""

WRITTEN_WITHIN_S = 0.5
"""Seconds that a run waits for its end to be in the journal; then it goes into a file beside it."""

RETRY_AFTER_S = 0.5
"""Seconds after which it is tried again to write what the journal did not take, at first; then ever later."""

RETRY_EVERY_S = 5.0
"""Seconds between two attempts at most."""


class OutcomeWriter:
    """The ends of one process's runs, until they are written. ``not_written`` hears why one is not."""

    def __init__(self, store: RunStore, not_written: Callable[[BaseException], None]) -> None:
        self._store, self._not_written = store, not_written
        self._pending: dict[str, tuple[Run, Outcome]] = {}
        self._saved: set[str] = set()
        self._unrecorded: deque[Run] = deque(maxlen=KEEP)
        self._writing: dict[str, asyncio.Future[bool]] = {}
        self._retrying: asyncio.Future[None] | None = None

    @property
    def readable(self) -> list[Run]:
        """Runs that have ended, and whose end is here and not in the journal."""
        return [*(run for run, outcome in self._pending.values() if outcome.run_id is not None), *self._unrecorded]

    @property
    def unwritten(self) -> list[str]:
        """Runs whose end is not in the journal, and should be."""
        return [run.id for run in self.readable]

    @property
    def lost(self) -> list[str]:
        """Those of them whose end is nowhere but in memory."""
        return [run_id for run_id in self.unwritten if run_id not in self._saved]

    def is_pending(self, run_id: str) -> bool:
        """Whether a run's end is still to be written: what it adds to its conversation can't be read yet."""
        return run_id in self._pending

    async def write(self, run: Run) -> None:
        """Write down how a run ended; an answer is not held up, nor lost, by a journal that fails."""
        outcome = run.outcome
        assert outcome is not None
        if not run.may_be_recorded and not run.holds_turn:
            return
        self._pending[run.id] = run, outcome
        writing = asyncio.ensure_future(self._write(run, outcome))  # it outlives who waits for it, and is not cancelled
        self._writing[run.id] = writing
        writing.add_done_callback(lambda _: self._writing.pop(run.id))
        await asyncio.wait([writing], timeout=WRITTEN_WITHIN_S)
        if writing.done() and writing.result():
            return
        saved = outcome.run_id is None or await self._save(run, outcome)
        if run.id not in self._pending:
            return  # it was written meanwhile
        if not saved and turns_of(run, outcome) is not None:
            # If this server is killed now, nobody will know of this turn: it is not told as one of its conversation.
            run.outcome = replace(outcome, conversation_id=None)
        if outcome.run_id is None and len(self._pending) > KEEP:
            del self._pending[run.id]  # a refused call: at worst its record says for a while that it runs
        elif self._retrying is None or self._retrying.done():
            self._retrying = asyncio.ensure_future(self._retry())

    async def _write(self, run: Run, outcome: Outcome) -> bool:
        """Whether it is in the journal, or never can be."""
        try:
            await self._record(run, outcome)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is tried again, and ends neither run nor server
            if run.may_be_recorded:  # else its caller was told of the store's refusal, and only its turn is to be freed
                self._not_written(fault)
            return False
        self._pending.pop(run.id, None)
        if run.id in self._saved:
            self._saved.discard(run.id)
            await self._store.pending.forget(run.id)
        return True

    async def _record(self, run: Run, outcome: Outcome) -> None:
        freed = False
        if run.may_be_recorded and outcome.run_id is None:  # refused: its caller knows, there is nothing to be lost
            await self._store.forget(run.id)
        elif run.may_be_recorded:
            turns, counted = turns_of(run, outcome), run.counted_at_end or 0.0
            freed = await self._store.end(run.id, outcome, turns=turns, counted_usd=counted)
            if not freed:
                self._unrecorded.append(run)  # there is no record of it any more that could say so
        if run.holds_turn and run.conversation_id is not None and not freed:
            await self._store.leave_turn(run.conversation_id, run.id)

    async def _save(self, run: Run, outcome: Outcome) -> bool:
        """Whether it is in a file beside the journal."""
        counted = run.counted_at_end or 0.0
        if not await self._store.save_outcome(run.id, outcome, turns=turns_of(run, outcome), counted_usd=counted):
            return False
        if run.id in self._pending:
            self._saved.add(run.id)
        else:  # it was written meanwhile
            await self._store.pending.forget(run.id)
        return True

    async def _retry(self) -> None:
        """Write what the journal did not take, as long as there is any."""
        after = RETRY_AFTER_S
        while self._pending:
            await anyio.sleep(after)
            after = min(2 * after, RETRY_EVERY_S)
            left = [each for run_id, each in self._pending.items() if run_id not in self._writing]
            if any(await asyncio.gather(*(self._write(run, outcome) for run, outcome in left))):
                after = RETRY_AFTER_S  # it works again

    def close(self) -> None:
        """Try no more: the process ends."""
        if self._retrying is not None:
            self._retrying.cancel()


def turns_of(run: Run, outcome: Outcome) -> tuple[Turn, ...] | None:
    """What a run adds to its conversation; None where nothing, as its answer is not whole."""
    return (*run.turns, assistant_turn(outcome)) if outcome.status == "completed" and run.turns else None


def assistant_turn(outcome: Outcome) -> Turn:
    """The turn that an answer is in its conversation, with its exact reasoning."""
    return Turn(role="assistant", parts=(TextPart(text=outcome.answer),), reasoning=outcome.reasoning)
