"""Principals of one server are apart from each other: what is another's looks as if it had never existed."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.server import tasks
from kimi_mcp.server.state import Timings
from kimi_mcp.simulator import Simulator
from tests.server.clients import ServerOptions, wait_until
from tests.server.http.principals import NOTHING, Caller, Handles, crowd, methods_served, questions, team
from tests.server.http.served import OLDER, bearer, message, newest, newest_headers
from tests.server.media import data_uri, picture, uploads
from tests.server.requests import HELD_STEP, chats

STATELESS = {"initialize", "ping", "server/discover"}
"""Methods that know of nobody's runs."""

UPLOADING = ServerOptions(
    timings=Timings(warm_up_after_s=3600, stream_grace_s=3600, task_after_s=3600), media_limits=MediaLimits(inline=200)
)


def test_every_method_that_is_served_is_among_the_questions() -> None:
    assert {method for method, _ in questions(NOTHING).values()} == methods_served() - STATELESS


@pytest.mark.soak
async def test_no_question_tells_a_principal_whether_another_one_has_anything(
    sim: Simulator, mode: str, tmp_path: Path
) -> None:
    sim.play({"match": {"text": "held"}, **HELD_STEP})
    sim.play({"match": {"text": "cut"}, "finish_reason": "length", "content": "It is"})
    shot = picture(1)
    async with team(sim, tmp_path, mode, options=UPLOADING) as (http, alice, bob), anyio.create_task_group() as calls:

        async def answers(who: Caller, of: Handles, labels: set[str] | None = None) -> dict[str, str]:
            requested = {label: each for label, each in questions(of).items() if labels is None or label in labels}
            return {label: of.hidden(json.dumps(await who.ask(*each))) for label, each in requested.items()}

        before = await answers(bob, NOTHING)
        seen = await alice.call("kimi_vision", prompt="What is it?", images=[data_uri(shot)])
        done = Handles(
            run=seen["run_id"],
            conversation=seen["conversation_id"],
            upload=sim.files.all()[0].id,
            sha256=hashlib.sha256(shot).hexdigest(),
        )
        cut = await alice.call("kimi_think", prompt="cut")
        assert cut["status"] == "partial"
        calls.start_soon(partial(alice.call, "kimi_think", prompt="held"))
        await sim.until(lambda: sim.waiting_at("end") == 1)
        (held,) = http.runs.live.values()
        naming = {label for label, question in questions(done).items() if question != questions(NOTHING)[label]}
        sent = len(chats(sim))
        assert await answers(bob, done) == before
        continuing = {label for label in naming if label.startswith("kimi_run")}
        for run, conversation, labels in (
            (cut["run_id"], cut["conversation_id"], continuing),
            (held.id, held.conversation_id, naming),
        ):
            other = Handles(run=run, conversation=conversation or "")
            assert await answers(bob, other, labels) == {label: before[label] for label in labels}
        assert (len(chats(sim)), held.outcome) == (sent, None)
        # They do tell Alice, but for media, which nobody can name who did not send them.
        for label, answer in (await answers(alice, done, naming)).items():
            method, parameters = questions(done)[label]
            if mode == "auto" or method not in tasks.METHODS:
                assert (answer == before[label]) is ("ms://" in str(parameters) or "kept:" in str(parameters)), label
        sim.open_gate("end")
        await held.wait()
        assert (await alice.call("kimi_run", run_id=held.id))["status"] == "completed"


async def test_the_same_call_of_another_principal_never_joins_a_run(sim: Simulator, mode: str, tmp_path: Path) -> None:
    sim.play({**HELD_STEP, "times": "always"})
    results: dict[str, dict[str, Any]] = {}
    async with team(sim, tmp_path, mode, options=UPLOADING) as (http, alice, bob):

        async def call(name: str, who: Caller) -> None:
            results[name] = await who.call("kimi_think", prompt="the same")

        async with anyio.create_task_group() as left:
            left.start_soon(call, "left", alice)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            await wait_until(lambda: len(http.state.calls) == 1)
            left.cancel_scope.cancel()
        (first,) = http.runs.live
        await wait_until(lambda: http.runs.live[first].abandoned)
        async with anyio.create_task_group() as calls:
            calls.start_soon(call, "bob", bob)
            await sim.until(lambda: sim.waiting_at("end") == 2)
            calls.start_soon(call, "alice", alice)
            await wait_until(lambda: len(http.state.calls) == 2)
            sim.open_gate("end")
        assert results["alice"]["run_id"] == first
        assert [each["rule"] for each in results["alice"]["policy"]] == ["run-rejoined"]
        assert results["bob"]["run_id"] != first
        assert results["bob"]["policy"] == []


async def test_the_pictures_of_one_principal_never_drop_those_that_another_ones_conversation_shows(
    sim: Simulator, tmp_path: Path
) -> None:
    shots = [picture(number) for number in range(4)]
    options = ServerOptions(media_limits=MediaLimits(cached=sum(map(len, shots[:3]))))
    async with team(sim, tmp_path, "auto", options=options) as (_, alice, bob):

        async def look(who: Caller, shot: bytes) -> dict[str, Any]:
            return await who.call("kimi_vision", prompt="What is it?", images=[data_uri(shot)])

        first = await look(alice, shots[0])
        others = [await look(bob, shot) for shot in shots]
        follow_ups = [
            await who.call("kimi_think", prompt="And now?", conversation_id=shown["conversation_id"])
            for who, shown in ((alice, first), (bob, others[-1]), (bob, others[0]))
        ]
    assert [each["status"] for each in follow_ups] == ["completed", "completed", "failed"]


async def test_a_session_is_open_to_whoever_opened_it_alone(sim: Simulator, tmp_path: Path) -> None:
    sim.play(HELD_STEP)
    think = {"name": "kimi_think", "arguments": {"prompt": "x"}}
    async with team(sim, tmp_path, "legacy") as (http, alice, bob):
        assert alice.session is not None
        opened = alice.session["Mcp-Session-Id"]

        async def answers(method: str, body: Any = None) -> list[tuple[int, bytes]]:
            """What Bob learns of Alice's session, and of one that never was."""
            found: list[tuple[int, bytes]] = []
            for session in (opened, 32 * "0"):
                headers = {**OLDER, **bearer(bob.token), "Mcp-Session-Id": session}
                answer = await http.raw.request(method, "/mcp", json=body, headers=headers)
                found.append((answer.status_code, answer.content))
            return found

        async with anyio.create_task_group() as calls:
            calls.start_soon(alice.ask, "tools/call", think)
            await sim.until(lambda: sim.waiting_at("end") == 1)
            await wait_until(lambda: http.state.waiting)
            cancelled = message("notifications/cancelled", {"requestId": 1, "reason": "the user"}, None)
            bodies = [message("tools/list"), cancelled, message("tools/call", think)]
            for method, body in (*(("POST", each) for each in bodies), ("GET", None), ("DELETE", None)):
                of_hers, of_none = await answers(method, body)
                assert of_hers == of_none
                assert of_none[0] == 404
            # In the newest era nothing belongs to a session, whatever its header says.
            disturbing = newest_headers("tools/list") | bearer(bob.token) | {"Mcp-Session-Id": opened}
            assert (await http.post(newest("tools/list"), disturbing)).status_code == 200
            assert len(http.state.waiting) == 1
            sim.open_gate("end")
    assert len(chats(sim)) == 1


async def test_what_two_principals_send_is_uploaded_for_each_so_that_neither_learns_of_the_other(
    sim: Simulator, tmp_path: Path
) -> None:
    shot = data_uri(picture(1))
    async with team(sim, tmp_path, "auto", options=UPLOADING) as (_, alice, bob):
        for who in (alice, bob, alice):
            seen = await who.call("kimi_vision", prompt="What is it?", images=[shot])
            assert seen["status"] == "completed"
    assert len(uploads(sim)) == 2, "and once for all calls of each"
    assert len({file.filename for file in sim.files.all()}) == 2


@pytest.mark.soak
async def test_of_many_principals_at_once_each_is_notified_of_its_own_alone(
    sim: Simulator, mode: str, tmp_path: Path
) -> None:
    names = [f"principal-{number:02}" for number in range(24)]
    sim.play(*({"match": {"text": f"{name}'s"}, "content": f"for {name}", "times": "always"} for name in names))
    async with crowd(sim, tmp_path, mode, names) as (_, callers), anyio.create_task_group() as group:

        async def work(name: str, who: Caller) -> None:
            own, conversation = set[str](), dict[str, Any]()
            for turn in range(5):
                result = await who.call("kimi_think", prompt=f"{name}'s question {turn}", **conversation)
                conversation = {"conversation_id": result["conversation_id"]}
                assert result["answer"] == f"for {name}"
                own.add(result["run_id"])
                reported = [
                    await who.call("kimi_run"),
                    await who.ask("resources/read", {"uri": "kimi://runs"}),
                    await who.ask("resources/read", {"uri": f"kimi://runs/{result['run_id']}"}),
                ]
                assert set(re.findall(r"principal-\d\d", json.dumps(reported))) == {name}
                reference = {"ref": {"type": "ref/resource", "uri": "kimi://runs/{id}"}}
                offered = await who.ask("completion/complete", reference | {"argument": {"name": "id", "value": ""}})
                assert set(offered["result"]["completion"]["values"]) == own

        for name, who in zip(names, callers, strict=True):
            group.start_soon(work, name, who)
