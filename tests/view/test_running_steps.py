"""The texts of a running step: they reach who has its agent open as they arrive, and are written for nobody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from kimi_mcp.runs.store.looks import MOST_CHARS
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.runs.store.tables import looks
from kimi_mcp.simulator import Simulator
from kimi_mcp.view.web.routes import Viewer
from tests.server.clients import KimiClient, connect, wait_until
from tests.view.serving import Events, Page, page

SOON: Any = {"KIMI_REPLY_WITHIN_S": "0.05"}
CITIES = {"prompt": "Look at {{item}}.", "items": ["Rome", "Oslo"]}
LONG = "word " * 9_000


class Arrived:
    """What has come of a step, as the page has it."""

    def __init__(self) -> None:
        self.key = ""
        self.reasoning = self.answer = (0, "")

    def take(self, data: dict[str, Any]) -> None:
        """Merge an event."""
        if data["key"] != self.key:
            self.__init__()
            self.key = data["key"]
        for of in ("reasoning", "answer"):
            if of in data:
                start, text = getattr(self, of)
                new = data[of]
                grows = new["start"] == start + len(text)
                setattr(self, of, (start, text + new["text"]) if grows else (new["start"], new["text"]))

    async def follow(self, events: Events, until: Callable[[], object]) -> None:
        """Take events until something holds."""
        with anyio.fail_after(60):
            while not until():
                self.take((await events.next("step"))[1])


async def rows(store: RunStore) -> list[str]:
    """The agents of which the store has a look."""
    found = sa.select(looks.c.agent).order_by(looks.c.agent)
    return list(await store.read(lambda connection: connection.execute(found).scalars().all()))


async def began(sim: Simulator, kimi: KimiClient, *gates: str) -> str:
    """A swarm of which each agent waits at such a gate."""
    result = await kimi.call("kimi_swarm", CITIES)
    await wait_until(lambda: sum(map(sim.waiting_at, gates)) == len(CITIES["items"]))
    return str(result.run_id)


async def both_halves(sim: Simulator, kimi: KimiClient, shown: Page) -> None:
    run_id = await began(sim, kimi, "rest", "held")
    arrived = Arrived()
    async with shown.events(f"/runs/{run_id}/events", agent="agent-1") as events:
        await arrived.follow(events, lambda: arrived.answer[1])
        assert (arrived.key, arrived.reasoning) == ("agent-1/step-1", (0, "Rome, then."))
        assert "Rome is old.".startswith(arrived.answer[1])
        assert arrived.answer[1] != "Rome is old."
        assert await rows(shown.store) == ["agent-1"], "nobody looks at the other one"
        sim.open_gate("rest")
        await events.until("lanes", lambda data: data["lanes"][0]["steps"][0]["state"] == "done")
        sim.open_gate("held")
        await events.until("end", lambda _: True)
    assert await rows(shown.store) == [], "it goes with the run"


def play(sim: Simulator) -> None:
    sim.play(
        {"match": {"text": "Rome"}, "gate": "rest", "gate_at": "content", "event_tokens": 1, "reasoning": "Rome, then.",
         "content": "Rome is old."},
        {"match": {"text": "Oslo"}, "gate": "held", "gate_at": "finish", "content": "Oslo is new."},
    )  # fmt: skip


async def test_what_has_arrived_of_a_running_step_is_seen_by_who_has_its_agent_open(sim: Simulator) -> None:
    play(sim)
    async with connect(sim, **SOON) as kimi, page() as shown:
        await both_halves(sim, kimi, shown)


@pytest.mark.soak
async def test_so_it_is_on_postgresql(sim: Simulator, database_url: str, tmp_path: Path) -> None:
    play(sim)
    store = RunStore(tmp_path / "another machine", url=database_url)
    async with connect(sim, KIMI_DATABASE_URL=database_url, **SOON) as kimi, page(store) as shown:
        await both_halves(sim, kimi, shown)
    await store.aclose()


@pytest.mark.soak
async def test_the_main_agent_s_step_is_seen_likewise(sim: Simulator) -> None:
    sim.play(
        {"match": {"system": "Several agents have worked"}, "gate": "all", "gate_at": "finish", "content": "Both."}
    )
    async with connect(sim, **SOON) as kimi, page() as shown:
        run_id = (await kimi.call("kimi_swarm", CITIES)).run_id
        await wait_until(lambda: sim.waiting_at("all"))
        arrived = Arrived()
        async with shown.events(f"/runs/{run_id}/events", agent="main") as events:
            await arrived.follow(events, lambda: arrived.answer == (0, "Both."))
            assert arrived.key == "main/step-1"
            sim.open_gate("all")
            await events.until("end", lambda _: True)


async def test_of_a_long_text_its_end_comes_with_where_that_begins(sim: Simulator) -> None:
    sim.play({"match": {"text": "Rome"}, "gate": "held", "gate_at": "finish", "content": LONG.strip()})
    sim.play({"match": {"text": "Oslo"}, "gate": "held", "gate_at": "start"})
    async with connect(sim, **SOON) as kimi, page() as shown:
        run_id = await began(sim, kimi, "held")
        arrived = Arrived()
        async with shown.events(f"/runs/{run_id}/events", agent="agent-1") as events:
            await arrived.follow(events, lambda: sum((arrived.answer[0], len(arrived.answer[1]))) == len(LONG) - 1)
            assert arrived.answer == (len(LONG) - 1 - MOST_CHARS, LONG.strip()[-MOST_CHARS:])
        sim.open_gate("held")


@pytest.mark.soak
@pytest.mark.parametrize("agent", ["", "agent-9", "agent-1/step-1", "%"])
async def test_nothing_is_written_for_a_page_that_has_no_agent_open_that_works(sim: Simulator, agent: str) -> None:
    play(sim)
    async with connect(sim, **SOON) as kimi, page() as shown:
        run_id = await began(sim, kimi, "rest", "held")
        async with shown.events(f"/runs/{run_id}/events", agent=agent) as events:
            await events.next("lanes")
            sim.open_gate("rest")
            await events.until("lanes", lambda data: data["lanes"][0]["steps"][0]["state"] == "done")
            assert await rows(shown.store) == []
            sim.open_gate("held")


async def test_nobody_looks_at_the_agents_of_another_s_run(sim: Simulator) -> None:
    play(sim)
    async with connect(sim, **SOON) as kimi, page() as shown:
        run_id = await began(sim, kimi, "rest", "held")
        shown.viewer = Viewer(caller="kimi-mcp#stranger", may_cancel=True)
        assert (await shown.refused(f"/runs/{run_id}/events", agent="agent-1"))[0] == 404
        assert await rows(shown.store) == []
        for gate in ("rest", "held"):
            sim.open_gate(gate)
