"""A replica as a process: ``python -m tests.cluster.replica_process URL FOLDER LOG``; with SIGTERM it drains and ends.

An agent's payload: ``steps``, and how many seconds each request takes, ``takes_s``; or ``kills``. Each request is a
line in LOG, written as it is sent, so that a test sees which was sent twice, by whom, and when.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa

from kimi_mcp.cluster.engine import Engine
from kimi_mcp.cluster.replica import Replica
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.jobs import Job, JobLost
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.runs.store.tables import steps

LIMITS = StoreLimits(lease_s=2.0, beat_s=0.4)


async def patiently(work: Callable[[], Awaitable[Any]]) -> Any:
    """What is done with the store, once that answers."""
    while True:
        with suppress(NotConfigured):
            return await work()
        await anyio.sleep(0.2)


class Program:
    """What a replica does with its jobs."""

    def __init__(self, url: str, folder: Path, log: Path) -> None:
        self.store = RunStore(folder, url=url, limits=LIMITS)
        assert self.store.lease is not None
        self.engine = Engine(
            url,
            lease=self.store.lease,
            handlers={"swarm": self.swarm, "agent": self.agent},
            concurrency={"swarm": 20, "agent": 60},
            finished=self.finished,
        )
        self._log = log.open("a", buffering=1)

    async def agent(self, job: Job) -> Mapping[str, Any]:
        """So many steps, each recorded before and after its request."""
        run_id, _, agent = job.id.partition("/")
        journal = self.store.steps(run_id, job.fence)
        for number in range(job.payload["steps"]):
            key = f"{agent}/step-{number}"
            if await patiently(lambda key=key: journal.begin(key, {})) is None:
                self._say("asked", f"{run_id}/{key}")
                if job.payload.get("kills"):
                    os.kill(os.getpid(), signal.SIGKILL)
                await anyio.sleep(job.payload["takes_s"])
                await patiently(lambda key=key: journal.finish(key, {"by": os.getpid()}))
                self._say("finished", f"{run_id}/{key}")
        return {"by": os.getpid()}

    async def swarm(self, job: Job) -> Mapping[str, Any]:
        """So many agents at once."""
        lost = 0

        async def run(agent: str) -> None:
            nonlocal lost
            try:
                await self.engine.result(agent)
            except JobLost:
                lost += 1

        async with anyio.create_task_group() as tasks:
            for number in range(job.payload["agents"]):
                agent = f"{job.id}/agent-{number}"
                await self.engine.enqueue("agent", agent, job.payload)
                tasks.start_soon(run, agent)
        return {"lost": lost}

    async def finished(self, job_id: str) -> int:
        """How many steps of a job are finished."""
        run_id, _, agent = job_id.partition("/")
        named = [
            steps.c.run_id == run_id,
            steps.c.result.is_not(None),
            steps.c.key.startswith(f"{agent}/" * bool(agent)),
        ]
        counted = sa.select(sa.func.count()).select_from(steps).where(*named)
        return await self.store.read(lambda connection: connection.execute(counted).scalar_one())

    async def serve(self) -> None:
        """Serve until a signal comes or the lease is lost."""
        lease = self.store.lease
        assert lease is not None
        replica = Replica(self.engine, lease, role="all")
        await self.store.write(lambda _: None)  # it opens the database, and with it the lease
        await replica.start()
        self._say("started", lease.id)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._leave_when_lost, replica)
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    break
            await replica.aclose()
            tasks.cancel_scope.cancel()
        await self.store.aclose()
        self._say("ended", lease.id)

    async def _leave_when_lost(self, replica: Replica) -> None:
        await replica.until_lost()
        self._say("lost", "")
        os._exit(1)

    def _say(self, what: str, about: str) -> None:
        self._log.write(f"{what} {os.getpid()} {time.time():.3f} {about}\n")


if __name__ == "__main__":
    anyio.run(Program(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])).serve)
