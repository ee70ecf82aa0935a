"""What the server keeps while it runs: settings, the task group of its runs, and the services that answer calls.

The services (pipeline and store) are imported and opened by the first call, so that a host gets its tools at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup
from mcp_types import RequestId

from kimi_mcp.core.background import contained
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings

if TYPE_CHECKING:
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import Run, Runs, RunView
    from kimi_mcp.runs.store.records import RunRecord, StepRecord

RECOVER_AFTER_S = 1.0
"""Seconds from the start until runs of a dead server are looked for: the host's first requests come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What answers calls."""

    pipeline: Pipeline
    """The one path of every call."""
    runs: Runs
    """The runs of this process, and those in the store."""


class ServerState:
    """One server's state, from its start to its end."""

    def __init__(self, settings: Settings, tasks: TaskGroup) -> None:
        self.settings = settings
        """Read from the environment when the server started."""
        self.tasks = tasks
        """The task group of the runs."""
        self.waiting: dict[RequestId, RunView] = {}
        """The run that each open request waits for; a cancelled request's entry stays until its reason is known."""
        self.services: Services | None = None
        """None before the first call."""
        self._opening = anyio.Lock()

    async def open_services(self) -> Services:
        """The services; the first call makes them, in a thread."""
        async with self._opening:
            if self.services is None:
                self.services = await anyio.to_thread.run_sync(self._open)
        return self.services

    async def recover_runs(self) -> None:
        """Continue the runs that a server with the same data folder left when it died."""
        await anyio.sleep(RECOVER_AFTER_S)
        if await anyio.to_thread.run_sync(self._has_orphans):
            await (await self.open_services()).runs.resume_all()

    async def aclose(self) -> None:
        """Close the store, then the connections: what was paid for must be written, a connection may stay open."""
        if self.services is not None:
            await contained("the store could not be closed", self.services.runs.aclose)
            await contained("the connections could not be closed", self.services.pipeline.aclose)

    def _has_orphans(self) -> bool:
        from kimi_mcp.runs.store.locks import has_dead_servers
        from kimi_mcp.runs.store.paths import folder_of

        return self.settings.journal == "on" and has_dead_servers(folder_of(self.settings))

    def _open(self) -> Services:
        from kimi_mcp.pipeline.pipeline import Pipeline
        from kimi_mcp.runs import open_runs

        pipeline = Pipeline(self.settings)
        runs = open_runs(self.tasks, self.settings, lambda task: _resume(task, pipeline), _summarize)
        return Services(pipeline=pipeline, runs=runs)


def _resume(task: Mapping[str, Any], pipeline: Pipeline) -> Callable[[Run], Awaitable[Outcome]]:
    from kimi_mcp.swarm import prepare_resume

    return prepare_resume(task, pipeline)


def _summarize(record: RunRecord, steps: Sequence[StepRecord]) -> Outcome:
    from kimi_mcp.swarm import recovered_outcome

    return recovered_outcome(record, steps)
