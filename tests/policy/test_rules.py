"""The rules of the contract's table as a whole, and who may be asked at all."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kimi_mcp import policy
from kimi_mcp.policy import Finding
from tests import contract
from tests.policy.requests import K25, K26, planned, refused, request_of, rules_of, world


def test_the_rules_are_those_of_the_contract() -> None:
    assert {name: rule.action for name, rule in policy.load_rules().items()} == contract.RULES


def test_every_rule_says_what_it_guards_and_where_it_comes_from() -> None:
    for rule in policy.load_rules().values():
        row = rule.as_json()
        assert all(row[name] for name in ("guards", "message", "fix", "source"))
        assert rule.date <= datetime.now(UTC).date()


# ── admission ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url", ["https://api.kimi.com/coding/v1", "https://API.KIMI.COM/coding/v1", "https://api.kimi.com.:443/coding"]
)
def test_the_subscription_endpoint_is_refused_before_anything_else(url: str) -> None:
    for strict in (False, True):
        refusal = policy.admit(world(K26, base_url=url, strict=strict))
        assert isinstance(refusal, Finding)
        assert refusal.rule == "endpoint-allowed"
        assert "KIMI_BASE_URL" in refusal.fix
        assert refused(request_of(sampling={"temperature": 0}), K26, base_url=url) == refusal


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
    refusal = policy.admit(world(K26, provider_requested="novita", allowed_providers=("moonshot", "nim")))
    assert isinstance(refusal, Finding)
    assert refusal.rule == "provider-allowed"
    assert "moonshot" in refusal.message
    assert "KIMI_ALLOWED_PROVIDERS" in refusal.fix
    for requested in (None, "moonshot", "nim"):
        assert policy.admit(world(K26, provider_requested=requested, allowed_providers=("moonshot", "nim"))) is None


# ── all at once ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_lists_every_objection_where_decide_stops_at_the_first() -> None:
    request = request_of(sampling={"temperature": 0.1, "top_p": 0.5, "n": 3}, max_tokens=10, tool_choice="required")
    found = [finding.rule for finding in policy.check(request, K25, world(K25))]
    assert found == ["temperature-fixed", "top-p-fixed", "sampling-fixed", "thinking-budget", "tool-choice-thinking"]
    assert rules_of(planned(request, K25)) == found
    assert refused(request, K25, strict=True).rule == found[0]


def test_check_counts_a_limit_that_has_no_rule_as_well() -> None:
    found = policy.check(request_of(max_tokens=10**9), K25, world(K25))
    assert [finding.rule for finding in found] == ["invalid_arguments"]
    assert found[0].as_json()["action"] == "refuse"
