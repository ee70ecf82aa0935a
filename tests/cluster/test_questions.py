"""Questions to a host's user over real replicas: the answer may come to any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.cluster.harness import Cluster, cluster, working

pytestmark = pytest.mark.soak

CALL: dict[str, Any] = {
    "prompt": "Tell me of {{item}}.",
    "items": [f"thing {number}" for number in range(6)],
    "tools": ["none"],
    "max_cost_usd": 0.1,
}
"""A swarm whose budget pays for none of its agents."""


async def ended(kimi: Cluster, result: dict[str, Any], url: str) -> dict[str, Any]:
    """The structured result of a swarm once it has ended."""
    found = result["structuredContent"]
    while found["status"] == "running":
        found = await kimi.call("kimi_run", url, run_id=found["run_id"], wait_s=10)
    return found


async def test_the_answer_to_a_question_may_come_to_another_replica(tmp_path: Path) -> None:
    accepted = {"confirm": {"action": "accept"}}
    async with cluster(tmp_path, KIMI_CONFIRM_ABOVE_USD="0.05") as kimi:
        kimi.sim.play(*working("Tell me", 1, 0.1))
        first, second = await kimi.start(2)
        with anyio.fail_after(180):
            call = {**CALL, "max_cost_usd": 1}
            requested = await kimi.result("kimi_swarm", call, first.url, can_ask=True)
            assert requested["resultType"] == "input_required"
            answer = {"inputResponses": accepted, "requestState": requested["requestState"]}
            result = await kimi.result("kimi_swarm", call, second.url, can_ask=True, **answer)
            done = await ended(kimi, result, first.url)
    assert done["status"] == "completed", done["error"]


async def test_a_larger_budget_reaches_the_agents_of_every_replica(tmp_path: Path) -> None:
    async with cluster(tmp_path) as kimi:
        kimi.sim.play(*working("Tell me", 1, 0.1))
        first, second = await kimi.start(2)
        with anyio.fail_after(180):
            result = await kimi.result("kimi_swarm", CALL, first.url, can_ask=True)
            look = {"run_id": "", "wait_s": 10}
            while result["resultType"] != "input_required":
                look["run_id"] = result["structuredContent"]["run_id"]
                result = await kimi.result("kimi_run", look, second.url, can_ask=True)
            (form_id,) = result["inputRequests"]
            accepted = {form_id: {"action": "accept", "content": {"more_usd": 2}}}
            tool, arguments = ("kimi_run", look) if look["run_id"] else ("kimi_swarm", CALL)
            answer = {"inputResponses": accepted, "requestState": result["requestState"]}
            done = await ended(kimi, await kimi.result(tool, arguments, second.url, can_ask=True, **answer), first.url)
    assert done["status"] == "completed", done["error"]
    assert [agent["status"] for agent in done["swarm"]["agents"]] == ["completed"] * 6
