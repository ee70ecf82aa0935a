"""Statuses: the right number of attempts and waits, the right name, and no key in anything that leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_mcp.simulator import Simulator
from tests.server.clients import connect
from tests.server.keys import KEY, encoded_forms
from tests.server.processes import server_process
from tests.server.requests import chats
from tests.server.results import Result, checked

ONCE: dict[str, tuple[dict[str, Any], str]] = {
    "400": ({"status": 400}, "invalid_arguments"),
    "400 for the context": (
        {"status": 400, "error_message": "Invalid request: Your request exceeded model token limit: 262144"},
        "context_too_long",
    ),
    "400 by the filter": ({"status": 400, "error_type": "content_filter"}, "content_filtered"),
    "401": ({"status": 401}, "auth_failed"),
    "403": ({"status": 403}, "auth_failed"),
    "404": ({"status": 404}, "model_not_served"),
    "410": ({"status": 410}, "model_not_served"),
    "413": ({"status": 413}, "invalid_arguments"),
    "an exhausted quota": ({"status": 429, "error_type": "exceeded_current_quota_error"}, "quota_exhausted"),
    "402": ({"status": 402}, "quota_exhausted"),
    "a wait of an hour": ({"status": 429, "retry_after": 3600}, "overloaded"),
}
"""What is never asked again."""

AGAIN: dict[str, tuple[dict[str, Any], str]] = {
    "overloaded": ({"status": 429}, "overloaded"),
    "rate limited": ({"status": 429, "error_type": "rate_limit_reached_error"}, "rate_limited"),
    "a Retry-After of nothing": ({"status": 429, "retry_after": 0}, "overloaded"),
    "a Retry-After that is garbage": ({"status": 429, "retry_after": "soon"}, "overloaded"),
    "a Retry-After in the past": (
        {"status": 429, "headers": {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}},
        "overloaded",
    ),
    "408": ({"status": 408}, "upstream_broken"),
    "409": ({"status": 409}, "upstream_broken"),
    "500": ({"status": 500}, "upstream_broken"),
    "502": ({"status": 502, "html": True}, "upstream_broken"),
    "503": ({"status": 503}, "overloaded"),
}
"""What is asked again."""


@pytest.mark.parametrize("case", ONCE)
async def test_what_no_second_attempt_can_fix_is_requested_once(sim: Simulator, case: str) -> None:
    step, code = ONCE[case]
    sim.play({**step, "times": "always"})
    async with connect(sim) as kimi:
        result = await kimi.think()
        assert result.status == "failed"
        assert result.code == code
        assert result.attempts == 1
        assert len(chats(sim)) == 1
        assert (await kimi.run(result.run_id)).structured == result.structured, "what went wrong stays readable"
        sim.reset()
        assert (await kimi.think()).status == "completed", "the next call works"


@pytest.mark.parametrize("case", AGAIN)
async def test_what_passes_is_asked_again_and_the_attempts_are_counted(sim: Simulator, case: str) -> None:
    step, _ = AGAIN[case]
    sim.play({**step, "times": 2})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.status == "completed"
    assert result.attempts == 3
    assert len(chats(sim)) == 3
    assert result.structured["policy"] == []


@pytest.mark.parametrize("case", AGAIN)
async def test_what_does_not_pass_is_given_up_in_the_end(sim: Simulator, case: str) -> None:
    step, code = AGAIN[case]
    sim.play({**step, "times": "always"})
    async with connect(sim) as kimi:
        result = await kimi.think()
    assert result.code == code
    assert result.error["retryable"] is True
    assert result.attempts == len(chats(sim)) == 5


async def test_a_retry_after_is_sat_out(sim: Simulator) -> None:
    sim.play({"status": 429, "retry_after": 1})
    async with connect(sim) as kimi:
        result = await kimi.think()
    first, second = chats(sim)
    assert result.status == "completed"
    assert result.attempts == 2
    assert second.at - first.at >= 1
    assert result.structured["timing"]["total_s"] >= 1


@pytest.mark.soak
async def test_an_outage_costs_hardly_more_requests_than_calls(sim: Simulator) -> None:
    sim.play({"status": 503, "times": "always"})
    async with connect(sim) as kimi:
        for _ in range(150):
            assert (await kimi.instant()).code == "overloaded"
    assert len(chats(sim)) <= 150 * 1.1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_a_key_that_a_body_echoes_is_nowhere(sim: Simulator, status: int) -> None:
    for form in encoded_forms(KEY):
        sim.play({"status": status, "error_type": "error", "error_message": f"Bad key {form}!", "echo_key": True})
    results: list[Result] = []
    async with connect(sim, KIMI_API_KEY=KEY) as kimi:
        while len(chats(sim)) < len(encoded_forms(KEY)):
            results.append(await kimi.think())
            results.append(await kimi.run())
    for result in results:
        for form in encoded_forms(KEY):
            assert form not in result.text
            assert form not in str(result.structured)


@pytest.mark.parametrize("place", ["content", "reasoning"])
async def test_a_key_that_an_answer_repeats_is_hidden(sim: Simulator, place: str) -> None:
    sim.play({"reasoning": "Hm.", "content": "Hi.", place: f"The key is {KEY}."})
    async with connect(sim, KIMI_API_KEY=KEY) as kimi:
        result = await kimi.think()
        pages = [await kimi.run(result.run_id, of) for of in ("answer", "reasoning")]
    for one in (result, *pages):
        assert KEY not in one.text
        assert KEY not in str(one.structured)


async def test_no_cut_through_a_key_shows_a_part_of_it(sim: Simulator) -> None:
    text = "The key is " + KEY + ". " + "And so on. " * 100
    sim.play({"reasoning": text, "content": text})
    async with connect(sim, KIMI_API_KEY=KEY, KIMI_REASONING_INLINE_CHARS="90") as kimi:
        result = await kimi.think()
        pages = [await kimi.run(result.run_id, of, offset=15) for of in ("answer", "reasoning")]
    assert result.structured["reasoning"]["truncated"]
    for one in (result, *pages):
        for start in range(len(KEY) - 8):
            assert KEY[start : start + 8] not in str(one.structured)
            assert KEY[start : start + 8] not in one.text


@pytest.mark.parametrize("level", ["WARNING", "DEBUG"])
async def test_a_key_never_reaches_the_log_of_the_process(sim: Simulator, tmp_path: Path, level: str) -> None:
    echoes = [f"Bad key {form}!" for form in encoded_forms(KEY)]
    sim.play(*({"status": 401, "error_message": echo, "echo_key": True} for echo in echoes))
    sim.play({"error_event": {"type": "server_error", "message": f"with {KEY}"}}, {"bad_json": True})
    log = tmp_path / "stderr"
    async with server_process(
        sim, stderr=log, KIMI_API_KEY=KEY, MOONSHOT_API_KEY=KEY[::-1], KIMI_LOG_LEVEL=level
    ) as client:
        results = [checked(await client.call_tool("kimi_think", {"prompt": "hi"})) for _ in range(len(echoes) + 2)]
    assert all(result.is_error for result in results)
    text = log.read_text(encoding="utf-8") + "".join(result.text + str(result.structured) for result in results)
    for form in (*encoded_forms(KEY), *encoded_forms(KEY[::-1])):
        assert form not in text
