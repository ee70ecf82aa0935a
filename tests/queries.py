"""How SQLite would do each statement that any test has the store execute: none may go through a table that grows.

A plan depends on the schema and not on the rows, since nothing here makes statistics. So a small file tells as much as
one of a hundred thousand runs.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

from kimi_mcp.runs.store import engine

GROWING = ("runs", "pieces", "conversations", "steps")
"""Tables that have a row for each run, or several."""

COUNTED_BY_HAND = "SELECT count(*) AS count_1 FROM runs"
"""What ``kimi-mcp doctor`` asks of a database elsewhere, once, when somebody calls it."""

seen: dict[str, list[str]] = {}
"""What is wrong with each statement that was executed so far."""


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collects what is wrong with the statements that are executed meanwhile."""
    wrong: list[str] = []

    def look(connection: Connection, cursor: Any, statement: str, parameters: Any, context: object, many: bool) -> None:
        del context
        alike = re.sub(r"\?(, \?)+", "?, …", statement)
        if connection.dialect.name != "sqlite" or not re.match(r"SELECT|INSERT|UPDATE|DELETE", statement):
            return
        if alike.split() == COUNTED_BY_HAND.split():
            return
        if alike not in seen:
            seen[alike] = problems(cursor.connection, statement, parameters[0] if many else parameters)
        wrong.extend(f"{found}: {alike}" for found in seen[alike])

    def execute(connection: Connection, statement: Any, values: Mapping[str, Any] | None = None) -> Any:
        if not isinstance(statement, str) and connection.dialect.name == "sqlite":
            compiled = statement.compile(dialect=connection.dialect, column_keys=list(values or ()))
            known = {**compiled.params, **(values or {})}
            with closing(connection.connection.cursor()) as cursor:
                look(connection, cursor, str(compiled), [known[name] for name in compiled.positiontup], None, False)
        return by_driver(connection, statement, values)

    by_driver, engine.execute = engine.execute, execute
    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield wrong
    finally:
        event.remove(Engine, "before_cursor_execute", look)
        engine.execute = by_driver


def problems(connection: Any, statement: str, parameters: Any) -> list[str]:
    """The steps of a statement's plan that take longer the more rows there are."""
    if re.match(r"SELECT runs\.id, .*ORDER BY runs\.started_at DESC, runs\.id$", statement, re.DOTALL):
        return []  # `kimi-mcp runs --json` lists every run, and goes through them
    try:
        with closing(connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)) as plan:
            steps = [step[3] for step in plan]
    except sqlite3.Error:
        return []  # so is the statement, and the test wants that
    return [
        step for step in steps if _is_slow(step, "LIMIT" in statement and "USE TEMP B-TREE FOR ORDER BY" not in steps)
    ]


def _is_slow(step: str, first_of_index: bool) -> bool:
    """``first_of_index``: the statement takes the first rows in an index's own order, and no more."""
    if "AUTOMATIC" in step:
        return True  # an index is made for this one statement
    scanned = re.match(r"SCAN (\w+)", step)
    if scanned is None or scanned[1] not in GROWING:
        return False
    return not (first_of_index and "INDEX" in step)
