"""What ``policy check`` says of a body, held against a strict provider's own verdict: what that refuses or ignores is
objected to, or named as not judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from kimi_mcp import policy
from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.profiles import Profile
from kimi_mcp.policy import Finding
from kimi_mcp.policy.audit import not_judged, read_body
from kimi_mcp.provider.encoding import encode
from kimi_mcp.simulator.refusals import Refused
from tests.policy.requests import JUDGED, TODAY, every_profile, profile, understood, world
from tests.provider.request_cases import CASES

USER = {"role": "user", "content": "Why is the sky blue?"}
OFF, ON = {"type": "disabled"}, {"type": "enabled"}
CALL = {"id": "functions.fly:0", "type": "function", "function": {"name": "fly", "arguments": "{}"}}
CALLING = {"role": "assistant", "tool_calls": [CALL], "reasoning_content": "Fly."}
RESULT = {"role": "tool", "tool_call_id": "functions.fly:0", "content": "done"}


def tool(name: str = "fly", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}, **more}


def body_of(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def seen(url: str, kind: str = "image_url") -> dict[str, Any]:
    return body_of({"role": "user", "content": [{"type": kind, kind: {"url": url}}]})


K26, K27, K3 = ("moonshot", "kimi-k2.6"), ("moonshot", "kimi-k2.7-code"), ("moonshot", "kimi-k3")
VLLM = ("vllm", "kimi-k2.5")
WEB = {"type": "builtin_function", "function": {"name": "$web_search"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}

UNFIT: list[tuple[tuple[str, str], str, dict[str, Any]]] = [
    (K26, "thinking", {"thinking": "off"}),
    (K26, "thinking", {"thinking": {"type": "off"}}),
    (K26, "thinking", {"thinking": {"type": "disabled", "budget_tokens": 1}}),
    (K26, "thinking", {"thinking": {"type": "enabled", "keep": "some"}}),
    (K27, "thinking", {"thinking": OFF}),
    (K27, "thinking", {"thinking": {"type": "enabled", "keep": None}}),
    (K3, "thinking", {"thinking": OFF}),
    (VLLM, "thinking", {"thinking": OFF}),
    (K26, "chat_template_kwargs", {"chat_template_kwargs": {"thinking": False}}),
    (K26, "chat_template_kwargs", {"chat_template_kwargs": None}),
    (VLLM, "chat_template_kwargs", {"chat_template_kwargs": {"thinking": "no"}}),
    (VLLM, "chat_template_kwargs", {"chat_template_kwargs": True}),
    (K26, "reasoning", {"reasoning": {"enabled": False}}),
    (K26, "enable_thinking", {"enable_thinking": False}),
    (K26, "reasoning_effort", {"reasoning_effort": "low"}),
    (K3, "reasoning_effort", {"reasoning_effort": "medium"}),
    (K3, "reasoning_effort", {"reasoning_effort": 5}),
    (VLLM, "reasoning_effort", {"reasoning_effort": "low"}),
    (K26, "temperature", {"temperature": 0.6}),
    (K26, "n", {"n": 1.0}),
    (K3, "temperature", {"temperature": 0.6}),
    (VLLM, "temperature", {"temperature": 3}),
    (K26, "stop", {"stop": ["a", "b", "c", "d", "e", "f"]}),
    (VLLM, "stop", {"stop": "x" * 33}),
    (K26, "top_k", {"top_k": 4}),
    (K26, "stream", {"stream": "yes"}),
    (K26, "stream_options", {"stream_options": {"include_usage": True}}),
    (K26, "stream_options", {"stream": True, "stream_options": True}),
    (K26, "max_tokens", {"max_tokens": "many"}),
    (K26, "max_tokens", {"max_tokens": 0}),
    (K26, "max_tokens", {"max_completion_tokens": 32_000, "max_tokens": "many"}),
    (VLLM, "max_tokens", {"max_tokens": 10**9}),
    (K26, "tools", {"tools": [tool("a b")]}),
    (K26, "tools", {"tools": [tool("go")]}),
    (VLLM, "tools", {"tools": [tool("a b")]}),
    (K26, "tools", {"tools": [tool(), tool()]}),
    (K26, "tools", {"tools": [tool(f"fly_{number}") for number in range(129)]}),
    (K26, "tools", {"tools": [tool(type="plugin")]}),
    (K26, "tools", {"tools": [5]}),
    (K26, "tools", {"tools": [WEB]}),
    (K26, "tools", {"tools": [{"type": "function", "function": {"name": "fly", "parameters": {}}}]}),
    (K26, "tool_choice", {"tools": [tool()], "tool_choice": "required"}),
    (K26, "tool_choice", {"tool_choice": "required", "thinking": OFF}),
    (K26, "tool_choice", {"tools": [tool()], "tool_choice": "sometimes", "thinking": OFF}),
    (K3, "tool_choice", {"tool_choice": "required"}),
    (K3, "tool_choice", {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "fly"}}}),
    (VLLM, "tool_choice", {"tool_choice": 5, "chat_template_kwargs": {"thinking": False}}),
    (K26, "response_format", {"response_format": {"type": "xml"}}),
    (K26, "response_format", {"response_format": "json"}),
    (K26, "response_format", {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}),
    (K26, "response_format", {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}),
    (VLLM, "response_format", {"response_format": {"type": "json_schema", "json_schema": {"name": ""}}}),
    (K26, "model", {"model": "moonshotai/kimi-k2.6"}),
    (VLLM, "model", {"model": "kimi-k2.5"}),
    (K26, "model", {"model": None}),
    (("moonshot", "kimi-k2.5"), "model", {}),
    (K26, "messages", body_of({"role": "user", "content": None})),
    (K26, "messages", body_of({"role": "user", "content": " "})),
    (K26, "messages", body_of({"role": "user", "content": [{"type": "text", "text": ""}]})),
    (K26, "messages", body_of({"role": "user", "content": [{"type": "audio"}]})),
    (K26, "messages", body_of({"role": "user", "content": 5})),
    (K26, "messages", body_of({"role": "robot", "content": "x"})),
    (K26, "messages", body_of()),
    (K26, "messages", body_of({**USER, "partial": True})),
    (K26, "messages", body_of({"role": "system", "content": "", "tools": [tool()]}, USER)),
    (K3, "messages", body_of({**USER, "tools": [tool()]})),
    (K26, "messages", body_of(USER, {"role": "assistant", "content": ""}, USER)),
    (K26, "messages", body_of(USER, {"role": "assistant", "content": "Hi", "reasoning_content": 5}, USER)),
    (K26, "messages", body_of(USER, {"role": "assistant", "tool_calls": [CALL]}, RESULT)),
    (K26, "messages", body_of(USER, {**CALLING, "content": ""}, RESULT)),
    (K26, "messages", body_of(USER, CALLING, USER)),
    (VLLM, "messages", body_of(USER, {**CALLING, "reasoning": "Fly."})),
    (K26, "messages", body_of(USER, RESULT)),
    (K26, "messages", body_of(USER, CALLING, {**RESULT, "tool_call_id": "other"})),
    (K26, "messages", body_of(USER, {**CALLING, "tool_calls": [{**CALL, "id": ""}]}, RESULT)),
    (K26, "messages", seen("ms://nothing")),
    (K26, "messages", seen("http://x.example/a.png")),
    (K26, "messages", seen("data:image/png;base64,!")),
    (K26, "messages", seen("data:image/tiff;base64,AAAA")),
    (K26, "messages", seen("data:video/mp4;base64,AAAA")),
    (VLLM, "messages", seen("data:video/mp4;base64,AAAA", "video_url")),
    (VLLM, "messages", seen("ms://nothing")),
]

TAKEN: list[tuple[tuple[str, str], dict[str, Any]]] = [
    (K26, {}),
    (K26, {"temperature": 1, "top_p": 0.95, "n": 1, "presence_penalty": 0, "stream": False}),
    (K26, {"temperature": 0.6, "thinking": OFF, "stream": True, "stream_options": {"include_usage": True}}),
    (K26, {"thinking": None, "tools": None, "tool_choice": None, "response_format": None, "max_tokens": None}),
    (K26, {"max_completion_tokens": 32_000, "max_tokens": 32_000}),
    (K26, {"tools": [tool(), tool("fly_2")], "tool_choice": "auto"}),
    (K26, {"tools": [tool()], "tool_choice": "required", "thinking": OFF}),
    (K26, {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "fly"}}, "thinking": OFF}),
    (K3, {"tools": [tool()], "tool_choice": "required"}),
    (K26, {"response_format": {"type": "json_object"}}),
    (K26, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}),
    (K26, body_of({"role": "system", "content": "Be brief."}, USER, {**CALLING, "content": None}, RESULT)),
    (K27, {"thinking": ON}),
    (K3, {"reasoning_effort": "low"}),
    (K3, {"thinking": None, "reasoning_effort": None}),
    (VLLM, {"temperature": 0.6, "chat_template_kwargs": {"thinking": False}}),
    (VLLM, {"chat_template_kwargs": {"thinking": True}}),
]


def whole(body: dict[str, Any], at: Profile) -> dict[str, Any]:
    """The body with what every body has."""
    return {"model": at.serving.wire_id, "messages": [USER], **body}


def numbered(cases: Sequence[tuple[Any, ...]]) -> list[str]:
    """Ids such as ``3-kimi-k2.6-thinking``."""
    return [f"{number}-{where[1]}-{'-'.join([*body][:1]) or 'plain'}" for number, (where, *_, body) in enumerate(cases)]


def objected(body: dict[str, Any], at: Profile) -> bool:
    """Whether a rule objects, or the file is reported as no body at all."""
    try:
        request = read_body(body, at)
    except InvalidArguments:
        return True
    return bool(policy.check(request, at, world(at, day=TODAY)))


@pytest.mark.parametrize(("where", "field", "body"), UNFIT, ids=numbered(UNFIT))
def test_what_the_provider_refuses_or_ignores_is_objected_to_or_named_as_not_judged(
    where: tuple[str, str], field: str, body: dict[str, Any]
) -> None:
    at = profile(*where)
    sent = whole(body, at)
    try:
        assert understood(sent, at, TODAY).ignored == (field,)
    except Refused:
        pass
    assert objected(sent, at) or field in not_judged(sent, at)


@pytest.mark.parametrize(("where", "body"), TAKEN, ids=numbered(TAKEN))
def test_a_plain_body_that_the_provider_takes_is_judged_whole(where: tuple[str, str], body: dict[str, Any]) -> None:
    at = profile(*where)
    assert understood(whole(body, at), at).ignored == ()
    assert not objected(whole(body, at), at)
    assert not_judged(whole(body, at), at) == ()


@pytest.mark.parametrize("provider", JUDGED)
def test_of_what_this_server_sends_nothing_is_left_unjudged_where_schemas_are(provider: str) -> None:
    for at in (found for found in every_profile() if found.provider.id == provider):
        for name, case in CASES.items():
            if isinstance(plan := policy.decide(case, at, world(at)), Finding):
                continue
            body = json.loads(json.dumps(encode(plan)))
            unread = set() if at.provider.moonshot_schemas else {"tools", "response_format"}
            assert set(not_judged(body, at)) <= unread, name


@pytest.mark.parametrize(
    ("where", "body", "names"),
    [
        (K26, {"thinking": "off", "stop": "x"}, ("thinking", "stop")),
        (K26, {"seed": 4, "user": "me", "unheard_of": None}, ("seed", "user", "unheard_of")),
        (VLLM, {"thinking": OFF, "tools": [tool()]}, ("thinking", "tools")),
        (("huggingface", "kimi-k2.6"), {"thinking": OFF, "reasoning": {}}, ("thinking", "reasoning")),
        (("together", "kimi-k2.6"), {"reasoning": {"enabled": False}, "thinking": OFF}, ("thinking",)),
    ],
    ids=lambda case: ascii(case)[:60],
)
def test_the_names_come_in_the_order_of_the_body(
    where: tuple[str, str], body: dict[str, Any], names: tuple[str, ...]
) -> None:
    at = profile(*where)
    assert not_judged(whole(body, at), at) == names


def test_a_body_without_a_model_says_so() -> None:
    assert not_judged({"messages": [USER]}, profile(*K26)) == ("model",)


def test_whatever_a_body_holds_it_is_classified_without_a_fault() -> None:
    for at in every_profile():
        for _, _, body in UNFIT:
            try:
                names = not_judged(whole(body, at), at)
            except InvalidArguments:
                continue
            assert set(names) <= {"model", "messages", *body}
