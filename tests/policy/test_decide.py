"""Whatever is asked, at every model of every provider: a plan or a refusal, and a plan is what the upstream takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_mcp import policy
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.types import Request, Turn, system, user
from kimi_mcp.policy import Finding
from kimi_mcp.provider.encoding import encode
from tests.policy.requests import (
    CALL,
    JUDGED,
    PROMPT,
    WEATHER,
    assistant,
    every_profile,
    judged,
    profile,
    refused,
    request_of,
    world,
)

PROFILES = list(every_profile())
NAMES = [f"{one.provider.id}-{one.model.id}" for one in PROFILES]

SAMPLINGS: tuple[dict[str, float], ...] = (
    {},
    {"temperature": 1.0, "top_p": 0.95, "n": 1},
    {"temperature": 0.6},
    {"temperature": 0.0, "top_p": 1.0},
    {"n": 2, "presence_penalty": 0.5, "frequency_penalty": -0.5},
)
TOOLED: tuple[dict[str, Any], ...] = (
    {},
    {"tools": (WEATHER,)},
    {"tools": (WEATHER,), "tool_choice": "none"},
    {"tools": (WEATHER,), "tool_choice": "required"},
    {"tools": (WEATHER,), "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
    {"tool_choice": "required"},
)
LIMITS = (None, 15_999, 16_000)
TURNS = ((user(PROMPT),), (system("Be brief."), user(PROMPT)))


def sweep(turns: tuple[tuple[Turn, ...], ...] = TURNS) -> Iterator[Request]:
    for number, (mode, sampling, tooled, limit) in enumerate(
        itertools.product(("thinking", "instant"), SAMPLINGS, TOOLED, LIMITS)
    ):
        yield request_of(mode=mode, sampling=sampling, max_tokens=limit, turns=turns[number % len(turns)], **tooled)


SWEEP = list(sweep())


@pytest.mark.parametrize("at", PROFILES, ids=NAMES)
def test_every_request_gets_a_plan_or_a_refusal_and_strict_changes_nothing_that_was_asked(at: Profile) -> None:
    for request in SWEEP:
        adjusted = policy.decide(request, at, world(at))
        strict = policy.decide(request, at, world(at, strict=True))
        _is_whole(adjusted, request, at)
        _is_whole(strict, request, at)
        if isinstance(strict, Plan):
            assert strict == adjusted, "what strict lets through needed no adjustment"
            assert all(adjustment.action == "warned" for adjustment in strict.adjustments)
            assert strict.mode == request.mode
            assert request.max_tokens in (None, strict.max_tokens)
        elif isinstance(adjusted, Plan):
            assert strict.rule in {adjustment.rule for adjustment in adjusted.adjustments}


def _is_whole(decision: Plan | Finding, request: Request, at: Profile) -> None:
    if isinstance(decision, Finding):
        assert decision.message
        assert decision.fix
        assert "{" not in decision.message + decision.fix
        assert (decision.as_error().code, decision.rule in policy.load_rules()) == ("policy_refused", True)
        return
    assert decision.turns == request.turns
    assert 0 < decision.max_tokens <= at.output_ceiling
    assert decision.mode in at.modes
    for adjustment in decision.adjustments:
        assert adjustment.rule in policy.load_rules()
        assert adjustment.field
        assert adjustment.why
        assert "{" not in adjustment.why


@pytest.mark.parametrize("at", PROFILES, ids=NAMES)
def test_a_decision_depends_on_nothing_but_what_it_is_given(at: Profile) -> None:
    for request in SWEEP[::11]:
        assert policy.decide(request, at, world(at)) == policy.decide(request, at, world(at))


# ── the simulator's checks as judge ───────────────────────────────────────────────────────────────────────────────

PLAYED = [one for one in PROFILES if one.provider.id in JUDGED]
PLAYED_NAMES = [f"{one.provider.id}-{one.model.id}" for one in PLAYED]


@pytest.mark.parametrize("at", PLAYED, ids=PLAYED_NAMES)
def test_the_simulator_takes_every_plan_and_understands_what_was_meant(at: Profile) -> None:
    taken = 0
    for strict, request in itertools.product((False, True), SWEEP):
        plan = policy.decide(request, at, world(at, strict=strict))
        if isinstance(plan, Finding):
            continue
        chat = judged(plan)
        taken += 1
        assert chat.answering.id == at.serving.wire_id
        assert chat.thinking == (plan.mode == "thinking")
        assert chat.requested_limit == plan.max_tokens
        assert chat.stream
        assert chat.texts.text == PROMPT
        assert chat.texts.system == (request.turns[0].text if len(request.turns) == 2 else "")
        assert set(chat.tools) == {tool["name"] for tool in request.tools}
    assert taken > len(SWEEP) / 2


HISTORIES: dict[str, tuple[Turn, ...]] = {
    "a follow-up with its reasoning": (
        user("Hi"),
        assistant("Hello.", reasoning="Greet back.\n"),
        user(PROMPT),
    ),
    "a follow-up that never had any": (user("Hi"), assistant("Hello."), user(PROMPT)),
    "a tool loop": (
        user(PROMPT),
        assistant(reasoning="Look it up.", calls=(CALL,)),
        Turn(role="tool", parts=user("Rain").parts, tool_call_id=CALL.id),
    ),
    "a tool loop whose reasoning was empty": (
        user(PROMPT),
        assistant(reasoning="", calls=(CALL,)),
        Turn(role="tool", parts=user("Rain").parts, tool_call_id=CALL.id),
    ),
    "a tool loop with words beside the call": (
        user(PROMPT),
        assistant("One moment.", reasoning="Look it up.", calls=(CALL,)),
        Turn(role="tool", parts=user("Rain").parts, tool_call_id=CALL.id),
    ),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("at", PLAYED, ids=PLAYED_NAMES)
def test_the_simulator_reads_back_the_exact_reasoning_of_a_history(at: Profile, history: tuple[Turn, ...]) -> None:
    for mode in ("thinking", "instant"):
        plan = policy.decide(request_of(mode=mode, turns=history, tools=(WEATHER,)), at, world(at))
        assert isinstance(plan, Plan)
        chat = judged(plan)
        wanted = [(index, turn.reasoning) for index, turn in enumerate(history) if turn.reasoning is not None]
        assert list(chat.received.reasoning) == wanted


@pytest.mark.parametrize("at", PLAYED, ids=PLAYED_NAMES)
def test_the_simulator_takes_a_schema_or_the_plan_asks_for_it_in_words(at: Profile) -> None:
    loose = {"properties": {"name": {"description": "who"}, "age": {"anyOf": [{"minimum": 0}], "type": "integer"}}}
    plan = policy.decide(request_of(response_schema=loose), at, world(at))
    assert isinstance(plan, Plan)
    chat = judged(plan)
    if "json_schema" in at.provider.response_format:
        assert chat.schema is not None
    else:
        assert '"properties"' in chat.texts.system


# ── whatever comes in ─────────────────────────────────────────────────────────────────────────────────────────────

ODD: dict[str, Request] = {
    "a tool without parameters": request_of(tools=({"name": "ping_all"},)),
    "a tool whose parameters are null": request_of(tools=({"name": "ping_all", "parameters": None},)),
    "a tool whose parameters are no schema": request_of(tools=({"name": "ping_all", "parameters": [1]},)),
    "a tool of nothing": request_of(tools=({},)),
    "the same tool twice": request_of(tools=(WEATHER, WEATHER)),
    "a not-a-number": request_of(sampling={"temperature": float("nan")}),
    "an endless temperature": request_of(sampling={"temperature": float("inf")}),
    "an empty schema": request_of(response_schema={}),
    "a schema that refers to itself": request_of(response_schema={"$ref": "#"}),
    "a schema of odd values": request_of(response_schema={"type": 5, "properties": [1], "required": "x", "anyOf": {}}),
    "a schema that refers nowhere": request_of(response_schema={"$ref": "#/$defs/nothing"}),
    "a schema whose reference is no text": request_of(response_schema={"$ref": 5, "type": "object"}),
    "no text at all": request_of(turns=(user(""),)),
    "half a surrogate pair": request_of(turns=(user("\ud83d"),), mode="instant"),
    "a choice that is no choice": request_of(tool_choice=5, tools=(WEATHER,)),
    "an effort nobody knows": request_of(effort="huge"),
    "braces in what is quoted": request_of(turns=(user("think about {x} step by step {0} {}"),), mode="instant"),
}


@pytest.mark.parametrize("strict", [False, True], ids=["adjust", "strict"])
@pytest.mark.parametrize("request_", ODD.values(), ids=ODD)
def test_odd_requests_raise_nothing_anywhere(request_: Request, strict: bool) -> None:
    for at in PROFILES:
        decision = policy.decide(request_, at, world(at, strict=strict))
        assert isinstance(decision, Plan | Finding)
        if isinstance(decision, Plan):
            encode(decision)


@pytest.mark.parametrize("url", ["http://[::1", "", "not a url", "https://", "http://[bad]/v1", "//x", "\x00"])
def test_a_base_url_that_is_none_raises_nothing(url: str) -> None:
    at = profile("moonshot", "kimi-k2.6")
    assert isinstance(policy.decide(request_of(), at, world(at, base_url=url)), Plan | Finding)


def test_a_tool_without_parameters_is_kept_where_the_simulator_takes_it() -> None:
    at = profile("moonshot", "kimi-k2.6")
    plan = policy.decide(request_of(tools=({"name": "ping_all"},)), at, world(at))
    assert isinstance(plan, Plan)
    assert set(judged(plan).tools) == {"ping_all"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"x": {"$ref": "#/properties/y"}, "y": {"type": "string"}}},
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/missing"}}},
        {"type": "object", "properties": {"x": {"$ref": 5}}},
        {"type": "object", "properties": {"$ref": {"type": "string"}}},
        {"type": "string"},
        {"oneOf": [{"type": "object"}, {"type": "string"}]},
        {"type": "object", "properties": {"x": {"oneOf": [{"minimum": 3}, {"type": "string"}]}}},
        {"type": "object", "properties": {"x": {"allOf": [{"minimum": 3}]}}},
        {"type": "object", "additionalProperties": {"description": "anything"}},
        {"type": "object", "properties": {"x": {"items": {}}}, "required": ["y"]},
    ],
    ids=str,
)
def test_whatever_tool_schema_comes_in_the_body_is_one_that_the_simulator_takes(parameters: dict[str, Any]) -> None:
    at = profile("moonshot", "kimi-k2.6")
    tools = ({"name": "look_up", "parameters": parameters}, WEATHER)
    for mode in ("thinking", "instant"):
        plan = policy.decide(request_of(mode=mode, tools=tools), at, world(at))
        assert isinstance(plan, Plan)
        assert "get_weather" in judged(plan).tools


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}], ids=str)
def test_a_tool_that_is_left_out_is_not_the_one_that_must_be_called(choice: Any) -> None:
    at = profile("moonshot", "kimi-k2.6")
    impossible = {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"x": {"$ref": "https://x.example"}}},
    }
    for tools in ((impossible,), (impossible, WEATHER)):
        decision = policy.decide(request_of(mode="instant", tools=tools, tool_choice=choice), at, world(at))
        if isinstance(decision, Plan):
            assert "look_up" not in judged(decision).tools


def test_a_bound_above_the_models_own_is_refused_with_the_number_that_is_allowed() -> None:
    refusal = refused(request_of(max_tokens=65_537), profile("nim", "kimi-k3"))
    error = refusal.as_error()
    assert (error.rule, error.code) == (None, "invalid_arguments")
    assert "max_tokens" in refusal.fix
    assert "65536" in refusal.fix


def test_a_bound_that_the_caller_left_open_is_the_documented_default() -> None:
    for provider, model, tokens in (
        ("simulator", "kimi-k2.5", 32_768),
        ("moonshot", "kimi-k2.6", 32_768),
        ("moonshot", "kimi-k3", 131_072),
        ("nim", "kimi-k3", 65_536),
    ):
        at = profile(provider, model)
        plan = policy.decide(request_of(), at, world(at))
        assert isinstance(plan, Plan)
        assert plan.max_tokens == tokens
        assert plan.adjustments == ()
