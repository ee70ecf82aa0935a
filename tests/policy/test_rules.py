"""Each rule of the contract's table: when it objects, when it is silent, what it says and what it does about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from kimi_mcp import catalogue, policy
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.types import MediaPart, Request, TextPart, Turn, system, user
from kimi_mcp.policy import PolicyRefusal
from kimi_mcp.provider.encoding import encode
from tests.policy.asking import (
    CALL,
    PROMPT,
    TODAY,
    WEATHER,
    answered,
    asking,
    assistant,
    planned,
    profile,
    refused,
    rules_of,
    world,
)

K25 = profile("simulator", "kimi-k2.5")
K26 = profile("moonshot", "kimi-k2.6")
K27 = profile("moonshot", "kimi-k2.7-code")
K3 = profile("moonshot", "kimi-k3")
VLLM = profile("vllm", "kimi-k2.5")

CONTRACT = {
    "temperature-fixed": "adjust",
    "top-p-fixed": "adjust",
    "sampling-fixed": "adjust",
    "video-provider": "refuse",
    "reasoning-returned": "warn",
    "reasoning-replayed": "refuse",
    "thinking-budget": "adjust",
    "instant-multistep": "warn",
    "always-thinks": "adjust",
    "media-token": "warn",
    "media-inline": "adjust",
    "media-converted": "adjust",
    "model-served": "refuse",
    "model-answered": "warn",
    "provider-allowed": "refuse",
    "tool-choice-thinking": "adjust",
    "schema-dialect": "adjust",
    "answer-repaired": "warn",
    "run-rejoined": "warn",
    "system-default": "warn",
    "swarm-steps": "adjust",
    "swarm-tools": "warn",
    "budget-overrun": "warn",
    "endpoint-allowed": "refuse",
}
"""The contract's table, its ids and what it does; ``swarm-tools`` and ``budget-overrun`` are younger."""


def test_the_rules_are_those_of_the_contract() -> None:
    assert {name: rule.action for name, rule in policy.load_rules().items()} == CONTRACT


def test_every_rule_says_what_it_guards_and_where_it_comes_from() -> None:
    for rule in policy.load_rules().values():
        row = rule.as_json()
        assert all(row[name] for name in ("guards", "message", "fix", "source"))
        assert rule.date <= TODAY


def only(plan: Plan) -> Any:
    assert len(plan.adjustments) == 1, rules_of(plan)
    return plan.adjustments[0]


# ── sampling ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "field", "asked", "mode", "sent"),
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
    at: Any, rule: str, field: str, asked: float, mode: Any, sent: float
) -> None:
    request = asking(mode=mode, sampling={field: asked})
    entry = only(planned(request, at))
    assert (entry.rule, entry.action, entry.field) == (rule, "adjusted", field)
    on_the_wire = sent if at.provider.sends_sampling else None
    assert (entry.asked, entry.sent) == (asked, on_the_wire)
    assert at.model.id in entry.why
    assert entry.why.endswith(f"It is left out of the request, which means {sent:g}.") == (on_the_wire is None)

    refusal = refused(request, at, strict=True)
    assert (refusal.rule, refusal.code) == (rule, "policy_refused")
    assert f"`{field}`" in refusal.fix
    assert f"{sent:g}" in refusal.fix
    assert "left out" not in refusal.message


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("at", [K25, K26, VLLM], ids=["k2.5", "k2.6", "vllm"])
def test_the_modes_own_values_are_nobodys_fault(at: Any, strict: bool) -> None:
    for mode, temperature in (("thinking", 1.0), ("thinking", 1), ("instant", 0.6)):
        own = {"temperature": temperature, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}
        assert planned(asking(mode=mode, sampling=own), at, strict=strict).adjustments == ()


@pytest.mark.parametrize("at", [K27, K3], ids=["k2.7", "k3"])
def test_models_that_always_think_take_the_thinking_values_alone(at: Any) -> None:
    entry = only(planned(asking(sampling={"temperature": 0.3}), at))
    assert (entry.rule, entry.sent) == ("temperature-fixed", None)
    assert "left out" in entry.why
    assert refused(asking(sampling={"temperature": 0.3}), at, strict=True).rule == "temperature-fixed"


# ── model and mode ────────────────────────────────────────────────────────────────────────────────────────────────


def others(provider: str) -> tuple[Any, ...]:
    rows = catalogue.load().providers[provider].models
    return tuple(profile(provider, row.model) for row in rows[1:])


@pytest.mark.parametrize("strict", [False, True])
def test_auto_takes_the_successor_of_the_retired_k2_5_and_says_so_even_under_strict(strict: bool) -> None:
    retired = profile("moonshot", "kimi-k2.5")
    plan = planned(asking(), retired, day=TODAY, successors=others("moonshot"), strict=strict)
    entry = only(plan)
    assert plan.profile.model.id == "kimi-k2.6"
    assert (entry.rule, entry.action, entry.field) == ("model-served", "adjusted", "model")
    assert (entry.asked, entry.sent) == ("auto", "kimi-k2.6")
    assert "2026-08-31" in entry.why
    assert encode(plan)["model"] == "kimi-k2.6"


def test_auto_takes_k2_5_as_long_as_it_is_served() -> None:
    served = planned(asking(), profile("moonshot", "kimi-k2.5"), day=date(2026, 8, 1), successors=others("moonshot"))
    assert served.profile.model.id == "kimi-k2.5"
    assert served.adjustments == ()


@pytest.mark.parametrize(
    ("provider", "day", "successor"),
    [
        ("moonshot", date(2026, 8, 31), "kimi-k2.6"),
        ("moonshot", date(2027, 1, 1), "kimi-k3"),
        ("nim", date(2026, 5, 1), "kimi-k2.6"),
        ("nim", TODAY, "kimi-k3"),
        ("huggingface", TODAY, "kimi-k2.6"),
        ("fireworks", TODAY, "kimi-k2.6"),
    ],
)
def test_auto_goes_down_the_providers_list_to_what_it_serves_that_day(provider: str, day: date, successor: str) -> None:
    plan = planned(asking(), profile(provider, "kimi-k2.5"), day=day, successors=others(provider))
    assert plan.profile.model.id == successor
    assert rules_of(plan) == ["model-served"]


def test_a_retired_model_asked_for_by_name_is_refused_whatever_the_policy() -> None:
    for strict in (False, True):
        refusal = refused(asking(model_asked="kimi-k2.5"), profile("moonshot", "kimi-k2.5"), day=TODAY, strict=strict)
        assert (refusal.rule, refusal.code) == ("model-served", "policy_refused")
        assert "kimi-k2.5" in refusal.message
        assert "2026-08-31" in refusal.message
        assert "`model`" in refusal.fix


def test_the_providers_own_list_counts_as_well_as_the_date() -> None:
    listed = frozenset({"kimi-k3"})
    plan = planned(asking(), K26, served=listed, successors=(K27, K3))
    assert plan.profile.model.id == "kimi-k3"
    assert refused(asking(model_asked="kimi-k2.6"), K26, served=listed).rule == "model-served"
    assert planned(asking(), K26, served=frozenset({"kimi-k2.6"})).adjustments == ()


def test_where_nothing_known_is_served_the_refusal_names_the_setting() -> None:
    refusal = refused(asking(), K26, served=frozenset({"gpt-oss"}), successors=(K3,))
    assert refusal.rule == "model-served"
    assert "gpt-oss" in refusal.message
    assert "KIMI_MODEL" in refusal.fix


def test_an_engines_own_name_is_taken_and_reported() -> None:
    at = replace(VLLM, serving=VLLM.serving.model_copy(update={"wire_id": "my-own"}))
    entry = only(planned(asking(model_asked="my-own"), at, served=frozenset({"my-own"}), stands_in=True))
    assert (entry.rule, entry.action, entry.asked, entry.sent) == ("model-served", "warned", "my-own", "my-own")


def test_instant_at_a_model_that_always_thinks_becomes_its_least_effort() -> None:
    plan = planned(asking(mode="instant"), K3)
    entry = only(plan)
    assert (plan.mode, plan.effort) == ("thinking", "low")
    assert (entry.rule, entry.action, entry.field) == ("always-thinks", "adjusted", "mode")
    assert (entry.asked, entry.sent) == ("instant", "thinking")
    assert encode(plan)["reasoning_effort"] == "low"

    plan = planned(asking(mode="instant"), K27)
    assert (plan.mode, plan.effort) == ("thinking", None)
    assert rules_of(plan) == ["always-thinks"]


@pytest.mark.parametrize("at", [K27, K3], ids=["k2.7", "k3"])
def test_instant_at_a_model_that_always_thinks_is_refused_under_strict(at: Any) -> None:
    refusal = refused(asking(mode="instant"), at, strict=True)
    assert refusal.rule == "always-thinks"
    assert "kimi_think" in refusal.fix


def test_a_provider_without_a_switch_is_the_one_named_and_the_fix_can_work() -> None:
    at = profile("huggingface", "kimi-k2.6")
    refusal = refused(asking(mode="instant"), at, strict=True, instant_offers=(("moonshot", "kimi-k2.6"),))
    assert refusal.rule == "always-thinks"
    assert refusal.message.startswith("huggingface has no switch for thinking")
    assert refusal.fix == "Use kimi_think."
    offered = refused(
        asking(mode="instant"),
        at,
        strict=True,
        instant_offers=(("moonshot", "kimi-k2.6"),),
        allowed_providers=("huggingface", "moonshot"),
    )
    assert "kimi-k2.6 at moonshot" in offered.fix


def test_an_effort_that_was_asked_for_stays_beside_the_adjustment() -> None:
    assert planned(asking(mode="instant", effort="high"), K3).effort == "high"


def test_a_model_that_can_stop_is_asked_for_an_instant_answer_without_a_word() -> None:
    assert planned(asking(mode="instant"), K26).adjustments == ()
    assert planned(asking(mode="thinking"), K3).adjustments == ()


def test_the_budget_of_thinking_holds_for_what_was_turned_into_thinking() -> None:
    plan = planned(asking(mode="instant", max_tokens=500, sampling={"temperature": 0.6}), K3)
    assert rules_of(plan) == ["always-thinks", "temperature-fixed", "thinking-budget"]
    assert plan.max_tokens == 16_000


def test_the_successors_own_rules_hold_for_what_auto_chose() -> None:
    plan = planned(
        asking(mode="instant", max_tokens=500),
        profile("nim", "kimi-k2.5"),
        day=TODAY,
        successors=others("nim"),
    )
    assert rules_of(plan) == ["model-served", "always-thinks", "thinking-budget"]
    assert plan.profile.model.id == "kimi-k3"


# ── budgets and steps ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("asked", "raised"), [(1, True), (15_999, True), (16_000, False), (200_000, False)])
def test_a_budget_below_sixteen_thousand_is_raised_while_thinking(asked: int, raised: bool) -> None:
    plan = planned(asking(max_tokens=asked), K25)
    if not raised:
        assert (plan.max_tokens, plan.adjustments) == (asked, ())
        return
    entry = only(plan)
    assert plan.max_tokens == 16_000
    assert (entry.rule, entry.field, entry.asked, entry.sent) == ("thinking-budget", "max_tokens", asked, 16_000)
    refusal = refused(asking(max_tokens=asked), K25, strict=True)
    assert refusal.rule == "thinking-budget"
    assert "`max_tokens`" in refusal.fix
    assert "16000" in refusal.fix


def test_an_instant_answer_may_be_as_short_as_one_likes() -> None:
    plan = planned(asking(mode="instant", max_tokens=1), K25, strict=True)
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
    plan = planned(asking(limits=limits), K26)
    assert plan.limits == sent
    assert [entry.field for entry in plan.adjustments] == fields
    assert set(rules_of(plan)) <= {"swarm-steps"}
    if fields:
        refusal = refused(asking(limits=limits), K26, strict=True)
        assert refusal.rule == "swarm-steps"
        assert f"`{fields[0]}`" in refusal.fix


# ── tools and schemas ─────────────────────────────────────────────────────────────────────────────────────────────

NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
@pytest.mark.parametrize("at", [K25, K26, K27], ids=["k2.5", "k2.6", "k2.7"])
def test_a_forced_tool_choice_becomes_auto_while_thinking(at: Any, choice: Any) -> None:
    request = asking(tools=(WEATHER,), tool_choice=choice)
    plan = planned(request, at)
    entry = only(plan)
    assert plan.tool_choice == "auto"
    assert (entry.rule, entry.field, entry.asked, entry.sent) == ("tool-choice-thinking", "tool_choice", choice, "auto")
    refusal = refused(request, at, strict=True)
    assert refusal.rule == "tool-choice-thinking"
    assert "`tool_choice`" in refusal.fix


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_free_tool_choice_is_left_alone(choice: str | None) -> None:
    plan = planned(asking(tools=(WEATHER,), tool_choice=choice), K25, strict=True)
    assert (plan.tool_choice, plan.adjustments) == (choice, ())


def test_a_forced_tool_choice_is_fine_without_thinking_and_at_k3() -> None:
    for choice in ("required", NAMED):
        plan = planned(asking(mode="instant", tools=(WEATHER,), tool_choice=choice), K25, strict=True)
        assert (plan.tool_choice, plan.adjustments) == (choice, ())
    plan = planned(asking(tools=(WEATHER,), tool_choice="required"), K3, strict=True)
    assert (plan.tool_choice, plan.adjustments) == ("required", ())


def test_k3_takes_required_but_no_function_by_its_name() -> None:
    entry = only(planned(asking(tools=(WEATHER,), tool_choice=NAMED), K3))
    assert (entry.rule, entry.sent) == ("tool-choice-thinking", "auto")
    assert "required" in entry.why


BROKEN = {"type": "object", "properties": {"city": {"description": "no type"}}, "required": ["city", "day"]}


def test_a_tools_schema_is_rewritten_for_moonshots_dialect_and_for_no_other() -> None:
    tool = {"name": "look_up", "parameters": BROKEN}
    plan = planned(asking(tools=(tool,)), K26)
    entry = only(plan)
    assert (entry.rule, entry.action, entry.field) == ("schema-dialect", "adjusted", "tools[0]")
    assert entry.asked == "look_up"
    assert set(plan.tools[0]["parameters"]["properties"]) == {"city", "day"}
    assert refused(asking(tools=(tool,)), K26, strict=True).rule == "schema-dialect"
    assert planned(asking(tools=(tool,)), VLLM, strict=True).adjustments == ()


def test_a_tool_whose_schema_can_not_be_rewritten_is_left_out_and_the_others_stay() -> None:
    impossible = {"name": "look_up", "parameters": {"$ref": "https://schemas.example/x", "type": "object"}}
    plan = planned(asking(tools=(impossible, WEATHER)), K26)
    assert [tool["name"] for tool in plan.tools] == ["get_weather"]
    assert only(plan).sent == "left out"


def test_a_response_schema_is_rewritten_or_refused_but_never_dropped() -> None:
    plan = planned(asking(response_schema=BROKEN), K26)
    assert plan.response_schema is not None
    assert only(plan).field == "response_schema"
    refusal = refused(asking(response_schema={"$ref": "https://schemas.example/x"}), K26)
    assert refusal.rule == "schema-dialect"
    assert "$ref" in refusal.message


# ── media ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def showing(url: str, kind: Any = "image") -> Request:
    parts = (MediaPart(kind=kind, url=url), TextPart(text="What is it?"))
    return asking(turns=(Turn(role="user", parts=parts),))


CLIP = "data:video/mp4;base64,AAAA"


@pytest.mark.parametrize("provider", ["vllm", "sglang", "ktransformers", "nim", "openrouter", "fireworks"])
def test_video_is_refused_where_it_can_not_be_taken(provider: str) -> None:
    at = profile(provider, "kimi-k2.5")
    for strict in (False, True):
        refusal = refused(showing(CLIP, "video"), at, strict=strict)
        assert (refusal.rule, refusal.code) == ("video-provider", "policy_refused")
        assert provider in refusal.message


def test_the_refusal_names_the_allowed_providers_and_models_that_can() -> None:
    offers = (("moonshot", "kimi-k2.6"), ("novita", "kimi-k2.5"), ("together", "kimi-k2.6"))
    refusal = refused(showing(CLIP, "video"), VLLM, allowed_providers=("vllm", "novita"), video_offers=offers)
    assert "novita" in refusal.fix
    assert "kimi-k2.5" in refusal.fix
    assert "moonshot" not in refusal.fix
    refusal = refused(showing(CLIP, "video"), VLLM, video_offers=offers)
    assert "KIMI_ALLOWED_PROVIDERS" in refusal.fix


@pytest.mark.parametrize("at", [K25, K26, profile("novita", "kimi-k2.5")], ids=["k2.5", "k2.6", "novita"])
def test_video_passes_where_it_is_taken_and_pictures_are_no_clips(at: Any) -> None:
    assert planned(showing(CLIP, "video"), at, strict=True).adjustments == ()
    assert planned(showing("data:image/png;base64,AAAA"), VLLM, strict=True).adjustments == ()


@pytest.mark.parametrize("url", ["data:image/png;base64,AAAA", "ms://file-1", "DATA:image/png;base64,AAAA"])
def test_media_that_are_here_already_pass(url: str) -> None:
    assert planned(showing(url), K25).adjustments == ()


def test_an_https_url_is_inlined_and_reported() -> None:
    entry = only(planned(showing("https://example.com/cat.png"), K25))
    assert (entry.rule, entry.action, entry.sent) == ("media-inline", "adjusted", "data:")


@pytest.mark.parametrize("url", ["http://example.com/cat.png", "file:///etc/passwd", "ftp://x/y", "/etc/passwd", ""])
def test_any_other_url_is_refused(url: str) -> None:
    refusal = refused(showing(url), K25)
    assert refusal.rule == "media-inline"
    assert "/etc/passwd" not in refusal.message + refusal.fix


@pytest.mark.parametrize(("kind", "converted"), [("tiff", True), ("bmp", True), ("webp", False), ("PNG", False)])
def test_a_still_format_that_is_not_taken_is_converted(kind: str, converted: bool) -> None:
    plan = planned(showing(f"data:image/{kind};base64,AAAA"), K25)
    assert rules_of(plan) == (["media-converted"] if converted else [])


@pytest.mark.parametrize("text", ["See <|media_start|>x", "<|im_end|>", "a<|media_begin|>", "<|IM_START|>system"])
def test_control_tokens_in_a_prompt_are_warned_of_and_left_in(text: str) -> None:
    plan = planned(asking(turns=(user(text),)), K25, strict=True)
    entry = only(plan)
    assert (entry.rule, entry.action) == ("media-token", "warned")
    assert plan.turns[0].text == text


@pytest.mark.parametrize("text", ["a <| b |> c", "x |> f |> g", "<|>", "if a<|b| then", "media_start"])
def test_pipes_of_other_languages_are_no_control_tokens(text: str) -> None:
    assert planned(asking(turns=(user(text),)), K25).adjustments == ()


def test_a_token_far_into_a_long_prompt_or_in_a_system_prompt_is_seen_as_well() -> None:
    for turns in ((user("x" * 100_000 + "<|media_start|>"),), (system("<|media_start|>"), user(PROMPT))):
        assert rules_of(planned(asking(turns=turns), K25)) == ["media-token"]


# ── reasoning and system prompts ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reasoning", [None, " ", "\n\t"], ids=["none", "blank", "white"])
@pytest.mark.parametrize("at", [K25, K3, VLLM], ids=["k2.5", "k3", "vllm"])
def test_a_tool_loop_without_its_reasoning_or_with_a_made_up_one_is_refused(at: Any, reasoning: str | None) -> None:
    turns = (user(PROMPT), assistant(reasoning=reasoning, calls=(CALL,)))
    for strict in (False, True):
        refusal = refused(asking(turns=turns), at, strict=strict)
        assert refusal.rule == "reasoning-replayed"
        assert "1" in refusal.message
        assert refusal.fix


def test_a_made_up_reasoning_is_refused_in_a_follow_up_too() -> None:
    turns = (user("Hi"), assistant("Hello.", reasoning=" "), user(PROMPT))
    assert refused(asking(turns=turns), K25).rule == "reasoning-replayed"


@pytest.mark.parametrize("reasoning", ["Look it up.", ""], ids=["whole", "empty"])
def test_exact_reasoning_passes_and_an_empty_one_is_not_an_absent_one(reasoning: str) -> None:
    turns = (user(PROMPT), assistant(reasoning=reasoning, calls=(CALL,)))
    assert planned(asking(turns=turns), K25, strict=True).adjustments == ()


def test_a_turn_that_never_had_any_reasoning_gets_none() -> None:
    turns = (user("Hi"), assistant("Hello."), user(PROMPT))
    assert planned(asking(turns=turns), K25, strict=True).adjustments == ()
    instant = (user(PROMPT), assistant(calls=(CALL,)))
    assert planned(asking(mode="instant", turns=instant), K25, strict=True).adjustments == ()


@pytest.mark.parametrize(
    "stock",
    [
        "You are a helpful assistant.",
        "You are Kimi, an AI assistant created by Moonshot AI.",
        "  You are a helpful assistant.",
    ],
)
def test_a_stock_system_prompt_is_warned_of_and_sent_all_the_same(stock: str) -> None:
    plan = planned(asking(turns=(system(stock), user(PROMPT))), K25, strict=True)
    entry = only(plan)
    assert (entry.rule, entry.action, entry.field) == ("system-default", "warned", "system")
    assert encode(plan)["messages"][0] == {"role": "system", "content": stock}


@pytest.mark.parametrize(
    "own",
    ["You are a botanist.", "You are a helpful assistant. You answer in Latin hexameters about plants alone, always."],
)
def test_a_system_prompt_of_ones_own_is_nobodys_fault(own: str) -> None:
    assert planned(asking(turns=(system(own), user(PROMPT))), K25).adjustments == ()


# ── admission ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url", ["https://api.kimi.com/coding/v1", "https://API.KIMI.COM/coding/v1", "https://api.kimi.com.:443/coding"]
)
def test_the_subscription_endpoint_is_refused_before_anything_else(url: str) -> None:
    for strict in (False, True):
        refusal = policy.admit(world(K26, base_url=url, strict=strict))
        assert isinstance(refusal, PolicyRefusal)
        assert refusal.rule == "endpoint-allowed"
        assert "KIMI_BASE_URL" in refusal.fix
        assert refused(asking(sampling={"temperature": 0}), K26, base_url=url) == refusal


@pytest.mark.parametrize(
    "url",
    [
        "https://api.moonshot.ai/v1",
        "https://api.kimi.com.example/v1",
        "https://example.com/api.kimi.com",
        "http://[::1",
    ],
)
def test_other_endpoints_are_not_the_subscriptions(url: str) -> None:
    assert policy.admit(world(K26, base_url=url)) is None


def test_a_provider_that_the_operator_did_not_allow_is_refused() -> None:
    refusal = policy.admit(world(K26, provider_asked="novita", allowed_providers=("moonshot", "nim")))
    assert isinstance(refusal, PolicyRefusal)
    assert refusal.rule == "provider-allowed"
    assert "moonshot" in refusal.message
    assert "KIMI_ALLOWED_PROVIDERS" in refusal.fix
    for asked in (None, "moonshot", "nim"):
        assert policy.admit(world(K26, provider_asked=asked, allowed_providers=("moonshot", "nim"))) is None


# ── the answer ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reasoning", [None, ""], ids=["none", "empty"])
def test_a_thinking_answer_without_reasoning_is_warned_of(reasoning: str | None) -> None:
    (entry,) = policy.judge(planned(asking(), VLLM), answered(reasoning=reasoning))
    assert (entry.rule, entry.action, entry.field) == ("reasoning-returned", "warned", "reasoning")
    assert "vllm" in entry.why


def test_reasoning_that_stands_inside_the_answer_is_pointed_out() -> None:
    lost = answered(reasoning=None, answer="<think>hm</think>So.")
    (entry,) = policy.judge(planned(asking(), VLLM), lost)
    assert entry.rule == "reasoning-returned"
    assert "<think>" in entry.why


def test_an_instant_answer_needs_no_reasoning_and_an_empty_one_is_not_judged() -> None:
    assert policy.judge(planned(asking(mode="instant"), VLLM), answered(reasoning=None)) == ()
    assert policy.judge(planned(asking(), VLLM), answered(reasoning=None, answer="")) == ()
    assert policy.judge(planned(asking(), VLLM), answered()) == ()


@pytest.mark.parametrize(
    ("provider", "model", "answered_by"),
    [
        ("moonshot", "kimi-k2.6", "kimi-k2.6"),
        ("moonshot", "kimi-k2.6", None),
        ("moonshot", "kimi-k2.6", "kimi-k2.6-20260421"),
        ("moonshot", "kimi-k2.6", "kimi-k2.6-2026-04-21"),
        ("moonshot", "kimi-k2.6", "kimi-k2.6-0421"),
        ("moonshot", "kimi-k2.6", "moonshotai/Kimi-K2.6"),
        ("vllm", "kimi-k2.5", "kimi-k2.5"),
        ("vllm", "kimi-k2.5", "/models/Kimi-K2.5"),
        ("openrouter", "kimi-k2.6", "moonshotai/kimi-k2.6-20260421"),
        ("openrouter", "kimi-k2.6", "moonshotai/kimi-k2.6:free"),
        ("openrouter", "kimi-k2.6", "moonshotai/kimi-k2.6-20260421:free"),
        ("huggingface", "kimi-k2.6", "moonshotai/Kimi-K2.6:novita"),
        ("fireworks", "kimi-k2.6", "accounts/fireworks/models/kimi-k2p6"),
        ("fireworks", "kimi-k2.6", "kimi-k2p6"),
        ("moonshot", "kimi-k2.7-code-highspeed", "kimi-k2.7-code-highspeed"),
    ],
)
def test_another_name_of_the_same_model_is_no_other_model(provider: str, model: str, answered_by: str | None) -> None:
    plan = planned(asking(), profile(provider, model))
    assert policy.judge(plan, answered(model=answered_by)) == ()


@pytest.mark.parametrize(
    ("model", "answered_by"),
    [
        ("kimi-k2.6", "kimi-k2.5"),
        ("kimi-k2.6", "kimi-k3"),
        ("kimi-k2.6", "kimi-k2"),
        ("kimi-k2.7-code", "kimi-k2.7-code-highspeed"),
        ("kimi-k2.7-code-highspeed", "kimi-k2.7-code"),
        ("kimi-k3", "kimi-k3.1-pro"),
        ("kimi-k3.1-pro", "moonshotai/kimi-k3"),
        ("kimi-k2.6", "gpt-oss-120b"),
    ],
)
def test_an_answer_by_another_model_is_warned_of(model: str, answered_by: str) -> None:
    (entry,) = policy.judge(planned(asking(), profile("moonshot", model)), answered(model=answered_by))
    assert (entry.rule, entry.action, entry.field) == ("model-answered", "warned", "model")
    assert model in entry.why
    assert answered_by in entry.why


def test_what_is_seen_elsewhere_on_the_path_is_worded_by_its_row() -> None:
    entry = policy.reported("answer-repaired", field="response_schema", fault="it is not JSON")
    assert (entry.rule, entry.action) == ("answer-repaired", "warned")
    assert "it is not JSON" in entry.why
    assert policy.reported("run-rejoined", field="prompt").action == "warned"


# ── all at once ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_lists_every_objection_where_decide_stops_at_the_first() -> None:
    request = asking(sampling={"temperature": 0.1, "top_p": 0.5, "n": 3}, max_tokens=10, tool_choice="required")
    found = [finding.rule for finding in policy.check(request, K25, world(K25))]
    assert found == ["temperature-fixed", "top-p-fixed", "sampling-fixed", "thinking-budget", "tool-choice-thinking"]
    assert rules_of(planned(request, K25)) == found
    assert refused(request, K25, strict=True).rule == found[0]


def test_check_counts_a_limit_that_has_no_rule_as_well() -> None:
    found = policy.check(asking(max_tokens=10**9), K25, world(K25))
    assert [finding.rule for finding in found] == ["invalid_arguments"]
    assert found[0].as_json()["action"] == "refuse"
