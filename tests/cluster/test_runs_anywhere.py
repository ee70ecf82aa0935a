"""Runs that live in another replica, over HTTP: fetched, paged, joined, ended and continued as if they lived there."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import httpx2
import pytest

from scripts.cluster.processes import received_from
from tests.cluster.harness import Cluster, cluster
from tests.server.http.served import newest, newest_headers
from tests.server.requests import HELD_STEP as HELD

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

WITHIN_S = 1.0
"""Seconds within which another replica sees what arrived, and the provider a cancellation; more on a busy machine."""

EXTENSION = "io.modelcontextprotocol/tasks"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def replicas(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path_factory.mktemp("cluster"), KIMI_REPLY_WITHIN_S="60") as made:
        await made.start(2)
        yield made


@pytest.fixture
async def pair(replicas: Cluster) -> AsyncIterator[Cluster]:
    with anyio.fail_after(120):
        yield replicas


async def started(made: Cluster, tasks: anyio.abc.TaskGroup, at: int = 0, **arguments: Any) -> tuple[str, list[Any]]:
    """A call that waits at a replica: its run, and where its result comes."""
    results = list[Any]()
    known = await _listed(made)

    async def call() -> None:
        results.append(await made.call("kimi_think", made.replicas[at].url, **{"prompt": "hi", **arguments}))

    tasks.start_soon(call)
    while not (new := await _listed(made) - known):
        await anyio.sleep(0.05)
    return new.pop(), results


async def _listed(made: Cluster) -> set[str]:
    text = (await made.call("kimi_run", made.replicas[1].url))["answer"]
    return {line.split()[0] for line in text.splitlines() if line.startswith("run_")}


async def seen(made: Cluster, run_id: str, answer: str) -> float:
    """Seconds until the second replica shows that answer."""
    began = anyio.current_time()
    while (await made.call("kimi_run", made.replicas[1].url, run_id=run_id, action="status"))["answer"] != answer:
        await anyio.sleep(0.02)
    return anyio.current_time() - began


async def test_a_run_is_seen_paged_ended_and_fetched_through_another_replica(pair: Cluster) -> None:
    answer = "".join(f"{number} 你好🌍\n" for number in range(6_000))
    sim, other = pair.sim, pair.replicas[1].url
    sim.play({"content": answer, "event_tokens": 500, "gate": "go", "gate_at": "content"})
    async with anyio.create_task_group() as tasks:
        run_id, results = await started(pair, tasks, max_tokens=262_000)
        await sim.until(lambda: sim.waiting_at("go") == 1)
        sim.open_gate("go")
        waited = await pair.call("kimi_run", other, run_id=run_id, wait_s=60)
        text, offset = "", 0
        while offset is not None:
            page = (await pair.call("kimi_run", other, run_id=run_id, action="answer", offset=offset))["page"]
            text, offset = text + page["text"], page["next_offset"]
        assert text == answer
        while not results:
            await anyio.sleep(0.01)
        assert {name: waited[name] for name in waited if name != "answer"} == {
            name: results[0][name] for name in results[0] if name != "answer"
        }
        for at in (0, 1):
            sim.play({**HELD, "gate": f"cancelled-{at}"})
            run_id, results = await started(pair, tasks, at)
            await sim.until(lambda at=at: sim.waiting_at(f"cancelled-{at}") == 1)
            took = await seen(pair, run_id, HELD["content"])
            began, gone = anyio.current_time(), _gone(pair)
            ended = await pair.call("kimi_run", pair.replicas[1 - at].url, run_id=run_id, action="cancel")
            await sim.client_gone(gone + 1)
            closed = anyio.current_time() - began
            print(f"seen after {took:.2f} s, closed upstream after {closed:.2f} s")
            assert max(took, closed) < 3 * WITHIN_S
            assert (ended["status"], ended["answer"]) == ("cancelled", HELD["content"])
            while not results:
                await anyio.sleep(0.01)
            assert results[0]["status"] == "cancelled"


def _gone(made: Cluster) -> int:
    return sum(each.outcome == "client_gone" for each in made.sim.requests)


async def test_a_call_whose_connection_broke_is_joined_at_another_replica_and_not_cancelled(pair: Cluster) -> None:
    sim, sent = pair.sim, len(pair.chats)
    sim.play({**HELD, "gate": "joined"})
    joined, run_id = list[Any](), ""
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as first:
            run_id, _ = await started(pair, first, prompt="again and again")
            await sim.until(lambda: sim.waiting_at("joined") == 1)
            first.cancel_scope.cancel()
        while not pair.rows(f"SELECT 1 FROM runs WHERE id = '{run_id}' AND abandoned = 1"):
            await anyio.sleep(0.05)

        async def again() -> None:
            joined.append(await pair.call("kimi_think", pair.replicas[1].url, prompt="again and again"))

        tasks.start_soon(again)
        await anyio.sleep(18)  # longer than the first replica waits until it cancels what nobody wants
        sim.open_gate("joined")
    assert (joined[0]["status"], joined[0]["run_id"]) == ("completed", run_id)
    assert [each["rule"] for each in joined[0]["policy"]] == ["run-rejoined"]
    assert len(pair.chats) == sent + 1


async def test_a_task_and_a_conversation_go_on_at_another_replica(pair: Cluster) -> None:
    sim, other, sent = pair.sim, pair.replicas[1].url, len(pair.chats)
    sim.play({"content": "23."}, {**HELD, "gate": "turn"}, {"content": "25."})
    first = await pair.call("kimi_instant", pair.replicas[0].url, prompt="one")
    conversation, third, run_id = first["conversation_id"], list[Any](), ""
    async with anyio.create_task_group() as tasks:
        run_id, _ = await started(pair, tasks, prompt="two", conversation_id=conversation)
        await sim.until(lambda: sim.waiting_at("turn") == 1)
        await seen(pair, run_id, HELD["content"])
        task = await _task(other, run_id)
        assert task["status"] == "working"
        assert task["statusMessage"].startswith("answering · about")

        async def follow_up() -> None:
            third.append(await pair.call("kimi_instant", other, prompt="three", conversation_id=conversation))

        tasks.start_soon(follow_up)
        await anyio.sleep(1)
        assert len(pair.chats) == sent + 2
        sim.open_gate("turn")
    assert third[0]["answer"] == "25."
    body: Any = pair.chats[-1].body
    assert [message["content"] for message in body["messages"]] == [
        "one",
        "23.",
        "two",
        HELD["content"],
        "three",
    ]
    assert (await _task(other, run_id))["result"]["structuredContent"]["answer"] == HELD["content"]


async def _task(url: str, run_id: str) -> Mapping[str, Any]:
    body = newest("tasks/get", {"taskId": run_id})
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = {"extensions": {EXTENSION: {}}}
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(url, json=body, headers=newest_headers("tasks/get", run_id))
    return json.loads(answer.text)["result"]


async def test_a_call_whose_replica_is_killed_ends_with_what_had_arrived_and_says_how_to_go_on(pair: Cluster) -> None:
    sim, results, run_id = pair.sim, list[Any](), ""
    sim.play({**HELD, "gate": "killed"})
    (victim,) = await pair.start(1)
    known = await _listed(pair)
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(httpx2.TransportError):
                await pair.call("kimi_think", victim.url, prompt="hi")

        async def wait(run_id: str) -> None:
            results.append(await pair.call("kimi_run", pair.replicas[1].url, run_id=run_id, wait_s=60))

        tasks.start_soon(call)
        await sim.until(lambda: sim.waiting_at("killed") == 1)
        (run_id,) = await _listed(pair) - known
        await seen(pair, run_id, HELD["content"])
        tasks.start_soon(wait, run_id)
        await anyio.sleep(0.5)
        began = anyio.current_time()
        pair.kill(victim)
        while not results:
            await anyio.sleep(0.05)
        print(f"known to be dead after {anyio.current_time() - began:.1f} s")
    assert (results[0]["status"], results[0]["answer"]) == ("failed", HELD["content"])
    assert results[0]["error"]["code"] == "answer_cut_off"
    assert f'kimi_run(run_id="{run_id}", action="continue")' in results[0]["error"]["fix"]
    sim.play({"content": " That is all."})
    continued = await pair.call("kimi_run", pair.replicas[1].url, run_id=run_id, action="continue")
    assert continued["status"] == "completed", continued
    assert received_from(pair.chats[-1].headers) == "replica-2"
