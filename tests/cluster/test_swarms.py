"""Swarms over three real replicas: one of them is killed, or the swarm is cancelled through another one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from scripts.cluster.processes import received_from
from tests.cluster.harness import OFFERED, cluster, working
from tests.swarm.scenarios import MAIN_AGENT, leading, reply

pytestmark = pytest.mark.soak

AGENTS, STEPS = 60, 3


async def test_sixty_agents_over_three_replicas_outlive_the_death_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [f"thing {number}" for number in range(AGENTS)]
    async with cluster(tmp_path) as kimi:
        kimi.sim.play(*working("Tell me", STEPS, 1.0))
        first, second, third = await kimi.start(3)
        with anyio.fail_after(240):
            run_id = await kimi.swarm("Tell me of {{item}}.", items, first.url)
            await kimi.until(lambda: kimi.answered() >= AGENTS * STEPS // 3)
            before = Counter(received_from(each.headers) for each in kimi.chats)
            cut = kimi.at_work()[second.name]
            kimi.kill(second)
            while (result := await kimi.call("kimi_run", third.url, run_id=run_id, wait_s=10))["status"] == "running":
                pass
        sent, again = Counter(received_from(each.headers) for each in kimi.chats), await kimi.asked_again()
        with capsys.disabled():
            print(
                f"\n{AGENTS} agents of {STEPS} steps: {dict(before)} until {second.name} was killed with {cut} "
                f"requests open, {dict(sent)} in all; {len(again)} finished steps asked again, "
                f"{len(kimi.repeated())} requests repeated; {result['timing']['total_s']:.1f} s"
            )
        assert result["status"] == "completed", result["error"]
        assert [agent["status"] for agent in result["swarm"]["agents"]] == ["completed"] * AGENTS
        assert [agent["steps"] for agent in result["swarm"]["agents"]] == [STEPS] * AGENTS
        assert result["answer"].strip() == "All is known of all."
        assert set(before) == {first.name, second.name, third.name}, "all three had agents"
        assert again == []
        assert kimi.doubles() == []
        assert len(kimi.repeated()) <= cut + 1


async def test_a_swarm_is_cancelled_through_any_replica_wherever_its_agents_run(tmp_path: Path) -> None:
    async with cluster(tmp_path) as kimi:
        kimi.sim.play(*working("Tell me of thing 0", 2, 0.1), *working("Tell me", 2, 100.0))
        first, second, third = await kimi.start(3)
        with anyio.fail_after(120):
            run_id = await kimi.swarm("Tell me of {{item}}.", [f"thing {number}" for number in range(5)], first.url)
            await kimi.until(lambda: kimi.at_work().total() == 4 and kimi.answered() == 2)
            while True:
                running = await kimi.call("kimi_run", second.url, run_id=run_id, action="status")
                if running["swarm"]["agents"][0]["status"] == "completed":
                    break
                await anyio.sleep(0.1)
            began = anyio.current_time()
            cancelled = await kimi.call("kimi_run", third.url, run_id=run_id, action="cancel")
            took_s = anyio.current_time() - began
            await kimi.until(lambda: not kimi.at_work())
            closed_s = anyio.current_time() - began
        assert running["status"] == "running"
        assert [agent["status"] for agent in running["swarm"]["agents"]] == ["completed", *["running"] * 4]
        assert (cancelled["status"], cancelled["error"]["code"]) == ("partial", "cancelled")
        assert [agent["status"] for agent in cancelled["swarm"]["agents"]] == ["completed", *["cancelled"] * 4]
        assert "All is known of it." in cancelled["answer"]
        print(f"cancelled in {took_s:.2f} s, all requests closed in {closed_s:.2f} s")
        assert await anyio.to_thread.run_sync(kimi.rows, "SELECT count(*) FROM swarm_totals") == [(0,)]


async def test_a_main_agent_whose_replica_is_killed_goes_on_elsewhere_with_its_agents(tmp_path: Path) -> None:
    tasks = [(f"expert {number}", f"Look at thing {number}.") for number in range(6)]
    async with cluster(tmp_path) as kimi:
        kimi.sim.play(leading(*tasks), leading(("expert 0", "Look at thing 6."), turn=1))
        kimi.sim.play(reply({"system": MAIN_AGENT, "turns": 2}, content="All seven are known.", delay=0.5))
        kimi.sim.play(*working("Look at thing", 3, 2.0))
        await kimi.start(3)
        with anyio.fail_after(120):
            begun = await kimi.call("kimi_swarm", prompt="Look at seven things.", tools=[OFFERED])
            run_id = begun["run_id"]
            await kimi.until(lambda: kimi.answered() >= 1 + 6 + 2)
            kimi.kill(next(replica for replica in kimi.replicas if f"{run_id} is continued" in replica.log))
            result = await kimi.ended(run_id)
        assert (result["status"], result["answer"]) == ("completed", "All seven are known."), result["error"]
        assert [agent["status"] for agent in result["swarm"]["agents"]] == ["completed"] * 7
        assert [agent["steps"] for agent in result["swarm"]["agents"]] == [3] * 7
        assert result["swarm"]["steps"] == 3
        assert result["swarm"]["critical_steps"] == 3 + 3 + 3
        assert await kimi.asked_again() == []
        assert kimi.doubles() == []
