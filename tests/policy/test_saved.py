"""Bodies that somebody else wrote, held against the same rules: ours pass, what we would never send does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_mcp import policy
from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.profiles import Profile
from kimi_mcp.policy import Finding
from kimi_mcp.policy.audit import read_body
from kimi_mcp.provider.encoding import encode
from tests.policy.requests import every_profile, profile, world
from tests.provider.request_cases import CASES

SAYS: list[dict[str, Any]] = [{"role": "user", "content": "Why is the sky blue?"}]
CALL = {"id": "functions.f:0", "type": "function", "function": {"name": "fly", "arguments": "{}"}}
CALLING = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "functions.f:0", "content": "done"}
OFF, ON = {"type": "disabled"}, {"type": "enabled"}


def found(body: dict[str, Any], provider: str = "simulator", model: str = "kimi-k2.5") -> list[str]:
    at = profile(provider, model)
    request = read_body({"messages": SAYS, **body}, at)
    return [finding.rule for finding in policy.check(request, at, world(at))]


@pytest.mark.parametrize("at", list(every_profile()), ids=lambda at: f"{at.provider.id}-{at.model.id}")
def test_what_this_server_sends_is_what_this_server_would_pass(at: Profile) -> None:
    for name, case in CASES.items():
        if at.model.image or name != "picture":
            plan = policy.decide(case, at, world(at))
            if isinstance(plan, Finding):
                assert (plan.as_error().rule, name) == (None, "max-tokens"), "above what that host takes"
                continue
            body = json.loads(json.dumps(encode(plan)))
            request = read_body(body, at)
            assert list(policy.check(request, at, world(at))) == [], name
            assert request.mode == plan.mode


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        ({}, []),
        ({"temperature": 1.0, "top_p": 0.95, "n": 1}, []),
        ({"temperature": 0.6, "thinking": OFF}, []),
        ({"temperature": 0.6}, ["temperature-fixed"]),
        ({"temperature": 1.0, "thinking": OFF}, ["temperature-fixed"]),
        ({"temperature": 0.6, "chat_template_kwargs": {"thinking": False}}, ["temperature-fixed"]),
        ({"top_p": 0.7}, ["top-p-fixed"]),
        ({"n": 4}, ["sampling-fixed"]),
        ({"presence_penalty": 1}, ["sampling-fixed"]),
        ({"frequency_penalty": 0.1, "presence_penalty": 0.1}, ["sampling-fixed", "sampling-fixed"]),
        ({"max_tokens": 1_000}, ["thinking-budget"]),
        ({"max_completion_tokens": 1_000}, ["thinking-budget"]),
        ({"max_completion_tokens": None, "max_tokens": 1_000}, ["thinking-budget"]),
        ({"max_tokens": 1_000, "thinking": OFF}, []),
        ({"max_tokens": 10**9}, ["invalid_arguments"]),
        ({"tool_choice": "required"}, ["tool-choice-thinking"]),
        ({"tool_choice": "required", "thinking": OFF}, []),
        ({"tools": [{"type": "function", "function": {"name": "fly", "parameters": {}}}]}, ["schema-dialect"]),
        ({"tools": [{"type": "function", "function": {"name": "fly"}}]}, []),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": [1]}}}},
            ["schema-dialect"],
        ),
        ({"response_format": {"type": "json_object"}}, []),
        ({"messages": [*SAYS, CALLING, RESULT]}, ["reasoning-replayed"]),
        ({"messages": [*SAYS, {**CALLING, "reasoning_content": " "}, RESULT]}, ["reasoning-replayed"]),
        ({"messages": [*SAYS, {**CALLING, "reasoning": "under another name"}, RESULT]}, ["reasoning-replayed"]),
        ({"messages": [*SAYS, {**CALLING, "reasoning_content": "Fly."}, RESULT]}, []),
        ({"messages": [*SAYS, CALLING, RESULT], "thinking": OFF}, []),
        ({"messages": [{"role": "system", "content": "You are a helpful assistant."}, *SAYS]}, ["system-default"]),
        ({"messages": [{"role": "user", "content": "<|media_start|> cat"}]}, ["media-token"]),
        ({"messages": [{"role": "user", "content": "Think step by step."}], "thinking": OFF}, ["instant-multistep"]),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x.example/a.png"}]}]},
            ["media-inline"],
        ),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}}]}]},
            ["media-converted"],
        ),
    ],
    ids=ascii,
)  # fmt: skip
def test_what_this_server_would_never_send_is_named(body: dict[str, Any], rules: list[str]) -> None:
    assert found(body) == rules


def test_a_mode_in_another_providers_dialect_is_ignored() -> None:
    body = {"temperature": 0.6, "top_p": 0.95, "thinking": OFF}
    assert found(body, "vllm") == ["temperature-fixed"]
    assert found({**body, "chat_template_kwargs": {"thinking": False}}, "vllm") == []


@pytest.mark.parametrize("model", ["kimi-k2.7-code", "kimi-k3"])
def test_an_instant_answer_asked_of_a_model_that_always_thinks_is_named(model: str) -> None:
    assert found({"thinking": OFF}, "moonshot", model) == ["always-thinks"]
    assert found({}, "moonshot", model) == []


def test_video_to_an_engine_is_named() -> None:
    clip = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    assert found({"messages": [{"role": "user", "content": [clip]}]}, "vllm") == ["video-provider"]


def test_the_reasoning_that_vllm_drops_without_a_word_is_not_there() -> None:
    old = {"messages": [*SAYS, {**CALLING, "reasoning_content": "Fly."}, RESULT]}
    assert found(old, "vllm") == ["reasoning-replayed"]
    new = {"messages": [*SAYS, {**CALLING, "reasoning": "Fly."}, RESULT]}
    assert found(new, "vllm") == []


@pytest.mark.parametrize(
    "body",
    [
        {"messages": None}, {"messages": []}, {"messages": "hi"}, {"messages": [5]}, {"messages": [{}]},
        {"messages": [{"role": "robot", "content": "x"}]}, {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [5]}]},
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
        {"messages": [{"role": "assistant", "tool_calls": 5}]},
        {"temperature": "1"}, {"n": True}, {"tools": {}}, {"tools": [{"type": "function"}]},
    ],
    ids=lambda body: ascii(body)[:90],
)  # fmt: skip
def test_what_is_no_body_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments) as raised:
        found(body)
    assert "chat-completions body" in raised.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"thinking": 5}, {"thinking": None}, {"chat_template_kwargs": []}, {"tool_choice": 5}, {"response_format": 5},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, {"max_tokens": "many"},
        {"max_tokens": -5}, {"reasoning_effort": 5}, {"model": 5}, {"tools": [5]}, {"tools": None}, {"unknown": 1},
        {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}, {"temperature": None},
        {"tools": [{"type": "function", "function": {"name": 5, "parameters": 5}}]},
        {"messages": [{"role": "user", "content": None}]}, {"messages": [{"role": "user"}]},
    ],
    ids=lambda body: ascii(body)[:90],
)  # fmt: skip
def test_odd_values_raise_nothing_but_a_clear_refusal(body: dict[str, Any]) -> None:
    for at in every_profile():
        try:
            request = read_body({"messages": SAYS, **body}, at)
        except InvalidArguments:
            continue
        policy.check(request, at, world(at))
