"""Requests, profiles and worlds for the policy's tests, and the simulator's checks as an independent judge. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from kimi_mcp import catalogue, policy
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.types import Completion, Request, ToolCall, Turn, user
from kimi_mcp.policy import Finding, PolicyContext
from kimi_mcp.provider.encoding import encode
from kimi_mcp.simulator.checks import Chat, read_chat
from kimi_mcp.simulator.dialects import DIALECTS, FACTS_DAY

TODAY = FACTS_DAY
PROMPT = "Why is the sky blue?"

JUDGED = ("moonshot", "moonshot-cn", "simulator", "nim", "vllm", "sglang", "ktransformers")
"""Providers whose dialect the simulator plays from published facts."""

CALL = ToolCall(id="functions.get_weather:0", name="get_weather", arguments='{"city": "Oslo"}')

WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def profile(provider: str, model: str) -> Profile:
    found = catalogue.load().profile(provider, model)
    assert found is not None, f"{model} is not listed at {provider}"
    return found


K25 = profile("simulator", "kimi-k2.5")
K26 = profile("moonshot", "kimi-k2.6")
K27 = profile("moonshot", "kimi-k2.7-code")
K3 = profile("moonshot", "kimi-k3")
VLLM = profile("vllm", "kimi-k2.5")


def every_profile() -> Iterator[Profile]:
    facts = catalogue.load()
    for provider in facts.providers.values():
        for row in provider.models:
            yield profile(provider.id, row.model)


def a_day_of(profile: Profile) -> date:
    """Today, or the last safe day on which the provider still served the model."""
    until = profile.serving.until or profile.serving.found_gone
    return TODAY if until is None or until > TODAY else until - timedelta(days=30)


def world(profile: Profile, **changes: Any) -> PolicyContext:
    provider = profile.provider
    values = {"day": a_day_of(profile), "base_url": provider.base_url, "allowed_providers": (provider.id,), **changes}
    return PolicyContext(**values)


def request_of(**changes: Any) -> Request:
    return Request(**{"mode": "thinking", "turns": (user(PROMPT),), **changes})


def planned(request: Request, profile: Profile, **changes: Any) -> Plan:
    decision = policy.decide(request, profile, world(profile, **changes))
    assert isinstance(decision, Plan), decision
    return decision


def refused(request: Request, profile: Profile, **changes: Any) -> Finding:
    decision = policy.decide(request, profile, world(profile, **changes))
    assert isinstance(decision, Finding), decision
    return decision


def answered(**changes: Any) -> Completion:
    values = {"answer": "Rayleigh scattering.", "reasoning": "Short waves scatter more.", "finish_reason": "stop"}
    return Completion(**{**values, **changes})


def rules_of(plan: Plan) -> list[str]:
    return [adjustment.rule for adjustment in plan.adjustments]


def assistant(text: str = "", *, reasoning: str | None = None, calls: tuple[ToolCall, ...] = ()) -> Turn:
    return Turn(role="assistant", parts=user(text).parts if text else (), reasoning=reasoning, tool_calls=calls)


def judged(plan: Plan, day: date | None = None) -> Chat:
    """What the simulator understands of the plan's body; raises its refusal."""
    return understood(json.loads(json.dumps(encode(plan), allow_nan=False)), plan.profile, day)


def understood(body: dict[str, Any], profile: Profile, day: date | None = None) -> Chat:
    """What the simulator understands of a body that is sent to that profile; raises its refusal."""
    return read_chat(body, DIALECTS[profile.provider.id], day or a_day_of(profile), lambda _: None)


def only(plan: Plan) -> Any:
    """The one entry that a plan reports."""
    assert len(plan.adjustments) == 1, rules_of(plan)
    return plan.adjustments[0]
