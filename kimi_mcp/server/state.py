"""``ServerState``: what one server keeps, from its start to its end. I/O: the pipeline's and the store's.

The pipeline and the runs are imported and opened after the start, or by a call that comes earlier, so that a host gets
its tools at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kimi_mcp.core.background import contained
from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.server import client_quirks
from kimi_mcp.server.callers import LOCAL
from kimi_mcp.server.streams import RequestKey, WaitingCalls

if TYPE_CHECKING:
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import Run, Runs, RunView
    from kimi_mcp.runs.store.config import StoreLimits
    from kimi_mcp.runs.store.records import RunRecord, StepRecord
    from kimi_mcp.swarm.limits import SwarmLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """What the server waits for, in seconds."""

    first_progress_s: float = 5.0
    """Until progress is first reported: earlier reports disconnect some hosts (seen of Claude Desktop, 2026)."""
    progress_every_s: float = 3.0
    """Between two reports of progress."""
    reply_earlier_s: float = 1.0
    """How long before its host's own timeout a call is answered with its run."""
    task_after_s: float = 10.0
    """Until a call of a client that takes tasks becomes one, for a tool whose calls may do so."""
    poll_every_s: float = 2.0
    """Between two looks of a client at a task, as it is advised."""
    roots_s: float = 3.0
    """For a host that offers roots to list them."""
    recover_after_s: float = 1.0
    """From the start until runs of a dead server are searched: the host's first requests come first."""
    warm_up_after_s: float = 0.3
    """From the start until what a first call needs is imported and opened, likewise."""
    store_s: float = 3.0
    """For the store at least, however soon its host wants a reply: the first call has to open it."""
    stream_grace_s: float = 15.0
    """Until a run over HTTP whose stream closed is cancelled, unless somebody wants it again."""
    close_s: float = 0.5
    """For closing the store and the connections."""
    store: StoreLimits | None = None
    """What the runs and their store wait for; None: the usual."""


def make_pipeline(settings: Settings) -> Pipeline:
    """The pipeline of a server. Imports it, which takes a while."""
    from kimi_mcp.pipeline.pipeline import Pipeline

    return Pipeline(settings)


class ServerState:
    """One server's state."""

    def __init__(
        self,
        settings: Settings,
        tasks: TaskGroup,
        timings: Timings,
        pipeline: Callable[[Settings], Pipeline],
        swarm_limits: SwarmLimits | None,
    ) -> None:
        self.settings = settings
        """Read from the environment when the server started."""
        self.tasks = tasks
        """The task group of the runs."""
        self.timings = timings
        self.swarm_limits = swarm_limits
        """The limits that no setting and no call names; None: the defaults."""
        self.waiting: dict[RequestKey, RunView] = {}
        """The run that each open request waits for; a cancelled request's entry stays until its reason is known."""
        self.answered: dict[RequestKey, str] = {}
        """The runs that go on after the latest replies: their hosts may have given up as the reply was under way."""
        self.rejoined: deque[str] = deque(maxlen=64)
        """The latest runs that a call joined as a task, whose results report that."""
        self.calls = WaitingCalls(tasks, timings.stream_grace_s, self.abandon, self.waiting)
        """The calls over HTTP that wait for runs."""
        self.waits: set[anyio.CancelScope] = set()
        """The waits of calls for their runs."""
        self.answer_by = inf
        """When every call is answered with what is there, by anyio's clock."""
        self.opened: tuple[Pipeline, Runs] | None = None
        """None before the first call."""
        self._make_pipeline = pipeline
        self._opening = anyio.Lock()

    async def open(self) -> tuple[Pipeline, Runs]:
        """The pipeline, and the runs of this process and in the store; the first call opens both, in a thread."""
        if self.opened is None:
            async with self._opening:
                if self.opened is None:
                    self.opened = await anyio.to_thread.run_sync(self._open)
        return self.opened

    async def open_runs(self) -> Runs:
        """The runs of this process and in the store."""
        return (await self.open())[1]

    @contextmanager
    def store_within(self, deadline: float | None = None) -> Generator[None]:
        """Bound what waits for the store by the host's patience: ``NotConfigured`` where that is over.

        ``deadline``: by anyio's clock; None: the request has just arrived.
        """
        now = anyio.current_time()
        latest = now + self.settings.reply_within_s if deadline is None else deadline
        try:
            with anyio.fail_at(max(latest, now + self.timings.store_s)):
                yield
        except TimeoutError:
            from kimi_mcp.runs.store import errors

            raise errors.silent(by_url=self.settings.database_url is not None) from None

    def answer_all(self) -> None:
        """From here on every call is answered with what is there, those that wait too: the server ends."""
        self.answer_by = anyio.current_time()
        for wait in self.waits:
            wait.cancel()

    async def abandon(self, run_id: str) -> None:
        """The host of a run gave up on it."""
        await (await self.open_runs()).abandon(run_id)

    async def recover_runs(self) -> None:
        """Continue the runs that a server with the same data folder left when it died."""
        await anyio.sleep(self.timings.recover_after_s)
        if await anyio.to_thread.run_sync(self._has_orphans):
            await (await self.open_runs()).resume_all()

    async def warm_up(self) -> None:
        """Import and open what a first call needs, so that it waits for nothing."""
        await anyio.sleep(self.timings.warm_up_after_s)
        await anyio.to_thread.run_sync(_import_late_modules, abandon_on_cancel=True)
        await (await self.open_runs()).latest(LOCAL)  # the first that needs the store opens it

    async def aclose(self) -> None:
        """Close the store, then the connections: what was paid for must be written, a connection may stay open."""
        if self.opened is not None:
            pipeline, runs = self.opened
            with anyio.move_on_after(self.timings.close_s, shield=True):
                await contained("the store could not be closed", runs.aclose)
                await contained("the connections could not be closed", pipeline.aclose)

    def _has_orphans(self) -> bool:
        from kimi_mcp.runs.store.config import folder_of
        from kimi_mcp.runs.store.locks import has_dead_servers

        return self.settings.journal == "on" and has_dead_servers(folder_of(self.settings))

    def _open(self) -> tuple[Pipeline, Runs]:
        from kimi_mcp.runs import open_runs

        pipeline = self._make_pipeline(self.settings)
        resume = partial(self._resume, pipeline)
        return pipeline, open_runs(self.tasks, self.settings, resume, _summarize, self.timings.store)

    def _resume(self, pipeline: Pipeline, task: Mapping[str, Any]) -> Callable[[Run], Awaitable[Outcome]]:
        from kimi_mcp.swarm import prepare_resume  # imported by the first run that needs it

        return prepare_resume(task, pipeline, self.swarm_limits)


def _import_late_modules() -> None:
    for name in ("kimi_mcp.provider.clients", "kimi_mcp.media.fetch", "kimi_mcp.swarm"):
        import_module(name)
    from kimi_mcp.core.certificates import trusted_certificates
    from kimi_mcp.policy import load_rules
    from kimi_mcp.provider.failures import error_table
    from kimi_mcp.swarm.prompts import system_prompt

    load_rules()
    error_table()
    client_quirks.has("refuses_links", None)
    system_prompt("agent", ())
    with suppress(KimiError):  # the call that needs them says so
        trusted_certificates()


def _summarize(record: RunRecord, steps: Sequence[StepRecord]) -> Outcome:
    from kimi_mcp.swarm import recovered_outcome

    return recovered_outcome(record, steps)
