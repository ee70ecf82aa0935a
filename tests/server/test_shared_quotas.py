"""Quotas over replicas of one PostgreSQL: each principal gets its own, at whichever replica it calls."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.core.errors import RateLimited
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import read_settings
from kimi_mcp.runs.store.records import RunEnd
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.server.http.auth.scopes import ADMIN, USE
from kimi_mcp.server.http.auth.token_file import TokenFile, utc_now
from kimi_mcp.server.quotas import SharedQuotas
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import entry, run_store
from tests.server.clients import store_limits, wait_until
from tests.server.http.served import bearer, served
from tests.server.requests import HELD_STEP

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests start no PostgreSQL there")

ANN, BEN = "kimi-mcp#ann", "kimi-mcp#ben"


class Replicas:
    """Replicas that take calls at once."""

    def __init__(self, stores: list[RunStore], variables: dict[str, str]) -> None:
        self.stores = stores
        self._quotas = [SharedQuotas(read_settings(variables), store) for store in stores]
        self.taken: list[str] = []
        self.refused: list[RateLimited] = []

    async def call(self, principal: str = ANN, *, replica: int = 0, run_id: str = "run_0") -> None:
        try:
            self.taken.append(await self._quotas[replica].take(principal, run_id))
        except RateLimited as refusal:
            self.refused.append(refusal)

    async def call_everywhere(self, each: int, principal: str = ANN) -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(each * len(self.stores)):
                    tasks.start_soon(self._numbered, principal, number)

    async def _numbered(self, principal: str, number: int) -> None:
        await self.call(principal, replica=number % len(self.stores), run_id=f"run_{principal}_{number}")

    async def ended(self, call_id: str) -> None:
        await self._quotas[0].ended(call_id)


@asynccontextmanager
async def replicas(folder: Path, url: str, **variables: str) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(run_store(folder, url=url)) for _ in range(3)]
        yield Replicas(stores, variables)


@pytest.mark.soak
async def test_calls_that_come_at_once_at_three_replicas_are_taken_up_to_the_quota_and_no_further(
    tmp_path: Path, database_url: str
) -> None:
    quotas = {"KIMI_QUOTA_CALLS_PER_MINUTE": "7", "KIMI_QUOTA_CALLS_AT_ONCE": "100"}
    async with replicas(tmp_path, database_url, **quotas) as three:
        await three.call_everywhere(8)
        assert len(three.taken) == 7
        await three.call(BEN)
        assert len(three.taken) == 8
        refusal = three.refused[0]
        assert "KIMI_QUOTA_CALLS_PER_MINUTE" in refusal.fix
        assert refusal.retry_after_s is not None
        assert 1 <= refusal.retry_after_s <= 60


async def test_one_call_at_once_is_one_over_all_replicas_until_its_run_has_ended(
    tmp_path: Path, database_url: str
) -> None:
    async with replicas(tmp_path, database_url, KIMI_QUOTA_CALLS_AT_ONCE="1") as three:
        await three.call_everywhere(5)
        assert len(three.taken) == 1
        await three.ended(three.taken[0])  # it was refused before its run was recorded
        await three.call(replica=2, run_id="run_recorded")
        assert len(three.taken) == 2
        owner = three.stores[2]
        await owner.record(entry("run_recorded", caller=ANN), counted_usd=0.0, is_new=True)
        await three.call(replica=1)
        assert len(three.taken) == 2
        assert "You have 1 call running" in three.refused[-1].message
        done = Outcome(status="completed", run_id="run_recorded", answer="")
        await owner.end(RunEnd(run_id="run_recorded", outcome=done, ended_at=owner.now()))
        await three.call(replica=1)
        assert len(three.taken) == 3


@pytest.mark.soak
async def test_a_principal_who_calls_two_replicas_meets_one_quota_and_metrics_show_the_shares(
    sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    sim.play({**HELD_STEP, "match": {"text": "held"}}, {"content": "Hi.", "times": "always"})
    file = TokenFile(tmp_path / "tokens.json")
    (_, ann), (_, ben) = (file.add(name, (*USE, ADMIN), now=utc_now()) for name in ("ann", "ben"))
    variables: dict[str, Any] = {
        "KIMI_CLUSTER": "on",
        "KIMI_DATABASE_URL": database_url,
        "KIMI_HTTP_TOKENS": str(tmp_path / "tokens.json"),
        "KIMI_QUOTA_CALLS_AT_ONCE": "1",
        "KIMI_REPLY_WITHIN_S": "0.5",
        "options": store_limits(beat_s=0.1),
    }
    async with AsyncExitStack() as opened:
        here, there = [await opened.enter_async_context(served(sim, **variables)) for _ in range(2)]
        one = await opened.enter_async_context(here.client(token=ann))
        other = await opened.enter_async_context(there.client(token=ann))
        another = await opened.enter_async_context(there.client(token=ben))
        with anyio.fail_after(60):
            for http in (here, there):
                await wait_until(lambda http=http: not http.serving.app.gate.joining)
                await wait_until(lambda http=http: http.state.pipeline and http.state.pipeline.upstream.slots == 8)
            running = await one.think("held")
            assert running.status == "running"
            refused = await other.think("more")
            assert (refused.code, refused.error["retry_after_s"]) == ("rate_limited", 5)
            assert (await another.ended(await another.think("more"))).status == "completed"
            page = await there.raw.get("/metrics", headers=bearer(ben))
            assert "kimi_replicas 2.0" in page.text
            assert "kimi_upstream_slots 8.0" in page.text
            sim.open_gate("end")
            assert (await one.ended(running)).status == "completed"
            assert (await other.ended(await other.think("more"))).status == "completed"
