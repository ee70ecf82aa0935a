"""``OutcomeWriter``: how the outcomes of a process's runs get into the store, though it may fail for a while. I/O: its.

A run is reported as ended once its outcome is in the store or, where that takes too long, in a file beside it. It is
then retried until it is in the store, and until then no other run adds to its conversation.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from kimi_mcp.core.types import TextPart, Turn
from kimi_mcp.runs.run import Run
from kimi_mcp.runs.store.records import RunEnd
from kimi_mcp.runs.store.serializers import turns_as_json

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

KEEP = 64
"""Runs that stay readable although the store has no record of them."""

RETRY_AFTER_S = 0.5
"""Seconds before the first retry; then ever longer."""

RETRY_EVERY_S = 5.0
"""Seconds between two retries at most."""


class OutcomeWriter:
    """The outcomes of one process's runs, until they are written. ``on_fault`` is called with what went wrong."""

    def __init__(self, store: RunStore, on_fault: Callable[[BaseException], None]) -> None:
        self._store, self._on_fault = store, on_fault
        self._pending: dict[str, tuple[Run, RunEnd]] = {}
        self._saved: set[str] = set()
        self._unrecorded: deque[Run] = deque(maxlen=KEEP)
        self._writing: dict[str, asyncio.Future[bool]] = {}
        self._retrying: asyncio.Future[None] | None = None

    @property
    def unwritten(self) -> list[Run]:
        """Runs that have ended, and whose outcome is in memory and not in the store."""
        return [*(run for run, end in self._pending.values() if end.outcome.run_id is not None), *self._unrecorded]

    def is_saved(self, run: Run) -> bool:
        """Whether a run's outcome is in a file beside the store."""
        return run.id in self._saved

    def is_pending(self, run_id: str) -> bool:
        """Whether a run's outcome is still to be written: what it adds to its conversation can't be read yet."""
        return run_id in self._pending

    async def write(self, run: Run, counted_usd: float) -> None:
        """Write how a run ended; a store that fails neither delays nor loses an answer."""
        outcome = run.outcome
        assert outcome is not None
        if not run.may_be_recorded and not run.holds_turn:
            return
        turns = None
        if outcome.status == "completed" and run.turns:
            answer = Turn(role="assistant", parts=(TextPart(text=outcome.answer),), reasoning=outcome.reasoning)
            turns = turns_as_json((*run.turns, answer))
        end = RunEnd(
            run_id=run.id,
            outcome=outcome,
            ended_at=self._store.now(),
            conversation_id=run.conversation_id if run.holds_turn else None,
            turns=turns,
            counted_usd=counted_usd,
        )
        self._pending[run.id] = run, end
        writing = asyncio.ensure_future(self._write(run, end))  # a caller that is cancelled does not cancel it
        self._writing[run.id] = writing
        writing.add_done_callback(lambda _: self._writing.pop(run.id))
        await asyncio.wait([writing], timeout=self._store.limits.written_within_s)
        if writing.done() and writing.result():
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
            self._retrying = asyncio.ensure_future(self._retry())

    async def _write(self, run: Run, end: RunEnd) -> bool:
        """Whether it is in the store, or never can be."""
        try:
            is_recorded = await self._store.end(end)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is retried, and ends neither run nor server
            if run.may_be_recorded:  # else its caller knows, and only its turn is to be freed
                self._on_fault(fault)
            return False
        if not is_recorded and run.may_be_recorded and end.outcome.run_id is not None:
            self._unrecorded.append(run)  # the store has no record of it any more
        self._pending.pop(run.id, None)
        if run.id in self._saved:
            self._saved.discard(run.id)
            await self._store.pending.forget(run.id)
        return True

    async def _save(self, end: RunEnd) -> bool:
        """Whether it is in a file beside the store."""
        if not await self._store.pending.keep(end):
            return False
        if end.run_id in self._pending:
            self._saved.add(end.run_id)
        else:  # it was written meanwhile
            await self._store.pending.forget(end.run_id)
        return True

    async def _retry(self) -> None:
        """Retry as long as anything is pending."""
        after = RETRY_AFTER_S
        while self._pending:
            await anyio.sleep(after)
            after = min(2 * after, RETRY_EVERY_S)
            pending = [each for run_id, each in self._pending.items() if run_id not in self._writing]
            if any(await asyncio.gather(*(self._write(run, end) for run, end in pending))):
                after = RETRY_AFTER_S  # it works again

    def close(self) -> None:
        """Stop retrying: the process ends."""
        if self._retrying is not None:
            self._retrying.cancel()
