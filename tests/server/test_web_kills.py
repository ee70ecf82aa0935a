"""``web`` in a server that is killed: what was paid for can be read, in the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kimi_mcp.simulator import Simulator
from tests.runs.store.stores import opened
from tests.server.clients import connect, wait_until
from tests.server.keys import KEY
from tests.server.processes import raw_server_process
from tests.server.requests import HELD_STEP, chats
from tests.server.test_web import ASKED, call_of, runs_of

PIECES = "SELECT text FROM pieces WHERE of = 'reasoning' ORDER BY start"

pytestmark = pytest.mark.soak


async def test_a_killed_server_leaves_what_its_rounds_had_brought_and_what_they_cost(
    sim: Simulator, data_dir: Path
) -> None:
    thought = {"reasoning": "I should search.", **call_of("web_search", query=ASKED)}
    sim.play(thought, HELD_STEP)
    async with raw_server_process(sim, KIMI_API_KEY=KEY) as peer:
        await peer.initialize()
        await peer.call("kimi_think", 1, prompt=ASKED, web=True)
        await sim.until(lambda: sim.waiting_at("end") == 1)
        with opened(data_dir) as file:
            await wait_until(lambda: "Hm, let me see." in "".join(text for (text,) in file.execute(PIECES)))
            ((run_id, counted_usd),) = file.execute("SELECT id, counted_usd FROM runs").fetchall()
        peer.process.kill()
        await peer.process.wait()
    assert counted_usd > 0.005, "one search, and two requests"
    async with connect(sim, KIMI_API_KEY=KEY) as kimi:
        found = await kimi.run(run_id)
    assert found.status in ("partial", "failed")
    assert ["I should search." in found.reasoning, "Hm, let me see." in found.reasoning] == [True, True]
    assert (len(chats(sim)), len(runs_of(sim))) == (2, 1), "nothing is asked again"
