"""The thread of a connection: which operations share a transaction, and which are not done at all."""

from __future__ import annotations

import threading
import time

import anyio
import pytest
from sqlalchemy import Connection

from kimi_mcp.runs.store.threads import DatabaseThread, PendingOperation, settle_all
from tests.loop_time import others_wait
from tests.runs.store.stores import in_thread


class Held:
    """Executes operations without a database, each transaction once it may; what shared one."""

    def __init__(self) -> None:
        self.transactions: list[int] = []
        self.began, self.goes_on = threading.Event(), threading.Event()

    def execute(self, thread: DatabaseThread, pending: list[PendingOperation]) -> None:
        del thread
        self.transactions.append(len(pending))
        self.began.set()
        self.goes_on.wait(60)
        connection: Connection = None  # pyright: ignore[reportAssignmentType]
        settle_all(pending, [each.operation(connection) for each in pending])


async def test_an_operation_whose_caller_was_refused_for_its_time_is_not_done_later() -> None:
    held, done = Held(), list[str]()
    thread = DatabaseThread("a-thread", held.execute)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(thread.run, lambda _: done.append("first"))
            await in_thread(held.began.wait, 60)
            with pytest.raises(TimeoutError):
                await thread.run(lambda _: done.append("late"), within_s=0.01)
            held.goes_on.set()
        await thread.run(lambda _: done.append("last"))
        await in_thread(thread.end, time.monotonic() + 60)
    assert done == ["first", "last"]


async def test_what_waits_meanwhile_shares_the_next_transaction() -> None:
    held = Held()
    thread = DatabaseThread("a-thread", held.execute)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(thread.run, lambda _: None)
            await in_thread(held.began.wait, 60)
            for _ in range(3):
                tasks.start_soon(thread.run, lambda _: None)
            await others_wait()
            held.goes_on.set()
        await in_thread(thread.end, time.monotonic() + 60)
    assert held.transactions == [1, 3]
