"""Statements that go by SQLite's own driver: the same ones that SQLAlchemy would send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from kimi_mcp.runs.store import engine
from kimi_mcp.runs.store.config import StoreLimits
from kimi_mcp.runs.store.tables import SCHEMA, conversations, runs

HERE: sa.BindParameter[Any] = sa.bindparam("here")
RUN = {
    "id": "run_1",
    "caller": "local",
    "host": None,
    "owner": "srv_1",
    "tool": "kimi_think",
    "status": "running",
    "prompt_head": "It's 1 + 1",
    "abandoned": 0,
    "resumable": 0,
    "cancel_requested": 1,
    "started_at": 5,
    "counted_usd": 0.25,
    "request": "{}",
}

STATEMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "insert": (sa.insert(runs), RUN),
    "insert from select": (
        sa.insert(conversations).from_select(
            ("id", "caller"),
            sa.select(sa.bindparam("id", type_=sa.Text), sa.literal("local")).where(
                ~sa.select(conversations.c.id).where(conversations.c.id == HERE).exists()
            ),
        ),
        {"here": "chat_1", "id": "chat_1"},
    ),
    "update": (
        sa.update(runs).where(runs.c.id == HERE, runs.c.status == "running"),
        {"here": "run_1", "answer": "a\0b", "took_s": 2, "cancel_requested": 0},
    ),
    "update with values of its own": (
        sa.update(runs).where(runs.c.id == HERE).values(owner=None, status=sa.bindparam("by")),
        {"here": "run_2", "by": "x"},
    ),
    "delete": (sa.delete(runs).where(runs.c.id == HERE), {"here": "run_2"}),
    "select": (
        sa.select(runs.c.id)
        .where(runs.c.id == HERE, runs.c.host.is_not_distinct_from(sa.bindparam("host")), runs.c.abandoned > 0)
        .limit(1),
        {"here": "run_1", "host": None},
    ),
}


@contextmanager
def opened() -> Iterator[sa.Connection]:
    in_memory = engine.open_engine(None, None, StoreLimits())
    try:
        with in_memory.connect() as connection:
            SCHEMA.create_all(connection)
            yield connection
    finally:
        in_memory.dispose()


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_driver_gets_the_statement_that_sqlalchemy_would_send(name: str) -> None:
    statement, values = STATEMENTS[name]
    with opened() as connection:
        sent: list[str] = []
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(sent.append)
        changed: list[int] = []
        for execute in (connection.execute, lambda *each: engine.execute(connection, *each)):
            engine.execute(connection, "BEGIN")
            cursor = execute(statement, values)
            changed.append(cursor.rowcount)
            engine.execute(connection, "ROLLBACK")
        driver.set_trace_callback(None)
    assert len(sent) == 6, "each began, executed and rolled back"
    assert sent[:3] == sent[3:]
    assert changed[0] == changed[1]


def test_a_row_that_is_found_is_returned() -> None:
    with opened() as connection:
        assert engine.execute(connection, sa.insert(runs), RUN).rowcount == 1
        wanted = sa.select(runs.c.id, runs.c.counted_usd).where(runs.c.id == HERE)
        assert engine.execute(connection, wanted, {"here": "run_1"}).row == ("run_1", 0.25)
        assert engine.execute(connection, wanted, {"here": "run_2"}).row is None


def test_what_the_database_refuses_is_sqlalchemys_error() -> None:
    with opened() as connection:
        engine.execute(connection, sa.insert(runs), RUN)
        with pytest.raises(IntegrityError):
            engine.execute(connection, sa.insert(runs), RUN)


def test_a_value_that_is_missing_is_not_taken_for_none() -> None:
    with opened() as connection, pytest.raises(KeyError, match="here"):
        engine.execute(connection, sa.delete(runs).where(runs.c.id == HERE))


def test_a_default_of_pythons_that_is_missing_is_not_left_out() -> None:
    incomplete = {name: value for name, value in RUN.items() if name != "abandoned"}
    with opened() as connection, pytest.raises(AssertionError, match="default"):
        engine.execute(connection, sa.insert(runs), incomplete)
