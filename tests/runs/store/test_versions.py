"""Files of another version, or another program's: nothing in them is harmed, and an older one is brought along."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Literal

import anyio
import pytest
from sqlalchemy import Connection, text

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.types import Adjustment, MediaPart, TextPart, Timing, ToolCall, Turn, Usage
from kimi_mcp.runs.store import queries, tables
from tests.runs.store.stores import CALLER, begin, end, ended, opened, run_end, run_store, wrong


async def test_a_newer_file_is_left_as_it_is(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
    with opened(tmp_path) as file:
        file.execute("UPDATE about SET value = '99' WHERE name = 'version'")
        before = list(file.iterdump())
    async with run_store(tmp_path) as kept:
        for _ in range(2):
            with pytest.raises(NotConfigured) as refused:
                await begin(kept, "run_2")
            assert "newer" in wrong(refused.value)
            with pytest.raises(NotConfigured):
                await kept.find("run_1", CALLER)
    with opened(tmp_path) as file:
        assert list(file.iterdump()) == before


async def test_a_file_that_becomes_newer_while_it_is_open_is_written_no_more(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
        with opened(tmp_path) as file:
            file.execute("UPDATE about SET value = '99' WHERE name = 'version'")
        with pytest.raises(NotConfigured, match="newer"):
            await end(kept)
        with opened(tmp_path) as file:
            assert file.execute("SELECT status FROM runs").fetchone() == ("running",)


async def test_an_older_file_is_brought_up_to_date_with_all_that_is_in_it(
    tmp_path: Path,
) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
        await end(kept)

    def second(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE runs ADD COLUMN mood TEXT"))
        connection.execute(text("UPDATE runs SET mood = 'good' WHERE id = 'run_1'"))

    def fails(connection: Connection) -> None:
        second(connection)
        raise sqlite3.OperationalError("in the middle of it")

    for migration, held in ((fails, False), (second, True)):
        async with run_store(tmp_path, migrations=(*tables.MIGRATIONS, migration)) as kept:
            if not held:
                with pytest.raises(NotConfigured):
                    await kept.find("run_1", CALLER)
            else:
                found = await kept.find("run_1", CALLER)
                assert found is not None
                assert found.outcome.answer == "It is 391."
        with opened(tmp_path) as file:
            assert file.execute("SELECT value FROM about WHERE name = 'version'").fetchall() == [
                (str(len(tables.MIGRATIONS) + held),)
            ]
            columns = [row[1] for row in file.execute("PRAGMA table_info(runs)")]
            assert ("mood" in columns) is held, "wholly or not at all"
    async with run_store(tmp_path) as kept:
        with pytest.raises(NotConfigured, match="newer"):
            await begin(kept, "run_2")


async def test_two_servers_may_bring_it_up_to_date_at_once(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
    done: list[int] = []

    def second(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE runs ADD COLUMN mood TEXT"))
        done.append(1)

    newer = (*tables.MIGRATIONS, second)
    async with (
        run_store(tmp_path, migrations=newer) as one,
        run_store(tmp_path, migrations=newer) as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(begin, one, "run_2")
        tasks.start_soon(begin, other, "run_3")
    assert len(done) == 1


async def test_a_file_of_version_1_learns_for_how_long_runs_have_lived(tmp_path: Path) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
    with opened(tmp_path) as file:
        file.execute("ALTER TABLE runs DROP COLUMN lived_s")
        file.execute("UPDATE about SET value = '1'")
    async with run_store(tmp_path) as kept:
        await begin(kept, "run_2")
        for run_id in ("run_1", "run_2"):
            found = await kept.find(run_id, CALLER)
            assert found is not None
            assert found.lived_s == 0.0


async def test_a_file_of_version_2_gets_what_it_lacks_and_is_counted_like_any_other(tmp_path: Path) -> None:
    def indexes() -> set[str]:
        with opened(tmp_path) as file:
            return {row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}

    async with run_store(tmp_path) as kept:
        await begin(kept)
        await end(kept, usage=Usage(total_tokens=3), cost_usd=0.5, timing=Timing(total_s=2.0))
        before = await kept.read(queries.totals, kept.now())
    made = indexes()
    with opened(tmp_path) as file:
        for name in ("runs_by_conversation", "runs_by_end", "conversations_by_writer", "runs_by_time"):
            file.execute(f"DROP INDEX {name}")
        for name in ("took_s", "tokens", "cost_usd"):
            file.execute(f"ALTER TABLE runs DROP COLUMN {name}")
        file.execute("CREATE INDEX runs_by_start ON runs (started_at)")
        file.execute("UPDATE about SET value = '2' WHERE name = 'version'")
    async with run_store(tmp_path) as kept:
        found = await kept.find("run_1", CALLER)
        assert found is not None
        assert found.outcome.answer == "It is 391."
        assert await kept.read(queries.totals, kept.now()) == before
    assert indexes() == made
    with opened(tmp_path) as file:
        assert file.execute("SELECT value FROM about WHERE name = 'version'").fetchone() == (
            str(len(tables.MIGRATIONS)),
        )


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE notes (a TEXT)",
        "CREATE TABLE runs (a TEXT)",
        "CREATE TABLE about (a TEXT)",
        "CREATE TABLE about (name TEXT, value TEXT); INSERT INTO about VALUES ('version', 'a word')",
    ],
)
async def test_another_programs_database_is_left_as_it_is(tmp_path: Path, made: str) -> None:
    with opened(tmp_path) as file:
        file.executescript(made)
        before = list(file.iterdump())
    async with run_store(tmp_path) as kept:
        with pytest.raises(NotConfigured) as refused:
            await begin(kept)
    assert "another program" in wrong(refused.value)
    with opened(tmp_path) as file:
        assert list(file.iterdump()) == before


async def test_rows_with_fields_that_only_a_newer_version_knows_are_read_without_them(tmp_path: Path) -> None:
    requested = Turn(
        role="assistant",
        parts=(TextPart(text="a"), MediaPart(kind="image", url="ms://1")),
        tool_calls=(ToolCall(id="1", name="f", arguments="{}"),),
    )
    adjusted = Adjustment(rule="effort-known", action="adjusted", field="effort", asked="x", sent=None, why="So.")
    outcome = ended("run_1", "partial", usage=Usage(total_tokens=3), policy=(adjusted,), conversation_id="conv_1")
    async with run_store(tmp_path) as kept:
        await begin(kept, conversation_id="conv_1")
        await kept.end(run_end(kept, outcome, turns=[requested]))
        with opened(tmp_path) as file:
            for column in ("outcome", "turns"):
                (written,) = file.execute(f"SELECT {column} FROM runs").fetchone()
                news = json.dumps(json.loads(written, object_hook=lambda value: value | {"news": 1}))
                file.execute(f"UPDATE runs SET {column} = ?", [news])
        found = await kept.find("run_1", CALLER)
        assert found is not None
        assert replace(found.outcome, error=None) == replace(outcome, error=None)
        assert found.outcome.error is not None
        assert found.outcome.error.code == "answer_cut_off"
        assert await kept.history("run_1") == (requested,)


@pytest.mark.parametrize("field", ["mode", "finish_reason"])
async def test_a_word_that_only_a_newer_version_knows_is_left_out_and_damages_nothing(
    tmp_path: Path, field: Literal["mode", "finish_reason"]
) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
        await end(kept, mode="thinking", finish_reason="stop", model_asked="auto")
        with opened(tmp_path) as file:
            file.execute("UPDATE runs SET outcome = json_set(outcome, ?, 'of tomorrow')", [f"$.{field}"])
        found = await kept.find("run_1", CALLER)
    assert found is not None
    words = {"mode": "thinking", "finish_reason": "stop"} | {field: None}
    assert found.outcome == replace(ended(model_asked="auto"), **words)


@pytest.mark.parametrize("has_ended", [True, False])
async def test_a_run_with_a_status_that_only_a_newer_version_knows_is_shown_as_failed_with_all_that_it_has(
    tmp_path: Path, has_ended: bool
) -> None:
    async with run_store(tmp_path) as kept:
        await begin(kept)
        await end(kept, model_asked="auto")
        with opened(tmp_path) as file:
            file.execute("UPDATE runs SET status = 'of tomorrow'")
            if not has_ended:
                file.execute("UPDATE runs SET ended_at = NULL")
        found = await kept.find("run_1", CALLER)
        (listed,) = await kept.overview(None)
    assert found is not None
    error = found.outcome.error
    assert error is not None
    assert "newer" in error.message
    assert replace(found.outcome, error=None) == replace(ended(model_asked="auto"), status="failed")
    assert listed.outcome.status == "failed"


async def test_a_word_inside_a_list_that_only_a_newer_version_knows_costs_that_entry_alone(tmp_path: Path) -> None:
    one = Adjustment(rule="effort-known", action="adjusted", field="effort", asked="x", sent=None, why="So.")
    policy = tuple(replace(one, field=field) for field in ("a", "b", "c", "d"))
    async with run_store(tmp_path) as kept:
        await begin(kept)
        await end(kept, policy=policy, usage=Usage(total_tokens=3))
        with opened(tmp_path) as file:
            for number in (0, 2):
                file.execute("UPDATE runs SET outcome = json_set(outcome, ?, 'x')", [f"$.policy[{number}].action"])
        found = await kept.find("run_1", CALLER)
    assert found is not None
    assert found.outcome == ended(policy=(policy[1], policy[3]), usage=Usage(total_tokens=3))
