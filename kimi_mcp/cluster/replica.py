"""``Replica``: one of several servers on one PostgreSQL, from its start to its end. I/O: the engine's.

How it ends
-----------
- It is drained, on SIGTERM or where ``kimi-mcp cluster drain`` asks for it: it takes no more jobs, and others go on at
  once with those it has.
- Its lease is lost: it was stopped, or cut off from the database, for longer than that, and others may have its jobs.
  It ends all of them without a word; its process is to leave, so that its supervisor starts it anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import anyio

from kimi_mcp.cluster.engine import Engine
from kimi_mcp.cluster.limits import JOB_FORMAT
from kimi_mcp.runs.jobs import Role

log = logging.getLogger(__name__)


class OwnLease(Protocol):
    """What a replica sets on its ``ServerLease``; each is called in other threads than the event loop's."""

    describe: Callable[[], Mapping[str, Any]]
    on_lost: Callable[[], None] | None
    on_drain: Callable[[], None] | None


class Replica:
    """A replica, of which the store is open and its lease is held."""

    def __init__(self, engine: Engine, lease: OwnLease, *, role: Role) -> None:
        self.engine = engine
        self.is_draining = False
        """Whether it takes no more jobs."""
        self._role: Role = role
        self._loop = asyncio.get_running_loop()
        self._requested, self._lost = anyio.Event(), anyio.Event()
        self._draining = anyio.Lock()
        self._leaving: asyncio.Task[None] | None = None
        lease.describe = self._facts
        lease.on_drain = lambda: self._soon(self._requested.set)
        lease.on_lost = lambda: self._soon(self._leave)

    async def start(self) -> None:
        """Start the engine, which takes jobs where its role is to. Raises ``NotConfigured``: it may be tried again."""
        await self.engine.start(worker=self._role != "http")

    async def drain(self) -> None:
        """Take no more jobs, and return those it has to their queues; once it returns, nothing of them is done here."""
        self.is_draining = True
        async with self._draining:
            await self.engine.drain()

    async def aclose(self) -> None:
        """Drain it, and close the engine's connections."""
        await self.drain()
        await self.engine.aclose()

    async def until_drained(self) -> None:
        """Return once a drain of this replica was requested; whoever waits for that drains it."""
        await self._requested.wait()

    async def until_lost(self) -> None:
        """Return once its lease is lost, and its jobs have ended: its process must leave."""
        await self._lost.wait()

    def _facts(self) -> Mapping[str, Any]:
        """What its row says of it."""
        jobs = [job.id for job in self.engine.running]
        takes = None if self._role == "http" else JOB_FORMAT
        return {"role": self._role, "job_format": takes, "draining": self.is_draining, "jobs": jobs}

    def _leave(self) -> None:
        self.is_draining = True
        self._leaving = self._loop.create_task(self._abandoned())

    async def _abandoned(self) -> None:
        try:
            await self.engine.abandon()
        finally:
            self._lost.set()

    def _soon(self, work: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            log.debug("this replica has ended")
