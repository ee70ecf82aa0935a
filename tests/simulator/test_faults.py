"""Faults on demand, as they look to a client on the wire."""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx2
import openai
import pytest

from kimi_mcp.simulator import Simulator, Step
from tests.simulator.requests import (
    INSTANT,
    THINK,
    WEATHER,
    bare,
    chunks_of,
    dechunked,
    deltas,
    post,
    request_bytes,
    sdk,
    streamed,
)

pytestmark = pytest.mark.anyio

STREAM = {**THINK, "stream": True}


async def choice(sim: Simulator, body: Any = THINK) -> dict[str, Any]:
    return (await post(sim, body)).json()["choices"][0]


STATUSES = {
    400: "invalid_request_error",
    401: "invalid_authentication_error",
    403: "permission_denied_error",
    404: "resource_not_found_error",
    429: "engine_overloaded_error",
    500: "server_error",
    503: "server_unavailable",
}


@pytest.mark.parametrize("status", [*STATUSES, 408, 409, 410, 499, 502, 504])
async def test_a_status_is_answered_once_and_the_next_request_is_served(sim: Simulator, status: int) -> None:
    sim.play({"status": status, "error_message": "Not now"})
    got = await post(sim, THINK)
    assert got.status_code == status
    assert got.json()["error"]["message"] == "Not now"
    assert got.json()["error"]["type"] == STATUSES.get(status, got.json()["error"]["type"])
    assert (await post(sim, THINK)).status_code == 200


async def test_the_error_type_is_the_one_that_is_asked_for(sim: Simulator) -> None:
    sim.play(Step(status=429, error_type="exceeded_current_quota_error"))
    async with sdk(sim) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**THINK)
    assert caught.value.type == "exceeded_current_quota_error"


@pytest.mark.parametrize("value", [2, 3600, "soon", "-1"])
async def test_retry_after_is_sent_as_it_stands(sim: Simulator, value: int | str) -> None:
    sim.play({"status": 429, "retry_after": value})
    assert (await post(sim, THINK)).headers["retry-after"] == str(value)


async def test_retry_after_can_be_a_date(sim: Simulator) -> None:
    sim.play({"status": 503, "retry_after_date": 60})
    assert parsedate_to_datetime((await post(sim, THINK)).headers["retry-after"]).year >= 2026


async def test_a_gateway_may_echo_the_key(sim: Simulator) -> None:
    sim.play({"status": 401, "echo_key": True})
    assert "sk-secret" in (await post(sim, THINK, key="sk-secret")).json()["error"]["message"]


async def test_html_comes_with_200(sim: Simulator) -> None:
    sim.play({"html": True})
    got = await post(sim, THINK)
    assert got.status_code == 200
    assert got.headers["content-type"].startswith("text/html")
    assert got.text.startswith("<!DOCTYPE html>")


async def test_a_dictated_header_replaces_the_usual_one(sim: Simulator) -> None:
    sim.play({"headers": {"Content-Type": "text/plain"}})
    assert (await post(sim, THINK)).headers.get_list("content-type") == ["text/plain"]


async def test_a_body_and_headers_can_be_dictated(sim: Simulator) -> None:
    sim.play({"status": 200, "body": {"unexpected": True}, "headers": {"x-proxy": "yes"}})
    got = await post(sim, THINK)
    assert (got.json(), got.headers["x-proxy"]) == ({"unexpected": True}, "yes")


@pytest.mark.parametrize("kind", ["truncate_at", "reset_at"])
async def test_a_stream_is_cut_at_every_byte_of_its_body(sim: Simulator, kind: str) -> None:
    script = {"reasoning": "é", "content": "é"}
    sim.play(script)
    whole = dechunked((await bare(sim, close_after(STREAM)))[0])
    started = whole.index(b"data: ")
    for at in range(started, len(whole), 7):
        sim.play({**script, kind: at})
        got, ending = await bare(sim, request_bytes(STREAM))
        assert plain(dechunked(got)) == plain(whole)[: len(plain(dechunked(got)))]
        assert len(dechunked(got)) == at
        assert ending == ("eof" if kind == "truncate_at" else "reset")
    assert {one.outcome for one in sim.requests[1:]} == {"cut"}


def close_after(body: Any) -> bytes:
    return request_bytes(body).replace(b"host: x\r\n", b"host: x\r\nconnection: close\r\n")


def plain(body: bytes) -> bytes:
    """The body without what differs from one answer to the next."""
    return re.sub(rb"\d", b"0", body)


@pytest.mark.parametrize("at", [0, 5, 40])
@pytest.mark.parametrize("kind", ["truncate_at", "reset_at"])
async def test_a_response_is_cut_within_its_headers(sim: Simulator, kind: str, at: int) -> None:
    sim.play({kind: at, "over": "raw"})
    got, ending = await bare(sim, request_bytes(STREAM))
    assert got == b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream"[:at]
    assert ending == ("eof" if kind == "truncate_at" else "reset")


async def test_an_answer_that_is_not_streamed_is_cut_too(sim: Simulator) -> None:
    sim.play({"truncate_at": 30})
    with pytest.raises(httpx2.RemoteProtocolError):
        await post(sim, THINK)


async def test_a_cut_can_look_like_a_clean_end(sim: Simulator) -> None:
    sim.play({"truncate_at": 300, "framing": "close"})
    got = await post(sim, STREAM)
    assert len(got.content) == 300
    assert got.headers["connection"] == "close"


async def test_the_sdk_sees_a_reset_as_a_connection_error(sim: Simulator) -> None:
    sim.play({"reset_at": 600})
    async with sdk(sim) as client:
        stream = await client.chat.completions.create(**THINK, stream=True)
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError, openai.APIConnectionError)):
            async for _ in stream:
                pass


@pytest.mark.parametrize("at", [0, 400])
async def test_a_stall_lasts_until_the_client_goes(sim: Simulator, at: int) -> None:
    sim.play({"stall_at": at})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(post, sim, STREAM)
        await sim.until(lambda: sim.open_streams == 1)
        tasks.cancel_scope.cancel()
    await sim.client_gone()
    assert sim.open_streams == 0


async def test_comments_alone_are_no_progress(sim: Simulator) -> None:
    sim.play({"comments_every": 0.001})
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        headers = {"authorization": "Bearer sk-test"}
        async with client.stream("POST", f"{sim.base_url}/chat/completions", json=STREAM, headers=headers) as got:
            lines = got.aiter_lines()
            assert [await anext(lines) for _ in range(6)] == [": keep-alive", ""] * 3
    await sim.client_gone()


async def test_comments_can_come_before_the_answer(sim: Simulator) -> None:
    sim.play({"comments_before": 2})
    got = await post(sim, STREAM)
    assert got.text.startswith(": keep-alive\n\n: keep-alive\n\ndata: ")


async def test_a_pace_is_kept(sim: Simulator) -> None:
    sim.play({"tokens_per_second": 400, "reasoning_tokens": 20, "content_tokens": 20, "event_tokens": 2})
    started = anyio.current_time()
    chunks = await streamed(sim, THINK)
    assert anyio.current_time() - started >= 0.09
    assert len(deltas(chunks)) == 1 + 10 + 10


async def test_a_token_at_a_time(sim: Simulator) -> None:
    sim.play({"token_every": 0.001, "reasoning": "Hm", "content": "four pieces of it"})
    assert [delta.get("content") for delta in deltas(await streamed(sim, THINK))[2:]] == [
        "four",
        " pie",
        "ces ",
        "of i",
        "t",
    ]


async def test_a_delay_comes_before_the_first_byte(sim: Simulator) -> None:
    sim.play({"delay": 0.05})
    started = anyio.current_time()
    await post(sim, THINK)
    assert anyio.current_time() - started >= 0.05


@pytest.mark.parametrize("place", ["start", "head", "reasoning", "content", "finish", 3])
async def test_a_gate_holds_a_stream_until_it_is_opened(sim: Simulator, place: str | int) -> None:
    sim.play({"gate": "held", "gate_at": place, "reasoning_tokens": 8, "content_tokens": 8})
    whole: list[Any] = []

    async def ask() -> None:
        whole.extend(await streamed(sim, THINK))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await sim.until(lambda: sim.waiting_at("held") == 1)
        assert sim.open_streams == 1
        assert whole == []
        sim.open_gate("held")
    assert len(deltas(whole)) == 5
    assert sim.requests[0].outcome == "answered"


async def test_what_came_before_a_gate_is_on_the_wire(sim: Simulator) -> None:
    sim.play({"gate": "held", "gate_at": "content", "reasoning": "Hm", "content": "one two three"})
    seen: list[str] = []
    async with sdk(sim) as client:
        stream = await client.chat.completions.create(**THINK, stream=True)
        async for chunk in stream:
            seen.append(chunk.choices[0].delta.content or "")
            if seen[-1]:
                break
        assert sim.waiting_at("held") == 1
        await stream.close()
    await sim.client_gone()


@pytest.mark.parametrize("key", ["bad_json", "invalid_utf8"])
async def test_a_chunk_that_can_not_be_read(sim: Simulator, key: str) -> None:
    sim.play({key: True, "content": "fine"})
    data = (await post(sim, STREAM)).content
    broken: list[bytes] = []
    for line in data.splitlines():
        try:
            json.loads(line.removeprefix(b"data: ") or b"{}")
        except ValueError:
            broken.append(line)
    assert len(broken) == 2  # and `[DONE]`


async def test_an_error_in_the_middle_of_a_stream(sim: Simulator) -> None:
    sim.play({"error_event": {"type": "server_error", "message": "Lost the engine"}, "content": "first second"})
    async with sdk(sim) as client:
        stream = await client.chat.completions.create(**THINK, stream=True)
        with pytest.raises(openai.APIError, match="Lost the engine"):
            async for _ in stream:
                pass


async def test_length_during_reasoning(sim: Simulator) -> None:
    sim.play({"length_in_reasoning": True})
    got = await choice(sim)
    assert (got["finish_reason"], got["message"]["content"]) == ("length", "")
    assert got["message"]["reasoning_content"]


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_can_be_lost_or_renamed(sim: Simulator, stream: bool) -> None:
    sim.play({"lose_reasoning": True}, {"reasoning_field": "thoughts"})
    found: list[set[str]] = []
    for _ in range(2):
        sent = deltas(await streamed(sim, THINK)) if stream else [(await choice(sim))["message"]]
        found.append({name for delta in sent for name in delta} - {"role", "content"})
    assert found == [set(), {"thoughts"}]


async def test_another_model_may_answer(sim: Simulator) -> None:
    sim.play({"answer_model": "kimi-k3"})
    assert (await streamed(sim, THINK))[0]["model"] == "kimi-k3"


async def test_no_choices_at_all(sim: Simulator) -> None:
    sim.play({"empty_choices": True}, {"empty_choices": True})
    assert all(chunk["choices"] == [] for chunk in await streamed(sim, THINK))
    assert (await post(sim, THINK)).json()["choices"] == []


async def test_a_content_filter_and_a_missing_finish(sim: Simulator) -> None:
    sim.play({"finish_reason": "content_filter"}, {"no_finish": True}, {"no_done": True})
    assert (await choice(sim))["finish_reason"] == "content_filter"
    ended = await post(sim, STREAM)
    assert ended.text.endswith("data: [DONE]\n\n")
    assert not [one for chunk in chunks_of(ended.content) for one in chunk["choices"] if one["finish_reason"]]
    assert "[DONE]" not in (await post(sim, STREAM)).text


@pytest.mark.parametrize(
    ("usage", "places"),
    [("choice", {"choice"}), ("top", {"top"}), ("both", {"choice", "top"}), ("missing", set()), ("every", {"top"})],
)
async def test_usage_in_different_places(sim: Simulator, usage: str, places: set[str]) -> None:
    sim.play({"usage": usage})
    found: set[str] = set()
    for chunk in await streamed(sim, {**THINK, "stream_options": {"include_usage": True}}):
        found |= {"top"} if "usage" in chunk else set()
        found |= {"choice" for one in chunk["choices"] if "usage" in one}
    assert found == places


CALLS = [{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "get_weather", "arguments": {"city": "Rom"}}]


async def test_tool_calls_are_streamed_by_index_in_pieces(sim: Simulator) -> None:
    sim.play({"tool_calls": CALLS})
    async with sdk(sim) as client:
        stream = await client.chat.completions.create(**THINK, tools=[WEATHER], stream=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
        ids: dict[int, str] = {}
        arguments: dict[int, str] = {}
        pieces = 0
        finish = None
        async for chunk in stream:
            for call in chunk.choices[0].delta.tool_calls or []:
                ids[call.index] = call.id or ids[call.index]
                arguments[call.index] = arguments.get(call.index, "") + (
                    (call.function and call.function.arguments) or ""
                )
                pieces += 1
            finish = chunk.choices[0].finish_reason or finish
    assert ids == {0: "functions.get_weather:0", 1: "functions.get_weather:1"}
    assert [json.loads(one)["city"] for one in arguments.values()] == ["Oslo", "Rom"]
    assert pieces > 4
    assert finish == "tool_calls"


async def test_tool_calls_can_be_spoiled(sim: Simulator) -> None:
    for step in ({"tool_call_ids": "duplicate"}, {"tool_call_ids": "missing"}, {"half_arguments": True}):
        sim.play({"tool_calls": CALLS, **step})
    body = {**INSTANT, "tools": [WEATHER]}
    doubled, missing, half = [(await choice(sim, body))["message"]["tool_calls"] for _ in range(3)]
    assert [call["id"] for call in doubled] == ["functions.get_weather:0"] * 2
    assert not any("id" in call for call in missing)
    assert json.loads(half[0]["function"]["arguments"]) == {"city": "Oslo"}
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(half[1]["function"]["arguments"])


async def test_reasoning_and_content_together_or_the_wrong_way_round(sim: Simulator) -> None:
    script = {"reasoning_tokens": 8, "content_tokens": 8}
    sim.play({"together": True, **script}, {"content_first": True, **script})
    together = deltas(await streamed(sim, THINK))[1:]
    assert [set(delta) for delta in together] == [{"reasoning_content", "content"}] * 2
    reversed_ = deltas(await streamed(sim, THINK))[1:]
    assert [next(iter(delta)) for delta in reversed_] == ["content"] * 2 + ["reasoning_content"] * 2


@pytest.mark.parametrize("split", [1, 3, "utf8"])
async def test_characters_can_be_split_across_writes(sim: Simulator, split: int | str) -> None:
    sim.play({"split": split, "reasoning": "思考", "content": "天空是蓝色的 🌈"})
    pieces: list[bytes] = []
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        headers = {"authorization": "Bearer sk-test"}
        async with client.stream("POST", f"{sim.base_url}/chat/completions", json=STREAM, headers=headers) as got:
            pieces = [piece async for piece in got.aiter_raw()]
    assert any(piece[0] & 0xC0 == 0x80 for piece in pieces)
    sent = deltas(chunks_of(b"".join(pieces)))
    assert "".join(delta.get("content", "") for delta in sent) == "天空是蓝色的 🌈"


async def test_a_scripted_model_sends_its_script(sim: Simulator) -> None:
    sim.play({"reasoning": "Planned.", "content": "Said."})
    message = (await choice(sim))["message"]
    assert (message["reasoning_content"], message["content"]) == ("Planned.", "Said.")


async def test_an_answer_can_be_made_long(sim: Simulator) -> None:
    sim.play({"reasoning_tokens": 300, "content_tokens": 200})
    assert (await post(sim, THINK)).json()["usage"]["completion_tokens"] == 500


async def test_an_upload_and_the_list_of_models_can_fail_too(sim: Simulator) -> None:
    sim.play({"match": {"path": "/v1/models"}, "status": 503}, {"match": {"path": "/v1/files"}, "status": 429})
    async with sdk(sim) as client:
        with pytest.raises(openai.InternalServerError):
            await client.models.list()
        with pytest.raises(openai.RateLimitError):
            await client.files.create(file=("a.txt", b"x" * 300_000), purpose="batch")
        assert (await client.models.list()).data


async def test_a_model_may_ignore_the_limit(sim: Simulator) -> None:
    sim.play({"ignore_limit": True, "content_tokens": 200}, {"content_tokens": 200})
    body = {**INSTANT, "max_tokens": 50}
    assert [(await choice(sim, body))["finish_reason"] for _ in range(2)] == ["stop", "length"]
