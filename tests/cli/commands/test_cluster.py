"""``kimi-mcp cluster``: what operators see of replicas and queues, how they empty one, and what ``doctor`` says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from kimi_mcp.cluster import statements
from kimi_mcp.cluster.engine import Engine
from kimi_mcp.runs.store.leases import living_servers
from kimi_mcp.runs.store.store import RunStore
from tests.cli.commands.shell import Ended, kimi
from tests.cli.commands.test_doctor import findings
from tests.runs.store.stores import begin, run_store


@asynccontextmanager
async def replica(folder: Path, url: str, role: str = "all", version: str = "9.9.9") -> AsyncGenerator[RunStore]:
    """What the database has of a replica that runs a call."""
    async with run_store(folder, url=url) as kept:
        assert kept.lease is not None
        kept.lease.describe = lambda: {"role": role, "version": version, "host": folder.name, "draining": False}
        await begin(kept, f"run_{folder.name}")
        yield kept


async def swarm(kept: RunStore, url: str) -> None:
    """A swarm that a replica runs, with an agent that runs and another that waits."""
    assert kept.lease is not None
    engine = Engine(url, lease=kept.lease, handlers={}, concurrency={})
    try:
        await engine.start(worker=False)
        await engine.enqueue("swarm", "run_s", {})
        for agent in ("agent-1", "agent-2"):
            await engine.enqueue("agent", f"run_s/{agent}", {})
    finally:
        await engine.aclose()
    taken = sa.update(statements.jobs).where(statements.jobs.c.workflow_uuid.in_(("run_s", "run_s/agent-1")))
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(taken.values(status="PENDING", executor_id=kept.lease.id))


def line_of(ended: Ended, word: str) -> list[str]:
    return next(line.split() for line in ended.out.splitlines() if word in line)


@pytest.mark.soak
async def test_replicas_their_work_and_the_queues_are_shown(tmp_path: Path, database_url: str) -> None:
    settings = {"KIMI_DATABASE_URL": database_url}
    assert "No replica" in (await kimi("cluster", settings=settings)).out
    async with replica(tmp_path / "one", database_url) as one, replica(tmp_path / "two", database_url, "worker"):
        await swarm(one, database_url)
        shown = await kimi("cluster", settings=settings)
        assert line_of(shown, one.lock.id)[1:5] == ["ready", "all", "1", "2"], shown.out
        assert line_of(shown, " worker ")[1:5] == ["ready", "worker", "1", "0"]
        assert line_of(shown, "agents")[:3] == ["agents", "1", "1"]
        assert line_of(shown, "run_s ")[2:4] == ["1", "1"]
        found = (await kimi("cluster", "--json", settings=settings)).json
        assert found["replicas"][0]["jobs"] == ["run_s", "run_s/agent-1"]
        assert [each["agents_waiting"] for each in found["swarms"]] == [1]
        assert found["connections"]["most"] > found["connections"]["open"] > 0


async def test_a_replica_is_asked_to_drain_by_its_id_the_beginning_of_that_or_its_host(
    tmp_path: Path, database_url: str
) -> None:
    settings = {"KIMI_DATABASE_URL": database_url}
    async with replica(tmp_path / "one", database_url) as one, replica(tmp_path / "two", database_url) as two:
        for wrong in ("srv_none", "", "srv"):
            refused = await kimi("cluster", "drain", wrong, settings=settings)
            assert (refused.status, one.lock.id in refused.err) == (2, True)
        short = one.lock.id.removeprefix("srv_x")[:12]
        assert one.lock.id in (await kimi("cluster", "drain", short, settings=settings)).out
        requested = await kimi("cluster", "drain", "two", "--json", settings=settings)
        assert requested.json == {"id": two.lock.id, "jobs": 0, "calls": 1}
        assert all(server.drain for server in await one.read(living_servers))
        assert line_of(await kimi("cluster", settings=settings), one.lock.id)[1] == "draining"


@pytest.mark.parametrize("url", ["", "sqlite:////tmp/runs.sqlite3", "postgresql+psycopg://kimi@127.0.0.1:1/kimi"])
async def test_without_its_database_there_is_nothing_to_see(url: str) -> None:
    refused = await kimi("cluster", settings={"KIMI_DATABASE_URL": url})
    assert (refused.status, refused.out) == (1, "")
    assert "KIMI_DATABASE_URL" in refused.err


async def test_the_doctor_looks_at_a_cluster(tmp_path: Path, database_url: str) -> None:
    missing = (await kimi("doctor", "--json", settings={"KIMI_CLUSTER": "on"})).json
    assert "needs a PostgreSQL" in findings(missing, "bad")
    settings = {"KIMI_CLUSTER": "on", "KIMI_DATABASE_URL": database_url}
    other = replica(tmp_path / "two", database_url, "http", version="9.9.8")
    async with replica(tmp_path / "one", database_url, "http"), other:
        found = (await kimi("doctor", "--json", settings=settings)).json
    assert "2 replicas on that PostgreSQL: one (http, ready), two (http, ready)." in findings(found, "ok")
    for words in ("No replica takes jobs", "several versions run side by side: 9.9.8, 9.9.9", "KIMI_HTTP_URL is not"):
        assert words in findings(found, "warn")
