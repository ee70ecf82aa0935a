"""What servers of one PostgreSQL hear from each other: at once, each once, and again after the connection broke."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, text

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.runs.store.notifications import CHANNEL, Waiter, notify
from kimi_mcp.runs.store.store import RunStore
from tests.postgres import postgres
from tests.runs.store.stores import run_store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests start no PostgreSQL there")

LONG_S = 60.0
"""No notification is waited for in vain."""


async def heard(store: RunStore, waiter: Waiter) -> None:
    """Return once the store hears the others, of which its first waiter is notified."""
    while await waiter.next(LONG_S, deaf_s=LONG_S) or not store.notifications.are_heard:
        pass


async def ids(waiter: Waiter) -> set[str]:
    """The next ids that come, whatever else wakes it."""
    while not (came := await waiter.next(LONG_S)):
        pass
    return came


async def test_what_a_server_commits_is_heard_by_the_others_and_what_it_takes_back_is_not(
    tmp_path: Path, database_url: str
) -> None:
    def reported(connection: Connection, fails: bool) -> None:
        for _ in range(3):
            notify(connection, "run", "run_1")
        notify(connection, "turn", "conv_1")
        assert not fails

    async with (
        run_store(tmp_path, url=database_url) as one,
        run_store(tmp_path, url=database_url) as other,
        other.notifications.waiting("run", "run_1") as own,
        other.notifications.waiting("turn") as every,
    ):
        with anyio.fail_after(LONG_S):
            await heard(other, own)
            await one.write(reported, False)
            assert await ids(own) == {"run_1"}
            assert await ids(every) == {"conv_1"}
            with pytest.raises(NotConfigured):
                await one.write(reported, True)
            await one.write(notify, "turn", "conv_2")
            assert await ids(every) == {"conv_2"}
            assert await own.next(0) == set()


async def test_a_connection_that_breaks_wakes_those_who_wait_and_is_made_again(
    tmp_path: Path, database_url: str
) -> None:
    sessions = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE query = 'LISTEN {CHANNEL}' AND datname = current_database()"
    )
    async with run_store(tmp_path, url=database_url) as store, store.notifications.waiting("run", "run_1") as waiter:
        with anyio.fail_after(LONG_S):
            await heard(store, waiter)
            assert await store.write(lambda connection: connection.execute(sessions).all()) == [(True,)]
            assert await waiter.next(LONG_S) == set(), "something may have been missed"
            while not store.notifications.are_heard:
                await waiter.next(LONG_S, deaf_s=LONG_S)
            await store.write(notify, "run", "run_1")
            assert await ids(waiter) == {"run_1"}


async def test_a_file_has_no_notifications_and_is_looked_at(tmp_path: Path) -> None:
    async with run_store(tmp_path) as store, store.notifications.waiting("run", "run_1") as waiter:
        await store.write(notify, "run", "run_1")
        assert await waiter.next(LONG_S, deaf_s=0) == set()
    assert not store.notifications.can_be_heard


@pytest.mark.soak
async def test_notifications_are_heard_again_once_a_stopped_postgresql_is_back(tmp_path: Path) -> None:
    with postgres() as server, anyio.fail_after(2 * LONG_S):
        url = server.socket_url
        async with run_store(tmp_path, url=url) as store, store.notifications.waiting("run", "run_1") as waiter:
            await heard(store, waiter)
            for _ in range(3):
                await anyio.to_thread.run_sync(server.stop)
                assert await waiter.next(LONG_S) == set()
                await anyio.to_thread.run_sync(server.start)
                while await waiter.next(1) != {"run_1"}:
                    await store.write(notify, "run", "run_1")
