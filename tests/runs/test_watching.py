"""Runs that are begun by code that is not anyio's are looked after like any others."""

from __future__ import annotations

import asyncio
import contextvars
from pathlib import Path

import anyio

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs import Run, Runs
from kimi_mcp.runs.store.store import RunStore


async def held(run: Run) -> Outcome:
    await run.record()
    await anyio.sleep_forever()
    raise AssertionError


async def test_a_run_that_begins_in_a_context_without_anyio_hears_that_it_is_cancelled(tmp_path: Path) -> None:
    store, run = RunStore(tmp_path), Run(caller="a test", tool="kimi_think", prompt="p")
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            runs = Runs(tasks, store)

            async def begin() -> None:
                runs.start(run, held)

            await asyncio.get_running_loop().create_task(begin(), context=contextvars.Context())
            await run.recorded_or_done.wait()
            await store.request_cancel(run.id)
            await run.done.wait()
            assert run.outcome is not None
            assert run.outcome.status == "cancelled"
            tasks.cancel_scope.cancel()
    await store.aclose()
