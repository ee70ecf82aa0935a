"""The text of many runs that stream at once is written down as it arrives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.runs import Run, recorder
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import connect_messages, store_limits, wait_until
from tests.server.requests import HELD_STEP


def answers(data_dir: Path) -> list[str]:
    """What is written of each run's answer."""
    found: dict[str, str] = {}
    with opened(data_dir) as file:
        for run_id, text in file.execute("SELECT run_id, text FROM pieces WHERE of = 'answer' ORDER BY start"):
            found[run_id] = found.get(run_id, "") + text
    return list(found.values())


async def test_text_of_more_runs_than_share_a_transaction_is_written_of_each(
    sim: Simulator, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    append = RunStore.append

    async def counted(store: RunStore, deltas: Any, columns: Mapping[str, Any], *more: Any) -> Any:
        pieces.append(len(columns))
        return await append(store, deltas, columns, *more)

    monkeypatch.setattr(RunStore, "append", counted)
    monkeypatch.setattr(recorder, "RUNS_AT_ONCE", 2)
    sim.play({**HELD_STEP, "times": 5})
    async with connect_messages(sim, options=store_limits(write_every_s=0.01)) as host:
        for number in range(5):
            await host.call("kimi_think", {"prompt": f"call {number}"}, number)
        await sim.until(lambda: sim.waiting_at("end") == 5)
        await wait_until(lambda: answers(data_dir) == [HELD_STEP["content"]] * 5)
        sim.open_gate("end")
        for _ in range(5):
            assert (await host.receive())["result"]["structuredContent"]["status"] == "completed"
    assert max(pieces) <= 2


async def test_a_run_that_leaves_while_others_are_written_is_not_written_any_more(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, written = RunStore.append, list[str]()

    async def leave(store: RunStore, deltas: Any, columns: Mapping[str, Any], *more: Any) -> Any:
        written.extend(columns)
        if len(runs.live) == 2:
            left.append(runs.live.popitem()[1])
            runs.recorder.forget(left[0])
        return await append(store, deltas, columns, *more)

    left: list[Run] = []
    monkeypatch.setattr(recorder, "RUNS_AT_ONCE", 1)
    monkeypatch.setattr(RunStore, "append", leave)
    sim.play({**HELD_STEP, "times": 2})
    async with connect_messages(sim, options=store_limits(write_every_s=600)) as host:
        for number in range(2):
            await host.call("kimi_think", {"prompt": f"call {number}"}, number)
        await sim.until(lambda: sim.waiting_at("end") == 2)
        assert host.state.runs is not None
        runs = host.state.runs
        first, second = runs.live
        await runs.recorder.write_new_text(runs.live)
        assert ([run.id for run in left], written) == ([second], [first])
        sim.open_gate("end")
        for _ in range(2):
            await host.receive()
