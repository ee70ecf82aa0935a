"""Media, control tokens, reasoning and system prompts: what may be in a turn."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_mcp.core.types import MediaPart, Request, TextPart, Turn, system, user
from kimi_mcp.provider.encoding import encode
from tests.policy.requests import (
    CALL,
    K3,
    K25,
    K26,
    PROMPT,
    VLLM,
    assistant,
    only,
    planned,
    profile,
    refused,
    request_of,
    rules_of,
)

# ── media ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def showing(url: str, kind: Any = "image") -> Request:
    parts = (MediaPart(kind=kind, url=url), TextPart(text="What is it?"))
    return request_of(turns=(Turn(role="user", parts=parts),))


CLIP = "data:video/mp4;base64,AAAA"


@pytest.mark.parametrize("provider", ["vllm", "sglang", "ktransformers", "nim", "openrouter", "fireworks"])
def test_video_is_refused_where_it_can_not_be_taken(provider: str) -> None:
    at = profile(provider, "kimi-k2.5")
    for strict in (False, True):
        refusal = refused(showing(CLIP, "video"), at, strict=strict)
        assert (refusal.rule, refusal.as_error().code) == ("video-provider", "policy_refused")
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
    plan = planned(request_of(turns=(user(text),)), K25, strict=True)
    entry = only(plan)
    assert (entry.rule, entry.action) == ("media-token", "warned")
    assert plan.turns[0].text == text


@pytest.mark.parametrize("text", ["a <| b |> c", "x |> f |> g", "<|>", "if a<|b| then", "media_start"])
def test_pipes_of_other_languages_are_no_control_tokens(text: str) -> None:
    assert planned(request_of(turns=(user(text),)), K25).adjustments == ()


def test_a_token_far_into_a_long_prompt_or_in_a_system_prompt_is_seen_as_well() -> None:
    for turns in ((user("x" * 100_000 + "<|media_start|>"),), (system("<|media_start|>"), user(PROMPT))):
        assert rules_of(planned(request_of(turns=turns), K25)) == ["media-token"]


# ── reasoning and system prompts ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reasoning", [None, " ", "\n\t"], ids=["none", "blank", "white"])
@pytest.mark.parametrize("at", [K25, K3, VLLM], ids=["k2.5", "k3", "vllm"])
def test_a_tool_loop_without_its_reasoning_or_with_a_made_up_one_is_refused(at: Any, reasoning: str | None) -> None:
    turns = (user(PROMPT), assistant(reasoning=reasoning, calls=(CALL,)))
    for strict in (False, True):
        refusal = refused(request_of(turns=turns), at, strict=strict)
        assert refusal.rule == "reasoning-replayed"
        assert "1" in refusal.message
        assert refusal.fix


def test_a_made_up_reasoning_is_refused_in_a_follow_up_too() -> None:
    turns = (user("Hi"), assistant("Hello.", reasoning=" "), user(PROMPT))
    assert refused(request_of(turns=turns), K25).rule == "reasoning-replayed"


@pytest.mark.parametrize("reasoning", ["Look it up.", ""], ids=["whole", "empty"])
def test_exact_reasoning_passes_and_an_empty_one_is_not_an_absent_one(reasoning: str) -> None:
    turns = (user(PROMPT), assistant(reasoning=reasoning, calls=(CALL,)))
    assert planned(request_of(turns=turns), K25, strict=True).adjustments == ()


def test_a_turn_that_never_had_any_reasoning_gets_none() -> None:
    turns = (user("Hi"), assistant("Hello."), user(PROMPT))
    assert planned(request_of(turns=turns), K25, strict=True).adjustments == ()
    instant = (user(PROMPT), assistant(calls=(CALL,)))
    assert planned(request_of(mode="instant", turns=instant), K25, strict=True).adjustments == ()


@pytest.mark.parametrize(
    "stock",
    [
        "You are a helpful assistant.",
        "You are Kimi, an AI assistant created by Moonshot AI.",
        "  You are a helpful assistant.",
    ],
)
def test_a_stock_system_prompt_is_warned_of_and_sent_all_the_same(stock: str) -> None:
    plan = planned(request_of(turns=(system(stock), user(PROMPT))), K25, strict=True)
    entry = only(plan)
    assert (entry.rule, entry.action, entry.field) == ("system-default", "warned", "system")
    assert encode(plan)["messages"][0] == {"role": "system", "content": stock}


@pytest.mark.parametrize(
    "own",
    ["You are a botanist.", "You are a helpful assistant. You answer in Latin hexameters about plants alone, always."],
)
def test_a_system_prompt_of_ones_own_is_nobodys_fault(own: str) -> None:
    assert planned(request_of(turns=(system(own), user(PROMPT))), K25).adjustments == ()
