"""Which model a call is for: by name, by the engine's own name, or left to ``auto``."""

from __future__ import annotations

import pytest

from kimi_mcp import catalogue
from kimi_mcp.catalogue.selection import Choice, choose
from kimi_mcp.core.errors import InvalidArguments, NotConfigured

FACTS = catalogue.load()


def chosen(requested: str, provider: str, *served: str, listed: bool = True, by_setting: bool = False) -> Choice:
    names = frozenset(served) if served or not listed else None
    return choose(requested, FACTS.providers[provider], FACTS, served=names, by_setting=by_setting)


@pytest.mark.parametrize("provider", FACTS.providers)
def test_auto_takes_the_first_of_the_providers_list_k2_5_where_it_serves_that_and_keeps_the_rest_in_reserve(
    provider: str,
) -> None:
    listed = [row.model for row in FACTS.providers[provider].models]
    found = chosen("auto", provider)
    assert found.profile.provider.id == provider
    assert [each.model.id for each in (found.profile, *found.successors)] == listed
    assert "kimi-k2.5" not in listed[1:]


@pytest.mark.parametrize(
    ("provider", "requested", "wire_id"),
    [
        ("moonshot", "kimi-k2.6", "kimi-k2.6"),
        ("nim", "kimi-k3", "moonshotai/kimi-k3"),
        ("nim", "moonshotai/kimi-k3", "moonshotai/kimi-k3"),
        ("huggingface", "kimi-k2.6", "moonshotai/Kimi-K2.6"),
        ("huggingface", "moonshotai/kimi-k2.6", "moonshotai/Kimi-K2.6"),
        ("fireworks", "KIMI-K2.6", "accounts/fireworks/models/kimi-k2p6"),
        ("fireworks", "accounts/fireworks/models/kimi-k2p6", "accounts/fireworks/models/kimi-k2p6"),
        ("novita", "kimi-k2.5", "moonshotai/kimi-k2.5"),
        ("vllm", "moonshotai/Kimi-K2.5", "moonshotai/Kimi-K2.5"),
    ],
)
def test_a_model_is_found_by_the_catalogues_id_and_by_the_providers_own(
    provider: str, requested: str, wire_id: str
) -> None:
    found = chosen(requested, provider)
    assert found.profile.serving.wire_id == wire_id
    assert (found.successors, found.stands_in) == ((), False)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "ktransformers"])
@pytest.mark.parametrize(
    ("requested", "served", "model", "wire_id", "stands_in"),
    [
        ("auto", ["moonshotai/Kimi-K2.5"], "kimi-k2.5", "moonshotai/Kimi-K2.5", False),
        ("auto", ["/data/Kimi-K2.6-int4"], "kimi-k2.6", "/data/Kimi-K2.6-int4", False),
        ("auto", ["kimi-k2.7-code"], "kimi-k2.7-code", "kimi-k2.7-code", False),
        ("auto", ["my-model"], "kimi-k2.5", "my-model", True),
        ("auto", ["my-kimi-k2.5", "my-lora"], "kimi-k2.5", "my-kimi-k2.5", False),
        ("auto", ["my-kimi-k2.5-lora", "my-kimi-k2.5"], "kimi-k2.5", "my-kimi-k2.5", False),
        ("auto", ["my-kimi-k3", "my-kimi-k2.6"], "kimi-k2.6", "my-kimi-k2.6", False),
        ("auto", ["my-kimi-k2.5", "moonshotai/Kimi-K2.6"], "kimi-k2.5", "moonshotai/Kimi-K2.5", False),
        ("kimi-k2.5", ["my-kimi-k2.5"], "kimi-k2.5", "my-kimi-k2.5", False),
        ("kimi-k2.5", ["my-kimi-k2.5", "something-else"], "kimi-k2.5", "my-kimi-k2.5", False),
        ("kimi-k2.5", ["my-kimi-k2.6"], "kimi-k2.5", "moonshotai/Kimi-K2.5", False),
        ("kimi-k2.5", ["my-model"], "kimi-k2.5", "moonshotai/Kimi-K2.5", False),
        ("my-model", ["my-model", "another"], "kimi-k2.5", "my-model", True),
        ("kimi-k2.6-mine", ["kimi-k2.6-mine"], "kimi-k2.6", "kimi-k2.6-mine", False),
    ],
)
def test_an_engine_of_ones_own_may_serve_under_any_name(
    engine: str, requested: str, served: list[str], model: str, wire_id: str, stands_in: bool
) -> None:
    found = chosen(requested, engine, *served)
    assert (found.profile.model.id, found.profile.serving.wire_id, found.stands_in) == (model, wire_id, stands_in)


def test_a_hosted_provider_serves_under_its_own_names_alone() -> None:
    with pytest.raises(InvalidArguments):
        chosen("my-model", "moonshot", "my-model")
    assert chosen("auto", "moonshot", "my-model").profile.serving.wire_id == "kimi-k2.5"


def test_an_unknown_name_is_answered_with_the_nearest_and_who_has_it() -> None:
    with pytest.raises(InvalidArguments) as raised:
        chosen("kimi-k2.55", "moonshot")
    assert "`model`" in raised.value.message
    assert "The nearest: kimi-k2.5" in raised.value.fix
    with pytest.raises(InvalidArguments) as raised:
        chosen("kimi-k3.1-pro", "nim")
    assert "Others list it: moonshot" in raised.value.fix
    with pytest.raises(InvalidArguments) as raised:
        chosen("gpt-5" * 1_000, "moonshot")
    assert len(raised.value.message + raised.value.fix) < 500


def test_a_setting_that_names_no_model_is_the_operators_fault() -> None:
    with pytest.raises(NotConfigured) as raised:
        chosen("kimi-k9", "moonshot", by_setting=True)
    assert "KIMI_MODEL" in raised.value.message
    assert "KIMI_MODEL" in raised.value.fix
    assert "`model`" not in raised.value.message + raised.value.fix
