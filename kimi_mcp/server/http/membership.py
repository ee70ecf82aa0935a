"""``Membership``: an HTTP server as one of several replicas, from joining to leaving. I/O: the replica's.

It takes calls once it has joined. It leaves in this order: it is not ready any more and returns its jobs, while
calls are still taken, since a balancer needs a moment to notice; then it takes none.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from kimi_mcp.core.background import contained
from kimi_mcp.core.errors import KimiError
from kimi_mcp.server.http.gate import Gate
from kimi_mcp.server.state import ServerState

if TYPE_CHECKING:
    from kimi_mcp.cluster.replica import Replica

JOIN_EVERY_S = 1.0
"""Seconds between two attempts to join, where the database does not answer."""

log = logging.getLogger(__name__)

Joining = Callable[[ServerState], "Awaitable[Replica]"]
"""Makes the replica of a server that has opened its store; it is not started."""


class Membership:
    """A server's place among the replicas."""

    def __init__(self, gate: Gate, joining: Joining, *, unready_s: float, on_lost: Callable[[], None]) -> None:
        """``unready_s``: seconds that calls are still taken by a replica which is not ready any more."""
        self._gate, self._joining, self._unready_s, self._on_lost = gate, joining, unready_s, on_lost
        self._replica: Replica | None = None
        self._leaves = False
        self.error: KimiError | None = None
        """Why it could not join yet."""
        gate.joining = True

    async def keep(self, state: ServerState) -> None:
        """Join, and stay until it is cancelled; a replica that is drained by command takes nothing more, and stays."""
        if not await contained("this replica ended by a fault of our own", partial(self._keep, state)):
            self._on_lost()

    async def _keep(self, state: ServerState) -> None:
        self._replica = replica = await self._joined(state)
        if self._leaves:  # it was stopped meanwhile
            await contained("jobs could not be returned", replica.drain)
            return
        self._gate.joining = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            await replica.until_drained()
            log.warning("this replica was asked to drain: it takes no more calls and no more jobs")
            await self.drain(lambda: False)

    async def drain(self, hurried: Callable[[], bool]) -> None:
        """Return the jobs, and take no more calls a moment later. ``hurried``: whether nobody has that moment."""
        if self._leaves:
            return
        self._leaves = self._gate.leaving = True
        end = anyio.current_time() + self._unready_s
        if self._replica is not None:
            await contained("jobs could not be returned", self._replica.drain)
            while anyio.current_time() < end and not hurried():  # noqa: ASYNC110 - a signal has no event
                await anyio.sleep(0.05)
        self._gate.drain()

    async def aclose(self) -> None:
        """Leave for good."""
        if self._replica is not None:
            await contained("the engine could not be closed", self._replica.aclose)

    async def _joined(self, state: ServerState) -> Replica:
        while True:
            replica: Replica | None = None
            try:
                replica = await self._joining(state)
                await replica.start()
            except KimiError as error:
                if replica is not None:
                    await contained("an engine that did not start could not be closed", replica.aclose)
                if self.error is None:
                    log.warning("this replica could not join yet: %s %s", error.message, error.fix)
                self.error = error
                await anyio.sleep(JOIN_EVERY_S)
            else:
                self.error = None
                return replica

    async def _watch(self) -> None:
        assert self._replica is not None
        await self._replica.until_lost()
        log.error("this replica was not heard of for so long that others take it for dead: it leaves")
        self._on_lost()
