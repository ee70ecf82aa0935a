"""PostgreSQL goes away and comes back, and a replica is cut off from it or from the provider: nothing paid for is lost.

Short unless ``CLUSTER_FULL=1``: then PostgreSQL is away ten times, for 10 s each.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import pytest

from scripts.cluster.processes import received_from
from tests.cluster.harness import FULL, chat_key, cluster, working
from tests.cluster.network import network

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="there is no PostgreSQL")]

FAR = ""
"""The key of the replica that is cut off: it has none, since a key does not travel in clear to another host."""

OUTAGES, AWAY_S, CUT_OFF_S = (10, 10.0, 30.0) if FULL else (2, 7.0, 9.0)

ANSWERED_WITHIN_S = 60.0
"""Seconds after which a call counts as hanging."""


async def test_an_outage_of_the_database_costs_nothing_that_was_paid_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over, kept, replies, longest = anyio.Event(), list[dict[str, Any]](), Counter[str](), [0.0]
    async with cluster(tmp_path) as kimi:
        steps = 4 + round(OUTAGES * 3)
        kimi.sim.play(*working("Tell me", steps, 2.0), {"delay": 0.3, "times": "always"})
        replicas = await kimi.start(3)
        started = {replica.name: replica.pid for replica in replicas}

        async def call_after_call(slot: int) -> None:
            number = 0
            while not over.is_set():
                number += 1
                began = anyio.current_time()
                with anyio.fail_after(ANSWERED_WITHIN_S):
                    result = await kimi.requested("kimi_instant", prompt=f"Call {slot}.{number}.")
                longest[0] = max(longest[0], anyio.current_time() - began)
                replies[result["error"]["code"] if result["error"] else result["status"]] += 1
                if result["run_id"]:
                    kept.append(result)
                await anyio.sleep(0.2)

        with anyio.fail_after(600 if FULL else 150):
            run_id = await kimi.begun("Tell me of {{item}}.", [f"thing {item}" for item in range(6)])
            await kimi.until(lambda: kimi.answered() >= 6)
            async with anyio.create_task_group() as tasks:
                for slot in range(3):
                    tasks.start_soon(call_after_call, slot)
                for _ in range(OUTAGES):
                    await anyio.sleep(2)
                    await anyio.to_thread.run_sync(kimi.database.stop)
                    await anyio.sleep(AWAY_S)
                    await anyio.to_thread.run_sync(kimi.database.start)
                await anyio.sleep(3)
                over.set()
            result = await kimi.ended(run_id)
            lost = [each for each in kept if not await whole(kimi, each)]
        paid = Counter(chat_key(each)[0] for each in kimi.chats)
        twice = [prompt for prompt, times in paid.items() if prompt.startswith("Call ") and times > 1]
        with capsys.disabled():
            print(
                f"\n{OUTAGES} outages of {AWAY_S:.0f} s: {dict(replies)}, the longest call {longest[0]:.1f} s, "
                f"{len(lost)} of {len(kept)} not stored, {len(kimi.repeated())} requests of the swarm repeated"
            )
        assert {replica.name: replica.pid for replica in replicas if replica.is_running} == started
        assert result["status"] == "completed", (result["error"], result["swarm"])
        assert kimi.repeated() == {}
        assert lost == []
        assert twice == []


async def whole(kimi: Any, received: dict[str, Any]) -> bool:
    """Whether what a caller was given is what is stored, or its result reports that it could not be."""
    stored = await kimi.ended(received["run_id"])
    if received["status"] == "running":
        return stored["status"] == "completed"
    return stored["answer"] == received["answer"] or "stored" in str(received["policy"]) + str(received["error"])


def port_of(url: str) -> int:
    found = urlsplit(url).port
    assert found is not None
    return found


@pytest.mark.parametrize("way", ["database", "provider"])
async def test_others_go_on_with_what_a_replica_had_that_was_cut_off(
    tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with cluster(tmp_path) as kimi:
        kimi.sim.play(*working("Tell me", 8, 1.0))
        targets = {"database": port_of(kimi.database.url), "provider": port_of(kimi.sim.base_url)}
        async with network(targets) as net:
            reached = {
                "KIMI_DATABASE_URL": kimi.database.url.replace(
                    f"127.0.0.1:{targets['database']}", f"{net.hosts['database']}:{net.ports['database']}"
                ),
                "KIMI_API_KEY": FAR,
                "KIMI_BASE_URL": f"http://{net.hosts['provider']}:{net.ports['provider']}/v1",
            }
            await kimi.start(2)
            far = kimi.replica("far", environment=reached, within=net.within)
            kimi.replicas.remove(far)  # nobody calls it: it is in a network of its own
            with anyio.fail_after(60):
                while len(await anyio.to_thread.run_sync(kimi.rows, "SELECT id FROM servers")) < 3:
                    await anyio.sleep(0.2)
            with anyio.fail_after(180):
                run_id = await kimi.begun("Tell me of {{item}}.", [f"thing {item}" for item in range(12)])
                await kimi.until(lambda: kimi.at_work()[FAR] > 0, 60)
                net.cut(way)
                cut_at = anyio.current_time()
                if way == "database":
                    kimi.killed.add(FAR)  # what it has under way may be asked for once more
                await anyio.sleep(CUT_OFF_S)
                net.cut(way, cut=False)
                back_at = anyio.current_time()
                result = await kimi.ended(run_id)
            late = [each for each in kimi.chats_of(FAR) if cut_at + 6 < each.at < back_at]
            again = await kimi.asked_again()
            with capsys.disabled():
                by = Counter(received_from(each.headers) for each in kimi.chats)
                print(
                    f"\ncut off from the {way}: {dict(by)}, {len(kimi.repeated())} repeated, {len(again)} finished ones"
                )
            assert result["status"] == "completed", (result["error"], result["swarm"])
            assert again == []
            if way == "database":
                assert late == []
                assert kimi.doubles() == []
