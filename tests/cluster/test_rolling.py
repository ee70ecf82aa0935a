"""Replicas are replaced one after the other while they work: by others of their version, and by those of a newer one.

The older version is a commit of this history; its tests are skipped where the checkout's history
does not have it.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest

from scripts.cluster.processes import ROOT, Replica
from tests.cluster.harness import FULL, Cluster, chat_key, cluster, working

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="there is no PostgreSQL")]

ROUNDS = 3 if FULL else 1

LATER_S = 2.0
"""Seconds by which a swarm may be later at most for each replica that left."""

OLD = "9036e50"
"""The oldest commit of this history whose store has the tables of replicas."""


async def test_a_rolling_restart_fails_no_call_and_delays_no_swarm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over, replies, failed = anyio.Event(), Counter[str](), list[str]()
    gaps, results = dict[str, float](), list[dict[str, Any]]()
    async with cluster(tmp_path) as kimi:
        kimi.sim.play(*working("Tell me", 8, 1.0), {"delay": 0.5, "times": "always"})
        replicas = await kimi.start(3)
        balancer = await kimi.balanced(replicas)

        async def call_after_call(slot: int) -> None:
            number = 0
            while not over.is_set():
                number += 1
                try:
                    result = await answered(kimi, balancer.url, f"Call {slot}.{number}.")
                    replies[result["status"]] += 1
                except (httpx2.HTTPError, AssertionError) as fault:
                    failed.append(f"{type(fault).__name__}: {fault}")
                    await anyio.sleep(0.2)

        with anyio.fail_after(300):
            async with anyio.create_task_group() as tasks:
                for slot in range(6):
                    tasks.start_soon(call_after_call, slot)
                things = [f"thing {item}" for item in range(6)]
                run_ids = [await kimi.begun(f"Tell me of {{{{item}}}}, {n}.", things) for n in range(3)]
                await kimi.until(lambda: kimi.answered() >= 9)
                for _ in range(ROUNDS):
                    for replica in replicas:
                        gaps[f"{replica.name} {len(gaps)}"] = await restarted(kimi, replica)
                results += [await kimi.ended(run_id) for run_id in run_ids]
                over.set()
        again = await kimi.asked_again()
        with capsys.disabled():
            print(
                f"\nrolling restart: calls {dict(replies)}, {len(failed)} failed, swarms went on after "
                f"{', '.join(f'{gap:.1f}' for gap in gaps.values())} s, {len(again)} finished steps asked again"
            )
        assert failed == []
        assert [(each["status"], each["error"]) for each in results] == [("completed", None)] * 3
        assert again == []
        assert max(gaps.values()) <= LATER_S


async def restarted(kimi: Cluster, replica: Replica) -> float:
    """End a replica as a supervisor does, start it anew; seconds until others went on with all that it had left."""
    under_way = {chat_key(each) for each in kimi.chats_of(replica.name) if each.outcome == "open"}
    asked_at = anyio.current_time()
    replica.signal(signal.SIGTERM)
    status = await anyio.to_thread.run_sync(replica.wait, 60)
    assert status == 0, replica.log[-2000:]
    replica.start()
    await kimi.ready(replica)
    sent = [(chat_key(each), each.at) for each in kimi.chats if each.at > asked_at]
    return max((at - asked_at for key, at in sent if key in under_way and key[0].startswith("Tell me")), default=0.0)


@pytest.fixture(scope="module")
def old_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it was."""
    command = ["git", "-C", str(ROOT), "archive", OLD, "kimi_mcp", "skill.md", "manifests/skills"]
    packed = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if packed.returncode != 0:
        pytest.skip(f"the history of this checkout has no commit {OLD}")
    folder = tmp_path_factory.mktemp("old version")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def old_replica(kimi: Cluster, name: str, folder: Path) -> Replica:
    """One of the old version, started as its operator did."""
    return kimi.replica(name, role=None, cwd=folder, environment={"PYTHONPATH": str(folder), **shared(kimi)})


def shared(kimi: Cluster) -> dict[str, str]:
    return {"KIMI_DATA_DIR": str(kimi.folder / "shared"), "KIMI_API_KEY": "any"}


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, signal.SIGKILL] if FULL else [signal.SIGTERM], ids=lambda how: how.name
)
async def test_replicas_of_the_version_before_are_replaced_while_they_work(
    tmp_path: Path, old_version: Path, how: signal.Signals
) -> None:
    async with cluster(tmp_path, KIMI_DRAIN_S="0") as kimi:
        kimi.sim.play(*working("Tell me", 6, 1.0))
        old = [old_replica(kimi, f"old-{number}", old_version) for number in (1, 2)]
        await kimi.ready(*old)
        with anyio.fail_after(150):
            old_result = await answered(kimi, old[0].url, "What do the old ones know?")
            run_ids = [await kimi.swarm(f"Tell me of {{{{item}}}}, {each.name}.", ["A", "B"], each.url) for each in old]
            await kimi.until(lambda: kimi.answered() > 4)
            new = [kimi.replica(f"new-{number}", environment=shared(kimi)) for number in (1, 2)]
            await kimi.ready(*new)
            # Side by side: each reads what the other wrote, and neither takes what the other still does.
            new_result = await answered(kimi, new[0].url, "What do the new ones know?")
            for reader, result in ((new[1], old_result), (old[1], new_result)):
                stored = await kimi.call("kimi_run", reader.url, run_id=result["run_id"])
                assert (stored["status"], stored["answer"]) == ("completed", result["answer"])
            assert kimi.repeated() == {}
            for replica in old:
                if how == signal.SIGKILL:
                    kimi.kill(replica)
                else:
                    kimi.replicas.remove(replica)
                    await anyio.to_thread.run_sync(replica.end, 60)
            results = [await kimi.ended(run_id) for run_id in run_ids]
        assert [(each["status"], each["error"]) for each in results] == [("completed", None)] * 2
        assert await kimi.asked_again() == []
        assert all(len(sent) <= 2 for sent in kimi.repeated().values())
        assert all(each.is_running for each in new)


async def test_the_version_before_starts_on_what_the_new_one_has_migrated(tmp_path: Path, old_version: Path) -> None:
    async with cluster(tmp_path) as kimi:
        new = kimi.replica("new", environment=shared(kimi))
        await kimi.ready(new)
        with anyio.fail_after(90):
            new_result = await answered(kimi, new.url, "What does the new one know?")
            old = old_replica(kimi, "old", old_version)
            await kimi.ready(old)
            stored = await kimi.call("kimi_run", old.url, run_id=new_result["run_id"])
            assert (stored["status"], stored["answer"]) == ("completed", new_result["answer"])
            again = await answered(kimi, old.url, "And the old one?")
            assert again["answer"]


async def answered(kimi: Cluster, url: str, prompt: str) -> dict[str, Any]:
    """The result of a single call, made there."""
    result = await kimi.call("kimi_instant", url, prompt=prompt)
    while result["status"] == "running":
        result = await kimi.call("kimi_run", url, run_id=result["run_id"], wait_s=5)
    assert result["status"] == "completed", result
    return result
