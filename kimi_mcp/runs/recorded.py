"""``RecordedRun``: a run of another server, or one that has ended, as the store has it. I/O: the store's.

However many wait here for a run of another server, one ``RunFollower`` reads it for all of them: once its server says
that it has changed, and now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from kimi_mcp.core.errors import NotConfigured, RunNotFound
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs.rounds import Reports
from kimi_mcp.runs.run import STORE_WITHIN_S

if TYPE_CHECKING:
    from kimi_mcp.runs.registry import Runs
    from kimi_mcp.runs.store.records import RunRecord

CANCEL_WITHIN_S = 10.0
"""Seconds within which a run in another server must have ended once its cancellation is requested."""

READ_EVERY_S = 0.25
"""Seconds between two reads of a run in another server that is not heard."""

RETRY_AFTER_S = 1.0
"""Seconds until a database server that failed is read again."""

log = logging.getLogger(__name__)


class RecordedRun:
    """A run in another server, or one that has ended."""

    def __init__(self, runs: Runs, record: RunRecord) -> None:
        self._runs = runs
        self.record = record
        """As it was last read."""
        self.reports = Reports()
        """What it reports while somebody waits for it here."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def tool(self) -> str:
        """The tool that was called."""
        return self.record.tool

    @property
    def started_at(self) -> float:
        """When it was created, in seconds since 1970."""
        return self.record.started_at

    async def begun(self) -> None:
        """It is recorded."""

    async def wait(self) -> None:
        """Wait until it has ended, in its server or by the death of that."""
        if self.record.running:
            with self._runs.following(self) as follower:
                await follower.over.wait()
            if follower.fault is not None:
                raise follower.fault

    async def current_outcome(self) -> Outcome:
        """Its outcome, as far as it is recorded; as it was before, where the store is slow or its server is away."""
        if self.record.running:
            try:
                with anyio.move_on_after(STORE_WITHIN_S):
                    self.update(await read_again(self._runs, self.record))
            except NotConfigured:
                if not self._runs.store.notifications.can_be_heard:
                    raise
        return self.record.outcome

    async def cancel(self) -> None:
        """Request its cancellation, or end it where its server is dead; waits for that, at most ``CANCEL_WITHIN_S``."""
        if self.record.orphaned:
            self.record = await self._runs.cancel_orphan(self.record)
        if self.record.running:
            self.record = await self._runs.request_cancel(self.record)
        with anyio.move_on_after(CANCEL_WITHIN_S):
            await self.wait()

    def phase(self) -> str:
        """What it is doing, in a line, as its own server says it."""
        if (run := self._runs.live.get(self.id)) is not None:
            return run.phase()  # it goes on here
        seconds, phase = self._runs.store.now() - self.record.started_at, self.record.phase
        return f"running in another server · {seconds:.0f} s" if phase is None else phase.line(seconds)

    def update(self, record: RunRecord) -> None:
        """It was read again."""
        before, self.record = self.record.phase, record
        if record.phase is not None:
            for line in record.phase.new_lines(before):
                self.reports.add(line)


class RunFollower:
    """Reads a run of another server as long as anybody waits for it here, and continues it where that server dies."""

    def __init__(self, runs: Runs, record: RunRecord) -> None:
        self.over = anyio.Event()
        """Set when the run has ended, or reading it has failed."""
        self.fault: Exception | None = None
        """Why that has failed; None: it has not."""
        self._runs, self._record = runs, record
        self._scope, self._waiting = anyio.CancelScope(), list[RecordedRun]()

    @contextmanager
    def joined(self, run: RecordedRun) -> Generator[RunFollower]:
        """Keep a waiter's run up to date."""
        self._waiting.append(run)
        try:
            yield self
        finally:
            self._waiting.remove(run)
            if not self._waiting:
                self._leave()
                self._scope.cancel()

    async def follow(self) -> None:
        """Read it until it has ended, or nobody waits any more."""
        try:
            with self._scope:
                await self._follow()
        except Exception as fault:  # noqa: BLE001 - whoever waits gets it
            self.fault = fault
        finally:
            self._leave()
            self.over.set()

    def _leave(self) -> None:
        """Who comes from here on needs another one."""
        if self._runs.followers.get(self._record.id) is self:
            del self._runs.followers[self._record.id]

    async def _follow(self) -> None:
        store = self._runs.store
        async with store.notifications.waiting("run", self._record.id) as waiter:
            while True:
                try:
                    await self._read()
                except NotConfigured as fault:
                    if not store.notifications.can_be_heard:
                        raise
                    log.debug("%s can't be read: %s", self._record.id, fault.message)
                    await anyio.sleep(RETRY_AFTER_S)  # the run goes on meanwhile: its waiters have their own patience
                if not self._record.running:
                    return
                await waiter.next(store.limits.look_every_s, deaf_s=READ_EVERY_S)

    async def _read(self) -> None:
        self._set(await read_again(self._runs, self._record))
        if self._record.orphaned and (run := await self._runs.resume(self._record)):
            await run.wait()  # its server died meanwhile: it goes on here
            self._set(await read_again(self._runs, self._record))

    def _set(self, record: RunRecord) -> None:
        self._record = record
        for run in self._waiting:
            run.update(record)


async def read_again(runs: Runs, record: RunRecord) -> RunRecord:
    """A run as it is by now."""
    found = await runs.store.find(record.id, None)
    if found is not None:
        return found
    # It was refused before anything was sent, or it was removed.
    gone = RunNotFound("That run is kept no longer.", fix="Call again if you still need its answer.")
    return replace(record, outcome=replace(record.outcome, status="failed", error=gone))
