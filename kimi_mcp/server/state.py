"""``ServerState``: what one server keeps, from its start to its end. I/O: the pipeline's and the store's.

The pipeline and the runs are imported and opened after the start, or by a call that comes earlier, so that a host gets
its tools at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kimi_mcp.core.background import contained, start_contained
from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.server import client_quirks
from kimi_mcp.server.callers import LOCAL
from kimi_mcp.server.streams import RequestKey, ResponseStream, WaitingCalls

if TYPE_CHECKING:
    from kimi_mcp.pipeline.pipeline import Pipeline
    from kimi_mcp.runs import Run, RunFunction, Runs, RunView
    from kimi_mcp.runs.store.config import StoreLimits
    from kimi_mcp.runs.store.records import RunRecord, StepRecord
    from kimi_mcp.server.quotas import Quotas, SharedQuotas
    from kimi_mcp.server.replica_limits import ReplicaLimits
    from kimi_mcp.swarm.limits import SwarmLimits
    from kimi_mcp.view.live import LiveRuns


_ANSWERED = 64
"""Replies whose runs are known by their requests' ids."""


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
    answer_s: float = 300.0
    """For a host's user to answer a question at most; then it is unanswered."""
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
        self.calls = WaitingCalls(tasks, timings.stream_grace_s, self.abandon, self._is_wanted, self.waiting)
        """The calls over HTTP that wait for runs."""
        self.waits: set[anyio.CancelScope] = set()
        """The waits of calls for their runs."""
        self.answer_by = inf
        """When every call is answered with what is there, by anyio's clock."""
        self.pipeline: Pipeline | None = None
        """None before the first call that needs it."""
        self.runs: Runs | None = None
        """None before the first call."""
        self.replica_limits: ReplicaLimits | None = None
        """What this replica shares with others; None: it is alone, or not ready yet."""
        self.shown: LiveRuns | None = None
        """The runs that hosts show; None: none does."""
        self._quotas: Quotas | None = None
        self._make_pipeline = pipeline
        self._opening, self._making = anyio.Lock(), threading.Lock()

    async def open(self) -> tuple[Pipeline, Runs]:
        """The pipeline, and the runs; the first call opens both, in a thread. Raises ``CatalogueError``."""
        runs = await self.open_runs()
        return self.pipeline or await anyio.to_thread.run_sync(self._open_pipeline), runs

    async def start(self, run: Run, work: RunFunction) -> Run:
        """Start a run, where the quotas of its caller allow it. Raises ``RateLimited``."""
        async with self.taken(run.caller, run.id) as runs:
            return runs.start(run, work)

    async def reopen(self, record: RunRecord, work: RunFunction) -> RunView:
        """Let a run that has ended continue its answer, likewise."""
        async with self.taken(record.caller, record.id) as runs:
            return await runs.reopen(record, work)

    @asynccontextmanager
    async def taken(self, caller: str, run_id: str) -> AsyncGenerator[Runs]:
        """Count a call against its caller's quotas while its run is started. Raises ``RateLimited``."""
        runs = self.runs
        assert runs is not None
        if caller == LOCAL:
            yield runs
            return
        from kimi_mcp.server.quotas import Quotas, SharedQuotas  # never needed over stdio

        if self.settings.cluster == "on":
            quotas = SharedQuotas(self.settings, runs.store)
            call_id = await quotas.take(caller, run_id)
            try:
                yield runs
            finally:
                start_contained(self.tasks, "a call is counted for too long", self._end_start, quotas, call_id, run_id)
            return
        if self._quotas is None:
            self._quotas = Quotas(self.settings, lambda: [run.caller for run in runs.live.values()])
        with self._quotas.taken(caller):
            yield runs

    async def _end_start(self, quotas: SharedQuotas, call_id: str, run_id: str) -> None:
        """Once a run is recorded its record counts; one that was refused before that runs no longer."""
        run = None if self.runs is None else self.runs.live.get(run_id)
        if run is not None:
            await run.done.wait()
        if run is None or not run.recorded or run.outcome is None or run.outcome.run_id is None:
            await quotas.ended(call_id)

    async def open_runs(self) -> Runs:
        """The runs of this process and in the store: a wrong catalogue keeps nobody from those."""
        if self.runs is None:
            async with self._opening:
                if self.runs is None:
                    self.runs = await anyio.to_thread.run_sync(self._open_runs)
        return self.runs

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

            error = errors.silent(by_url=self.settings.database_url is not None)
            raise (errors.of_replica(error) if self.settings.cluster == "on" else error) from None

    def answer_all(self) -> None:
        """From here on every call is answered with what is there, those that wait too: the server ends."""
        self.answer_by = anyio.current_time()
        for wait in self.waits:
            wait.cancel()

    def settle(self, request: RequestKey | None, stream: ResponseStream | None, run: RunView) -> None:
        """A call that waited for a run is answered."""
        if stream is not None:
            stream.settled = True
        if request is not None and self.waiting.pop(request, None) is not None:
            self.answered[request] = run.id
            while len(self.answered) > _ANSWERED:
                del self.answered[next(iter(self.answered))]

    async def abandon(self, run_id: str) -> None:
        """The host of a run gave up on it."""
        await (await self.open_runs()).abandon(run_id)

    def keep(self, run: RunView) -> None:
        """Somebody wants a run: it is not cancelled because another caller left it, here or at another server."""
        assert self.runs is not None
        self.calls.keep(run.id)
        start_contained(self.tasks, "a run that is wanted may be cancelled", self.runs.keep, run)

    async def _is_wanted(self, run_id: str) -> bool:
        """Whether somebody wants a run at another server."""
        wanted = False
        with suppress(KimiError):
            wanted = await (await self.open_runs()).store.is_wanted(run_id)
        return wanted

    async def recover_runs(self) -> None:
        """Continue the runs that a server with the same data folder left when it died."""
        await anyio.sleep(self.timings.recover_after_s)
        if await anyio.to_thread.run_sync(self._has_orphans):
            await (await self.open_runs()).resume_all()

    async def keep_limits(self) -> None:
        """Keep to this replica's share of the limits, as others come and go."""
        pipeline, runs = await self.open()
        from kimi_mcp.server.replica_limits import ReplicaLimits  # where there are several replicas alone

        self.replica_limits = ReplicaLimits(pipeline.upstream, runs.store, self.tasks, lambda: runs.store.lock.living)
        await self.replica_limits.keep()

    async def warm_up(self) -> None:
        """Import and open what a first call needs, so that it waits for nothing."""
        await anyio.sleep(self.timings.warm_up_after_s)
        # The store first: a server over HTTP is ready then. The first that needs it opens it.
        await (await self.open_runs()).latest(LOCAL)
        await anyio.to_thread.run_sync(_import_late_modules, abandon_on_cancel=True)
        with suppress(KimiError):  # the call that needs it says so
            await self.open()

    async def aclose(self) -> None:
        """Close the store, then the connections: what was paid for must be written, a connection may stay open."""
        with anyio.move_on_after(self.timings.close_s, shield=True):
            if self.runs is not None:
                await contained("the store could not be closed", self.runs.aclose)
            if self.pipeline is not None:
                await contained("the connections could not be closed", self.pipeline.aclose)

    def _has_orphans(self) -> bool:
        from kimi_mcp.runs.store.config import folder_of, is_postgresql
        from kimi_mcp.runs.store.locks import has_dead_servers

        if self.settings.journal == "off":
            return False
        # Who is dead is known to PostgreSQL alone, and whoever opens it sees that.
        return is_postgresql(self.settings.database_url) or has_dead_servers(folder_of(self.settings))

    def _open_pipeline(self) -> Pipeline:
        with self._making:
            if self.pipeline is None:
                self.pipeline = self._make_pipeline(self.settings)
            return self.pipeline

    def _open_runs(self) -> Runs:
        if self.settings.cluster == "on":  # first, and here: who builds a statement while another thread imports
            import_module("kimi_mcp.cluster.engine")  # SQLAlchemy's ORM with it, meets half of that
        from kimi_mcp.runs import open_runs

        return open_runs(self.tasks, self.settings, self._resume, _summarize, self.timings.store)

    def _resume(self, task: Mapping[str, Any]) -> Callable[[Run], Awaitable[Outcome]]:
        from kimi_mcp.swarm import prepare_resume  # imported by the first run that needs it

        return prepare_resume(task, self._open_pipeline(), self.swarm_limits)


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
