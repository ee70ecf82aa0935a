"""What can be wrong with the store's file: a clear error each time, nothing deleted, and the next call tries anew."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import Settings
from kimi_mcp.runs.store.config import FILE, StoreLimits
from kimi_mcp.runs.store.database import Database, Operation
from kimi_mcp.runs.store.store import open_store
from tests.loop_time import others_wait
from tests.runs.store.stores import CALLER, begin, grow, latest, opened, run_store, wrong

IMPATIENT = StoreLimits(locked_s=0.2)

POSIX = pytest.mark.skipif(os.name != "posix", reason="modes and mounts are POSIX's")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own that holds next to nothing."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free on a folder's disk."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 1024)
            except OSError:
                return ballast


async def test_a_full_disk_is_named_as_one_and_costs_only_what_comes_then(tiny: Path) -> None:
    async with run_store(tiny / "data") as kept:
        await begin(kept)
        assert not await grow(kept, "run_1", ("answer", 0, "It is "))
        ballast = fill(tiny)
        with pytest.raises(NotConfigured) as refused:
            await begin(kept, "run_x", request={"turns": ["x" * 500_000]})
        assert "full" in wrong(refused.value)
        assert "KIMI_DATA_DIR" in refused.value.fix
        assert "KIMI_JOURNAL=off" in refused.value.fix
        ballast.unlink()
        await begin(kept, "run_2")
        found = await kept.find("run_1", CALLER)
        assert found is not None
        assert found.outcome.answer == "It is "


async def test_a_disk_that_is_full_from_the_start_is_named_as_one(tiny: Path) -> None:
    fill(tiny)
    async with run_store(tiny / "data") as kept:
        with pytest.raises(NotConfigured) as refused:
            await begin(kept)
        assert "full" in wrong(refused.value)
        (tiny / "ballast").unlink()
        await begin(kept)


async def test_one_of_many_that_fails_spoils_nobody_elses(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
        bad: list[BaseException] = []

        async def spoiled() -> None:
            try:
                await kept.append([], {"run_1": {"counted_usd": object()}})  # no number
            except NotConfigured as fault:
                bad.append(fault)

        async with anyio.create_task_group() as tasks:
            for number in range(2, 30):
                tasks.start_soon(begin, kept, f"run_{number}")
                tasks.start_soon(spoiled)
        assert len(await latest(kept)) == 29
        assert len(bad) == 28
        assert all(isinstance(fault, NotConfigured) for fault in bad), bad


async def test_a_locked_file_is_waited_for_and_then_named(tmp_path: Path) -> None:
    async with run_store(tmp_path, limits=IMPATIENT) as kept:
        await begin(kept)
        with opened(tmp_path) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(NotConfigured) as refused:
                await begin(kept, "run_2")
            assert "locked" in wrong(refused.value)
            found = await kept.find("run_1", CALLER)
            assert found is not None, "who only reads waits for nobody"
            other.execute("ROLLBACK")
        await begin(kept, "run_2")


async def test_a_file_that_is_locked_before_it_is_opened_is_named_too(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
    with opened(tmp_path) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with run_store(tmp_path, limits=IMPATIENT) as kept:
            with pytest.raises(NotConfigured) as refused:
                await begin(kept, "run_2")
            assert "locked" in wrong(refused.value)
            other.execute("ROLLBACK")
            await begin(kept, "run_2")


async def test_whoever_waits_while_a_locked_file_is_opened_shares_that_attempt(tmp_path: Path) -> None:
    attempts, is_locked, go_on = list[str](), True, threading.Event()

    def prepare(connection: Connection) -> None:
        attempts.append(threading.current_thread().name)
        assert go_on.wait(30)
        if is_locked:
            locked = sqlite3.OperationalError("database is locked")
            locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise OperationalError("BEGIN IMMEDIATE", None, locked)

    faults: list[NotConfigured] = []

    async def ask(how: Callable[[Operation[int]], Awaitable[int]]) -> None:
        with pytest.raises(NotConfigured, match="locked") as refused:
            await how(lambda connection: 1)
        faults.append(refused.value)

    database = Database(tmp_path, on_open=prepare)
    try:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(ask, database.read)
                    tasks.start_soon(ask, database.write)
                await others_wait()
                go_on.set()
            assert len(faults) == 8
            assert len(attempts) == 1, "who waited for that one does not wait for another"
            await ask(database.read)
            assert len(attempts) == 2, "the next one tries again"
            is_locked = False
            assert await database.write(lambda connection: 1) == 1
    finally:
        go_on.set()
        database.close()


@pytest.mark.parametrize(("patience_s", "locked_s"), [(0.1, 1), (1, 1), (8, 4), (45, 5)])
async def test_a_locked_file_is_waited_for_no_longer_than_half_the_hosts_patience(
    tmp_path: Path, patience_s: float, locked_s: float
) -> None:
    kept = open_store(Settings(data_dir=str(tmp_path), reply_within_s=patience_s))
    for ask in (kept.read, kept.write):
        found = await ask(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout").scalar())
        assert found == locked_s * 1000
    await kept.aclose()


async def test_a_file_that_another_server_writes_to_as_it_is_switched_to_wal_is_waited_for(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA auto_vacuum = NONE", "VACUUM", "BEGIN IMMEDIATE"):
        other.execute(statement)  # as a file of an older version: nothing else is written before it is switched
    attempts: list[str] = []

    def commit_at_the_second(connection: object, cursor: object, statement: str, *more: object) -> None:
        if "journal_mode" in statement:
            attempts.append(statement)
            if len(attempts) == 2:
                other.execute("COMMIT")

    event.listen(Engine, "before_cursor_execute", commit_at_the_second)
    try:
        async with run_store(tmp_path) as kept:
            assert len(await latest(kept)) == 1
    finally:
        event.remove(Engine, "before_cursor_execute", commit_at_the_second)
        other.close()
    assert len(attempts) == 2


async def test_a_file_that_was_removed_while_it_was_open_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with run_store(folder) as one:
        await begin(one, "run_1")
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        folder.rmdir()
        await begin(one, "run_2")
        async with run_store(folder) as other:
            found = await other.find("run_2", CALLER)
            assert found is not None
            assert found.running, "its server is seen to be alive"


async def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for folder in (taken, taken / "below"):
        async with run_store(folder) as kept:
            with pytest.raises(NotConfigured) as refused:
                await begin(kept)
            assert "folder" in wrong(refused.value)
            assert str(tmp_path) not in wrong(refused.value)
    assert taken.read_text() == "mine"


@pytest.mark.parametrize("name", [FILE, "servers"])
async def test_something_else_of_that_name_in_the_folder_is_named(tmp_path: Path, name: str) -> None:
    if name == FILE:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("mine")
    async with run_store(tmp_path) as kept:
        with pytest.raises(NotConfigured) as refused:
            await begin(kept)
    assert str(tmp_path) not in wrong(refused.value)
    assert (tmp_path / name).exists()


@POSIX
@pytest.mark.parametrize("bound", ["before", "while it is open"])
async def test_a_read_only_folder_is_named(tmp_path: Path, bound: str) -> None:
    folder = tmp_path / "data"
    async with run_store(folder) as kept:
        await begin(kept)
        if bound == "before":
            await kept.aclose()
        bind = [["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,ro,bind", str(folder)]]
        if os.geteuid() != 0 or any(subprocess.run(each, capture_output=True).returncode for each in bind):
            pytest.skip("nothing can be mounted here")
        try:
            if bound == "before":
                with pytest.raises(NotConfigured) as refused:
                    await begin(kept, "run_2")
                assert "read-only" in wrong(refused.value)
            else:
                await begin(kept, "run_2")  # the descriptor that is open writes on: nothing is lost
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        await begin(kept, "run_3")


@pytest.mark.parametrize("folder", ["on disk", "in memory"])
async def test_an_operation_that_ends_its_thread_costs_itself_alone(tmp_path: Path, folder: str) -> None:
    def end_the_thread(connection: Connection) -> None:
        raise SystemExit

    database = Database(tmp_path if folder == "on disk" else None, on_open=lambda connection: None)
    try:
        with anyio.fail_after(60):
            for ask in (database.write, database.read):
                with pytest.raises(NotConfigured):
                    await ask(end_the_thread)
            assert await database.write(lambda connection: 1) == 1
            assert await database.read(lambda connection: 2) == 2
    finally:
        database.close()


async def test_a_process_that_may_start_no_thread_says_so_and_works_once_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    database = Database(tmp_path, on_open=lambda connection: None)
    try:
        with anyio.fail_after(60):
            with monkeypatch.context() as within:
                within.setattr(threading.Thread, "start", refused)
                with pytest.raises(NotConfigured, match="no more threads"):
                    await database.write(lambda connection: 1)
            assert await database.write(lambda connection: 1) == 1
    finally:
        database.close()
