"""A stream that is cut, at every byte: never a silent success, and exactly what had arrived is kept."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest

from kimi_mcp.simulator import Simulator
from tests.server.clients import KimiClient, connect
from tests.server.requests import chats
from tests.server.results import Result

PROMPT = "hi"
SHORT: dict[str, Any] = {
    "reasoning": "你.",
    "content": "好 🌍.",
    "event_tokens": 2,
    "usage": "missing",
    "times": "always",
}
"""A short answer of characters of several bytes, in several events."""

AT_ONCE = 64
"""Calls under way at once."""


async def transcript(sim: Simulator) -> bytes:
    """The body that the step's whole answer has on the wire."""
    sim.play(SHORT)
    async with connect(sim) as kimi:
        await kimi.think(PROMPT)
    (request,) = chats(sim)
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        answer = await client.post(f"{sim.base_url}/chat/completions", json=dict(request.body or {}))
    sim.reset()
    assert answer.status_code == 200
    return answer.content


def delivered(body: bytes, end: int) -> tuple[str, str, bool]:
    """Reasoning, answer and whether the finish event is whole, in the first so many bytes: read by nobody's parser."""
    reasoning, answer, finished = "", "", False
    for block in body[:end].split(b"\n\n")[:-1]:
        payload = block.removeprefix(b"data: ")
        if payload == b"[DONE]":
            continue
        for choice in json.loads(payload)["choices"]:
            reasoning += choice["delta"].get("reasoning_content") or ""
            answer += choice["delta"].get("content") or ""
            finished = finished or choice["finish_reason"] is not None
    return reasoning, answer, finished


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("how", ["truncate_at", "reset_at"])
async def test_a_stream_that_is_cut_at_any_byte_is_no_silent_success(sim: Simulator, how: str, every: int) -> None:
    """Cut at each byte, or at each so many and around the end of each event."""
    body = await transcript(sim)
    whole_reasoning, whole_answer, _ = delivered(body, len(body))
    assert (whole_reasoning, whole_answer) == (SHORT["reasoning"], SHORT["content"])
    results: dict[int, Result] = {}
    slots = anyio.Semaphore(AT_ONCE)

    async def cut(kimi: KimiClient, at: int) -> None:
        async with slots:
            sim.play({**SHORT, "match": {"text": f"cut {at:05}"}, how: at})
            results[at] = await kimi.think(f"cut {at:05}")

    ends = [at for at in range(2, len(body)) if body[at - 2 : at] == b"\n\n"]
    cuts = {*range(0, len(body), every), len(body), *(end + step for end in ends for step in (-1, 0, 1))}
    with anyio.fail_after(120):
        async with connect(sim, KIMI_MAX_CONCURRENCY=str(AT_ONCE)) as kimi, anyio.create_task_group() as tasks:
            for at in cuts:
                tasks.start_soon(cut, kimi, at)
    assert results.keys() == cuts
    assert every > 1 or len(cuts) == len(body) + 1
    completed = 0
    for at, result in results.items():
        reasoning, answer, finished = delivered(body, at)
        where = f"cut at byte {at} of {len(body)}: {result.structured}"
        if result.status == "completed":
            completed += 1
            assert finished, where
            assert result.answer == whole_answer, where
            continue
        assert result.status == "failed", where
        assert result.code in ("upstream_broken", "answer_cut_off"), where
        assert whole_answer.startswith(result.answer), where
        assert whole_reasoning.startswith(result.reasoning), where
        if how == "truncate_at":  # a reset may overtake what was sent before it
            assert (result.reasoning, result.answer) == (reasoning, answer), where
        if result.answer:
            assert result.answer in result.text, where
    assert completed, "a cut after the finish event spoils nothing"


@pytest.mark.parametrize("framing", ["length", "close"])
async def test_the_framing_of_a_cut_answer_makes_no_difference(sim: Simulator, framing: str) -> None:
    body = await transcript(sim)
    finish = body.index(b'"finish_reason":"stop"')
    sim.play({**SHORT, "framing": framing, "truncate_at": finish, "times": 5})
    async with connect(sim) as kimi:
        cut = await kimi.think(PROMPT)
        assert cut.status == "failed"
        assert cut.answer == SHORT["content"]
        assert cut.attempts == 1, "nothing is asked again once a token has come"
    sim.reset()


@pytest.mark.parametrize("place", ["head", "reasoning", "content", "finish"])
@pytest.mark.parametrize("fault", ["bad_json", "error_event"])
async def test_a_spoilt_event_fails_with_what_had_arrived(sim: Simulator, mode: str, fault: str, place: str) -> None:
    spoilt = {"type": "server_error", "message": "the machine fell over"} if fault == "error_event" else True
    sim.play({"reasoning": "Hm.", "content": "It is 391.", fault: spoilt, "at": place, "times": "always"})
    async with connect(sim, mode) as kimi:
        result = await kimi.think()
    assert result.status == "failed"
    assert result.code == "upstream_broken"
    assert "It is 391.".startswith(result.answer)
    if place == "finish":
        assert result.answer == "It is 391."
        assert result.reasoning == "Hm."
    assert result.attempts == (1 if place != "head" else 5)


@pytest.mark.parametrize("type_", ["rate_limit_reached_error", "content_filter", "invalid_authentication_error", ""])
async def test_an_error_inside_the_stream_keeps_its_name(sim: Simulator, type_: str) -> None:
    codes = {
        "rate_limit_reached_error": "rate_limited",
        "content_filter": "content_filtered",
        "invalid_authentication_error": "auth_failed",
        "": "upstream_broken",
    }
    sim.play({"content": "It is 391.", "error_event": {"type": type_, "message": "no"}, "at": "finish"})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.code == codes[type_]
    assert result.status == "failed"
    assert result.answer == "It is 391."
    assert result.attempts == 1


@pytest.mark.parametrize(
    "step",
    [
        {"html": True},
        {"html": "<html>" + "x" * 100_000},
        {"body": ""},
        {"body": "Bad gateway"},
        {"body": "{"},
        {"body": {}},
        {"body": []},
        {"body": {"choices": [{"message": {"content": "It is 391."}}]}},
        {"body": {"error": {"type": "server_error", "message": "no"}}},
    ],
    ids=lambda step: str(step)[:40],
)
async def test_a_200_that_holds_no_answer_is_no_success(sim: Simulator, step: dict[str, Any]) -> None:
    sim.play({**step, "times": "always"})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.status == "failed"
    assert result.code == "upstream_broken"
    assert "<html" not in result.text


async def test_an_answer_in_one_body_is_as_good_as_a_stream(sim: Simulator) -> None:
    message = {"role": "assistant", "content": "It is 391.", "reasoning_content": "Hm."}
    sim.play({"body": {"model": "kimi-k2.5", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.status == "completed"
    assert result.answer == "It is 391."
    assert result.reasoning == "Hm."


@pytest.mark.parametrize(
    "step", [{"split": "utf8"}, {"split": 1}, {"together": True}, {"comments_before": 50}, {"no_done": True}]
)
async def test_a_stream_may_come_in_any_pieces(sim: Simulator, step: dict[str, Any]) -> None:
    sim.play({**SHORT, **step})
    async with connect(sim) as kimi:
        result = await kimi.think(PROMPT)
    assert result.status == "completed"
    assert result.answer == SHORT["content"]
    assert result.reasoning == SHORT["reasoning"]


async def test_a_port_where_nobody_listens_is_reported_as_unreachable() -> None:
    async with Simulator(provider="simulator") as gone:
        url = gone.base_url
    async with connect(None, KIMI_BASE_URL=url) as kimi:
        result = await kimi.think()
    assert result.code == "upstream_unreachable"
    assert "KIMI_BASE_URL" in result.error["fix"]
    assert result.status == "failed"
