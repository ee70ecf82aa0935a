"""Swarms of a replica: each is a job, and whoever calls, joins or takes a task notices nothing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from sqlalchemy import select, true, update

from kimi_mcp.runs.jobs import Job
from kimi_mcp.runs.store.shared_tables import swarm_holds
from kimi_mcp.runs.store.tables import runs
from kimi_mcp.server.state import Timings
from kimi_mcp.server.swarm_jobs import SwarmJobs
from kimi_mcp.simulator import Simulator
from kimi_mcp.swarm.ledger import Wanted
from kimi_mcp.swarm.limits import SwarmLimits
from kimi_mcp.swarm.replicas import share
from tests.server.clients import ServerOptions, wait_until
from tests.server.http.served import Served, newest, newest_headers, served
from tests.server.requests import chats
from tests.server.results import Result
from tests.swarm.scenarios import quick, reply

TELL: dict[str, Any] = {"prompt": "Tell me about {{item}}.", "items": ["Rome", "Oslo"], "tools": []}


@asynccontextmanager
async def replica(sim: Simulator, url: str, **timings: Any) -> AsyncIterator[Served]:
    """A server that is one of several replicas, though there are no others."""
    options = ServerOptions(timings=Timings(warm_up_after_s=3600, **timings))
    async with served(sim, options=options, KIMI_CLUSTER="on", KIMI_DATABASE_URL=url) as http:
        await wait_until(lambda: not http.serving.app.gate.joining)
        yield http


async def test_a_swarm_that_is_a_job_is_answered_as_any_other(sim: Simulator, database_url: str) -> None:
    async with replica(sim, database_url) as http, http.client() as kimi:
        result = await kimi.call("kimi_swarm", TELL)
        assert (result.status, result.structured["run_id"]) == ("completed", result.run_id)
        assert [agent["status"] for agent in result.structured["swarm"]["agents"]] == ["completed"] * 2
        assert len(chats(sim)) == 3
        refused = await kimi.call("kimi_swarm", {**TELL, "max_cost_usd": 0.000001})
        assert refused.code == "budget_exceeded"


@pytest.mark.soak
async def test_a_run_that_still_stands_as_running_is_continued_though_its_job_has_ended(
    sim: Simulator, database_url: str
) -> None:
    async with replica(sim, database_url) as http, http.client() as kimi:
        answered = await kimi.call("kimi_swarm", TELL)
        nothing = {"ended_at": None, "outcome": None, "answer": None}
        left = update(runs).values(status="running", owner="srv_dead", **nothing)
        await http.runs.store.write(lambda connection: connection.execute(left))
        await http.runs.resume_all()
        assert (await kimi.run(answered.run_id, wait_s=30)).answer == answered.answer
        assert len(chats(sim)) == 3, "nothing is asked for twice"


async def test_what_an_agent_held_whose_job_is_given_up_is_released(sim: Simulator, database_url: str) -> None:
    wanted = Wanted(usd=0.6, then=0.0, reserved=0.0)
    async with replica(sim, database_url) as http:
        pipeline, known = await http.state.open()
        ledger = (await share(known.store, "run_1", SwarmLimits(usd=1.5), quick(), elapsed_s=0.0)).ledger
        for key in ("agent-1/step-1", "agent-10/step-1"):
            assert await ledger.request_permission(key, wanted) == (True, None)
        job = Job(id="run_1/agent-1", kind="agent", payload={}, attempt=4, fence=true())
        await SwarmJobs(http.state, pipeline, known).given_up(job)
        assert await known.store.read(lambda connection: connection.execute(select(swarm_holds.c.key)).all()) == [
            ("agent-10/step-1",)
        ]


@pytest.mark.soak
async def test_a_call_that_is_cancelled_cancels_its_swarm_wherever_that_runs(sim: Simulator, database_url: str) -> None:
    sim.play(reply({"text": "Tell me about Oslo."}, gate="never"))
    async with replica(sim, database_url, stream_grace_s=0) as http, http.client() as kimi:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(kimi.call, "kimi_swarm", TELL))
            await sim.until(lambda: sim.waiting_at("never") == 1)
            tasks.cancel_scope.cancel()
        await sim.until(lambda: sim.waiting_at("never") == 0)
        result = await kimi.run(await kimi.only_run())
    assert result.code == "cancelled"


@pytest.mark.soak
async def test_the_same_call_joins_the_swarm_whose_stream_closed(sim: Simulator, database_url: str) -> None:
    sim.play(reply({"text": "Tell me about Oslo."}, gate="oslo"))
    results: list[Result] = []
    async with replica(sim, database_url, stream_grace_s=3600) as http, http.client() as kimi:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(kimi.call, "kimi_swarm", TELL))
            await sim.until(lambda: sim.waiting_at("oslo") == 1)
            tasks.cancel_scope.cancel()

        async def ask() -> None:
            results.append(await kimi.call("kimi_swarm", TELL))

        async with anyio.create_task_group() as tasks:
            await wait_until(lambda: not http.state.calls)
            tasks.start_soon(ask)
            await wait_until(lambda: len(http.state.calls) == 1)
            sim.open_gate("oslo")
    assert results[0].status == "completed"
    assert "run-rejoined" in results[0].rules
    assert len(chats(sim)) == 3


@pytest.mark.soak
async def test_a_swarm_may_be_a_task(sim: Simulator, database_url: str) -> None:
    sim.play(reply({"text": "Tell me about Oslo."}, gate="oslo"))
    async with replica(sim, database_url, task_after_s=0) as http:

        async def ask(method: str, what: str, **params: Any) -> dict[str, Any]:
            body = newest(method, params)
            extensions = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
            body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = extensions
            return (await http.post(body, newest_headers(method, what))).json()["result"]

        created = await ask("tools/call", "kimi_swarm", name="kimi_swarm", arguments=TELL)
        look = partial(ask, "tasks/get", created["taskId"], taskId=created["taskId"])
        await sim.until(lambda: sim.waiting_at("oslo") == 1)
        assert (await look())["status"] == "working"
        sim.open_gate("oslo")
        while (task := await look())["status"] == "working":
            await anyio.sleep(0.05)
        assert task["result"]["structuredContent"]["status"] == "completed"
