"""Arguments that are refused: as a result, in words that name the argument, before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from tests.server.clients import ERAS, connect
from tests.server.processes import server_process
from tests.server.requests import body_of, chats

WRONG: dict[str, tuple[str, dict[str, Any] | None, str]] = {
    "no arguments at all": ("kimi_think", None, "prompt"),
    "no prompt": ("kimi_think", {}, "prompt"),
    "a null prompt": ("kimi_think", {"prompt": None}, "prompt"),
    "an empty prompt": ("kimi_think", {"prompt": ""}, "prompt"),
    "a blank prompt": ("kimi_instant", {"prompt": " \n\t\u3000"}, "prompt"),
    "a prompt that is a number": ("kimi_think", {"prompt": 17}, "prompt"),
    "a prompt that is a list": ("kimi_think", {"prompt": ["hi"]}, "prompt"),
    "a misspelt argument": ("kimi_think", {"promt": "hi"}, "prompt"),
    "an argument of another tool": ("kimi_think", {"prompt": "hi", "images": []}, "images"),
    "a system prompt that is an object": ("kimi_think", {"prompt": "hi", "system": {"text": "x"}}, "system"),
    "max_tokens as text": ("kimi_think", {"prompt": "hi", "max_tokens": "100"}, "max_tokens"),
    "max_tokens as a fraction": ("kimi_think", {"prompt": "hi", "max_tokens": 100.5}, "max_tokens"),
    "max_tokens below 1": ("kimi_think", {"prompt": "hi", "max_tokens": -1}, "max_tokens"),
    "max_tokens as a truth value": ("kimi_think", {"prompt": "hi", "max_tokens": True}, "max_tokens"),
    "a temperature above 2": ("kimi_think", {"prompt": "hi", "temperature": 2.1}, "temperature"),
    "a temperature below 0": ("kimi_instant", {"prompt": "hi", "temperature": -0.1}, "temperature"),
    "a temperature as text": ("kimi_instant", {"prompt": "hi", "temperature": "0.6"}, "temperature"),
    "max_tokens beyond the ceiling": ("kimi_think", {"prompt": "hi", "max_tokens": 10_000_000}, "max_tokens"),
    "a model as a list": ("kimi_think", {"prompt": "hi", "model": ["kimi-k2.5"]}, "model"),
    "a schema that is text": ("kimi_think", {"prompt": "hi", "response_schema": "any"}, "response_schema"),
    "an action nobody knows": ("kimi_run", {"run_id": "run_1", "action": "stop"}, "action"),
    "a wait below 0": ("kimi_run", {"run_id": "run_1", "wait_s": -1}, "wait_s"),
    "an offset below 0": ("kimi_run", {"run_id": "run_1", "offset": -1}, "offset"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_argument_is_named_and_nothing_is_sent(sim: Simulator, mode: str, case: str) -> None:
    tool, arguments, named = WRONG[case]
    async with connect(sim, mode) as kimi:
        result = await kimi.call(tool, arguments)
        assert result.is_error
        assert result.code == "invalid_arguments"
        assert named in result.error["fix"] or f"`{named}`" in result.error["message"]
        assert result.structured["run_id"] is None, "it was refused before anything ran"
        assert chats(sim) == []
        assert (await kimi.run()).answer == "No run is known to this server yet."


async def test_a_misspelt_argument_is_answered_with_the_nearest_name(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.call("kimi_think", {"prompt": "hi", "max_token": 5})
    assert "no argument `max_token`" in result.error["message"]
    assert "`max_tokens`" in result.error["message"]
    for name in ("prompt", "system", "response_schema", "max_tokens", "temperature", "model", "provider"):
        assert name in result.error["fix"]


async def test_an_unknown_tool_is_answered_with_the_names_there_are(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.call("kimi_thnik", {"prompt": "hi"})
    assert result.code == "invalid_arguments"
    assert ", ".join(TOOLS) in result.error["fix"]


async def test_an_explicit_null_counts_as_absent(sim: Simulator, mode: str) -> None:
    nulls = dict.fromkeys(("system", "response_schema", "max_tokens", "temperature", "model", "provider"))
    async with connect(sim, mode) as kimi:
        result = await kimi.think("hi", **nulls)
        assert result.status == "completed"
        assert result.rules == []
        again = await kimi.call("kimi_run", {"run_id": result.run_id, "action": None, "wait_s": None, "offset": None})
    assert again.answer == result.answer


async def test_a_temperature_may_be_a_whole_number(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        result = await kimi.think("hi", temperature=1)
    assert result.status == "completed"
    assert result.rules == []


async def test_a_name_of_an_argument_is_never_echoed_raw(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        result = await kimi.call("kimi_think", {"prompt": "hi", "x\x1b[31m\r\n" + "y" * 10_000: 1})
    assert "\x1b" not in result.text
    assert "\r" not in result.text
    assert len(result.text) < 1_000


async def test_a_prompt_that_is_certainly_too_long_is_refused_before_it_is_paid_for(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.think("x" * 6_000_000)
    assert result.code == "context_too_long"
    assert "prompt" in result.error["fix"]
    assert "262,144" in result.error["message"]
    assert chats(sim) == []


async def test_a_prompt_that_the_provider_finds_too_long_is_reported_as_such(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        result = await kimi.think("a b c d " * 300_000)
    assert result.code == "context_too_long"
    assert result.status == "failed"
    assert result.attempts == 1
    assert "prompt" in result.error["fix"] or "file" in result.error["fix"]


async def test_half_a_surrogate_pair_in_the_prompt_is_refused_in_process(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.think("cut in the middle of \ud83d")
    assert result.code == "invalid_arguments"
    assert "prompt" in result.error["fix"] + result.error["message"]
    assert chats(sim) == []


@pytest.mark.parametrize("place", ["system", "model", "provider"])
async def test_half_a_surrogate_pair_elsewhere_is_refused_too(sim: Simulator, place: str) -> None:
    async with connect(sim) as kimi:
        result = await kimi.think("hi", **{place: "\ud83d"})
    assert result.code == "invalid_arguments"
    assert chats(sim) == []


async def test_half_a_surrogate_pair_inside_a_schema_is_refused(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        result = await kimi.think("hi", response_schema={"type": "string", "enum": ["\ud83d"]})
    assert result.is_error
    assert result.code == "invalid_arguments"
    assert chats(sim) == []


@pytest.mark.parametrize("place", ["model", "provider"])
async def test_what_a_caller_names_is_never_echoed_raw(sim: Simulator, place: str) -> None:
    async with connect(sim) as kimi:
        result = await kimi.think("hi", **{place: "x\x1b[31m\n" + "y" * 100_000})
    assert result.code == "invalid_arguments"
    assert "\x1b" not in result.text
    assert len(result.text) < 2_000


async def test_an_unknown_model_is_answered_with_the_nearest_names(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.think("hi", model="kimi-2.6")
    assert result.code == "invalid_arguments"
    assert "kimi-k2.6" in result.error["fix"]
    assert "`model`" in result.error["fix"]
    assert chats(sim) == []


async def test_an_unknown_provider_is_answered_with_the_nearest_names(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.think("hi", provider="moonshoot")
    assert result.code == "invalid_arguments"
    assert "`provider`" in result.error["fix"]
    assert "moonshot" in result.error["fix"].partition("nearest")[2]
    assert chats(sim) == []


@pytest.mark.soak
async def test_a_prompt_of_a_megabyte_with_a_nul_goes_through_a_real_process(sim: Simulator) -> None:
    prompt = "NUL \x00 and 1 MB: " + "word " * 200_000
    async with server_process(sim, ERAS["2025-11-25"]) as client:
        result = await client.call_tool("kimi_instant", {"prompt": prompt, "model": "kimi-k3"})
        assert not result.is_error, result.content
    assert body_of(chats(sim)[0])["messages"][0]["content"] == prompt
