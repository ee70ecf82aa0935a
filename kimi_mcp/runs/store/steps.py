"""``Steps``: what makes a long run durable. I/O: the store's.

Each request and each tool call of a swarm is a step: begun before it is made, finished before its result is used, and
never made again once it is finished. Beginning it anew, in this process or another, returns the recorded result.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sqlalchemy import Connection, bindparam, insert, select, update

from kimi_mcp.runs.store.database import Database
from kimi_mcp.runs.store.records import JSON, StepRecord, as_text
from kimi_mcp.runs.store.tables import steps

# Executed hundreds of times a swarm: built once, which takes longer than to execute them.
_THE_STEP = (steps.c.run_id == bindparam("run"), steps.c.key == bindparam("step"))
_RESULT = select(steps.c.result).where(*_THE_STEP)
_BEGIN = insert(steps)
_FINISH = update(steps).where(*_THE_STEP)
_IN_ORDER = select(steps).where(steps.c.run_id == bindparam("run")).order_by(steps.c.began_at, steps.c.key)


class Steps:
    """The steps of one run."""

    def __init__(self, database: Database, now: Callable[[], float], run_id: str) -> None:
        self._database, self._now, self._run_id = database, now, run_id

    async def begin(self, key: str, description: JSON) -> JSON | None:
        """Begin a step; its result, where it was finished before.

        ``key`` is unique within the run and independent of the clock, such as ``agent-3/step-2/tool-1``;
        ``description`` is for people who look at the run: who makes it and what it asks for.
        """
        now = self._now()

        def begin(connection: Connection) -> str | None:
            found = connection.execute(_RESULT, {"run": self._run_id, "step": key}).first()
            if found is None:
                row = {"run_id": self._run_id, "key": key, "description": as_text(description), "began_at": now}
                connection.execute(_BEGIN, row)
            return None if found is None else found.result

        result = await self._database.write(begin)
        return None if result is None else json.loads(result)

    async def finish(self, key: str, result: JSON) -> None:
        """Record the result of a step; returns once it can't be lost any more."""
        now = self._now()

        def finish(connection: Connection) -> None:
            row = {"run": self._run_id, "step": key, "result": as_text(result), "ended_at": now}
            connection.execute(_FINISH, row)

        await self._database.write(finish)

    async def recorded(self) -> list[StepRecord]:
        """All of them, in the order in which they began."""
        found = await self._database.read(lambda connection: connection.execute(_IN_ORDER, {"run": self._run_id}).all())
        return [
            StepRecord(
                key=row.key,
                description=json.loads(row.description),
                result=None if row.result is None else json.loads(row.result),
                began_at=row.began_at,
                ended_at=row.ended_at,
            )
            for row in found
        ]
