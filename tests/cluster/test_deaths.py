"""Replicas that are killed, stopped, or killed by what they do: swarms go on, and nothing is asked for twice.

Short unless ``CLUSTER_FULL=1``: then with 100 kills under 10 swarms of 20 agents. ``TEST_SEED`` repeats the choices.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from kimi_mcp.simulator import ReceivedRequest
from scripts.cluster.processes import Replica, received_from
from tests.cluster.harness import FULL, SEED, Cluster, Key, chat_key, cluster, percentile, working

pytestmark = pytest.mark.soak

KILLS, SWARMS, AGENTS, STEPS = (100, 10, 20, 5) if FULL else (4, 3, 6, 3)

GONE_ON_WITHIN_S = 15.0
"""Seconds within which another replica goes on with what one had that was killed, at the 95th percentile."""


POISON = {"agent": {"text": "Tell me of the poison.", "turns": 0}, "swarm": {"system": "Several agents have worked"}}
"""The requests of a job that kills whoever makes them."""


async def test_swarms_survive_kills_of_random_replicas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw, over, results = random.Random(SEED), anyio.Event(), list[dict[str, Any]]()
    cut: dict[tuple[str, Key], float] = {}
    async with cluster(tmp_path) as kimi:
        kimi.sim.play(*working("Tell me", STEPS, 0.5))
        await kimi.start(4)

        async def swarm_after_swarm(slot: int) -> None:
            number = 0
            while not over.is_set():
                number += 1
                prompt = f"Tell me of {{{{item}}}}, {slot}.{number}."
                run_id = await kimi.begun(prompt, [f"thing {item}" for item in range(AGENTS)])
                results.append(await kimi.ended(run_id))

        async def kill() -> None:
            for _ in range(KILLS):
                await anyio.sleep(draw.uniform(1, 4))
                if busy := sorted(name for name in kimi.at_work() if name not in kimi.killed):
                    victim = kimi.named(draw.choice(busy))
                else:
                    victim = draw.choice(kimi.replicas)
                under_way = [chat_key(each) for each in kimi.chats_of(victim.name) if each.outcome == "open"]
                kimi.kill(victim)
                cut.update({(victim.name, key): anyio.current_time() for key in under_way})
                await kimi.ready(kimi.replica())
            over.set()

        with anyio.fail_after(1800 if FULL else 180):
            async with anyio.create_task_group() as tasks:
                for slot in range(SWARMS):
                    tasks.start_soon(swarm_after_swarm, slot)
                tasks.start_soon(kill)
        again = await kimi.asked_again()
        waits = [wait for (name, key), at in cut.items() if (wait := gone_on(kimi, name, key, at)) is not None]
        most = max((len(sent) for sent in kimi.repeated().values()), default=1)
        with capsys.disabled():
            print(
                f"\n{KILLS} kills, {len(results)} swarms, {len(kimi.chats)} requests, {len(cut)} cut, "
                f"{len(again)} finished steps asked again, {len(kimi.doubles())} doubles, gone on after "
                f"{percentile(waits, 50):.1f} s (p50), {percentile(waits, 95):.1f} s (p95) (seed {SEED})"
            )
        assert [each["error"] for each in results if each["status"] != "completed"] == []
        assert [agent for each in results for agent in each["swarm"]["agents"] if agent["status"] != "completed"] == []
        assert again == []
        assert kimi.doubles() == []
        assert most <= KILLS + 1
        assert percentile(waits, 95) <= GONE_ON_WITHIN_S


def gone_on(kimi: Cluster, dead: str, key: Key, at: float) -> float | None:
    """Seconds from a kill until another replica sent a request that it had under way; None where nobody had to."""
    later = [each.at for each in kimi.chats if chat_key(each) == key and received_from(each.headers) != dead]
    return next((each - at for each in later if each > at), None)


async def test_a_replica_that_slept_past_its_lease_writes_nothing_and_leaves(tmp_path: Path) -> None:
    async with cluster(tmp_path) as kimi:
        kimi.sim.play(*working("Tell me", 4, 1.0))
        await kimi.start(3)
        with anyio.fail_after(120):
            run_id = await kimi.begun("Tell me of {{item}}.", [f"thing {item}" for item in range(9)])
            await kimi.until(lambda: kimi.answered() >= 6 and len(kimi.at_work()) > 1)
            sleeper = kimi.named(kimi.at_work().most_common(1)[0][0])
            sleeper.signal(signal.SIGSTOP)
            kimi.replicas.remove(sleeper)
            kimi.killed.add(sleeper.name)
            result = await kimi.ended(run_id)
            assert result["status"] == "completed", (result["error"], result["swarm"])
            before, sent = kimi.stored(), len(kimi.chats_of(sleeper.name))
            sleeper.signal(signal.SIGCONT)
            status = await anyio.to_thread.run_sync(sleeper.wait, 60)
        assert status == 1, "so that its supervisor starts it anew"
        assert kimi.stored() == before
        assert len(kimi.chats_of(sleeper.name)) == sent
        assert await kimi.asked_again() == []
        assert kimi.doubles() == []


ENDED_AGENTS = "SELECT name FROM kimi_engine.workflow_status WHERE name = 'agent' AND status = 'SUCCESS'"


@pytest.mark.parametrize(("job", "replicas"), [("agent", 3), ("agent", 1), *[("swarm", 3)] * FULL])
async def test_a_job_that_kills_whoever_takes_it_is_given_up_after_three(
    tmp_path: Path, job: str, replicas: int
) -> None:
    def is_poison(request: ReceivedRequest) -> bool:
        task, _ = chat_key(request)
        return task == "Tell me of the poison." if job == "agent" else task.startswith("The task, with")

    async with cluster(tmp_path) as kimi:
        kimi.sim.play({"match": POISON[job], "gate": "never", "times": "always"}, *working("Tell me", 2, 0.2))
        await kimi.start(replicas)

        def victims() -> list[Replica]:
            took = {received_from(each.headers) for each in kimi.chats if is_poison(each)}
            return [replica for replica in kimi.replicas if replica.name in took]

        async def kill_who_takes_it() -> None:
            while True:
                await kimi.until(lambda: bool(victims()), 120)
                for victim in victims():
                    kimi.kill(victim)
                    await kimi.ready(kimi.replica())

        result: dict[str, Any] = {}
        with anyio.fail_after(150):
            async with anyio.create_task_group() as tasks:
                run_id = await kimi.swarm("Tell me of {{item}}.", ["thing 1", "thing 2", "the poison"])
                while len(kimi.rows(ENDED_AGENTS)) < 2:  # else they may die with the poison, and be given up as well
                    await anyio.sleep(0.05)
                tasks.start_soon(kill_who_takes_it)
                result |= await kimi.ended(run_id)
                tasks.cancel_scope.cancel()
        took = [received_from(each.headers) for each in kimi.chats if is_poison(each)]
        most = 3 if job == "agent" else 4  # of the swarm the first one also finished steps, its agents'
        assert 3 <= len(took) <= most, (took, result)
        agents = {agent["name"]: agent["status"] for agent in result["swarm"]["agents"]}
        poisoned = "failed" if job == "agent" else "completed"
        assert agents == {"thing 1": "completed", "thing 2": "completed", "the poison": poisoned}
        assert result["status"] == "partial"
        assert await kimi.asked_again() == []


WRONG_CLOCK = """import datetime, time, time_machine
time_machine.travel(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours={hours}), tick=True).start()
"""


@pytest.mark.parametrize("hours", [1] if not FULL else [1, -1])
async def test_nothing_depends_on_the_clock_of_a_replica(tmp_path: Path, hours: int) -> None:
    wrong = tmp_path / "wrong clock"
    wrong.mkdir()
    (wrong / "sitecustomize.py").write_text(WRONG_CLOCK.format(hours=hours), "utf-8")
    async with cluster(tmp_path) as kimi:
        kimi.sim.play(*working("Tell me", 3, 1.0))
        ahead = kimi.replica(environment={"PYTHONPATH": str(wrong)})
        right = await kimi.start(2)
        await kimi.ready(ahead)
        with anyio.fail_after(120):
            answered = await kimi.call("kimi_instant", ahead.url, prompt="Say hello.")
            while answered["status"] == "running":
                answered = await kimi.call("kimi_run", right[0].url, run_id=answered["run_id"], wait_s=5)
            assert answered["status"] == "completed"
            run_id = await kimi.begun("Tell me of {{item}}.", [f"thing {item}" for item in range(9)])
            await kimi.until(lambda: len(kimi.at_work()) == 3)
            kimi.kill(right[0])
            result = await kimi.ended(run_id)
        assert result["status"] == "completed", (result["error"], result["swarm"])
        assert ahead.is_running
        assert right[1].is_running
        assert kimi.doubles() == []
        names = {received_from(each.headers) for each in kimi.chats}
        assert {ahead.name, right[1].name} <= names
