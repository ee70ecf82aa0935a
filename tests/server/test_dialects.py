"""Every provider's dialect, spoken by the whole server to a strict stand-in of that provider."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_mcp import catalogue
from kimi_mcp.simulator import Simulator
from kimi_mcp.simulator.dialects import FACTS_DAY
from tests.server.clients import connect
from tests.server.keys import KEY
from tests.server.requests import body_of, chats

FACTS = catalogue.load()
AUTO = {name: FACTS.profiles(name, FACTS_DAY)[0] for name in FACTS.providers}
"""What ``auto`` takes at every provider on the day of the facts."""

SWITCH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "thinking-object": ({"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}}),
    "chat-template": ({"chat_template_kwargs": {"thinking": True}}, {"chat_template_kwargs": {"thinking": False}}),
    "reasoning-object": ({"reasoning": {"enabled": True}}, {"reasoning": {"enabled": False}}),
}
"""What the body says about thinking and about instant mode, by the provider's switch."""

SWITCHES = {"thinking", "chat_template_kwargs", "reasoning", "reasoning_effort", "enable_thinking"}
"""Every field that switches thinking somewhere."""


def switches_of(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body that switch thinking, under any name."""
    return {name: value for name, value in body.items() if name in SWITCHES}


def environment(provider: str) -> dict[str, str]:
    return dict.fromkeys(FACTS.providers[provider].key_variables, KEY)


@pytest.mark.parametrize("provider", AUTO)
async def test_a_thinking_call_is_taken_and_its_reasoning_read(provider: str, mode: str) -> None:
    auto, key = AUTO[provider], KEY if FACTS.providers[provider].needs_key else None
    async with (
        Simulator(provider=provider, require_key=key) as sim,
        connect(sim, mode, provider=provider, **environment(provider)) as kimi,
    ):
        result = await kimi.think()
        (request,) = chats(sim)
    assert result.status == "completed", result.text
    assert result.structured["provider"] == provider
    assert result.structured["model"] == {
        "asked": "auto",
        "sent": auto.serving.wire_id,
        "answered": auto.serving.wire_id,
    }
    assert "thinking mode" in result.reasoning
    assert body_of(request)["messages"] == [{"role": "user", "content": "What is 17 * 23?"}]
    assert request.headers.get("authorization") == (f"Bearer {KEY}" if key else None)
    switched = SWITCH[auto.switch][0] if auto.can_stop_thinking else {}
    assert switches_of(body_of(request)) == switched, "its own switch and no other"
    assert ("temperature" in body_of(request)) is FACTS.providers[provider].sends_sampling


@pytest.mark.parametrize("provider", [name for name, auto in AUTO.items() if auto.can_stop_thinking])
async def test_an_instant_call_is_taken_and_brings_no_reasoning(provider: str) -> None:
    async with (
        Simulator(provider=provider) as sim,
        connect(sim, provider=provider, **environment(provider)) as kimi,
    ):
        result = await kimi.instant()
        (request,) = chats(sim)
    assert result.status == "completed", result.text
    assert result.structured["mode"] == "instant"
    assert result.structured["reasoning"] is None
    assert "instant mode" in result.answer
    assert switches_of(body_of(request)) == SWITCH[AUTO[provider].switch][1]
    if "temperature" in body_of(request):
        assert body_of(request)["temperature"] == 0.6
        assert body_of(request)["top_p"] == 0.95


async def test_instant_where_no_switch_is_documented_is_a_thinking_call_and_reported_so() -> None:
    async with Simulator(provider="huggingface") as sim, connect(sim, provider="huggingface", HF_TOKEN=KEY) as kimi:
        result = await kimi.instant()
        (request,) = chats(sim)
    assert result.status == "completed", result.text
    assert "always-thinks" in result.rules
    assert result.structured["mode"] == "thinking"
    assert "thinking mode" in result.reasoning
    assert switches_of(body_of(request)) == {}


@pytest.mark.parametrize("provider", ["moonshot", "openrouter", "fireworks"])
async def test_auto_takes_the_successor_of_a_retired_model_and_says_so(provider: str) -> None:
    async with (
        Simulator(provider=provider) as sim,
        connect(sim, provider=provider, **environment(provider)) as kimi,
    ):
        result = await kimi.think()
    (entry,) = result.structured["policy"]
    assert entry["rule"] == "model-served"
    assert entry["action"] == "adjusted"
    assert entry["sent"] in (AUTO[provider].model.id, AUTO[provider].serving.wire_id)
    assert "[model-served: " in result.text


async def test_instant_of_a_model_that_always_thinks_is_asked_with_its_least_effort() -> None:
    async with Simulator(provider="nim") as sim, connect(sim, provider="nim", NVIDIA_API_KEY=KEY) as kimi:
        result = await kimi.instant()
        (request,) = chats(sim)
    assert result.status == "completed", result.text
    assert "always-thinks" in result.rules
    assert result.structured["mode"] == "thinking"
    assert "low" in str(body_of(request))


async def test_instant_of_k3_at_moonshot_says_its_effort_at_the_top(sim: Simulator) -> None:
    async with connect(sim) as kimi:
        result = await kimi.instant(model="kimi-k3")
    assert result.status == "completed", result.text
    assert result.rules == ["always-thinks"]
    assert body_of(chats(sim)[0])["reasoning_effort"] == "low"
    assert "thinking" not in body_of(chats(sim)[0])


@pytest.mark.parametrize(
    ("provider", "sent"),
    [
        ("simulator", {"reasoning_effort": "high"}),
        ("vllm", {"chat_template_kwargs": {"thinking_effort": "high"}}),
        ("openrouter", {"reasoning": {"effort": "high"}}),
    ],
)
async def test_an_effort_reaches_the_model_in_each_dialect(provider: str, sent: dict[str, Any]) -> None:
    async with (
        Simulator(provider=provider) as sim,
        connect(sim, provider=provider, **environment(provider)) as kimi,
    ):
        result = await kimi.think(model="kimi-k3", effort="high")
    assert result.status == "completed", result.text
    assert result.rules == []
    assert "in thinking mode, effort high" in result.answer
    assert switches_of(body_of(chats(sim)[0])) == sent


async def test_an_effort_is_left_out_and_reported_where_the_model_has_none(sim: Simulator, mode: str) -> None:
    async with connect(sim, mode) as kimi:
        result = await kimi.think(effort="low")
    assert result.status == "completed", result.text
    assert result.rules == ["effort-known"]
    assert "[effort-known: effort low → left out. kimi-k2.5 has no efforts." in result.text
    assert "reasoning_effort" not in body_of(chats(sim)[0])


async def test_a_retired_model_that_is_asked_for_by_name_is_refused(mode: str) -> None:
    async with (
        Simulator(provider="moonshot") as sim,
        connect(sim, mode, provider="moonshot", MOONSHOT_API_KEY=KEY) as kimi,
    ):
        result = await kimi.think(model="kimi-k2.5")
        assert result.code == "policy_refused"
        assert result.error["rule"] == "model-served"
        assert "`model`" in result.error["fix"]
        assert chats(sim) == []


async def test_a_retired_model_in_the_setting_is_refused_too() -> None:
    async with (
        Simulator(provider="moonshot") as sim,
        connect(sim, provider="moonshot", MOONSHOT_API_KEY=KEY, KIMI_MODEL="kimi-k2.5") as kimi,
    ):
        result = await kimi.think()
        assert result.error["rule"] == "model-served"
        assert chats(sim) == []


async def test_vllm_says_reasoning_and_it_is_read(mode: str) -> None:
    async with Simulator(provider="vllm") as sim, connect(sim, mode, provider="vllm") as kimi:
        result = await kimi.think()
        (request,) = chats(sim)
    assert result.reasoning.startswith("[simulator] I am kimi-k2.5 in thinking mode")
    assert result.rules == []
    assert body_of(request)["temperature"] == 1.0
    assert body_of(request)["top_p"] == 0.95


async def test_a_base_url_of_nobodys_is_taken_for_vllm() -> None:
    async with Simulator(provider="vllm") as sim, connect(sim, provider=None) as kimi:
        result = await kimi.think()
    assert result.status == "completed"
    assert result.structured["provider"] == "vllm"


async def test_a_hugging_face_token_serves_at_nim_only_where_nim_is_named() -> None:
    async with Simulator(provider="nim", require_key=KEY) as sim, connect(sim, provider="nim", HF_TOKEN=KEY) as kimi:
        assert (await kimi.think()).status == "completed"


async def test_a_self_hosted_engine_with_a_key_gets_it() -> None:
    async with (
        Simulator(provider="vllm", require_key=KEY) as sim,
        connect(sim, provider="vllm", KIMI_API_KEY=KEY) as kimi,
    ):
        assert (await kimi.think()).status == "completed"


async def test_a_list_of_models_that_cannot_be_had_stops_no_call() -> None:
    async with (
        Simulator(provider="moonshot") as sim,
        connect(sim, provider="moonshot", MOONSHOT_API_KEY=KEY) as kimi,
    ):
        sim.play({"match": {"path": "/v1/models"}, "status": 500, "times": "always"})
        result = await kimi.think()
    assert result.status == "completed"
    assert result.structured["model"]["sent"] == "kimi-k2.6", "the catalogue's dates decide then"
