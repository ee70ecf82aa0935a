"""A database server that does not answer: nobody waits for it longer than agreed, and it is used again once it does."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import make_url

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import Settings
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.engine import connect_arguments
from kimi_mcp.runs.store.inspection import inspect_store
from kimi_mcp.simulator import Simulator
from tests.runs.store.frozen import database_server
from tests.runs.store.stores import CALLER, begin, run_store, wrong
from tests.server.clients import connect, wait_until
from tests.server.requests import HELD_STEP, body_of, chats

IMPATIENT = StoreLimits(answers_within_s=0.3)


async def answered(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What is asked, once the server is heard in time: the machine may be busy."""
    while True:
        try:
            return await ask()
        except NotConfigured:
            await anyio.sleep(0.01)


async def test_a_frozen_database_is_not_waited_for_and_works_again_once_it_answers(tmp_path: Path) -> None:
    with database_server(tmp_path) as server, anyio.fail_after(60):
        async with run_store(tmp_path / "data", url=server.url, limits=IMPATIENT) as kept:
            await answered(lambda: begin(kept, "run_1"))
            server.freeze()
            for _ in range(2):
                with pytest.raises(NotConfigured) as read:
                    await kept.find("run_1", CALLER)
                assert "KIMI_DATABASE_URL" in wrong(read.value)
                with pytest.raises(NotConfigured):
                    await begin(kept, "run_2")
            server.thaw()
            assert await answered(lambda: kept.find("run_1", CALLER)) is not None


async def test_who_does_not_wait_hears_that_a_frozen_database_did_not_do_it(tmp_path: Path) -> None:
    with database_server(tmp_path) as server, anyio.fail_after(60):
        async with run_store(tmp_path / "data", url=server.url, limits=IMPATIENT) as kept:
            await answered(lambda: begin(kept))
            server.freeze()
            with pytest.raises(NotConfigured):
                await kept.append([], {"run_1": {"counted_usd": 1.0}})


@pytest.mark.parametrize("statements", [0, 1, 2])
async def test_a_database_whose_connection_breaks_is_not_taken_for_another_programs(
    tmp_path: Path, statements: int
) -> None:
    with database_server(tmp_path) as server, anyio.fail_after(60):
        async with run_store(tmp_path / "data", url=server.url) as kept:
            await begin(kept)
            for ask in (partial(kept.find, "run_1", CALLER), partial(begin, kept, "run_2")):
                server.statements = statements
                with pytest.raises(NotConfigured, match="does not answer as it should"):
                    await ask()
                server.statements = math.inf
                await ask()


async def test_after_a_restart_of_the_database_server_no_call_fails(tmp_path: Path) -> None:
    with database_server(tmp_path) as server, anyio.fail_after(60):
        async with run_store(tmp_path / "data", url=server.url) as kept:
            await begin(kept, "run_1")
            assert await kept.find("run_1", CALLER) is not None
            server.restart()
            assert await kept.find("run_1", CALLER) is not None
            await begin(kept, "run_2")


async def test_a_frozen_database_is_reported_by_an_inspection(tmp_path: Path) -> None:
    with database_server(tmp_path) as server:
        server.freeze()
        looked = inspect_store(Settings(database_url=server.url, data_dir=str(tmp_path / "data")), IMPATIENT)
    assert looked.error is not None
    assert "KIMI_DATABASE_URL" in wrong(looked.error)


@pytest.mark.soak
async def test_calls_keep_the_hosts_patience_while_the_database_is_frozen_and_lose_nothing(tmp_path: Path) -> None:
    with database_server(tmp_path) as server, anyio.fail_after(60):
        async with (
            Simulator(provider="simulator") as sim,
            connect(sim, KIMI_DATABASE_URL=server.url, KIMI_REPLY_WITHIN_S="1") as kimi,
        ):
            sim.play({"content": "zero"}, HELD_STEP)
            first = await kimi.instant("one")
            while first.status == "running":
                first = await kimi.run(first.run_id, wait_s=10)
            conversation = first.structured["conversation_id"]
            held = await kimi.instant("two", conversation_id=conversation)
            assert held.status == "running"
            await sim.until(lambda: sim.waiting_at("end") == 1)
            server.freeze()
            sim.open_gate("end")
            answer = await kimi.run(held.run_id, wait_s=10)
            assert (answer.status, answer.answer) == ("completed", HELD_STEP["content"])
            for refused in (await kimi.instant("three", conversation_id=conversation), await kimi.run()):
                assert refused.code == "not_configured"
            assert len(chats(sim)) == 2
            server.thaw()
            await wait_until(lambda: not kimi.runs.recorder.unwritten)
            third = await kimi.instant("three", conversation_id=conversation)
            while third.status == "running":
                third = await kimi.run(third.run_id, wait_s=10)
            assert third.status == "completed"
            contents = [message["content"] for message in body_of(chats(sim)[-1])["messages"]]
    assert contents == ["one", "zero", "two", HELD_STEP["content"], "three"]


def test_a_driver_of_postgresql_gets_timeouts_unless_the_url_has_others() -> None:
    arguments = connect_arguments(make_url("postgresql+psycopg://host/x"), StoreLimits())
    assert arguments["connect_timeout"] == 5
    assert "-c statement_timeout=5000" in arguments["options"]
    assert "-c lock_timeout=5000" in arguments["options"]
    own = connect_arguments(
        make_url("postgresql+psycopg2://host/x?connect_timeout=60&options=-c%20lock_timeout%3D9"), StoreLimits()
    )
    assert "connect_timeout" not in own
    assert own["options"].endswith("-c lock_timeout=9"), "the last one counts"
    assert connect_arguments(make_url("mysql+pymysql://host/x"), StoreLimits()) == {}
