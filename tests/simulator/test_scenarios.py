"""How scenarios are read and used up, and what the handle tells a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from kimi_mcp.simulator import ScenarioError, Simulator, Step, load_scenario
from tests.simulator.requests import INSTANT, THINK, WEATHER, answer, post, sdk

pytestmark = pytest.mark.anyio


async def content(sim: Simulator, **fields: Any) -> str:
    return (await answer(sim, {**INSTANT, **fields}))["content"]


async def test_steps_are_used_up_in_order_then_answers_are_plain(sim: Simulator) -> None:
    sim.play({"content": "one", "times": 2}, {"content": "two"})
    assert [await content(sim) for _ in range(3)] == ["one", "one", "two"]
    assert (await content(sim)).startswith("[simulator]")


async def test_a_step_can_serve_always(sim: Simulator) -> None:
    sim.play({"content": "again", "times": "always"})
    assert {await content(sim) for _ in range(5)} == {"again"}


async def test_steps_wait_for_the_request_they_match(sim: Simulator) -> None:
    sim.play({"match": {"text": "Rome"}, "content": "Italy"}, {"match": {"model": "kimi-k3"}, "content": "three"})
    assert (await content(sim)).startswith("[simulator]")
    assert await content(sim, messages=[{"role": "user", "content": "Where is Rome?"}]) == "Italy"
    assert (await answer(sim, {**THINK, "model": "kimi-k3"}))["content"] == "three"


async def test_a_tool_loop_is_matched_by_its_results(sim: Simulator) -> None:
    call = {"name": "get_weather", "arguments": {"city": "Oslo"}}
    sim.play({"match": {"tool": "rain"}, "content": "Take a coat."}, {"tool_calls": [call], "times": "always"})
    turns: list[dict[str, Any]] = [{"role": "user", "content": "A coat?"}]
    requested = await answer(sim, {**INSTANT, "tools": [WEATHER], "messages": turns})
    turns += [
        {"role": "assistant", "tool_calls": requested["tool_calls"]},
        {"role": "tool", "tool_call_id": requested["tool_calls"][0]["id"], "content": "rain in Oslo"},
    ]
    assert await content(sim, messages=turns) == "Take a coat."


async def test_a_refused_request_uses_no_step_up(sim: Simulator) -> None:
    sim.play({"content": "kept"})
    assert (await post(sim, {**INSTANT, "temperature": 1})).status_code == 400
    assert await content(sim) == "kept"


async def test_an_unchecked_step_is_played_before_any_check(sim: Simulator) -> None:
    sim.play({"unchecked": True, "status": 503})
    assert (await post(sim, {"model": 7}, key=None)).status_code == 503


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"statsu": 500}, "step 1: unknown key statsu; known are "),
    "type": ({"status": "500"}, "step 1: status: Input should be a valid integer, not '500'"),
    "boolean": ({"bad_json": 1}, "step 1: bad_json: Input should be a valid boolean, not 1"),
    "choice": ({"over": "tcp"}, "step 1: over: Input should be 'body' or 'raw', not 'tcp'"),
    "times": (
        {"times": 0},
        "step 1: times: Input should be greater than or equal to 1 or Input should be 'always', not 0",
    ),
    "place": ({"gate_at": "middle"}, "step 1: gate_at: Input should be 'start', 'head'"),
    "match": ({"match": {"modle": "x"}}, "step 1: unknown key match.modle"),
    "calls": ({"tool_calls": [{"nam": "x"}]}, "step 1: tool_calls: Field required"),
    "negative": ({"delay": -1}, "step 1: delay: Input should be greater than or equal to 0, not -1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_scenario_says_wrong_is_named(name: str) -> None:
    fields, message = WRONG[name]
    with pytest.raises(ScenarioError) as caught:
        Simulator(faults=[fields])
    assert str(caught.value).startswith(message)


STEPS = [{"status": 429, "retry_after": 3, "match": {"model": "kimi-k2.6"}}, {"content": "fine", "times": "always"}]
TOML = """
[[steps]]
status = 429
retry_after = 3
match = { model = "kimi-k2.6" }

[[steps]]
content = "fine"
times = "always"
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", json.dumps(STEPS)), ("b.json", json.dumps({"steps": STEPS})), ("c.toml", TOML)],
)
def test_a_scenario_is_read_from_json_and_toml(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    first, second = load_scenario(tmp_path / name)
    assert (first.status, first.retry_after, first.match.model) == (429, 3, "kimi-k2.6")
    assert second == Step(content="fine", times="always")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "Expecting"), ('{"step": []}', "unknown key step"), ("[1]", "step 1")]
)
def test_a_scenario_file_that_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message) as caught:
        load_scenario(path)
    assert str(path) in str(caught.value)


async def test_requests_are_remembered_with_headers_body_and_outcome(sim: Simulator) -> None:
    async with sdk(sim) as client:
        await client.chat.completions.create(**THINK, extra_headers={"X-Trace": "7"})
    (received,) = sim.requests
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["x-trace"] == "7"
    assert received.body == THINK
    assert received.raw > 80
    assert (received.outcome, received.status) == ("answered", 200)


async def test_a_connection_serves_one_request_after_the_other(sim: Simulator) -> None:
    async with sdk(sim) as client:
        for _ in range(3):
            await client.chat.completions.create(**THINK)
            async for _chunk in await client.chat.completions.create(**THINK, stream=True):
                pass
    assert [one.outcome for one in sim.requests] == ["answered"] * 6


async def test_reset_forgets_requests_and_steps(sim: Simulator) -> None:
    sim.play({"status": 500}, {"status": 500})
    await post(sim, THINK)
    sim.reset()
    assert sim.requests == []
    assert (await post(sim, THINK)).status_code == 200


async def test_waiting_for_what_does_not_happen_ends(sim: Simulator) -> None:
    with pytest.raises(TimeoutError):
        await sim.until(lambda: False, within=0.01)


async def test_an_error_of_the_block_leaves_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Simulator():
            raise KeyError("mine")


async def test_forty_streams_at_once_are_all_answered(sim: Simulator) -> None:
    sim.play({"gate": "all", "times": "always"})
    async with sdk(sim) as client:

        async def ask() -> None:
            async for _ in await client.chat.completions.create(**THINK, stream=True):
                pass

        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(ask)
            await sim.until(lambda: sim.open_streams == 40)
            sim.open_gate("all")
    assert [one.outcome for one in sim.requests] == ["answered"] * 40


async def test_leaving_the_block_closes_what_is_open() -> None:
    with anyio.fail_after(60):
        async with Simulator(faults=[{"stall_at": 100}]) as sim, anyio.create_task_group() as tasks:
            tasks.start_soon(post, sim, {**THINK, "stream": True})
            await sim.until(lambda: sim.open_streams == 1)
            tasks.cancel_scope.cancel()


async def test_a_closed_listener_refuses_connections() -> None:
    async with Simulator() as sim:
        sim.stop_listening()
        host, port = sim.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        with pytest.raises(OSError, match=r"(?i)connect"):
            await anyio.connect_tcp(host, int(port))


async def test_whoever_observes_gets_each_event_with_its_step() -> None:
    seen: list[tuple[str | None, bytes]] = []
    async with Simulator(on_event=lambda step, event: seen.append((step.content, event))) as sim:
        sim.play({"content": "Hi."})
        got = await post(sim, {**THINK, "stream": True})
    assert b"".join(event for _, event in seen) == got.content
    assert {content for content, _ in seen} == {"Hi."}
