"""Where the store lies: its modes, the database that KIMI_DATABASE_URL names, and nowhere at all."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Column, Connection, Dialect, Engine, Select, Text, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import Settings
from kimi_mcp.runs.store import tables
from kimi_mcp.runs.store.config import FILE
from kimi_mcp.runs.store.inspection import inspect_store
from tests.runs.store.stores import CALLER, begin, end, everything, latest, run_store, wrong

DIALECTS: tuple[Dialect, ...] = (sqlite.dialect(), postgresql.dialect())
"""What the store is to be kept in today, and later."""

POSIX = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


@POSIX
@pytest.mark.parametrize("umask", [0o000, 0o077])
async def test_folder_and_files_are_their_owners_alone(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "above" / "data"
    before = os.umask(umask)
    try:
        async with run_store(folder) as kept:
            await begin(kept)
            found = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert found.pop("servers") == 0o700
    assert {FILE, f"{FILE}-wal", f"{FILE}-shm"} < set(found)
    assert any(name.endswith(".lock") for name in found)
    assert set(found.values()) == {0o600}


@POSIX
async def test_a_folder_of_other_things_keeps_its_mode_and_the_file_is_still_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    (folder / "thesis.txt").write_text("mine")
    async with run_store(folder) as kept:
        await begin(kept)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600


async def test_a_database_belongs_to_one_data_folder(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'named.sqlite3'}"
    first, second = tmp_path / "first", tmp_path / "second"
    async with (
        run_store(first, url=url) as kept,
        run_store(first, url=url) as same,
        run_store(second, url=url) as other,
    ):
        await begin(kept)
        assert await same.find("run_1", CALLER) is not None
        with pytest.raises(NotConfigured) as refused:
            await other.find("run_1", CALLER)
        assert "KIMI_DATA_DIR" in wrong(refused.value)
        assert "KIMI_DATABASE_URL" in wrong(refused.value)
        looked = inspect_store(Settings(database_url=url, data_dir=str(second)))
        assert looked.error is not None
        assert wrong(looked.error) == wrong(refused.value)
    first.rename(tmp_path / "moved")
    async with run_store(tmp_path / "moved", url=url) as kept:
        assert await kept.find("run_1", CALLER) is not None, "a folder stays itself where it is moved"
    with closing(sqlite3.connect(tmp_path / "named.sqlite3")) as file, file:
        file.execute("DELETE FROM about WHERE name = 'folder'")
    async with run_store(second, url=url) as other:
        assert await other.find("run_1", CALLER) is not None, "which the error says how to do"


async def test_a_folder_that_lost_its_id_is_still_that_of_a_database_inside_it(tmp_path: Path) -> None:
    inside, outside = f"sqlite:///{tmp_path / 'data' / 'named.sqlite3'}", f"sqlite:///{tmp_path / 'named.sqlite3'}"
    for url in (inside, outside):
        async with run_store(tmp_path / "data", url=url) as store:
            await begin(store)
        known = (tmp_path / "data" / "journal.id").read_text()
        (tmp_path / "data" / "journal.id").unlink()
        inspected = inspect_store(Settings(database_url=url, data_dir=str(tmp_path / "data")))
        async with run_store(tmp_path / "data", url=url) as store:
            if url == inside:
                assert await store.find("run_1", CALLER) is not None
                assert inspected.error is None
                assert (tmp_path / "data" / "journal.id").read_text() == known
            else:
                with pytest.raises(NotConfigured) as refused:
                    await store.find("run_1", CALLER)
                assert inspected.error is not None
                assert wrong(inspected.error) == wrong(refused.value)
                assert "journal.id" in refused.value.fix, "it says how to go on"


async def test_two_servers_that_start_at_once_agree_on_their_folder(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'named.sqlite3'}"
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        for number in range(8):
            kept = await stack.enter_async_context(run_store(tmp_path / "data", url=url))
            tasks.start_soon(begin, kept, f"run_{number}")


@POSIX
async def test_a_database_that_was_named_is_its_owners_alone_too(tmp_path: Path) -> None:
    file = tmp_path / "named.sqlite3"
    before = os.umask(0)
    try:
        async with run_store(tmp_path / "data", url=f"sqlite:///{file}") as kept:
            await begin(kept)
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("named*")}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3
    assert not (tmp_path / "data" / FILE).exists()


SECRET = "hunter2-and-more"


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://me:{SECRET}@127.0.0.1:1/x",
        f"postgresql://me:{SECRET}@127.0.0.1:1/x",
        f"nonsense://me:{SECRET}@host/x",
        f"http://me:{SECRET}@host/x",
        f"sqlite+aiosqlite:///{SECRET}",
        f"postgresql+asyncpg://me:{SECRET}@127.0.0.1:1/x",
        f"://{SECRET}",
        f"postgresql://me:{SECRET}@host:port/x",
        "sqlite://",
        "sqlite:///:memory:",
        f"sqlite:////{SECRET}-folder/that/is/not/there/x.sqlite3",
        "sqlite:////dev",
        "/not/a/url",
        "\x00",
    ],
)
async def test_a_url_that_is_no_database_is_named_without_its_password(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_store(tmp_path, url=url) as kept:
        with anyio.fail_after(60), pytest.raises(NotConfigured) as refused:
            await begin(kept)
    assert "KIMI_DATABASE_URL" in wrong(refused.value)
    assert SECRET not in wrong(refused.value)
    assert SECRET not in caplog.text


async def test_a_named_database_may_hold_other_things(tmp_path: Path) -> None:
    file = tmp_path / "shared.sqlite3"
    with closing(sqlite3.connect(file)) as shared:
        shared.executescript("CREATE TABLE notes (a TEXT); INSERT INTO notes VALUES ('mine')")
    async with run_store(tmp_path / "data", url=f"sqlite:///{file}") as kept:
        await begin(kept)
        assert len(await latest(kept)) == 1
    with closing(sqlite3.connect(file)) as shared:
        assert shared.execute("SELECT a FROM notes").fetchall() == [("mine",)]


async def test_a_journal_in_memory_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with run_store(None) as kept:
        await begin(kept)
        await end(kept)
    assert everything(tmp_path) == b""


def test_the_schema_has_only_what_every_database_has() -> None:
    columns = [column for table in tables.SCHEMA.tables.values() for column in table.columns]
    made = {column.type.compile(dialect=dialect) for column in columns for dialect in DIALECTS}
    assert made <= {"TEXT", "INTEGER", "FLOAT"}
    assert isinstance(tables.about.c.value, Column)
    assert isinstance(tables.about.c.value.type, Text)


async def test_writers_of_any_database_go_one_at_a_time_and_readers_wait_for_none(tmp_path: Path) -> None:
    firsts: list[str] = []

    def rename(connection: Connection) -> None:
        connection.dialect.name = "another"  # of which the store knows nothing

    def note(connection: Connection, statement: Any, *more: object) -> None:
        del connection, more
        compiled = str(statement.compile(dialect=postgresql.dialect())) if isinstance(statement, Select) else ""
        if "FROM about" in compiled:
            firsts.append(compiled)

    event.listen(Engine, "engine_connect", rename)
    event.listen(Engine, "before_execute", note)
    try:
        async with run_store(tmp_path) as kept:
            await begin(kept)  # the tables are made
            firsts.clear()
            await end(kept)
            assert [compiled.endswith("FOR UPDATE") for compiled in firsts] == [True]
            firsts.clear()
            await kept.find("run_1", CALLER)
            assert [compiled.endswith("FOR UPDATE") for compiled in firsts] == [False]
    finally:
        event.remove(Engine, "engine_connect", rename)
        event.remove(Engine, "before_execute", note)


async def test_a_server_that_made_the_tables_at_the_same_moment_is_no_fault(
    tmp_path: Path,
) -> None:
    requested: list[int] = []

    def first(connection: Connection) -> None:
        requested.append(1)
        if len(requested) == 1:
            raise IntegrityError("CREATE TABLE", {}, Exception("another one was faster"))
        tables.SCHEMA.create_all(connection)

    async with run_store(tmp_path, migrations=[first]) as kept:
        await begin(kept)
        assert len(await latest(kept)) == 1


@pytest.mark.parametrize(("dialect", "kept"), [*zip(DIALECTS, ("a\0b", "a\ufffdb"), strict=True)])
@pytest.mark.parametrize("column", ["runs.answer", "runs.reasoning", "runs.prompt_head", "runs.host", "pieces.text"])
def test_a_character_that_a_database_can_not_hold_costs_no_more_than_itself(
    column: str, dialect: Dialect, kept: str
) -> None:
    table, name = column.split(".")
    written = tables.SCHEMA.tables[table].c[name].type.dialect_impl(dialect).bind_processor(dialect)
    assert (written("a\0b") if written else "a\0b") == kept
