"""``Steps``: the requests and tool calls of a longer work, each recorded before it is made. I/O: the store's."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Insert, Row, Select, Update, bindparam, insert, select, update

from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.records import JSON, StepRecord, as_text
from kimi_mcp.runs.store.tables import runs, steps

if TYPE_CHECKING:
    from kimi_mcp.runs.store.running_steps import TextsSoFar
    from kimi_mcp.runs.store.store import RunStore

# Executed hundreds of times a swarm: built once, which takes longer than to execute them.
_THE_STEP = (steps.c.run_id == bindparam("run"), steps.c.key == bindparam("step"))
_RESULT = select(steps.c.result).where(*_THE_STEP)
_BEGIN = insert(steps)
_FINISH = update(steps).where(*_THE_STEP)
_COLUMNS = [steps.c.run_id, steps.c.key, steps.c.description, steps.c.began_at]


def owned(run_id: str, owner: Callable[[], str]) -> ColumnElement[bool]:
    """That a server runs a run, until the transaction ends; for PostgreSQL."""
    is_own = (runs.c.owner == bindparam("step_owner", callable_=owner)) & (runs.c.status == "running")
    return select(runs.c.id).where(runs.c.id == run_id, is_own).with_for_update(read=True).exists()


def step_record(row: Row[Any]) -> StepRecord:
    """A step of its row."""
    return StepRecord(
        key=row.key,
        description=json.loads(row.description),
        result=None if row.result is None else json.loads(row.result),
        began_at=row.began_at,
        ended_at=row.ended_at,
    )


class Steps:
    """The steps of one run: each request and each tool call of a swarm.

    A step is begun before it is made, finished before its result is used, and never made again once it is finished.
    Beginning it anew, in this process or another, returns the recorded result.

    ``fence``: what must hold, in PostgreSQL, for a step to be begun or finished; a server that was taken for dead is
    kept out by it. None: that this server runs the run.
    """

    _locks: tuple[str, ...] = ()
    """What the end of a step locks, in PostgreSQL."""

    def __init__(self, store: RunStore, run_id: str, fence: ColumnElement[bool] | None = None) -> None:
        self._store, self._run_id = store, run_id
        self._fence = owned(run_id, lambda: store.lock.id) if fence is None else fence
        self._fenced: tuple[Insert, Select[Any], Update] | None = None

    async def begin(self, key: str, description: JSON) -> JSON | None:
        """Begin a step; its result, where it was finished before. Raises ``AnswerCutOff`` where the run is another's.

        ``key`` is unique within the run and independent of the clock, such as ``agent-3/step-2/tool-1``;
        ``description`` is for people who look at the run: who makes it and what it requests.
        """
        row = {"run_id": self._run_id, "key": key, "description": as_text(description), "began_at": self._store.now()}
        result = await self._store.write(self._begin, row)
        return None if result is None else json.loads(result)

    async def finish(self, key: str, result: JSON) -> None:
        """Record the result of a step; returns once it can't be lost any more. Raises likewise."""
        row = {"run": self._run_id, "step": key, "result": as_text(result), "ended_at": self._store.now()}
        await self._store.write_locked(self._locks, self._finish, row)

    def running(self, key: str, texts: TextsSoFar) -> AbstractContextManager[None]:
        """The step runs here meanwhile: who looks at its agent gets the texts so far."""
        return self._store.running_steps.running(self._run_id, key, texts)

    async def recorded(self) -> list[StepRecord]:
        """All of them, in the order in which they began."""
        ordered = select(steps).where(steps.c.run_id == self._run_id).order_by(steps.c.began_at, steps.c.key)
        return [
            step_record(row) for row in await self._store.read(lambda connection: connection.execute(ordered).all())
        ]

    def _begin(self, connection: Connection, row: dict[str, Any]) -> str | None:
        here = {"run": row["run_id"], "step": row["key"]}
        if connection.dialect.name == "postgresql":
            begin, result, _ = self._statements()
            if connection.execute(begin, row).first() is not None:
                return None  # it is new
            found = connection.execute(result, here).first()
            if found is None or not found.holds:
                raise errors.taken_over()
            return found.result
        found = connection.execute(_RESULT, here).first()
        if found is None:
            connection.execute(_BEGIN, row)
        return None if found is None else found.result

    def _finish(self, connection: Connection, row: dict[str, Any]) -> None:
        if connection.dialect.name != "postgresql":
            connection.execute(_FINISH, row)
        elif not connection.execute(self._statements()[2], row).rowcount:
            raise errors.taken_over()

    def _statements(self) -> tuple[Insert, Select[Any], Update]:
        if self._fenced is None:
            from sqlalchemy.dialects import postgresql  # which takes a while, and is needed there alone

            new = select(*(bindparam(column.key, type_=column.type) for column in _COLUMNS)).where(self._fence)
            begin = postgresql.insert(steps).from_select(_COLUMNS, new).on_conflict_do_nothing().returning(steps.c.key)
            result = _RESULT.add_columns(self._fence.label("holds"))
            self._fenced = begin, result, _FINISH.where(self._fence)
        return self._fenced
