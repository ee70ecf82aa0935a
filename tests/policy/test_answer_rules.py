"""What an answer is judged by."""

from __future__ import annotations

import pytest

from kimi_mcp import policy
from tests.policy.requests import VLLM, answered, planned, profile, request_of


@pytest.mark.parametrize("reasoning", [None, ""], ids=["none", "empty"])
def test_a_thinking_answer_without_reasoning_is_warned_of(reasoning: str | None) -> None:
    (entry,) = policy.judge(planned(request_of(), VLLM), answered(reasoning=reasoning))
    assert (entry.rule, entry.action, entry.field) == ("reasoning-returned", "warned", "reasoning")
    assert "vllm" in entry.why


def test_reasoning_that_stands_inside_the_answer_is_pointed_out() -> None:
    lost = answered(reasoning=None, answer="<think>hm</think>So.")
    (entry,) = policy.judge(planned(request_of(), VLLM), lost)
    assert entry.rule == "reasoning-returned"
    assert "<think>" in entry.why


def test_an_instant_answer_needs_no_reasoning_and_an_empty_one_is_not_judged() -> None:
    assert policy.judge(planned(request_of(mode="instant"), VLLM), answered(reasoning=None)) == ()
    assert policy.judge(planned(request_of(), VLLM), answered(reasoning=None, answer="")) == ()
    assert policy.judge(planned(request_of(), VLLM), answered()) == ()


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
    plan = planned(request_of(), profile(provider, model))
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
    (entry,) = policy.judge(planned(request_of(), profile("moonshot", model)), answered(model=answered_by))
    assert (entry.rule, entry.action, entry.field) == ("model-answered", "warned", "model")
    assert model in entry.why
    assert answered_by in entry.why


def test_what_is_seen_elsewhere_on_the_path_is_worded_by_its_row() -> None:
    entry = policy.reported("answer-repaired", field="response_schema", fault="it is not JSON")
    assert (entry.rule, entry.action) == ("answer-repaired", "warned")
    assert "it is not JSON" in entry.why
    assert policy.reported("run-rejoined", field="prompt").action == "warned"
