"""Sampling values, budgets, steps, tools and schemas: when their rules object, and what they do about it."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_mcp.provider.encoding import encode
from tests.policy.requests import (
    K3,
    K25,
    K26,
    K27,
    VLLM,
    WEATHER,
    only,
    planned,
    profile,
    refused,
    request_of,
    rules_of,
)

# ── sampling ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "field", "requested", "mode", "sent"),
    [
        ("temperature-fixed", "temperature", 0.6, "thinking", 1.0),
        ("temperature-fixed", "temperature", 0.0, "thinking", 1.0),
        ("temperature-fixed", "temperature", 1.0, "instant", 0.6),
        ("temperature-fixed", "temperature", 2, "instant", 0.6),
        ("top-p-fixed", "top_p", 1.0, "thinking", 0.95),
        ("top-p-fixed", "top_p", 0.9, "instant", 0.95),
        ("sampling-fixed", "n", 2, "thinking", 1),
        ("sampling-fixed", "presence_penalty", 0.1, "instant", 0),
        ("sampling-fixed", "frequency_penalty", -0.1, "thinking", 0),
    ],
)
@pytest.mark.parametrize("at", [K25, K26, VLLM], ids=["k2.5", "k2.6", "vllm"])
def test_a_sampling_value_of_another_mode_is_adjusted_and_refused_under_strict(
    at: Any, rule: str, field: str, requested: float, mode: Any, sent: float
) -> None:
    request = request_of(mode=mode, sampling={field: requested})
    entry = only(planned(request, at))
    assert (entry.rule, entry.action, entry.field) == (rule, "adjusted", field)
    on_the_wire = sent if at.provider.sends_sampling else None
    assert (entry.asked, entry.sent) == (requested, on_the_wire)
    assert at.model.id in entry.why
    assert entry.why.endswith(f"It is left out of the request, which means {sent:g}.") == (on_the_wire is None)

    refusal = refused(request, at, strict=True)
    assert (refusal.rule, refusal.as_error().code) == (rule, "policy_refused")
    assert f"`{field}`" in refusal.fix
    assert f"{sent:g}" in refusal.fix
    assert "left out" not in refusal.message


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("at", [K25, K26, VLLM], ids=["k2.5", "k2.6", "vllm"])
def test_the_modes_own_values_are_nobodys_fault(at: Any, strict: bool) -> None:
    for mode, temperature in (("thinking", 1.0), ("thinking", 1), ("instant", 0.6)):
        own = {"temperature": temperature, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}
        assert planned(request_of(mode=mode, sampling=own), at, strict=strict).adjustments == ()


@pytest.mark.parametrize("at", [K27, K3], ids=["k2.7", "k3"])
def test_models_that_always_think_take_the_thinking_values_alone(at: Any) -> None:
    entry = only(planned(request_of(sampling={"temperature": 0.3}), at))
    assert (entry.rule, entry.sent) == ("temperature-fixed", None)
    assert "left out" in entry.why
    assert refused(request_of(sampling={"temperature": 0.3}), at, strict=True).rule == "temperature-fixed"


# ── budgets and steps ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("requested", "raised"), [(1, True), (15_999, True), (16_000, False), (200_000, False)])
def test_a_budget_below_sixteen_thousand_is_raised_while_thinking(requested: int, raised: bool) -> None:
    plan = planned(request_of(max_tokens=requested), K25)
    if not raised:
        assert (plan.max_tokens, plan.adjustments) == (requested, ())
        return
    entry = only(plan)
    assert plan.max_tokens == 16_000
    assert (entry.rule, entry.field, entry.asked, entry.sent) == ("thinking-budget", "max_tokens", requested, 16_000)
    refusal = refused(request_of(max_tokens=requested), K25, strict=True)
    assert refusal.rule == "thinking-budget"
    assert "`max_tokens`" in refusal.fix
    assert "16000" in refusal.fix


def test_an_instant_answer_may_be_as_short_as_one_likes() -> None:
    plan = planned(request_of(mode="instant", max_tokens=1), K25, strict=True)
    assert (plan.max_tokens, plan.adjustments) == (1, ())


@pytest.mark.parametrize(
    ("limits", "sent", "fields"),
    [
        ({"max_steps": 16}, {"max_steps": 15}, ["max_steps"]),
        ({"max_agent_steps": 101}, {"max_agent_steps": 100}, ["max_agent_steps"]),
        (
            {"max_steps": 99, "max_agent_steps": 999},
            {"max_steps": 15, "max_agent_steps": 100},
            ["max_steps", "max_agent_steps"],
        ),
        ({"max_steps": 15, "max_agent_steps": 100}, {"max_steps": 15, "max_agent_steps": 100}, []),
        ({}, {}, []),
    ],
)
def test_a_swarm_takes_no_more_steps_than_the_paper_did(
    limits: dict[str, int], sent: dict[str, int], fields: list[str]
) -> None:
    plan = planned(request_of(limits=limits), K26)
    assert plan.limits == sent
    assert [entry.field for entry in plan.adjustments] == fields
    assert set(rules_of(plan)) <= {"swarm-steps"}
    if fields:
        refusal = refused(request_of(limits=limits), K26, strict=True)
        assert refusal.rule == "swarm-steps"
        assert f"`{fields[0]}`" in refusal.fix


# ── tools and schemas ─────────────────────────────────────────────────────────────────────────────────────────────────


NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
@pytest.mark.parametrize("at", [K25, K26, K27], ids=["k2.5", "k2.6", "k2.7"])
def test_a_forced_tool_choice_becomes_auto_while_thinking(at: Any, choice: Any) -> None:
    request = request_of(tools=(WEATHER,), tool_choice=choice)
    plan = planned(request, at)
    entry = only(plan)
    assert plan.tool_choice == "auto"
    assert (entry.rule, entry.field, entry.asked, entry.sent) == ("tool-choice-thinking", "tool_choice", choice, "auto")
    refusal = refused(request, at, strict=True)
    assert refusal.rule == "tool-choice-thinking"
    assert "`tool_choice`" in refusal.fix


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_free_tool_choice_is_left_alone(choice: str | None) -> None:
    plan = planned(request_of(tools=(WEATHER,), tool_choice=choice), K25, strict=True)
    assert (plan.tool_choice, plan.adjustments) == (choice, ())


def test_a_forced_tool_choice_is_fine_without_thinking_and_at_k3() -> None:
    for choice in ("required", NAMED):
        plan = planned(request_of(mode="instant", tools=(WEATHER,), tool_choice=choice), K25, strict=True)
        assert (plan.tool_choice, plan.adjustments) == (choice, ())
    plan = planned(request_of(tools=(WEATHER,), tool_choice="required"), K3, strict=True)
    assert (plan.tool_choice, plan.adjustments) == ("required", ())


def test_k3_takes_required_but_no_function_by_its_name() -> None:
    entry = only(planned(request_of(tools=(WEATHER,), tool_choice=NAMED), K3))
    assert (entry.rule, entry.sent) == ("tool-choice-thinking", "auto")
    assert "required" in entry.why


BROKEN = {"type": "object", "properties": {"city": {"description": "no type"}}, "required": ["city", "day"]}


def test_a_tools_schema_is_rewritten_for_moonshots_dialect_and_for_no_other() -> None:
    tool = {"name": "look_up", "parameters": BROKEN}
    plan = planned(request_of(tools=(tool,)), K26)
    entry = only(plan)
    assert (entry.rule, entry.action, entry.field) == ("schema-dialect", "adjusted", "tools[0]")
    assert entry.asked == "look_up"
    assert set(plan.tools[0]["parameters"]["properties"]) == {"city", "day"}
    assert refused(request_of(tools=(tool,)), K26, strict=True).rule == "schema-dialect"
    assert planned(request_of(tools=(tool,)), VLLM, strict=True).adjustments == ()


def test_a_tool_whose_schema_can_not_be_rewritten_is_left_out_and_the_others_stay() -> None:
    impossible = {"name": "look_up", "parameters": {"$ref": "https://schemas.example/x", "type": "object"}}
    plan = planned(request_of(tools=(impossible, WEATHER)), K26)
    assert [tool["name"] for tool in plan.tools] == ["get_weather"]
    assert only(plan).sent == "left out"


def test_a_response_schema_is_rewritten_or_refused_but_never_dropped() -> None:
    plan = planned(request_of(response_schema=BROKEN), K26)
    assert plan.response_schema is not None
    assert only(plan).field == "response_schema"
    refusal = refused(request_of(response_schema={"$ref": "https://schemas.example/x"}), K26)
    assert refusal.rule == "schema-dialect"
    assert "$ref" in refusal.message


def test_a_router_that_passes_refusals_on_gets_rewritten_tools_and_a_response_schema_in_words_as_it_is() -> None:
    router = profile("openrouter", "kimi-k3.1-pro")
    tool = {"name": "look_up", "parameters": BROKEN}
    plan = planned(request_of(tools=(tool,), response_schema=BROKEN), router)
    assert only(plan).field == "tools[0]"
    assert plan.response_schema == BROKEN
    assert "response_format" not in encode(plan)
