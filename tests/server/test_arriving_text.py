"""The text of many runs that stream at once is written down as it arrives."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.runs import recorder
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
