"""Streams of events: what changes of a run and of a list reaches the page, from every server on the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.simulator import Simulator
from kimi_mcp.view.web import streams
from kimi_mcp.view.web.routes import Viewer
from tests.server.clients import connect
from tests.view.serving import Events, Page, page

SOON: Any = {"KIMI_REPLY_WITHIN_S": "0.05"}


def merge(view: dict[str, Any], name: str, data: Any) -> None:
    """What the page does with an event."""
    if name == "text":
        view[data["of"]] = (view[data["of"]] or "")[: data["start"]] + data["text"]
    elif name == "lanes":
        lanes = {lane["id"]: lane for lane in view["lanes"]}
        for lane in data["lanes"]:
            known = lanes.get(lane["id"], {"steps": []})
            steps = {step["key"]: step for step in (*known["steps"], *lane["steps"])}
            lanes[lane["id"]] = {**known, **lane, "steps": list(steps.values())}
        view |= data | {"lanes": list(lanes.values())}
    else:
        view |= data


async def followed(events: Events, view: dict[str, Any], until: Callable[[], object] = lambda: False) -> None:
    """Merge events into a view, to the end of the stream, or until something holds."""
    while not until():
        name, data = await events.next()
        assert name, "a stream ends with an event that says so"
        if name == "end":
            return
        merge(view, name, data)


def comparable(view: dict[str, Any]) -> dict[str, Any]:
    lanes = sorted(view["lanes"], key=lambda lane: (lane["id"] != "main", lane["id"]))
    return {name: value for name, value in view.items() if name != "cursor"} | {"lanes": lanes}


async def ends_as(shown: Page, run_id: str, view: dict[str, Any]) -> None:
    assert comparable(view) == comparable(await shown.get(f"/runs/{run_id}"))


async def test_a_run_s_text_comes_as_it_arrives_and_then_its_end(sim: Simulator) -> None:
    sim.play({"gate": "end", "gate_at": "finish", "reasoning": "17 * 20 is 340.", "content": "It is **391**."})
    async with connect(sim, **SOON) as kimi, page() as shown:
        run_id = (await kimi.think()).run_id
        view = await shown.get(f"/runs/{run_id}")
        async with shown.events(f"/runs/{run_id}/events", since=view["cursor"]) as events:
            await followed(events, view, lambda: view["answer"].startswith("It is"))
            assert view["run"]["status"] == "running"
            assert view["cancellable"] is True
            sim.open_gate("end")
            await followed(events, view)
        assert (view["run"]["status"], view["answer"], view["reasoning"]) == (
            "completed", "It is **391**.", "17 * 20 is 340.",
        )  # fmt: skip
        assert view["cancellable"] is False
        await ends_as(shown, run_id, view)


async def test_a_run_on_postgresql_comes_as_its_server_writes_it(
    sim: Simulator, database_url: str, tmp_path: Path
) -> None:
    sim.play({"gate": "end", "gate_at": "finish", "reasoning": "17 * 20 is 340.", "content": "It is **391**."})
    store = RunStore(tmp_path / "another machine", url=database_url)
    async with connect(sim, KIMI_DATABASE_URL=database_url, **SOON) as kimi, page(store) as shown:
        async with shown.events("/events") as listed:
            run_id = (await kimi.think()).run_id
            changed = await listed.until("runs", lambda data: data["changed"])
            assert [run["run_id"] for run in changed["changed"]] == [run_id]
        view = await shown.get(f"/runs/{run_id}")
        async with shown.events(f"/runs/{run_id}/events", since=view["cursor"]) as events:
            await followed(events, view, lambda: view["answer"].startswith("It is"))
            sim.open_gate("end")
            await followed(events, view)
        assert (view["run"]["status"], view["answer"]) == ("completed", "It is **391**.")
        await ends_as(shown, run_id, view)
        assert await shown.ids(q="17 *", tool="kimi_think", status="completed") == [run_id]
        assert (await shown.get("/facets"))["tools"] == ["kimi_think"]
        assert (await shown.get("/costs"))["days"][-1]["calls"] == 1
    await store.aclose()


async def test_a_swarm_s_lanes_come_step_by_step(sim: Simulator) -> None:
    sim.play({"match": {"text": "Oslo"}, "gate": "held", "gate_at": "start"})
    async with connect(sim, **SOON) as kimi, page() as shown:
        run_id = (await kimi.call("kimi_swarm", {"prompt": "Look at {{item}}.", "items": ["Rome", "Oslo"]})).run_id
        view = await shown.get(f"/runs/{run_id}")
        async with shown.events(f"/runs/{run_id}/events", since=view["cursor"]) as events:
            states = ["done", "unfinished"]
            await followed(events, view, lambda: [lane["steps"][-1]["state"] for lane in view["lanes"]] == states)
            sim.open_gate("held")
            await followed(events, view)
        await ends_as(shown, run_id, view)
        assert [len(lane["steps"]) for lane in view["lanes"]] == [1, 1, 1]


async def test_a_stream_without_a_cursor_begins_with_everything(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        run_id = (await kimi.call("kimi_swarm", {"prompt": "Look at {{item}}.", "items": ["Rome", "Oslo"]})).run_id
        known = await shown.get(f"/runs/{run_id}")
        empty = {"lanes": [], "answer": "", "reasoning": None, "version": 1, "prompt": known["prompt"]}
        for query in ({}, {"since": "x"}, {"since": "ffffffff-99"}):
            async with shown.events(f"/runs/{run_id}/events", **query) as events:
                view: dict[str, Any] = {**empty}
                await followed(events, view)
                assert comparable(view) == comparable(known)


async def test_a_broken_stream_goes_on_behind_the_last_event(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        run_id = (await kimi.call("kimi_swarm", {"prompt": "Look at {{item}}.", "items": ["Rome", "Oslo"]})).run_id
        async with shown.events(f"/runs/{run_id}/events") as events:
            assert (await events.next("lanes"))[1]["lanes"]
            last = events.last
        async with shown.events(f"/runs/{run_id}/events", last=last) as events:
            names = []
            while (event := await events.next())[0]:
                names.append(event[0])
        assert "lanes" not in names
        assert names[-1] == "end"


async def test_a_run_that_begins_and_ends_is_in_the_list_s_stream(sim: Simulator) -> None:
    sim.play({"gate": "held", "gate_at": "start"})
    async with connect(sim, **SOON) as kimi, page() as shown, shown.events("/events") as events:
        run_id = (await kimi.think()).run_id
        running = await events.until("runs", lambda data: data["changed"])
        assert [(run["run_id"], run["status"]) for run in running["changed"]] == [(run_id, "running")]
        sim.open_gate("held")
        ended = await events.until("runs", lambda data: data["changed"][0]["status"] != "running")
        assert ended["changed"] == (await shown.get("/runs"))["runs"]


async def test_a_run_that_is_no_longer_of_a_filtered_list_is_gone(sim: Simulator) -> None:
    sim.play({"gate": "held", "gate_at": "start"})
    async with connect(sim, **SOON) as kimi, page() as shown, shown.events("/events", status="running") as events:
        run_id = (await kimi.think()).run_id
        await events.until("runs", lambda data: data["changed"])
        sim.open_gate("held")
        assert (await events.until("runs", lambda data: data["gone"]))["gone"] == [run_id]


async def test_a_stream_has_nothing_of_other_callers(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        run_id = (await kimi.think()).run_id
        shown.viewer = Viewer(caller="kimi-mcp#stranger", may_cancel=True)
        assert (await shown.refused(f"/runs/{run_id}/events"))[0] == 404
        async with shown.events("/events") as events:
            await kimi.think("Another one.")
            with anyio.move_on_after(2):
                name, _ = await events.next()
                assert name == "costs", "its own sums alone, and they are none"


async def test_a_run_that_is_removed_while_it_is_shown_is_to_be_loaded_again(sim: Simulator) -> None:
    sim.play({"gate": "held", "gate_at": "start"})
    async with connect(sim, **SOON) as kimi, page() as shown:
        run_id = (await kimi.think()).run_id
        async with shown.events(f"/runs/{run_id}/events") as events:
            await events.next("run")
            await shown.store.write(
                lambda connection: connection.exec_driver_sql("DELETE FROM runs WHERE id = ?", (run_id,))
            )
            assert (await events.next("reset"))[0] == "reset"
            assert (await events.next())[0] == ""
        sim.open_gate("held")


async def test_more_streams_than_may_be_open_are_refused_until_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_STREAMS", 1)
    async with page() as shown:
        async with shown.events("/events"):
            status, error = await shown.refused("/events")
            assert (status, error["code"]) == (503, "overloaded")
        is_refused = True
        with anyio.fail_after(30):
            while is_refused:
                async with shown.http.stream("GET", "/ui/api/events") as answer:
                    is_refused = answer.is_error
