"""What a swarm on several replicas has used and holds, and its steps, which count with their end. I/O: the store's.

Each permission locks the row of its swarm, so that two replicas never spend the same dollar. A transaction may hold the
rows of several swarms: each has a lock of its own besides, which all of them take in one order.
What a step holds lies under its key: where its replica died, that is released when another one begins the step again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from kimi_mcp.core.errors import AnswerCutOff, Internal
from kimi_mcp.runs.jobs import Fenced
from kimi_mcp.runs.store import errors
from kimi_mcp.runs.store.notifications import notify
from kimi_mcp.runs.store.records import JSON, StepRecord, Used
from kimi_mcp.runs.store.shared_tables import forget_swarms, swarm_holds, swarm_totals
from kimi_mcp.runs.store.steps import Steps, step_record
from kimi_mcp.runs.store.tables import steps

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

_RUN: sa.BindParameter[str] = sa.bindparam("run")
_STEP: sa.BindParameter[str] = sa.bindparam("step")
_TOTALS = sa.select(swarm_totals).where(swarm_totals.c.run_id == _RUN)
_LOCKED_TOTALS = _TOTALS.with_for_update()
_HELD = sa.select(
    sa.func.coalesce(sa.func.sum(swarm_holds.c.usd), 0.0), sa.func.coalesce(sa.func.sum(swarm_holds.c.tool_calls), 0)
).where(swarm_holds.c.run_id == _RUN, swarm_holds.c.key != _STEP)
_RELEASE = sa.delete(swarm_holds).where(swarm_holds.c.run_id == _RUN, swarm_holds.c.key == _STEP)
_NEW_HOLD = postgresql.insert(swarm_holds)
_HOLD = _NEW_HOLD.on_conflict_do_update(
    index_elements=[swarm_holds.c.run_id, swarm_holds.c.key],
    set_={"usd": _NEW_HOLD.excluded.usd, "tool_calls": _NEW_HOLD.excluded.tool_calls},
)
_FINISHED_KEYS = sa.select(steps.c.key).where(steps.c.run_id == _RUN, steps.c.result.is_not(None))
_IS_FINISHED = _FINISHED_KEYS.where(steps.c.key == _STEP)


def _finishing(fence: sa.ColumnElement[bool]) -> sa.Select[int]:
    """Record a step's result, count it and release what was held for it, all or nothing: 1, or 0."""
    unfinished = (steps.c.run_id == _RUN, steps.c.key == _STEP, steps.c.result.is_(None))
    values = {each: sa.bindparam(f"new_{each.name}", type_=each.type) for each in (steps.c.result, steps.c.ended_at)}
    done = sa.update(steps).where(*unfinished, fence).values(values).returning(steps.c.key).cte("done")
    is_done = sa.select(done.c.key).exists()
    more = {each: each + sa.bindparam(f"more_{each.name}") for each in swarm_totals.c if each.name != "run_id"}
    added = sa.update(swarm_totals).where(swarm_totals.c.run_id == _RUN, is_done).values(more)
    released = _RELEASE.where(is_done)
    return (
        sa.select(sa.func.count())
        .select_from(done)
        .add_cte(added.returning(swarm_totals.c.run_id).cte("added"))
        .add_cte(released.returning(swarm_holds.c.key).cte("released"))
    )


Decide = Callable[[Used, Used], Used | None]
"""From what is counted, and what is held for other steps, what is to be held for this one; None: nothing."""


def used_by(result: JSON) -> Used:
    """What a finished step has used, by its record: that of a request, or of a tool."""
    if "counted_usd" in result:
        return Used(usd=result["counted_usd"], tokens=result["counted_tokens"])
    return Used(usd=result["cost_usd"], tool_calls=int(result["ran"]))


def _lock_of(run_id: str) -> str:
    return f"swarm {run_id}"


class SwarmTotals:
    """What one swarm has used, and what its running steps may use, in whichever replica."""

    def __init__(self, store: RunStore, run_id: str) -> None:
        self._store, self._run_id, self._locks = store, run_id, (_lock_of(run_id),)

    async def open(self) -> Used:
        """What it has used so far; where nobody has counted that yet, by its finished steps."""
        if (found := await self._store.read(_totals, self._run_id)) is not None:
            return found
        used = Used()
        for step in await self._store.steps(self._run_id).recorded():
            used += Used() if step.result is None else used_by(step.result)
        return await self._store.write_locked(self._locks, _begin, self._run_id, used)

    async def hold(self, key: str, decide: Decide) -> None:
        """Let ``decide`` say what is held for a step, while nobody else counts; it may be called again."""
        await self._store.write_locked(self._locks, _hold, self._run_id, key, decide)

    async def release(self, key: str) -> None:
        """Hold nothing more for a step."""
        await self._store.write_locked(self._locks, _release, self._run_id, key)

    async def release_agent(self, agent_id: str) -> None:
        """Hold nothing more for the steps of an agent, in whichever replica they ended or died."""
        await self._store.write_locked(self._locks, _release_agent, self._run_id, agent_id)

    async def remove(self) -> None:
        """Forget it all: the swarm has ended."""
        await self._store.write_locked(self._locks, forget_swarms, [self._run_id])


class CountedSteps(Steps):
    """The steps of a swarm on several replicas. ``fence``: true as long as this replica has the job that makes them.

    A step is counted with its end, once, and what was held for it released. Raises ``Fenced`` where the job is another
    replica's by now.
    """

    _finishing: sa.Select[int] | None = None

    def __init__(self, store: RunStore, run_id: str, fence: sa.ColumnElement[bool] | None = None) -> None:
        super().__init__(store, run_id, fence)
        self._locks = (_lock_of(run_id),)

    def fenced_by(self, fence: sa.ColumnElement[bool]) -> CountedSteps:
        """The same steps, for another job."""
        return CountedSteps(self._store, self._run_id, fence)

    async def begin(self, key: str, description: JSON) -> JSON | None:
        """Begin a step; its result, where it was finished before."""
        try:
            return await super().begin(key, description)
        except AnswerCutOff:
            raise Fenced from None

    async def finish(self, key: str, result: JSON) -> None:
        """Record the result of a step, and count it."""
        try:
            await super().finish(key, result)
        except AnswerCutOff:
            raise Fenced from None

    def _finish(self, connection: sa.Connection, row: dict[str, Any]) -> None:
        if self._finishing is None:
            self._finishing = _finishing(self._fence)
        here, used = {"run": row["run"], "step": row["step"]}, used_by(json.loads(row["result"]))
        new = {"new_result": row["result"], "new_ended_at": row["ended_at"]}
        more = {"more_usd": used.usd, "more_tokens": used.tokens, "more_tool_calls": used.tool_calls}
        if connection.execute(self._finishing, here | new | more).scalar_one():
            notify(connection, "steps", self._run_id)
        elif connection.execute(_IS_FINISHED, here).first() is None:  # else the answer to the first commit was lost
            raise errors.taken_over()

    async def release_agent(self, agent_id: str) -> None:
        """Hold nothing more for the steps of an agent: its job has ended."""
        await SwarmTotals(self._store, self._run_id).release_agent(agent_id)

    async def begun_by(self) -> set[str]:
        """The agents that have begun a step."""
        wanted = sa.select(steps.c.key).where(steps.c.run_id == self._run_id, steps.c.key.like("%/step-1"))
        keys = await self._store.read(lambda connection: connection.execute(wanted).scalars().all())
        return {key.partition("/")[0] for key in keys}

    async def finished(self, besides: Collection[str] = ()) -> list[StepRecord]:
        """Those that are finished, without those whose keys are known, in the order in which they began."""

        def read(connection: sa.Connection) -> list[StepRecord]:
            keys = connection.execute(_FINISHED_KEYS, {"run": self._run_id}).scalars()
            if not (wanted := [key for key in keys if key not in besides]):
                return []
            found = sa.select(steps).where(steps.c.run_id == self._run_id, steps.c.key.in_(wanted))
            return [step_record(row) for row in connection.execute(found.order_by(steps.c.began_at, steps.c.key))]

        return await self._store.read(read)


def finished_steps(connection: sa.Connection, run_id: str, prefix: str) -> int:
    """How many steps of a run are finished whose keys begin so."""
    wanted = sa.select(sa.func.count()).where(
        steps.c.run_id == run_id, steps.c.key.startswith(prefix, autoescape=True), steps.c.result.is_not(None)
    )
    return connection.execute(wanted).scalar_one()


def _used(row: sa.Row[Any]) -> Used:
    return Used(usd=row.usd, tokens=row.tokens, tool_calls=row.tool_calls)


def _totals(connection: sa.Connection, run_id: str) -> Used | None:
    row = connection.execute(_TOTALS, {"run": run_id}).first()
    return None if row is None else _used(row)


def _begin(connection: sa.Connection, run_id: str, used: Used) -> Used:
    row = {"run_id": run_id, "usd": used.usd, "tokens": used.tokens, "tool_calls": used.tool_calls}
    if (found := _totals(connection, run_id)) is not None:  # another replica was faster
        return found
    connection.execute(sa.insert(swarm_totals), row)
    return used


def _hold(connection: sa.Connection, run_id: str, key: str, decide: Decide) -> None:
    row = connection.execute(_LOCKED_TOTALS, {"run": run_id}).first()
    if row is None:
        raise Internal("A swarm is not counted any more.", fix="Call again.")
    here = {"run": run_id, "step": key}
    usd, tool_calls = connection.execute(_HELD, here).one()
    hold = decide(_used(row), Used(usd=usd, tool_calls=tool_calls))
    if hold is None:
        connection.execute(_RELEASE, here)
    else:
        connection.execute(_HOLD, {"run_id": run_id, "key": key, "usd": hold.usd, "tool_calls": hold.tool_calls})


def _release(connection: sa.Connection, run_id: str, key: str) -> None:
    if connection.execute(_RELEASE, {"run": run_id, "step": key}).rowcount:
        notify(connection, "steps", run_id)


def _release_agent(connection: sa.Connection, run_id: str, agent_id: str) -> None:
    begins = swarm_holds.c.key.startswith(f"{agent_id}/", autoescape=True)
    if connection.execute(sa.delete(swarm_holds).where(swarm_holds.c.run_id == run_id, begins)).rowcount:
        notify(connection, "steps", run_id)
