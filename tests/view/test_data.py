"""The page's data: what a list, a run, a step and costs say, of runs that were made through the simulator."""

from __future__ import annotations

import anyio
import pytest

from kimi_mcp.simulator import Simulator
from kimi_mcp.view import reading
from kimi_mcp.view.web.routes import Viewer
from tests.server.clients import connect
from tests.view.serving import page

STRANGER = Viewer(caller="kimi-mcp#stranger", may_cancel=True)


async def test_a_list_has_the_newest_runs_first_with_what_they_cost(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        first = await kimi.think("What is 17 * 23?")
        second = await kimi.instant("Say hello.")
        found = await shown.get("/runs")
    assert [run["run_id"] for run in found["runs"]] == [second.run_id, first.run_id]
    assert found["next"] is None
    assert found["today"]["calls"] == 2
    newest = found["runs"][0]
    assert (newest["tool"], newest["status"], newest["prompt"]) == ("kimi_instant", "completed", "Say hello.")
    assert (newest["caller"], newest["doing"], newest["agents"]) == ("local", None, None)


async def test_pages_of_a_list_have_every_run_once(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 2)
    async with connect(sim) as kimi, page() as shown:
        made = [(await kimi.instant(f"Say {number}.")).run_id for number in range(5)]
        pages: list[list[str]] = []
        cursor = ""
        while cursor is not None:
            found = await shown.get("/runs", cursor=cursor)
            pages.append([run["run_id"] for run in found["runs"]])
            cursor = found["next"]
    assert pages == [made[4:2:-1], made[2:0:-1], made[:1]]


async def test_a_filter_leaves_out_what_it_does_not_name(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        think = (await kimi.think("What is 17 * 23?")).run_id
        hello = (await kimi.instant("Say 100% hello.")).run_id
        day = (await shown.get("/runs"))["today"]["day"]
        assert await shown.ids(tool="kimi_think") == [think]
        assert await shown.ids(tool=["kimi_think", "kimi_instant"]) == [hello, think]
        assert await shown.ids(status="failed") == []
        assert await shown.ids(q="100% HELLO") == [hello]
        assert await shown.ids(q="100_") == []
        assert await shown.ids(day=day, caller="local") == [hello, think]
        assert await shown.ids(day="2001-01-01") == []


async def test_facets_are_what_the_runs_have(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        await kimi.think("What is 17 * 23?")
        await kimi.instant("Say hello.")
        found = await shown.get("/facets")
        hosts = {run["host"] for run in (await shown.get("/runs"))["runs"]}
    assert found["statuses"] == ["completed"]
    assert found["tools"] == ["kimi_instant", "kimi_think"]
    assert found["callers"] == ["local"]
    assert set(found["hosts"]) == hosts


async def test_costs_have_every_day_the_oldest_first(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        result = await kimi.think("What is 17 * 23?")
        days = (await shown.get("/costs", days=3))["days"]
    assert len(days) == 3
    assert days[0]["calls"] == 0
    assert days[0]["tokens"] is None
    assert days[2]["calls"] == 1
    assert days[2]["tokens"] == result.structured["usage"]["total_tokens"]


async def test_a_run_has_its_texts_and_one_lane(sim: Simulator) -> None:
    sim.play({"reasoning": "17 * 20 is 340.", "content": "It is **391**."})
    async with connect(sim) as kimi, page() as shown:
        run_id = (await kimi.think("What is 17 * 23?")).run_id
        found = await shown.get(f"/runs/{run_id}")
        step = await shown.get(f"/runs/{run_id}/steps/main")
    assert (found["prompt"], found["reasoning"], found["answer"]) == (
        "What is 17 * 23?",
        "17 * 20 is 340.",
        "It is **391**.",
    )
    assert [(lane["id"], [bar["state"] for bar in lane["steps"]]) for lane in found["lanes"]] == [("main", ["done"])]
    assert found["cancellable"] is False
    assert found["cut"] == {}
    assert (step["reasoning"], step["result"]) == ("17 * 20 is 340.", "It is **391**.")


async def test_a_swarm_has_a_lane_an_agent_whose_steps_load_their_texts(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        result = await kimi.call("kimi_swarm", {"prompt": "Look at {{item}}.", "items": ["Rome", "Oslo"]})
        found = await shown.get(f"/runs/{result.run_id}")
        lanes = {lane["id"]: lane for lane in found["lanes"]}
        key = lanes["agent-2"]["steps"][0]["key"]
        step = await shown.get(f"/runs/{result.run_id}/steps/{key}")
    assert list(lanes) == ["main", "agent-1", "agent-2"]
    assert lanes["agent-2"]["name"] == "Oslo"
    assert "Oslo" in lanes["agent-2"]["task"]
    assert key == "agent-2/step-1"
    assert step["result"]
    assert found["run"]["agents"] == 2
    assert found["swarm"]["steps"] == 1


async def test_a_running_swarm_shows_what_it_has_used_of_its_limits(sim: Simulator) -> None:
    sim.play({"match": {"text": "Oslo"}, "gate": "held", "gate_at": "start"})
    call = {"prompt": "Look at {{item}}.", "items": ["Rome", "Oslo"], "max_cost_usd": 0.5}
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as kimi, page() as shown:
        run_id = (await kimi.call("kimi_swarm", call)).run_id
        budget = None
        while not budget or not budget["tokens"][0]:
            budget = (await shown.get(f"/runs/{run_id}"))["budget"]
            await anyio.sleep(0.05)
        sim.open_gate("held")
        await kimi.run(run_id, "wait", wait_s=10)
        assert (await shown.get(f"/runs/{run_id}"))["budget"] is None
    used, limit = budget["usd"]
    assert (0 < used < limit, limit) == (True, 0.5)
    assert budget["tokens"][1] == 50_000_000
    assert budget["tool_calls"] == [0, 1_500]
    assert budget["steps"][0] == 0


async def test_a_conversation_names_what_came_before_and_after(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        first = await kimi.think("What is 17 * 23?")
        second = await kimi.think("And times 2?", conversation_id=first.structured["conversation_id"])
        tree = (await shown.get(f"/runs/{first.run_id}"))["conversation"]
        later = (await shown.get(f"/runs/{second.run_id}"))["conversation"]
    assert (tree["before"], [run["run_id"] for run in tree["after"]]) == ([], [second.run_id])
    assert ([run["run_id"] for run in later["before"]], later["after"]) == ([first.run_id], [])


async def test_a_viewer_sees_nothing_of_other_callers(sim: Simulator) -> None:
    async with connect(sim) as kimi, page() as shown:
        run_id = (await kimi.think("What is 17 * 23?")).run_id
        shown.viewer = STRANGER
        found = await shown.get("/runs", caller="local")
        assert (found["runs"], found["today"]["calls"]) == ([], 0)
        assert (await shown.get("/costs"))["days"][-1]["calls"] == 0
        assert await shown.get("/facets") == {"statuses": [], "tools": [], "hosts": [], "callers": []}
        for path in (f"/runs/{run_id}", f"/runs/{run_id}/steps/main"):
            status, error = await shown.refused(path)
            assert (status, error["code"]) == (404, "run_not_found")
        assert (await shown.cancel(run_id)).status_code == 404


async def test_a_running_run_is_cancelled_by_the_page(sim: Simulator) -> None:
    sim.play({"gate": "held", "gate_at": "start"})
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as kimi, page() as shown:
        run_id = (await kimi.think("What is 17 * 23?")).run_id
        assert (await shown.get(f"/runs/{run_id}"))["cancellable"] is True
        assert (await shown.cancel(run_id, header="0")).status_code == 403
        assert shown.cancelled == []
        assert (await shown.cancel(run_id)).status_code == 200
        assert (await kimi.run(run_id, "wait", wait_s=10)).status == "cancelled"
        assert (await shown.get(f"/runs/{run_id}"))["run"]["status"] == "cancelled"


async def test_who_may_not_cancel_is_refused(sim: Simulator) -> None:
    sim.play({"gate": "held", "gate_at": "start"})
    async with connect(sim, KIMI_REPLY_WITHIN_S="0.05") as kimi, page() as shown:
        shown.viewer = Viewer(caller=None, may_cancel=False)
        run_id = (await kimi.think("What is 17 * 23?")).run_id
        assert (await shown.get(f"/runs/{run_id}"))["cancellable"] is False
        assert (await shown.cancel(run_id)).status_code == 403
        assert shown.cancelled == []
        sim.open_gate("held")


async def test_what_can_not_be_read_is_refused_with_what_to_write() -> None:
    async with page() as shown:
        for query in ({"day": "yesterday"}, {"cursor": "x"}, {"q": "x" * 501}, {"tool": [str(n) for n in range(51)]}):
            status, error = await shown.refused("/runs", **query)
            assert (status, error["code"]) == (400, "invalid_arguments")
        for days in ("0", "367", "x", "1e2"):
            assert (await shown.refused("/costs", days=days))[0] == 400
