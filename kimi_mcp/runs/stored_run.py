"""``RecordedRun``: a run that lives in another server, or that has ended, as the journal has it. I/O: the journal's."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import anyio

from kimi_mcp.core.errors import RunNotFound
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs.run import LOOK_WITHIN_S

if TYPE_CHECKING:
    from kimi_mcp.runs.run import Run
    from kimi_mcp.runs.store.records import RunRecord
    from kimi_mcp.runs.store.store import RunStore

CANCEL_WITHIN_S = 10.0
"""Seconds within which a run in another server must have ended after it was told to."""

LOOK_EVERY_S = 0.25
"""Seconds between two looks at a run that lives in another server."""


class RunAdopter(Protocol):
    """Who goes on with what dead servers left, or ends it (``Runs``)."""

    async def resume(self, record: RunRecord) -> Run | None:
        """Go on with it; None where nobody can, or somebody else does."""
        ...

    async def cancel_orphan(self, record: RunRecord) -> RunRecord:
        """End it; how it stands by now."""
        ...


class RecordedRun:
    """A run that lives in another server, or that has ended: what the journal has of it."""

    def __init__(self, store: RunStore, record: RunRecord, heir: RunAdopter) -> None:
        self._store, self._record, self._heir = store, record, heir

    @property
    def id(self) -> str:
        """Its id."""
        return self._record.id

    async def wait(self) -> None:
        """Until it has ended, there or by the death of its server."""
        while self._record.running:
            await self._renew()
            if self._record.orphaned and (run := await self._heir.resume(self._record)):
                await run.wait()  # its server died while it was waited for: it goes on here
            elif self._record.running:
                await anyio.sleep(LOOK_EVERY_S)

    async def current_outcome(self) -> Outcome:
        """How it stands, with what had been written down; as it stood, where the journal takes long."""
        if self._record.running:
            with anyio.move_on_after(LOOK_WITHIN_S):
                await self._renew()
        return self._record.outcome

    async def cancel(self) -> None:
        """Let the server it lives in cancel it; where that one is dead it ends here and now.

        Returns once it has ended, or has not within ``CANCEL_WITHIN_S``: its server hangs.
        """
        if self._record.orphaned:
            self._record = await self._heir.cancel_orphan(self._record)
        if self._record.running:
            await self._store.request_cancel(self.id)
        with anyio.move_on_after(CANCEL_WITHIN_S):
            await self.wait()

    def phase(self) -> str:
        """What is known of it."""
        return f"running in another server · {time.time() - self._record.started_at:.0f} s"

    async def _renew(self) -> None:
        found = await self._store.find(self.id, None)
        if found is None:  # it was refused before anything was sent, or it was cleared away
            gone = RunNotFound("That run is kept no longer.", fix="Call again if you still need its answer.")
            found = replace(self._record, outcome=replace(self._record.outcome, status="failed", error=gone))
        self._record = found
