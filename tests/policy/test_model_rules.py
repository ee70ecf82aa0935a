"""Models and modes: which one is sent, and what is reported of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from kimi_mcp import catalogue
from kimi_mcp.provider.encoding import encode
from tests.policy.requests import K3, K26, K27, TODAY, VLLM, only, planned, profile, refused, request_of, rules_of


def others(provider: str) -> tuple[Any, ...]:
    rows = catalogue.load().providers[provider].models
    return tuple(profile(provider, row.model) for row in rows[1:])


@pytest.mark.parametrize("strict", [False, True])
def test_auto_takes_the_successor_of_the_retired_k2_5_and_says_so_even_under_strict(strict: bool) -> None:
    retired = profile("moonshot", "kimi-k2.5")
    plan = planned(request_of(), retired, day=TODAY, successors=others("moonshot"), strict=strict)
    entry = only(plan)
    assert plan.profile.model.id == "kimi-k2.6"
    assert (entry.rule, entry.action, entry.field) == ("model-served", "adjusted", "model")
    assert (entry.asked, entry.sent) == ("auto", "kimi-k2.6")
    assert "2026-08-31" in entry.why
    assert encode(plan)["model"] == "kimi-k2.6"


def test_auto_takes_k2_5_as_long_as_it_is_served() -> None:
    served = planned(
        request_of(), profile("moonshot", "kimi-k2.5"), day=date(2026, 8, 1), successors=others("moonshot")
    )
    assert served.profile.model.id == "kimi-k2.5"
    assert served.adjustments == ()


@pytest.mark.parametrize(
    ("provider", "day", "successor"),
    [
        ("moonshot", date(2026, 8, 31), "kimi-k2.6"),
        ("moonshot", date(2027, 1, 1), "kimi-k3.1-pro"),
        ("nim", date(2026, 5, 1), "kimi-k2.6"),
        ("nim", TODAY, "kimi-k3"),
        ("huggingface", TODAY, "kimi-k2.6"),
        ("fireworks", TODAY, "kimi-k2.6"),
    ],
)
def test_auto_goes_down_the_providers_list_to_what_it_serves_that_day(provider: str, day: date, successor: str) -> None:
    plan = planned(request_of(), profile(provider, "kimi-k2.5"), day=day, successors=others(provider))
    assert plan.profile.model.id == successor
    assert rules_of(plan) == ["model-served"]


def test_a_retired_model_asked_for_by_name_is_refused_whatever_the_policy() -> None:
    for strict in (False, True):
        refusal = refused(
            request_of(model_asked="kimi-k2.5"), profile("moonshot", "kimi-k2.5"), day=TODAY, strict=strict
        )
        assert (refusal.rule, refusal.as_error().code) == ("model-served", "policy_refused")
        assert "kimi-k2.5" in refusal.message
        assert "2026-08-31" in refusal.message
        assert "`model`" in refusal.fix


def test_the_providers_own_list_counts_as_well_as_the_date() -> None:
    listed = frozenset({"kimi-k3"})
    plan = planned(request_of(), K26, served=listed, successors=(K27, K3))
    assert plan.profile.model.id == "kimi-k3"
    assert refused(request_of(model_asked="kimi-k2.6"), K26, served=listed).rule == "model-served"
    assert planned(request_of(), K26, served=frozenset({"kimi-k2.6"})).adjustments == ()


def test_what_was_only_found_to_be_gone_is_served_where_the_provider_lists_it_again() -> None:
    gone, ended = profile("huggingface", "kimi-k2.5"), profile("openrouter", "kimi-k2.5")
    requested = request_of(model_asked="kimi-k2.5")
    assert refused(requested, gone, day=TODAY).rule == "model-served"
    assert planned(requested, gone, day=TODAY, served=frozenset({gone.serving.wire_id})).adjustments == ()
    assert refused(requested, ended, day=TODAY, served=frozenset({ended.serving.wire_id})).rule == "model-served"


def test_where_nothing_known_is_served_the_refusal_names_the_setting() -> None:
    refusal = refused(request_of(), K26, served=frozenset({"gpt-oss"}), successors=(K3,))
    assert refusal.rule == "model-served"
    assert "gpt-oss" in refusal.message
    assert "KIMI_MODEL" in refusal.fix


def test_an_engines_own_name_is_taken_and_reported() -> None:
    at = replace(VLLM, serving=VLLM.serving.model_copy(update={"wire_id": "my-own"}))
    entry = only(planned(request_of(model_asked="my-own"), at, served=frozenset({"my-own"}), stands_in=True))
    assert (entry.rule, entry.action, entry.asked, entry.sent) == ("model-served", "warned", "my-own", "my-own")


def test_instant_at_a_model_that_always_thinks_becomes_its_least_effort() -> None:
    plan = planned(request_of(mode="instant"), K3)
    entry = only(plan)
    assert (plan.mode, plan.effort) == ("thinking", "low")
    assert (entry.rule, entry.action, entry.field) == ("always-thinks", "adjusted", "mode")
    assert (entry.asked, entry.sent) == ("instant", "thinking")
    assert encode(plan)["reasoning_effort"] == "low"

    plan = planned(request_of(mode="instant"), K27)
    assert (plan.mode, plan.effort) == ("thinking", None)
    assert rules_of(plan) == ["always-thinks"]


@pytest.mark.parametrize("at", [K27, K3], ids=["k2.7", "k3"])
def test_instant_at_a_model_that_always_thinks_is_refused_under_strict(at: Any) -> None:
    refusal = refused(request_of(mode="instant"), at, strict=True)
    assert refusal.rule == "always-thinks"
    assert "kimi_think" in refusal.fix


def test_a_provider_without_a_switch_is_the_one_named_and_the_fix_can_work() -> None:
    at = profile("huggingface", "kimi-k2.6")
    refusal = refused(request_of(mode="instant"), at, strict=True, instant_offers=(("moonshot", "kimi-k2.6"),))
    assert refusal.rule == "always-thinks"
    assert refusal.message.startswith("huggingface has no switch for thinking")
    assert refusal.fix == "Use kimi_think."
    offered = refused(
        request_of(mode="instant"),
        at,
        strict=True,
        instant_offers=(("moonshot", "kimi-k2.6"),),
        allowed_providers=("huggingface", "moonshot"),
    )
    assert "kimi-k2.6 at moonshot" in offered.fix


def test_an_effort_that_was_asked_for_stays_beside_the_adjustment() -> None:
    assert planned(request_of(mode="instant", effort="high"), K3).effort == "high"


@pytest.mark.parametrize(
    ("at", "effort", "cause"),
    [
        (K26, "low", "kimi-k2.6 has no efforts"),
        (profile("huggingface", "kimi-k3"), "low", "huggingface has no field for an effort"),
        (K3, "medium", "kimi-k3 takes the efforts low, high, max"),
    ],
    ids=["no-efforts", "no-field", "another"],
)
def test_an_effort_that_is_not_known_is_left_out_and_refused_under_strict(at: Any, effort: str, cause: str) -> None:
    plan = planned(request_of(effort=effort), at)
    assert plan.effort is None
    (adjusted,) = plan.adjustments
    assert (adjusted.rule, adjusted.field, adjusted.asked, adjusted.sent) == ("effort-known", "effort", effort, None)
    assert adjusted.why == f"{cause}. It thinks as much as by default."
    offers = ((at.provider.id, "kimi-k3"), ("elsewhere", "kimi-k9"))
    refusal = refused(request_of(effort=effort), at, strict=True, effort_offers=offers)
    assert (refusal.rule, refusal.fix) == (
        "effort-known",
        "Leave `effort` out, or name a `model` that has efforts (kimi-k3).",
    )


def test_a_known_effort_is_sent_without_a_word() -> None:
    plan = planned(request_of(effort="high"), K3)
    assert (plan.effort, plan.adjustments) == ("high", ())


def test_a_model_that_can_stop_is_asked_for_an_instant_answer_without_a_word() -> None:
    assert planned(request_of(mode="instant"), K26).adjustments == ()
    assert planned(request_of(mode="thinking"), K3).adjustments == ()


def test_the_budget_of_thinking_holds_for_what_was_turned_into_thinking() -> None:
    plan = planned(request_of(mode="instant", max_tokens=500, sampling={"temperature": 0.6}), K3)
    assert rules_of(plan) == ["always-thinks", "temperature-fixed", "thinking-budget"]
    assert plan.max_tokens == 16_000


def test_the_successors_own_rules_hold_for_what_auto_chose() -> None:
    plan = planned(
        request_of(mode="instant", max_tokens=500),
        profile("nim", "kimi-k2.5"),
        day=TODAY,
        successors=others("nim"),
    )
    assert rules_of(plan) == ["model-served", "always-thinks", "thinking-budget"]
    assert plan.profile.model.id == "kimi-k3"
