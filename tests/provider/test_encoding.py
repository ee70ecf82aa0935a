"""Bodies on the wire: one snapshot for each provider with every case, and the contract's rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kimi_mcp import catalogue, policy
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.types import Mode, Request, user
from kimi_mcp.policy import PolicyContext
from kimi_mcp.provider.encoding import encode
from kimi_mcp.simulator.dialects import FACTS_DAY
from tests.provider.request_cases import CASES, VERBATIM
from tests.snapshots import matches_snapshot, stale

FOLDER = Path(__file__).parent / "snapshots"
PROVIDERS = catalogue.load().providers
MODES: tuple[Mode, ...] = ("thinking", "instant")
MOONSHOTS = ("moonshot", "moonshot-cn", "simulator")
SELF_HOSTED = [(row.id, served.model) for row in PROVIDERS.values() if row.self_hosted for served in row.models]
"""Every model at an engine."""
FIXED = {"temperature", "top_p", "n", "presence_penalty", "frequency_penalty"}


def at(provider: str, model: str) -> Profile:
    found = catalogue.load().profile(provider, model)
    assert found is not None
    return found


def plan(provider: str, request: Request, model: str | None = None) -> Plan:
    rows = [row.model for row in catalogue.load().providers[provider].models]
    first, *others = [at(provider, name) for name in ([model] if model else rows)]
    world = PolicyContext(
        day=FACTS_DAY, base_url=first.provider.base_url, allowed_providers=(provider,), successors=tuple(others)
    )
    decision = policy.decide(request, first, world)
    assert isinstance(decision, Plan), decision
    return decision


def body(provider: str, request: Request, model: str | None = None) -> dict[str, Any]:
    encoded = encode(plan(provider, request, model))
    return json.loads(json.dumps(encoded, allow_nan=False))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_bodies_are_those_that_were_read_and_accepted(provider: str) -> None:
    found = {name: encode(plan(provider, case)) for name, case in CASES.items()}
    matches_snapshot(found, FOLDER / f"{provider}.json", "tests/provider/test_encoding.py")


def test_no_snapshot_is_without_its_provider() -> None:
    assert not stale(FOLDER, {f"{provider}.json" for provider in PROVIDERS})


def test_a_mismatch_prints_the_command_that_accepts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPDATE_SNAPSHOTS", raising=False)
    (tmp_path / "x.json").write_text("{}\n", encoding="utf-8")
    for name in ("x.json", "y.json"):
        with pytest.raises(AssertionError, match=r"UPDATE_SNAPSHOTS=1 python -m pytest tests/some\.py"):
            matches_snapshot({"a": 1}, tmp_path / name, "tests/some.py")
    monkeypatch.setenv("UPDATE_SNAPSHOTS", "1")
    matches_snapshot({"a": 1}, tmp_path / "x.json", "tests/some.py")
    monkeypatch.delenv("UPDATE_SNAPSHOTS")
    matches_snapshot({"a": 1}, tmp_path / "x.json", "tests/some.py")


# ── the contract's rules ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_prompt_goes_verbatim_as_the_only_message(provider: str) -> None:
    for mode in MODES:
        found = body(provider, Request(mode=mode, turns=(user(VERBATIM),)))
        assert found["messages"] == [{"role": "user", "content": VERBATIM}]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_body_is_streamed_and_bounded(provider: str) -> None:
    for case in CASES.values():
        found = body(provider, case)
        assert found["stream"] is True
        limits = [name for name in ("max_tokens", "max_completion_tokens") if name in found]
        assert limits == (["max_completion_tokens"] if provider in MOONSHOTS else ["max_tokens"])
        assert found[limits[0]] >= 16_000


@pytest.mark.parametrize("provider", MOONSHOTS)
def test_moonshot_is_sent_none_of_the_fixed_values(provider: str) -> None:
    for name, case in CASES.items():
        assert not FIXED & set(body(provider, case)), name
    for model in ("kimi-k3", "kimi-k2.7-code", "kimi-k2.6"):
        assert not FIXED & set(body(provider, CASES["temperature-asked"], model))


@pytest.mark.parametrize(("provider", "model"), SELF_HOSTED)
def test_a_self_hosted_engine_is_always_sent_temperature_and_top_p(provider: str, model: str) -> None:
    for name, case in CASES.items():
        found = body(provider, case, model)
        thinks = case.mode == "thinking" or not at(provider, model).can_stop_thinking
        assert found["temperature"] == (1.0 if thinks else 0.6), name
        assert found["top_p"] == 0.95, name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_only_providers_of_moonshots_switch_get_a_thinking_object(provider: str) -> None:
    for mode in MODES:
        found = body(provider, Request(mode=mode, turns=(user("Hi"),)))
        assert "thinking" not in found or PROVIDERS[provider].switch == "thinking-object"
        if provider in MOONSHOTS:
            assert found["thinking"] == {"type": "enabled" if mode == "thinking" else "disabled"}


@pytest.mark.parametrize(("provider", "model"), SELF_HOSTED)
def test_engines_are_switched_by_their_chat_template(provider: str, model: str) -> None:
    for mode in MODES:
        found = body(provider, Request(mode=mode, turns=(user("Hi"),)), model)
        if at(provider, model).can_stop_thinking:
            assert found["chat_template_kwargs"] == {"thinking": mode == "thinking"}
        else:
            assert found.get("chat_template_kwargs", {}).get("thinking") is not False


@pytest.mark.parametrize("model", ["kimi-k3", "kimi-k3.1-pro"])
def test_k3_is_sent_an_effort_and_never_a_thinking_object(model: str) -> None:
    think = body("moonshot", Request(mode="thinking", turns=(user("Hi"),)), model)
    assert not {"thinking", "reasoning_effort"} & set(think)
    instant = body("moonshot", Request(mode="instant", turns=(user("Hi"),)), model)
    assert "thinking" not in instant
    assert instant["reasoning_effort"] == "low"


def test_k2_7_is_never_requested_to_stop_thinking() -> None:
    for mode in MODES:
        found = body("moonshot", Request(mode=mode, turns=(user("Hi"),)), "kimi-k2.7-code")
        assert found.get("thinking") in (None, {"type": "enabled"})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_system_prompt_is_sent_unless_asked_for(provider: str) -> None:
    for name, case in CASES.items():
        if name.startswith("response-schema"):
            continue
        requested = [turn.text for turn in case.turns if turn.role == "system"]
        sent = [message["content"] for message in body(provider, case)["messages"] if message["role"] == "system"]
        assert sent == requested, name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_reasoning_goes_back_exactly_under_the_providers_names(provider: str) -> None:
    names = set(PROVIDERS[provider].reasoning_send)
    first, _, second, third = (
        message for message in body(provider, CASES["history"])["messages"] if message["role"] != "user"
    )
    assert {name: first.get(name) for name in names} == dict.fromkeys(names, "Look it up.\n")
    assert {name: second.get(name) for name in names} == dict.fromkeys(names, "")
    assert not {"reasoning", "reasoning_content"} & set(third), "turns without reasoning get none"
    assert {"reasoning", "reasoning_content"} & set(first) == names


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_blank_content_beside_tool_calls_is_left_out_and_ids_go_back_unchanged(provider: str) -> None:
    messages = body(provider, CASES["history"])["messages"]
    assert "content" not in messages[1]
    assert messages[1]["tool_calls"][0] == {
        "id": "functions.get_weather:0",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    }
    assert messages[2] == {"role": "tool", "content": "Rain", "tool_call_id": "functions.get_weather:0"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_schema_is_asked_for_by_the_format_or_in_words_but_always_asked_for(provider: str) -> None:
    for case in ("response-schema", "response-schema-and-system"):
        found = body(provider, CASES[case])
        kind = found.get("response_format", {}).get("type")
        if kind == "json_schema":
            assert found["response_format"]["json_schema"]["schema"]["required"] == ["name"]
            assert len(found["messages"]) == len(CASES[case].turns)
        else:
            assert '"required": ["name"]' in found["messages"][0]["content"]
        assert found["messages"][-1] == {"role": "user", "content": CASES[case].turns[-1].text}


def test_a_tool_choice_without_tools_is_not_sent() -> None:
    requested = Request(mode="instant", turns=(user("Hi"),), tool_choice="required")
    assert not {"tools", "tool_choice"} & set(body("moonshot", requested))


@pytest.mark.parametrize("provider", ["moonshot", "nim", "vllm"])
def test_n_is_sent_as_an_integer(provider: str) -> None:
    found = encode(plan(provider, Request(mode="thinking", turns=(user("Hi"),), sampling={"n": 2})))
    assert isinstance(found.get("n", 1), int)


def test_media_stand_where_they_stood_between_the_words() -> None:
    content = body("moonshot", CASES["picture"])["messages"][0]["content"]
    assert content == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "?"},
    ]
