"""A replica that has not joined the others yet: it continues nothing by itself, since others have the jobs of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.runs import Run, Runs
from tests.runs.store.stores import CALLER, begin, run_store


@pytest.mark.parametrize("awaits_queue", [True, False])
async def test_a_replica_continues_no_swarm_before_it_has_joined(tmp_path: Path, awaits_queue: bool) -> None:
    continued = anyio.Event()

    def resume(task: Mapping[str, Any]) -> Any:
        del task

        async def work(run: Run) -> Outcome:
            continued.set()
            return run.snapshot("completed")

        return work

    async with run_store(tmp_path, killed=True) as dead:
        await begin(dead, request={"task": {"prompt": "p"}}, resumable=True)
    with anyio.fail_after(60):
        async with run_store(tmp_path) as kept, anyio.create_task_group() as tasks:
            runs = Runs(tasks, kept, resume=resume)
            runs.awaits_queue = awaits_queue
            await runs.resume_all()
            if not awaits_queue:
                await continued.wait()
            found = await kept.find("run_1", CALLER)
            assert found is not None
            assert found.orphaned == awaits_queue
