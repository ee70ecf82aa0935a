"""A store on PostgreSQL while servers come and go: the last commit of the version before beside this one, a restart."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.leases import ServerLease, living_servers
from kimi_mcp.runs.store.tables import EXPANSIONS, MIGRATIONS, read_fact
from tests.postgres import ROOT, database, postgres
from tests.runs.store.stores import CALLER, begin, end, in_thread, latest, run_store

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="the tests start no database there")]

BEFORE = "9036e50"
"""The oldest commit of this history whose store has the tables of replicas."""

SERVES = """
import json, sys
from pathlib import Path
import anyio
sys.path.insert(0, sys.argv[1])
import kimi_mcp
from kimi_mcp.runs.store.store import RunStore
from tests.runs.store.stores import begin, end
assert Path(kimi_mcp.__file__).is_relative_to(sys.argv[1]), kimi_mcp.__file__
async def serve():
    store = RunStore(Path(sys.argv[2]), url=sys.argv[3])
    while line := await anyio.to_thread.run_sync(sys.stdin.readline):
        what, run_id = line.split()
        if what == "begin":
            await begin(store, run_id)
        elif what == "end":
            await end(store, run_id)
        found = await store.find(run_id, None)
        print(json.dumps(found and [found.outcome.status, found.orphaned, found.owner]), flush=True)
    await store.aclose()
anyio.run(serve)
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the version before."""
    archive = ["git", "-C", ROOT, "archive", BEFORE, "kimi_mcp", "tests", "skill.md", "manifests"]
    packed = subprocess.run(archive, capture_output=True, check=False)
    if packed.returncode != 0:
        pytest.skip(f"commit {BEFORE} is not in this checkout")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as opened:
        opened.extractall(folder, filter="data")
    return folder


class OldServer:
    """A server of the version before, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    async def ask(self, what: str, run_id: str) -> list[Any]:
        """Begin, end or only find a run; its status, whether it has lost its server, and that."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what} {run_id}\n")
        self.process.stdin.flush()
        return json.loads(await in_thread(self.process.stdout.readline))


@contextmanager
def old_server(code: Path, folder: Path, url: str) -> Iterator[OldServer]:
    command = [sys.executable, "-c", SERVES, code, folder, url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder.parent
    ) as process:
        try:
            yield OldServer(process)
        finally:
            process.kill()


async def test_the_version_before_and_this_one_work_on_one_database_side_by_side(
    before: Path, tmp_path: Path, postgres_server: str
) -> None:
    folder = tmp_path / "data"
    with (
        anyio.fail_after(80),
        database(postgres_server, empty=True) as database_url,
        old_server(before, folder, database_url) as old,
    ):
        assert (await old.ask("begin", "run_old"))[:2] == ["running", False]
        async with run_store(folder, url=database_url) as new, run_store(folder, url=database_url) as other:
            found = await new.find("run_old", CALLER)
            assert found is not None
            assert found.running, "it renews its lease"
            assert not found.orphaned
            facts = [await new.read(read_fact, name) for name in ("version", "revision")]
            assert facts == [str(len(MIGRATIONS)), str(len(EXPANSIONS))], "the version is the one that both know"
            await begin(new, "run_new")
            assert await old.ask("find", "run_new") == ["running", False, new.lock.id]
            assert (await old.ask("end", "run_old"))[0] == "completed"
            await old.ask("begin", "run_left")
            for number in range(20):
                await begin(new, f"run_{number}")
                await old.ask("begin", f"run_old_{number}")
                await end(new, f"run_{number}")
                await old.ask("end", f"run_old_{number}")
            await end(new, "run_new")
            assert (await old.ask("find", "run_new"))[0] == "completed"
            old.process.kill()
            await in_thread(old.process.wait)
            ended = {"run_left": "running"}
            while ended["run_left"] == "running":  # until the lease of the old one is over
                ended = {run.id: run.outcome.status for run in await latest(other)}
                await anyio.sleep(0.1)
        assert ended.pop("run_left") == "failed", "nobody runs it any more"
        assert set(ended.values()) == {"completed"}
        with old_server(before, folder, database_url) as again:
            assert (await again.ask("find", "run_left"))[0] == "failed"


async def test_a_restart_of_postgresql_renews_every_lease_though_nobody_could_beat(tmp_path: Path) -> None:
    with anyio.fail_after(80), postgres() as server:
        limits = StoreLimits(beat_s=3_600, lease_s=600)
        async with (
            run_store(tmp_path / "a", url=server.socket_url, limits=limits) as one,
            run_store(tmp_path / "b", url=server.socket_url, limits=limits) as other,
        ):
            await begin(one, resumable=True)
            await begin(other, "run_2")
            server.query("update servers set beat = now() - interval '1 hour'")
            server.stop()
            server.start()
            assert await other.orphans() == []
            assert {each.id for each in await other.read(living_servers)} == {one.lock.id, other.lock.id}
            await end(one)
            looking = ServerLease(server.socket_url, None, limits=StoreLimits(lease_s=0))
            assert not await in_thread(looking.is_alive, one.lock.id), "its lease is counted from that start"
            await in_thread(looking.release)
