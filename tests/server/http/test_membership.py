"""A server as one of several replicas: it joins, is drained, is lost, and leaves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from kimi_mcp.runs.store import leases
from kimi_mcp.runs.store.shared_tables import servers
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.simulator import Simulator
from tests.server.clients import store_limits, wait_until
from tests.server.http.served import Served, error_of, message, served
from tests.server.requests import HELD_STEP

QUICK = store_limits(beat_s=0.1, lease_s=600)

CALL = {"name": "kimi_think", "arguments": {"prompt": "another"}}


async def joined(http: Served) -> None:
    await wait_until(lambda: not http.serving.app.gate.joining)


def ask_to_drain(url: str) -> None:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        (server,) = leases.living_servers(connection)
        assert leases.request_drain(connection, server.id)


def has_renewed(url: str) -> bool:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        (server,) = leases.living_servers(connection)
        return server.heard_of_s < server.lived_s - 0.05


def take_for_dead(url: str) -> None:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.delete(servers))


async def test_a_replica_is_ready_once_it_has_joined_and_takes_calls_for_a_moment_while_it_leaves(
    sim: Simulator, database_url: str
) -> None:
    limits = HttpLimits(unready_s=60)
    async with served(sim, limits=limits, options=QUICK, KIMI_CLUSTER="on", KIMI_DATABASE_URL=database_url) as http:
        await joined(http)
        assert (await http.raw.get("/readyz")).json() == {"status": "ok"}
        async with http.client() as kimi:
            await kimi.client.list_tools()
            http.serving.stop()
            await wait_until(lambda: http.serving.app.gate.leaving)
            assert (await http.raw.get("/readyz")).status_code == 503
            assert (await kimi.think()).status == "completed"
            http.serving.stop()  # nobody waits any longer


@pytest.mark.soak
async def test_a_replica_that_is_asked_to_drain_ends_its_calls_and_stays(sim: Simulator, database_url: str) -> None:
    sim.play(HELD_STEP)
    results: list[Any] = []
    limits = HttpLimits(unready_s=0)
    async with (
        served(sim, limits=limits, options=QUICK, KIMI_CLUSTER="on", KIMI_DATABASE_URL=database_url) as http,
        http.client() as kimi,
        anyio.create_task_group() as tasks,
    ):
        await joined(http)

        async def ask() -> None:
            results.append(await kimi.think())

        tasks.start_soon(ask)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        session = await http.session()
        ask_to_drain(database_url)
        await wait_until(lambda: http.serving.app.gate.draining)
        assert (await http.raw.get("/readyz")).status_code == 503
        refused = await http.post(message("tools/call", CALL), session)
        assert (refused.status_code, "call again" in error_of(refused)["message"]) == (503, True)
        sim.open_gate("end")
        await wait_until(lambda: results)
        assert (await http.raw.get("/healthz")).status_code == 200
    assert results[0].status == "completed"


async def test_a_replica_that_others_take_for_dead_leaves_at_once(sim: Simulator, database_url: str) -> None:
    lost = anyio.Event()
    async with served(sim, options=QUICK, KIMI_CLUSTER="on", KIMI_DATABASE_URL=database_url, on_lost=lost.set) as http:
        await joined(http)
        await wait_until(lambda: has_renewed(database_url))
        take_for_dead(database_url)
        with anyio.fail_after(60):
            await lost.wait()


async def test_a_replica_without_a_database_is_alive_and_says_what_it_waits_for() -> None:
    url = "postgresql+psycopg://kimi@127.0.0.1:1/kimi"
    async with served(None, KIMI_CLUSTER="on", KIMI_DATABASE_URL=url) as http:
        await wait_until(lambda: (membership := http.serving.app.membership) and membership.error)
        unready = await http.raw.get("/readyz")
        assert (unready.status_code, unready.json()["status"]) == (503, "joining the cluster")
        assert unready.json()["error"]["code"] == "not_configured"
        refused = await http.post(message("tools/call", CALL), await http.session())
        assert (refused.status_code, "takes no calls yet" in error_of(refused)["message"]) == (503, True)
        assert (await http.raw.get("/healthz")).status_code == 200


@pytest.mark.soak
async def test_a_call_is_cancelled_by_a_notification_that_another_replica_gets(
    sim: Simulator, database_url: str, tmp_path: Path
) -> None:
    sim.play(HELD_STEP)
    answers: list[Any] = []
    replica = partial(served, sim, options=QUICK, KIMI_CLUSTER="on", KIMI_DATABASE_URL=database_url)
    async with (
        replica(KIMI_DATA_DIR=str(tmp_path / "one")) as one,
        replica(KIMI_DATA_DIR=str(tmp_path / "other")) as other,
        anyio.create_task_group() as tasks,
    ):
        await joined(one)
        await joined(other)
        session = await one.session()

        async def ask() -> None:
            answers.append(await one.post(message("tools/call", CALL, "mine"), session))

        tasks.start_soon(ask)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        stop = message("notifications/cancelled", {"requestId": "mine", "reason": "the user"}, None)
        with anyio.fail_after(60):
            assert (await other.post(stop, session)).status_code == 202
            await sim.until(lambda: sim.waiting_at("end") == 0)
            await wait_until(lambda: answers)
    assert '"cancelled"' in answers[0].text
