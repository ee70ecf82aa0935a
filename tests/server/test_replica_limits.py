"""What replicas of one PostgreSQL share: a refusal of one slows all down, and each keeps to its part of the limits."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from kimi_mcp.provider import Upstream
from kimi_mcp.server.replica_limits import ReplicaLimits
from kimi_mcp.simulator import RateLimits, Simulator
from tests.provider.requests import KEY, Clock, ask, endpoint
from tests.runs.store.stores import run_store
from tests.server.clients import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests start no PostgreSQL there")


class Replica:
    """A replica as its limits see it."""

    def __init__(self) -> None:
        clock = Clock()
        self.upstream = Upstream(clock=clock, sleep=clock.sleep)
        self.living = 1


@asynccontextmanager
async def replica(folder: Path, url: str) -> AsyncIterator[Replica]:
    made = Replica()
    async with run_store(folder, url=url) as store, anyio.create_task_group() as tasks:
        limits = ReplicaLimits(made.upstream, store, tasks, lambda: made.living, look_every_s=0.05)
        tasks.start_soon(limits.keep)
        await wait_until(lambda: store.notifications.are_heard)
        yield made
        await made.upstream.aclose()
        tasks.cancel_scope.cancel()


async def test_a_refusal_of_one_replica_slows_the_account_down_in_all_and_names_no_key(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        Simulator(rate_limits=RateLimits(rpm=2)) as sim,
        replica(tmp_path, database_url) as one,
        replica(tmp_path, database_url) as other,
    ):
        account_id = endpoint(sim.base_url).account_id
        assert KEY not in account_id
        with anyio.fail_after(60):
            for _ in range(3):
                await ask(one.upstream, sim)
            await wait_until(lambda: other.upstream.account(account_id).limits == {"requests": 2})
            async with replica(tmp_path, database_url) as late:
                await wait_until(lambda: late.upstream.account(account_id).limits == {"requests": 2})
            other_account = endpoint(sim.base_url, key="sk-another").account_id
            assert other.upstream.account(other_account).limits == {}


@pytest.mark.soak
async def test_a_replica_s_slots_follow_how_many_live(tmp_path: Path, database_url: str) -> None:
    async with replica(tmp_path, database_url) as one:
        assert one.upstream.slots == 16
        one.living = 3
        with anyio.fail_after(60):
            await wait_until(lambda: one.upstream.slots == 5)
            one.living = 1
            await wait_until(lambda: one.upstream.slots == 16)
