"""Reads what people look at from the store, for one viewer. I/O: the store's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kimi_mcp.core.errors import RunNotFound
from kimi_mcp.core.redaction import clean_values
from kimi_mcp.runs.store import costs, listing, queries
from kimi_mcp.runs.store.day_limits import DAY_S, midnight
from kimi_mcp.runs.store.listing import RunCursor, RunFilter
from kimi_mcp.runs.store.records import RunRecord
from kimi_mcp.runs.store.steps import step_record
from kimi_mcp.view import model
from kimi_mcp.view.lanes import MAIN, step_bar, trace
from kimi_mcp.view.live import neighbours, not_found, opened

if TYPE_CHECKING:
    from kimi_mcp.runs.store.store import RunStore

PAGE = 200
"""Runs of one page of a list."""


async def list_view(store: RunStore, wanted: RunFilter, cursor: RunCursor | None = None) -> dict[str, Any]:
    """A page of the list, the newest runs first, and what today has cost."""

    def read(connection: sa.Connection) -> tuple[list[RunRecord], list[costs.Costs]]:
        rows = listing.page(connection, wanted, cursor, PAGE + 1)
        today = costs.costs_by_day(connection, midnight(now), now, wanted.caller)
        return [queries.record(connection, row, texts=False) for row in rows], today

    now = store.now()
    found, today = await store.read(read)
    shown = [await settled(store, record) for record in found[:PAGE]]
    last = shown[-1] if len(found) > PAGE else None
    return {
        "runs": [model.summary(record) for record in shown],
        "next": None if last is None else str(RunCursor(started_at=last.started_at, run_id=last.id)),
        "today": model.costs_view(today, 1, now)[0],
    }


async def facets_view(store: RunStore, caller: str | None) -> dict[str, Any]:
    """What the list can be filtered by."""
    found = await store.read(listing.facets, caller)
    return {name: clean_values(values, "host") for name, values in found.items()}


async def costs_view(store: RunStore, caller: str | None, days: int) -> dict[str, Any]:
    """What the last days have cost, today (UTC) included."""
    now = store.now()
    found = await store.read(costs.costs_by_day, midnight(now) - (days - 1) * DAY_S, now, caller)
    return {"days": model.costs_view(found, days, now)}


async def run_view(
    store: RunStore, run_id: str, caller: str | None, *, may_cancel: bool = False, inline: bool = False
) -> dict[str, Any]:
    """One run; ``inline``: with the texts of its steps. Raises ``RunNotFound``."""
    if not inline:
        return (await opened(store, run_id, caller)).view(may_cancel=may_cancel)
    record = await find(store, run_id, caller)
    steps = await store.steps(run_id).recorded()
    tree = await store.read(neighbours, run_id, record.caller)
    return model.run_view(record, trace(record, steps), conversation=tree, may_cancel=may_cancel, inline=True)


async def step_view(store: RunStore, run_id: str, caller: str | None, key: str) -> dict[str, Any]:
    """The texts of a step of a run; raises ``RunNotFound``."""
    record = await find(store, run_id, caller)
    row = await store.read(listing.step, run_id, key)
    if row is not None:
        step = step_record(row)
        about = {name: str(step.description.get(name) or "") for name in ("system", "task")}
        return model.step_view(step_bar(step, record.started_at), about=about)
    lane = trace(record, ()).lanes[0]
    if key != MAIN or lane.bars[0].key != key:
        raise RunNotFound("That run has no step of that key.", fix="Load the run again.")
    return model.step_view(lane.bars[0])


async def find(store: RunStore, run_id: str, caller: str | None) -> RunRecord:
    """A run of a caller (None: of anybody); raises ``RunNotFound``."""
    record = await store.find(run_id, caller)
    if record is None:
        raise not_found(store)
    return record


async def settled(store: RunStore, record: RunRecord) -> RunRecord:
    """A run as it is by now, where its server has died."""
    if record.running and not store.lock.is_alive(record.owner):
        return await store.find(record.id, None) or record
    return record
