"""What K3 alone takes at Moonshot: tools that a conversation declares as it goes, efforts, and a thinking object."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_mcp.simulator import Simulator
from tests.simulator.requests import THINK, WEATHER, answer, post, refusal

pytestmark = pytest.mark.anyio

K3 = {**THINK, "model": "kimi-k3"}
USER: dict[str, Any] = {"role": "user", "content": "What is new?"}
ANSWERED: dict[str, Any] = {"role": "assistant", "content": "Nothing."}
EFFORTS = ("low", "high", "max")
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **more}}}


def declaring(*tools: Any, role: str = "system", **more: Any) -> dict[str, Any]:
    return {"role": role, "tools": [*tools], **more}


def asking(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**K3, "messages": [*messages], **more}


DECLARED = {
    "first": [declaring(WEATHER), USER],
    "blank-content": [declaring(WEATHER, content=""), USER],
    "last": [USER, declaring(WEATHER)],
    "in-the-middle": [USER, ANSWERED, declaring(WEATHER), USER],
    "not-strict": [declaring({**WEATHER, "function": {**WEATHER["function"], "strict": False}}), USER],
}


@pytest.mark.parametrize("name", DECLARED)
async def test_a_tool_that_a_system_message_declares_can_be_called(sim: Simulator, name: str) -> None:
    got = (await post(sim, asking(*DECLARED[name], tool_choice="required"))).json()["choices"][0]
    assert got["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in got["message"]["tool_calls"]] == ["get_weather"]


async def test_declared_tools_stand_beside_those_of_the_request(sim: Simulator) -> None:
    messages = [declaring(tool("look_up")), declaring(tool("get_time")), USER]
    got = await answer(sim, asking(*messages, tools=[WEATHER]))
    assert "Tools offered: look_up, get_time, get_weather." in got["reasoning_content"]


async def test_what_a_declaration_holds_counts_as_prompt(sim: Simulator) -> None:
    many = [declaring(tool("look_up", description="Look it up. " * 100)), USER]
    few = [declaring(tool("look_up")), USER]
    used = [(await post(sim, asking(*messages))).json()["usage"]["prompt_tokens"] for messages in (few, many)]
    assert used[1] - used[0] >= 300


TOO_MANY = [tool(f"tool_{number}") for number in range(65)]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "by-a-user": (
        asking({**USER, "tools": [WEATHER]}),
        "the message at position 0 with role 'user' must not have tools",
    ),
    "by-an-assistant": (
        asking(USER, {**ANSWERED, "tools": [WEATHER]}, USER),
        "the message at position 1 with role 'assistant' must not have tools",
    ),
    "beside-content": (
        asking(declaring(WEATHER, content="Be brief."), USER),
        "the message at position 0 must not have content beside its tools",
    ),
    "no-list": (
        asking({"role": "system", "tools": {"type": "function"}}, USER),
        "tools of the message at position 0 must be an array",
    ),
    "no-tool": (asking(declaring(None), USER), "tools[0] must have a function with a name"),
    "nameless": (
        asking(declaring({"type": "function", "function": {}}), USER),
        "tools[0] must have a function with a name",
    ),
    "untyped": (asking(declaring({"function": WEATHER["function"]}), USER), "tools[0].type must be function"),
    "twice": (asking(declaring(WEATHER, WEATHER), USER), "function name get_weather is duplicated"),
    "twice-in-two": (asking(declaring(WEATHER), declaring(WEATHER), USER), "function name get_weather is duplicated"),
    "twice-in-all": (asking(declaring(WEATHER), USER, tools=[WEATHER]), "function name get_weather is duplicated"),
    "too-many": (
        asking(declaring(*TOO_MANY), USER, tools=[tool(f"other_{number}") for number in range(64)]),
        "at most 128 tools are allowed, got 129",
    ),
    "on-k2.6": ({**THINK, "messages": [declaring(WEATHER), USER]}, "tokenization failed"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_declaration_that_moonshot_refuses_is_refused(sim: Simulator, name: str) -> None:
    body, words = REFUSED[name]
    assert await refusal(sim, body) == (400, "invalid_request_error", f"Invalid request: {words}")


async def test_the_choice_of_a_named_function_is_ignored(sim: Simulator) -> None:
    got = (await post(sim, {**K3, "tools": [WEATHER], "tool_choice": NAMED})).json()["choices"][0]
    assert got["finish_reason"] == "stop"
    assert "tool_calls" not in got["message"]
    assert sim.requests[0].ignored == ("tool_choice",)


async def test_more_effort_makes_longer_reasoning(sim: Simulator) -> None:
    got = [await answer(sim, {**K3, "reasoning_effort": effort}) for effort in EFFORTS]
    lengths = [len(each["reasoning_content"].replace(effort, "")) for each, effort in zip(got, EFFORTS, strict=True)]
    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({"thinking": {"type": "enabled", "keep": "all", "effort": "high"}}, "high"),
        ({"thinking": {"keep": "all"}}, "max"),
        ({"thinking": {"type": "enabled", "effort": "low"}, "reasoning_effort": "max"}, "low"),
        ({"thinking": {"type": "enabled"}, "reasoning_effort": "low"}, "low"),
        ({"reasoning_effort": "medium"}, "max"),
    ],
    ids=["both", "default", "over-the-other", "other", "unknown"],
)
async def test_the_effort_is_read_where_it_is_set(sim: Simulator, fields: dict[str, Any], effort: str) -> None:
    assert f"kimi-k3 in thinking mode, effort {effort} was asked" in (await answer(sim, {**K3, **fields}))["content"]


@pytest.mark.parametrize(
    ("thinking", "words"),
    [
        ({"type": "disabled"}, "only type=enabled is allowed for this model"),
        ({"type": "enabled", "keep": "none"}, "keep is not supported by this model"),
        ({"effort": "medium"}, "effort must be one of low, high, max"),
        ({"budget": 1}, "unknown field 'budget'"),
    ],
    ids=["disabled", "keep", "effort", "unknown"],
)
async def test_a_thinking_object_that_asks_for_what_k3_has_not_is_refused(
    sim: Simulator, thinking: dict[str, Any], words: str
) -> None:
    refused = await refusal(sim, {**K3, "thinking": thinking})
    assert refused == (400, "invalid_request_error", f"invalid thinking: {words}")
