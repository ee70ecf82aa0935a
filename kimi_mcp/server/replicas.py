"""``make_replica``: a server as one of several replicas. Imports the engine; I/O: opens the store."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import anyio.to_thread

from kimi_mcp.server.callers import LOCAL
from kimi_mcp.server.state import ServerState

if TYPE_CHECKING:
    from kimi_mcp.cluster.replica import Replica
    from kimi_mcp.runs.jobs import Role


_IMPORTED = ("cluster.replica", "server.swarm_jobs")


async def make_replica(state: ServerState, role: Role) -> Replica:
    """The replica of a server, whose lease is held; it is not started. Raises ``KimiError``."""
    await state.open_runs()  # which imports the engine
    # Before there is a lease to renew, and beside the event loop, which would not answer for as long as this takes.
    await anyio.to_thread.run_sync(lambda: [import_module(f"kimi_mcp.{name}") for name in _IMPORTED])
    from kimi_mcp.cluster.engine import Engine
    from kimi_mcp.cluster.replica import Replica
    from kimi_mcp.server.swarm_jobs import SwarmJobs

    pipeline, runs = await state.open()
    with state.store_within():
        await runs.latest(LOCAL, 1)  # opens it
    url, lease = state.settings.database_url, runs.store.lease
    assert url is not None, "the settings were checked"
    assert lease is not None, "PostgreSQL has one"
    jobs = SwarmJobs(state, pipeline, runs)
    engine = Engine(
        url,
        lease=lease,
        handlers=jobs.handlers,
        concurrency=jobs.concurrency,
        finished=jobs.finished,
        given_up=jobs.given_up,
    )
    jobs.use(engine)
    return Replica(engine, lease, role=role)
