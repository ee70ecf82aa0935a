"""Every documented refusal of Moonshot's dialect: status, type and message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import openai
import pytest

from kimi_mcp.simulator import Simulator
from tests.simulator.requests import (
    INSTANT,
    KEY,
    THINK,
    WEATHER,
    answer,
    bare,
    data_url,
    png,
    post,
    refusal,
    request_bytes,
    sdk,
    seeing,
)

pytestmark = pytest.mark.anyio

SCHEMA_FAULT = "Invalid request: tools.function.parameters is not a valid moonshot flavored json schema, details: <{}>"


def tool(parameters: Any = None, name: str = "look_up") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters or {"type": "object"}}}


def properties(**inner: Any) -> dict[str, Any]:
    return {"type": "object", "properties": inner}


def called(**extra: Any) -> list[dict[str, Any]]:
    call = {"id": "functions.look_up:0", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    return [
        {"role": "user", "content": "Look it up"},
        {"role": "assistant", "tool_calls": [call], **extra},
        {"role": "tool", "tool_call_id": "functions.look_up:0", "content": "found"},
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    fields: dict[str, Any]
    message: str
    base: dict[str, Any] = field(default_factory=lambda: THINK)
    status: int = 400
    type: str = "invalid_request_error"


def only(name: str, value: object, wanted: object, base: dict[str, Any] = THINK) -> Case:
    message = f"invalid {name}: only {wanted} is allowed for this model"
    return Case(fields={name: value}, message=message, base=base)


def schema(parameters: dict[str, Any], fault: str) -> Case:
    return Case(fields={"tools": [tool(parameters)]}, message=SCHEMA_FAULT.format(fault))


K3, K27 = {**THINK, "model": "kimi-k3"}, {**THINK, "model": "kimi-k2.7-code"}
ANY_OF = "when using anyOf, type should be defined in anyOf items instead of the parent schema"
THINKS = "invalid thinking: only type=enabled is allowed for this model"
NAME = "function name is invalid, must start with a letter and can contain letters, numbers, underscores, and dashes"

BEGUN = {"role": "assistant", "content": "One, two", "partial": True}

CASES = {
    "temperature-thinking": only("temperature", 0.6, 1),
    "temperature-instant": only("temperature", 1, 0.6, INSTANT),
    "temperature-k3": only("temperature", 0.3, 1, K3),
    "temperature-k2.7": only("temperature", 0.6, 1, K27),
    "top-p": only("top_p", 0.9, 0.95),
    "n": only("n", 2, 1),
    "presence-penalty": only("presence_penalty", 0.5, 0),
    "frequency-penalty": only("frequency_penalty", -0.5, 0),
    "instant-on-k2.7": Case(base=K27, fields={"thinking": {"type": "disabled"}}, message=THINKS),
    "thinking-type": Case(
        fields={"thinking": {"type": "auto"}}, message="invalid thinking: type must be enabled or disabled"
    ),
    "effort-beside-thinking": Case(
        fields={"reasoning_effort": "low", "thinking": {"type": "enabled"}},
        message="cannot specify both 'thinking' and 'reasoning_effort'",
    ),
    "partial-in-the-middle": Case(
        fields={"messages": [BEGUN, {"role": "user", "content": "Go on."}]},
        message="Invalid request: partial is only allowed on the last message, with role 'assistant'",
    ),
    "partial-of-a-user": Case(
        fields={"messages": [{**BEGUN, "role": "user"}]},
        message="Invalid request: partial is only allowed on the last message, with role 'assistant'",
    ),
    "partial-that-is-no-boolean": Case(
        fields={"messages": [{"role": "user", "content": "Count."}, {**BEGUN, "partial": "true"}]},
        message="Invalid request: 'partial' of the message at position 1 must be boolean",
    ),
    "partial-with-json": Case(
        fields={
            "messages": [{"role": "user", "content": "Count."}, BEGUN],
            "response_format": {"type": "json_object"},
        },
        message="Invalid request: partial is incompatible with response_format",
    ),
    "lost-reasoning": Case(
        fields={"messages": called()},
        message="thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
    ),
    "renamed-reasoning": Case(
        fields={"messages": called(reasoning="I should look.")},
        message="thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
    ),
    "blank-content-beside-calls": Case(
        fields={"messages": called(reasoning_content="", content=" ")}, message="text content is empty"
    ),
    "forced-tool": Case(
        fields={"tools": [WEATHER], "tool_choice": "required"},
        message="tool_choice 'required' is incompatible with thinking enabled",
    ),
    "named-tool": Case(
        fields={"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        message="tool_choice 'specified' is incompatible with thinking enabled",
    ),
    "129-tools": Case(
        fields={"tools": [tool(name=f"tool_{n}") for n in range(129)]},
        message="Invalid request: at most 128 tools are allowed, got 129",
    ),
    "tool-name-digit": Case(fields={"tools": [tool(name="21st_magic")]}, message=NAME),
    "tool-name-short": Case(fields={"tools": [tool(name="ab")]}, message=NAME),
    "tool-name-long": Case(fields={"tools": [tool(name="a" * 65)]}, message=NAME),
    "tool-name-twice": Case(
        fields={"tools": [tool(), tool()]}, message="Invalid request: function name look_up is duplicated"
    ),
    "strict-tool": Case(
        fields={"tools": [{"type": "function", "function": {"name": "look_up", "strict": "yes"}}]},
        message="Invalid request: tools[0].function.strict must be boolean",
    ),
    "web-search-thinking": Case(
        fields={"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
        message="Invalid request: $web_search is incompatible with thinking enabled",
    ),
    "schema-untyped": schema(properties(task={"enum": ["x"]}), "At path 'properties.task': type is not defined"),
    "schema-any-of-root": schema({"type": "object", "anyOf": [properties()]}, f"At path 'root': {ANY_OF}"),
    "schema-any-of": schema(
        properties(skill={"type": "string", "anyOf": [{"type": "string"}]}), f"At path 'properties.skill': {ANY_OF}"
    ),
    "schema-items": schema(
        properties(all={"type": "array", "items": {"anyOf": [{"type": "string"}], "type": "string"}}),
        f"At path 'properties.all.items': {ANY_OF}",
    ),
    "schema-ref": schema(
        {**properties(a={"$ref": "#/$defs/a", "type": "string"}), "$defs": {"a": {"type": "string"}}},
        "At path 'properties.a': when using $ref, type should be defined in the referenced schema instead of the "
        "parent schema",
    ),
    "schema-foreign-ref": schema(
        properties(a={"$ref": "other.json"}), "At path 'properties.a.$ref': references must start with #/$defs/"
    ),
    "schema-definitions": schema(
        {**properties(a={"$ref": "#/definitions/a"}), "definitions": {"a": {"type": "string"}}},
        "At path 'properties.a.$ref': references must start with #/$defs/",
    ),
    "schema-missing-ref": schema(
        properties(a={"$ref": "#/$defs/a"}), "At path 'properties.a.$ref': $defs not found for reference: #/$defs/a"
    ),
    "schema-ref-property": schema(
        properties(**{"$ref": {"type": "string"}}),
        "At path 'properties': property name '$ref' is reserved for JSON Schema keywords",
    ),
    "schema-required": schema(
        {**properties(a={"type": "string"}), "required": ["b"]},
        "At path 'required': required property 'b' is not defined in properties",
    ),
    "schema-size": schema(
        properties(a={"type": "string", "description": "x" * 120_000}),
        "At path 'root': schema exceeds maximum allowed size",
    ),
    "schema-root": Case(
        fields={"tools": [tool({"type": "string"})]},
        message='Invalid request: tools.function.parameters.type is required and must be "object"',
    ),
    "six-stops": Case(fields={"stop": list("abcdef")}, message="Invalid request: at most 5 stop strings are allowed"),
    "long-stop": Case(fields={"stop": "é" * 17}, message="Invalid request: a stop string must not exceed 32 bytes"),
    "unknown-model": Case(
        fields={"model": "kimi-k9"},
        status=404,
        type="resource_not_found_error",
        message="Not found the model kimi-k9 or Permission denied",
    ),
    "retired-model": Case(
        fields={"model": "kimi-k2.5"},
        status=404,
        type="resource_not_found_error",
        message="Not found the model kimi-k2.5 or Permission denied",
    ),
    "ill-typed": Case(fields={"temperature": "1"}, message="Invalid request: 'temperature' must be number, not string"),
    "no-messages": Case(fields={"messages": []}, message="Invalid request: messages must not be empty"),
    "zero-limit": Case(
        fields={"max_completion_tokens": 0}, message="Invalid request: 'max_completion_tokens' must be at least 1"
    ),
    "too-long": Case(
        fields={"max_completion_tokens": 262_144},
        message="Invalid request: Your request exceeded model token limit: 262144 (requested: 262150)",
    ),
    "empty-assistant": Case(
        fields={"messages": [*THINK["messages"], {"role": "assistant", "content": ""}]},
        message="Invalid request: the message at position 1 with role 'assistant' must not be empty",
    ),
    "unanswered-call": Case(
        fields={"messages": [*called(reasoning_content="x")[:2], {"role": "user", "content": "So?"}]},
        message="Invalid request: an assistant message with 'tool_calls' must be followed by tool messages responding "
        "to each 'tool_call_id'. The following tool_call_ids did not have response messages: functions.look_up:0",
    ),
    "unknown-call": Case(
        fields={"messages": [*THINK["messages"], {"role": "tool", "tool_call_id": "x", "content": "y"}]},
        message="Invalid request: tool_call_id x is not found",
    ),
    "link": Case(
        base=seeing("image", "https://example.com/a.png"),
        fields={},
        message="Invalid request: unsupported image url: https://example.com/a.png",
    ),
    "wrong-magic": Case(
        base=seeing("image", data_url("image/jpeg", png())),
        fields={},
        message="Invalid request: the data is not image/jpeg",
    ),
    "svg": Case(
        base=seeing("image", data_url("image/svg+xml", b"<svg/>")),
        fields={},
        message="Invalid request: unsupported image type: image/svg+xml",
    ),
    "no-base64": Case(
        base=seeing("image", "data:image/png;base64,@@@"),
        fields={},
        message="Invalid request: image data url is not valid base64",
    ),
    "unknown-file": Case(
        base=seeing("image", "ms://nothing"), fields={}, message="Invalid request: file nothing not found"
    ),
    "strict-answer": Case(
        fields={
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "strict": "yes", "schema": properties()},
            }
        },
        message="Invalid request: response_format.json_schema.strict must be boolean",
    ),
    "schema-of-answer": Case(
        fields={"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": properties(a=True)}}},
        message="Invalid request: response_format.json_schema is not a valid moonshot flavored json schema, "
        "details: <At path 'properties': property schema for 'a' must be an object>",
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_request_that_moonshot_refuses_is_refused_in_its_words(sim: Simulator, name: str) -> None:
    case = CASES[name]
    assert await refusal(sim, {**case.base, **case.fields}) == (case.status, case.type, case.message)
    assert [one.status for one in sim.requests] == [case.status]


TAKEN: dict[str, dict[str, Any]] = {
    "all-fields": {
        **THINK,
        "temperature": 1.0,
        "top_p": 0.95,
        "n": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
    },
    "all-fields-instant": {**INSTANT, "temperature": 0.6, "top_p": 0.95},
    "thinking-object": {**THINK, "thinking": {"type": "enabled", "keep": "all"}},
    "empty-reasoning": {**THINK, "messages": called(reasoning_content="")},
    "instant-without-reasoning": {**INSTANT, "messages": called()},
    "forced-in-instant": {**INSTANT, "tools": [WEATHER], "tool_choice": "required"},
    "required-on-k3": {**K3, "tools": [WEATHER], "tool_choice": "required"},
    "128-tools": {**THINK, "tools": [tool(name=f"tool_{n}") for n in range(128)]},
    "any-of-at-the-root": {**THINK, "tools": [tool({"anyOf": [properties(), properties()]})]},
    "ref": {
        **THINK,
        "tools": [tool({**properties(a={"$ref": "#/$defs/a"}), "$defs": {"a": {"type": "string"}}})],
    },
}


@pytest.mark.parametrize("name", TAKEN)
async def test_a_request_that_moonshot_takes_is_taken(sim: Simulator, name: str) -> None:
    await answer(sim, TAKEN[name])
    assert sim.requests[0].ignored == ()


IGNORED: dict[str, dict[str, Any]] = {
    "service_tier": {**THINK, "service_tier": "flex"},
    "top_k": {**THINK, "top_k": 5},
    "chat_template_kwargs": {**THINK, "chat_template_kwargs": {"thinking": False}},
    "reasoning_effort": {**THINK, "reasoning_effort": "low"},
}


@pytest.mark.parametrize("name", IGNORED)
async def test_a_field_that_moonshot_does_not_know_has_no_effect_and_is_reported(sim: Simulator, name: str) -> None:
    content = (await answer(sim, IGNORED[name]))["content"]
    assert "kimi-k2.6 in thinking mode was asked" in content
    assert f"Ignored: {name}." in content
    assert sim.requests[0].ignored == (name,)


async def test_a_missing_key_is_refused(sim: Simulator) -> None:
    expected = (401, "invalid_authentication_error", "Invalid Authentication")
    assert await refusal(sim, THINK, key=None) == expected


async def test_a_wrong_key_is_refused_and_echoed(sim: Simulator) -> None:
    expected = (401, "incorrect_api_key_error", "Incorrect API key provided: sk-wrong-1234")
    assert await refusal(sim, THINK, key="sk-wrong-1234") == expected


async def test_any_other_key_than_the_required_one_is_refused() -> None:
    with anyio.fail_after(60):
        async with Simulator(require_key="sk-right") as sim:
            assert (await refusal(sim, THINK))[1] == "incorrect_api_key_error"
            assert (await post(sim, THINK, key="sk-right")).status_code == 200


async def test_the_sdk_raises_its_own_errors(sim: Simulator) -> None:
    async with sdk(sim) as client:
        with pytest.raises(openai.BadRequestError, match="only 1 is allowed"):
            await client.chat.completions.create(**THINK, temperature=0.6)
        with pytest.raises(openai.NotFoundError, match="Not found the model"):
            await client.chat.completions.create(**{**THINK, "model": "kimi-k2.5"})


async def test_a_wrong_content_type_and_broken_json_are_refused(sim: Simulator) -> None:
    url, headers = f"{sim.base_url}/chat/completions", {"authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        plain = await client.post(url, content=b"{}", headers={**headers, "content-type": "text/plain"})
        broken = await client.post(url, content=b"{", headers={**headers, "content-type": "application/json"})
        deep = await client.post(url, content=b"[" * 200_000, headers={**headers, "content-type": "application/json"})
    assert [one.status_code for one in (plain, broken, deep)] == [400, 400, 400]
    assert plain.json()["error"]["message"] == "Invalid request: the content type must be application/json"
    assert broken.json()["error"]["message"] == "Invalid request: the body is not valid JSON"


async def test_a_body_over_the_limit_is_refused() -> None:
    with anyio.fail_after(60):
        async with Simulator(max_body=1000) as sim:
            large = {**THINK, "messages": [{"role": "user", "content": "x" * 2000}]}
            got, ending = await bare(sim, request_bytes(large))
            assert got.startswith(b"HTTP/1.1 413 ")
            assert ending == "eof"
            assert (await post(sim, THINK)).status_code == 200


async def test_unknown_paths_and_methods_are_refused(sim: Simulator) -> None:
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        lost = await client.get(f"{sim.base_url}/nothing")
        wrong = await client.get(f"{sim.base_url}/chat/completions")
    assert (lost.status_code, lost.json()["error"]["type"]) == (404, "resource_not_found_error")
    assert wrong.status_code == 405


async def test_what_is_no_http_is_refused(sim: Simulator) -> None:
    got, _ = await bare(sim, b"this is no HTTP\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400 ")
