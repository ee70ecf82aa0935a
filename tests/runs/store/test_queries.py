"""What the store asks of its tables: every statement finds its rows by an index, however many there are.

Each statement that any test executes is held against that (``tests/queries.py``). Here everything is called once that a
store can do, so that none is left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.types import user
from kimi_mcp.runs.store import listing, queries
from kimi_mcp.runs.store.day_limits import DayLimit
from kimi_mcp.runs.store.records import RunEnd, TextDelta
from kimi_mcp.runs.store.store import RunStore
from tests.queries import problems, watched
from tests.runs.store.stores import CALLER, begin, end, ended, entry, opened, run_end, run_store

NO_STATEMENTS = {"aclose"}
"""What asks nothing of the tables."""


def test_a_statement_that_goes_through_a_table_is_found(tmp_path: Path) -> None:
    async def make() -> None:
        async with run_store(tmp_path) as kept:
            await begin(kept)

    anyio.run(make)
    with opened(tmp_path) as file:
        for statement in (
            "SELECT * FROM runs WHERE host = 'x'",
            "SELECT * FROM runs ORDER BY host LIMIT 1",
            "SELECT id FROM runs ORDER BY started_at",
            "UPDATE conversations SET head = NULL WHERE head = 'x'",
            "DELETE FROM steps WHERE key = 'x'",
            "DELETE FROM conversations WHERE NOT EXISTS (SELECT 1 FROM runs WHERE host = conversations.id)",
        ):
            assert problems(file, statement, ()), statement
        assert not problems(file, "SELECT * FROM runs ORDER BY started_at DESC LIMIT 1", ())


async def test_no_statement_of_the_store_goes_through_a_table_that_grows(tmp_path: Path) -> None:
    async with run_store(tmp_path, killed=True) as gone:
        for number in range(8):
            await begin(gone, f"run_orphan_{number}", resumable=number % 2 == 0)
    async with run_store(tmp_path) as kept:
        with watched() as wrong:
            called = await everything_once(kept)
        assert wrong == []
    public = {
        name
        for name, member in inspect.getmembers(RunStore, inspect.isfunction)
        if not name.startswith("_") and name not in NO_STATEMENTS
    }
    assert called - {"read"} == public, "every one of them is called here"


async def everything_once(kept: RunStore) -> set[str]:
    """Call all that a store can do; the names of what was called."""
    called: set[str] = set()

    async def call(name: str, *arguments: Any, **named: Any) -> Any:
        called.add(name)
        result = getattr(kept, name)(*arguments, **named)
        return await result if inspect.isawaitable(result) else result

    days = [DayLimit(usd=10.0, variable="KIMI_BUDGET_USD_PER_DAY", caller=caller) for caller in (CALLER, None)]
    limits: Mapping[str, Any] = {"counted_usd": 0.1, "limits": days}
    for number in range(4):
        run_id = f"run_{number}"
        follows = f"run_{number - 1}" if number else None
        await call("record", entry(run_id, conversation_id="conv_1", follows=follows), **limits)
        if number:
            await call("take_turn", "conv_1", run_id, lambda run_id: False)
        await call("record", entry(run_id, conversation_id="conv_1", follows=follows), **limits)
        deltas = [TextDelta(run_id=run_id, request=0, of="answer", start=0, text="It")]
        changes = {run_id: {"counted_usd": 0.2, "outcome": ended(run_id), "lived_s": 1.0}}
        await call("append", deltas, changes)
        steps = await call("steps", run_id)
        await steps.begin("a/1", {})
        await steps.finish("a/1", {})
        await steps.recorded()
        outcome = ended(run_id, conversation_id="conv_1")
        await call("end", run_end(kept, outcome, turns=[user("hi")], counted_usd=0.2))
    await call("record", entry("run_refused", conversation_id="conv_2"), **limits)
    await call("abandon", "run_refused", True)
    await call("keep", "run_refused")
    await call("is_wanted", "run_refused")
    await call("request_cancel", "run_refused")
    await call("look_at", "run_refused", "agent-1")
    await call("cancel_requests")
    refused = Outcome(status="failed")
    await call("end", RunEnd(run_id="run_refused", outcome=refused, ended_at=1.0, conversation_id="conv_2"))
    record = await call("find", "run_orphan_0", CALLER)
    for caller in (CALLER, None):
        await call("overview", caller, most=5)
        await call("overview", caller, status="completed", since=1.0, most=5)
        await call("overview", caller, ended_before=1.0)
    for status, since in ((None, None), ("completed", None), (None, 1.0), ("failed", 1.0)):
        await call("read", queries.totals, 1.0, status=status, since=since)
    await call("read", queries.ids_with_prefix, "run_", 10)
    await call("read", queries.unique_prefix_length, ["run_1", "run_2"])
    await call("read", listing.neighbours, "run_2")
    kept.pending.save(run_end(kept, ended("run_0"), turns=[user("hi")]))
    await call("write_pending", "run_0", kept.lock.id)
    await call("adopt", record)
    _, left, *_ = await call("orphans")
    await call("cancel_orphan", left, lambda record, steps: record.outcome)
    await call("find_abandoned", caller=CALLER, host="a host", key="key")
    await call("spent_today_usd")
    await call("spent_today_by_caller", {CALLER, "another"})
    await call("conversation", "conv_1")
    await call("history", "run_3")
    await call("reopen", await kept.find("run_3", CALLER))
    await call("old_before", 1.0)
    await call("prune", -1)
    await kept.retention.settled()
    return called


async def test_a_store_in_memory_keeps_its_newest_runs_without_going_through_all() -> None:
    async with run_store(None) as kept:
        with watched() as wrong:
            await begin(kept)
            await end(kept)
        assert wrong == []
