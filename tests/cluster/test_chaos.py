"""Replicas as processes that are killed, stopped and drained, and a PostgreSQL that is stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import sqlalchemy as sa

from kimi_mcp.cluster.engine import Engine
from kimi_mcp.runs.jobs import JobLost
from kimi_mcp.runs.store.tables import steps
from tests import postgres
from tests.cluster.test_engine import Lease
from tests.postgres import ROOT

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

WITHIN_S = 90.0


class Replicas:
    """Replicas on one database, and what they logged."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._log = folder / "log"
        self._log.touch()
        self.processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> subprocess.Popen[bytes]:
        """Start one more, and wait until it takes jobs."""
        command = [sys.executable, "-m", "tests.cluster.replica_process", self._url, self._folder, self._log]
        process = subprocess.Popen(command, cwd=ROOT)
        self.processes.append(process)
        await self.reported("started", process)
        return process

    async def reported(self, what: str, process: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until one (None: any) has logged something."""
        while not [line for line in self.lines(what) if process is None or int(line[0]) == process.pid]:
            assert process is None or process.poll() is None, f"a replica ended with {process.returncode}"
            await anyio.sleep(0.05)

    def lines(self, what: str) -> list[list[str]]:
        """Who logged something, when, and of which step."""
        found = (line.split(" ") for line in self._log.read_text("utf-8").splitlines())
        return [rest for name, *rest in found if name == what]

    def stop(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def replicas(database_url: str, tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(database_url, tmp_path)
    yield made
    made.stop()


@asynccontextmanager
async def caller(url: str) -> AsyncGenerator[Engine]:
    engine = Engine(url, lease=Lease("srv_caller"), handlers={}, concurrency={})
    with anyio.fail_after(WITHIN_S):
        await engine.start(worker=False)
        try:
            yield engine
        finally:
            await engine.aclose()


async def test_swarms_end_whole_though_replicas_are_killed_and_no_finished_step_is_asked_again(
    replicas: Replicas, database_url: str
) -> None:
    kills = 6
    chance = random.Random(7)
    for _ in range(3):
        await replicas.start()
    async with caller(database_url) as engine:
        runs = [f"run_{number}" for number in range(4)]
        for run in runs:
            await engine.enqueue("swarm", run, {"agents": 10, "steps": 8, "takes_s": 0.5})
        for _ in range(kills):
            await anyio.sleep(1.0)
            living = [process for process in replicas.processes if process.poll() is None]
            chance.choice(living).kill()
            await replicas.start()
        assert [await engine.result(run) for run in runs] == [{"lost": 0}] * len(runs)
    finished = Counter(key for *_, key in replicas.lines("finished"))
    assert len(finished) >= len(runs) * 10 * 8 - kills * 40  # the last word of one that was killed may be missing
    assert set(finished.values()) == {1}
    requested = Counter(key for *_, key in replicas.lines("asked"))
    assert len(requested) == len(runs) * 10 * 8
    ended = {(key, float(at)) for _, at, key in replicas.lines("finished")}
    assert not [key for _, at, key in replicas.lines("asked") if any(key == k and float(at) > e for k, e in ended)]


async def test_a_replica_that_was_stopped_for_longer_than_its_lease_writes_nothing_more_and_leaves(
    replicas: Replicas, database_url: str
) -> None:
    stopped = await replicas.start()
    async with caller(database_url) as engine:
        await engine.enqueue("swarm", "run_1", {"agents": 6, "steps": 8, "takes_s": 0.5})
        await replicas.reported("finished")
        os.kill(stopped.pid, signal.SIGSTOP)
        other = await replicas.start()
        await replicas.reported("finished", other)
        written = _written_by(stopped.pid, database_url)
        os.kill(stopped.pid, signal.SIGCONT)
        woken_at = time.time()
        assert await anyio.to_thread.run_sync(stopped.wait) == 1
        assert time.time() - woken_at < 20
        assert await engine.result("run_1") == {"lost": 0}
    assert _written_by(stopped.pid, database_url) == written
    assert set(Counter(key for *_, key in replicas.lines("finished")).values()) == {1}


def _written_by(pid: int, url: str) -> set[str]:
    """The steps whose results a replica has written."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(steps.c.key, steps.c.result).where(steps.c.result.is_not(None))).all()
    engine.dispose()
    return {row.key for row in rows if json.loads(row.result)["by"] == pid}


async def test_a_job_that_kills_whoever_takes_it_is_given_up_after_three(replicas: Replicas, database_url: str) -> None:
    async with caller(database_url) as engine:
        await engine.enqueue("agent", "run_1/agent-0", {"steps": 1, "takes_s": 0, "kills": True})
        for _ in range(3):
            process = await replicas.start()
            assert await anyio.to_thread.run_sync(process.wait) == -signal.SIGKILL
        await replicas.start()
        with pytest.raises(JobLost, match="so it was given up"):
            await engine.result("run_1/agent-0")
    assert len(replicas.lines("asked")) == 3


async def test_a_replica_that_gets_sigterm_returns_its_jobs_at_once(replicas: Replicas, database_url: str) -> None:
    leaving, other = await replicas.start(), await replicas.start()
    async with caller(database_url) as engine:
        await engine.enqueue("swarm", "run_1", {"agents": 6, "steps": 6, "takes_s": 0.5})
        await replicas.reported("finished", leaving)
        signalled_at = time.time()
        leaving.terminate()
        assert await anyio.to_thread.run_sync(leaving.wait) == 0
        assert await engine.result("run_1") == {"lost": 0}
    agents = {
        pid: {key.rpartition("/")[0] for by, _, key in replicas.lines("asked") if by == str(pid)}
        for pid in (leaving.pid, other.pid)
    }
    both = agents[leaving.pid] & agents[other.pid]
    assert both
    gone_on = [
        float(at) for by, at, key in replicas.lines("asked") if by == str(other.pid) and key.rpartition("/")[0] in both
    ]
    print(f"another replica went on after {min(gone_on) - signalled_at:.2f} s")
    assert set(Counter(key for *_, key in replicas.lines("finished")).values()) == {1}


async def test_replicas_outlive_a_postgresql_that_is_stopped_and_started(tmp_path: Path) -> None:
    with postgres.postgres() as server:
        replicas = Replicas(server.socket_url, tmp_path)
        try:
            for _ in range(2):
                await replicas.start()
            async with caller(server.socket_url) as engine:
                await engine.enqueue("swarm", "run_1", {"agents": 6, "steps": 6, "takes_s": 0.5})
                await replicas.reported("finished")
                await anyio.to_thread.run_sync(server.stop)
                await anyio.sleep(10)
                await anyio.to_thread.run_sync(server.start)
                await engine.enqueue("agent", "run_2/agent-0", {"steps": 1, "takes_s": 0})
                assert (await engine.result("run_2/agent-0")).keys() == {"by"}
                assert await engine.result("run_1") == {"lost": 0}
            assert [process.poll() for process in replicas.processes] == [None, None]
        finally:
            replicas.stop()
