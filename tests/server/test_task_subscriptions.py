"""Who listens to tasks hears how they go and end."""

from __future__ import annotations

from kimi_mcp.simulator import Simulator
from tests.server.requests import HELD_STEP
from tests.server.tasks import bare, client_of, ended_after, tasks_of


async def test_who_listens_to_a_task_hears_how_it_goes_and_ends(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with tasks_of(sim) as client:
        task = await client.call("kimi_think", {"prompt": "hi"})
        wanted = {"taskIds": [task["taskId"], "run_unknown"], "toolsListChanged": True}
        number, _ = await client.send("subscriptions/listen", {"notifications": wanted})
        heard = [await client.notifications.get() for _ in range(3)]
        sim.open_gate("end")
        while heard[-1]["params"]["status"] == "working":
            heard.append(await client.notifications.get())
        done = await client.ask("tasks/get", taskId=task["taskId"])
    assert heard[0]["method"] == "notifications/subscriptions/acknowledged"
    assert heard[0]["params"]["notifications"] == {"taskIds": [task["taskId"]]}
    assert {each["method"] for each in heard[1:]} == {"notifications/tasks"}
    assert [each["params"]["status"] for each in heard[1:3]] == ["working", "working"]
    assert {each["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] for each in heard} == {number}
    reported = bare(heard[-1]["params"])
    assert reported == {name: value for name, value in bare(done).items() if name != "resultType"}


async def test_who_stops_listening_hears_nothing_more_and_the_task_goes_on(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with tasks_of(sim) as client:
        task = await client.call("kimi_think", {"prompt": "hi"})
        number, _ = await client.send("subscriptions/listen", {"notifications": {"taskIds": [task["taskId"]]}})
        await client.notifications.get()
        await client.cancel(number)
        await client.ask("tasks/get", taskId=task["taskId"])
        while not client.notifications.empty():
            client.notifications.get_nowait()
        assert (await ended_after(sim, client, task))["status"] == "completed"
        assert client.notifications.empty()


async def test_what_can_not_be_listened_to_is_not_agreed_to(sim: Simulator) -> None:
    async with client_of(sim) as client:
        await client.send("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        assert (await client.notifications.get())["params"]["notifications"] == {}
        assert (await client.ask("subscriptions/listen", notifications={"taskIds": 7}))["code"] == -32602
