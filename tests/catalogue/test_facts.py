"""The catalogue's facts against golden values that were typed from the published facts, never read from the files."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

import pytest

from kimi_mcp.catalogue import Catalogue, load
from kimi_mcp.core.profiles import Price, Profile

TODAY = date(2026, 11, 23)
THINKING = {"temperature": 1.0, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}
INSTANT = {"temperature": 0.6, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load()


def at(catalogue: Catalogue, provider: str, model: str) -> Profile:
    profile = catalogue.profile(provider, model)
    assert profile is not None
    return profile


class OfModel(NamedTuple):
    """What a model's file must say."""

    modes: tuple[str, ...]
    efforts: tuple[str, ...]
    """Least first; the last one is the default."""
    forced_tools: bool
    media: tuple[str, ...]
    context: int
    output: int | None
    price: tuple[float, float, float] | None
    """Moonshot's: input, cached, output; None: not served there."""
    write_1h: float | None = None
    """Moonshot's, of what is cached for an hour."""


class OfProvider(NamedTuple):
    """What a provider's file must say."""

    url: str
    hosts: tuple[str, ...]
    variables: tuple[str, ...]
    borrowed: tuple[str, ...]
    switch: str
    reads_first: str
    sends: tuple[str, ...]
    video: bool
    auto: str
    """The model that ``auto`` takes on the day of the facts."""


CONTENT, REASONING, BOTH = ("reasoning_content",), ("reasoning",), ("reasoning", "reasoning_content")
THINKS, STOPS = ("thinking",), ("thinking", "instant")
EFFORTS, SEES = ("low", "high", "max"), ("image", "video")

# fmt: off
MODELS = {
    "kimi-k2.5": OfModel(STOPS, (), False, SEES, 262_144, 32_768, (0.60, 0.10, 3.00)),
    "kimi-k2.6": OfModel(STOPS, (), False, SEES, 262_144, 32_768, (0.95, 0.16, 4.00)),
    "kimi-k2.7-code": OfModel(THINKS, (), False, SEES, 262_144, None, (0.95, 0.19, 4.00)),
    "kimi-k2.7-code-highspeed": OfModel(THINKS, (), False, SEES, 262_144, None, (1.90, 0.38, 8.00)),
    "kimi-k3": OfModel(THINKS, EFFORTS, True, SEES, 1_048_576, 131_072, (3.00, 0.30, 15.00), 6.00),
    "kimi-k3.1-pro": OfModel(THINKS, EFFORTS, True, SEES, 1_048_576, None, (2.00, 0.20, 10.00), 4.00),
    "kimi-k3.1-pro-highspeed": OfModel(THINKS, EFFORTS, True, SEES, 1_048_576, None, (4.00, 0.20, 20.00), 8.00),
}
"""Every model."""

PROVIDERS = {
    "moonshot": OfProvider(
        "https://api.moonshot.ai/v1", ("api.moonshot.ai",), ("MOONSHOT_API_KEY",), (),
        "thinking-object", "reasoning_content", CONTENT, True, "kimi-k2.6"),
    "moonshot-cn": OfProvider(
        "https://api.moonshot.cn/v1", ("api.moonshot.cn",), ("MOONSHOT_API_KEY",), (),
        "thinking-object", "reasoning_content", CONTENT, True, "kimi-k2.6"),
    "nim": OfProvider(
        "https://integrate.api.nvidia.com/v1", ("integrate.api.nvidia.com",), ("NVIDIA_API_KEY",), ("HF_TOKEN",),
        "chat-template", "reasoning_content", BOTH, False, "kimi-k3"),
    "huggingface": OfProvider(
        "https://router.huggingface.co/v1", ("router.huggingface.co",), ("HF_TOKEN",), (),
        "none", "reasoning_content", CONTENT, False, "kimi-k2.6"),
    "openrouter": OfProvider(
        "https://openrouter.ai/api/v1", ("openrouter.ai",), ("OPENROUTER_API_KEY",), (),
        "reasoning-object", "reasoning", BOTH, False, "kimi-k2.6"),
    "together": OfProvider(
        "https://api.together.xyz/v1", ("api.together.xyz", "api.together.ai"), ("TOGETHER_API_KEY",), (),
        "reasoning-object", "reasoning", REASONING, False, "kimi-k3"),
    "fireworks": OfProvider(
        "https://api.fireworks.ai/inference/v1", ("api.fireworks.ai",), ("FIREWORKS_API_KEY",), (),
        "chat-template", "reasoning_content", CONTENT, False, "kimi-k2.6"),
    "novita": OfProvider(
        "https://api.novita.ai/openai", ("api.novita.ai",), ("NOVITA_API_KEY",), (),
        "thinking-object", "reasoning_content", CONTENT, True, "kimi-k2.5"),
    "vllm": OfProvider(
        "http://127.0.0.1:8000/v1", (), (), (), "chat-template", "reasoning", BOTH, False, "kimi-k2.5"),
    "sglang": OfProvider(
        "http://127.0.0.1:30000/v1", (), (), (), "chat-template", "reasoning_content", CONTENT, False, "kimi-k2.5"),
    "ktransformers": OfProvider(
        "http://127.0.0.1:30000/v1", (), (), (), "chat-template", "reasoning_content", CONTENT, False, "kimi-k2.5"),
    "simulator": OfProvider(
        "http://127.0.0.1:8731/v1", (), (), (), "thinking-object", "reasoning_content", CONTENT, True, "kimi-k2.5"),
}
"""Every provider, in the order in which their keys choose one."""
# fmt: on


def test_every_model_and_provider_has_golden_values_here(catalogue: Catalogue) -> None:
    assert sorted(MODELS) == sorted(catalogue.models), "read the sources again and add a row to MODELS"
    assert list(PROVIDERS) == list(catalogue.providers), "read the sources again and add a row to PROVIDERS"


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_what_its_sources_say(catalogue: Catalogue, name: str) -> None:
    model, golden = catalogue.models[name], MODELS[name]
    assert model.can_stop_thinking == ("instant" in golden.modes)
    assert model.efforts == golden.efforts
    assert model.default_effort == (golden.efforts[-1] if golden.efforts else None)
    assert model.forced_tool_choice_thinking == golden.forced_tools
    assert (model.image, model.video) == ("image" in golden.media, "video" in golden.media)
    assert (model.context_tokens, model.default_output_tokens) == (golden.context, golden.output)
    assert model.thinking_sampling == THINKING
    assert model.instant_sampling == (INSTANT if model.can_stop_thinking else {})


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_what_its_sources_say(catalogue: Catalogue, name: str) -> None:
    provider, golden = catalogue.providers[name], PROVIDERS[name]
    assert (provider.base_url, provider.hosts) == (golden.url, golden.hosts)
    assert (provider.key_variables, provider.borrowed_key_variables) == (golden.variables, golden.borrowed)
    assert provider.needs_key == bool(golden.variables)
    assert (provider.switch, provider.takes_video) == (golden.switch, golden.video)
    assert provider.reasoning_read[0] == golden.reads_first
    assert sorted(provider.reasoning_send) == sorted(golden.sends)
    assert catalogue.profiles(name, TODAY)[0].model.id == golden.auto


@pytest.mark.parametrize("provider", ["moonshot", "moonshot-cn", "simulator"])
@pytest.mark.parametrize("model", [name for name, golden in MODELS.items() if golden.price])
def test_moonshots_list_prices_and_switches(catalogue: Catalogue, provider: str, model: str) -> None:
    golden, profile = MODELS[model], at(catalogue, provider, model)
    price = dict(zip(("input", "cached", "output"), golden.price or (), strict=True))
    assert profile.price == Price(**price, write_1h=golden.write_1h)
    assert profile.modes == golden.modes
    assert profile.switch == ("reasoning-effort" if golden.efforts else "thinking-object")


def test_novita_serves_k2_5_at_moonshots_old_price(catalogue: Catalogue) -> None:
    profile = at(catalogue, "novita", "kimi-k2.5")
    assert profile.price == Price(input=0.60, cached=0.10, output=3.00)
    assert profile.serving.wire_id == "moonshotai/kimi-k2.5"
    assert profile.takes("video")
    assert profile.serving.served_on(TODAY)


def test_the_highest_price_is_taken_component_by_component(catalogue: Catalogue) -> None:
    highest = map(max, zip(*(golden.price for golden in MODELS.values() if golden.price), strict=True))
    assert catalogue.highest_price == Price(**dict(zip(("input", "cached", "output"), highest, strict=True)))


@pytest.mark.parametrize("provider", ["vllm", "sglang", "ktransformers"])
def test_engines_need_no_key_and_are_sent_the_sampling(catalogue: Catalogue, provider: str) -> None:
    row = catalogue.providers[provider]
    assert row.self_hosted
    assert not row.needs_key
    assert row.sends_sampling
    assert row.output_limit_field == "max_tokens"
    assert row.takes_image
    assert not row.takes_uploads
    assert row.models[0].model == "kimi-k2.5"
    assert row.models[0].wire_id == "moonshotai/Kimi-K2.5"
    assert row.models[0].price is None


@pytest.mark.parametrize("provider", ["moonshot", "moonshot-cn", "simulator"])
def test_moonshots_own_dialect(catalogue: Catalogue, provider: str) -> None:
    row = catalogue.providers[provider]
    assert row.output_limit_field == "max_completion_tokens"
    assert row.response_format == ("json_object", "json_schema")
    assert not row.sends_sampling
    assert (row.formulas, row.free_formulas) == (("moonshot/web-search:latest",), ("moonshot/fetch:latest",))
    assert (row.builtin_search, row.formula_price) == ("$web_search", 0.005)
    assert row.moonshot_schemas
    assert row.takes_uploads
    assert row.lists_models


def test_only_moonshot_takes_uploads_and_a_router_passes_its_schema_refusals_on(catalogue: Catalogue) -> None:
    own = ["moonshot", "moonshot-cn", "simulator"]
    passing_refusals_on = ["moonshot", "moonshot-cn", "openrouter", "simulator"]
    assert [row.id for row in catalogue.providers.values() if row.moonshot_schemas] == passing_refusals_on
    assert [row.id for row in catalogue.providers.values() if row.cache_ttls == ("5m", "1h")] == own
    assert [row.id for row in catalogue.providers.values() if row.takes_uploads] == own


def test_nim_bounds_the_output_and_lists_what_it_has_retired(catalogue: Catalogue) -> None:
    row = catalogue.providers["nim"]
    assert row.switch == "chat-template"
    assert row.max_output_tokens == 65_536
    assert not row.lists_models
    assert not row.streams_usage
    assert "reasoning" in row.reasoning_read
    assert at(catalogue, "nim", "kimi-k3").output_ceiling == 65_536


@pytest.mark.parametrize(
    ("provider", "model", "last", "first_without"),
    [
        ("moonshot", "kimi-k2.5", date(2026, 8, 30), date(2026, 8, 31)),
        ("moonshot-cn", "kimi-k2.5", date(2026, 8, 30), date(2026, 8, 31)),
        ("moonshot", "kimi-k2.6", date(2026, 12, 31), date(2027, 1, 1)),
        ("moonshot", "kimi-k2.7-code", date(2026, 12, 31), date(2027, 1, 1)),
        ("moonshot", "kimi-k2.7-code-highspeed", date(2026, 12, 31), date(2027, 1, 1)),
        ("nim", "kimi-k2.5", date(2026, 4, 29), date(2026, 4, 30)),
        ("nim", "kimi-k2.6", date(2026, 7, 6), date(2026, 7, 7)),
        ("openrouter", "kimi-k2.5", date(2026, 9, 6), date(2026, 9, 7)),
        ("together", "kimi-k2.5", date(2026, 5, 20), date(2026, 5, 21)),
        ("together", "kimi-k2.6", date(2026, 8, 18), date(2026, 8, 19)),
        ("fireworks", "kimi-k2.5", date(2026, 6, 15), date(2026, 6, 16)),
    ],
)
def test_retired_models_stay_as_rows_with_their_day(
    catalogue: Catalogue, provider: str, model: str, last: date, first_without: date
) -> None:
    serving = at(catalogue, provider, model).serving
    assert serving.served_on(last)
    assert not serving.served_on(first_without)


def test_the_day_on_which_a_model_was_found_gone_is_not_reported_as_its_end(catalogue: Catalogue) -> None:
    serving = at(catalogue, "huggingface", "kimi-k2.5").serving
    assert (serving.until, serving.found_gone) == (None, date(2026, 11, 23))
    assert serving.served_on(date(2026, 11, 22))
    assert not serving.served_on(date(2026, 11, 23))


@pytest.mark.parametrize(
    ("provider", "day", "model"),
    [
        ("moonshot", date(2026, 8, 1), "kimi-k2.5"),
        ("moonshot", date(2027, 1, 1), "kimi-k3.1-pro"),
        ("nim", date(2026, 4, 1), "kimi-k2.5"),
        ("simulator", date(2027, 1, 1), "kimi-k2.5"),
    ],
)
def test_auto_goes_through_the_preferences_and_skips_what_has_ended(
    catalogue: Catalogue, provider: str, day: date, model: str
) -> None:
    assert catalogue.profiles(provider, day)[0].model.id == model


def test_the_simulator_serves_all_of_moonshots_family_for_ever(catalogue: Catalogue) -> None:
    served = {profile.model.id for profile in catalogue.profiles("simulator", date(2030, 1, 1))}
    assert served == {name for name, golden in MODELS.items() if golden.price}


def test_video_is_a_matter_of_provider_and_model(catalogue: Catalogue) -> None:
    offers = catalogue.video_offers(TODAY)
    assert ("moonshot", "kimi-k2.6") in offers
    assert ("moonshot", "kimi-k2.5") not in offers
    assert ("moonshot", "kimi-k2.5") in catalogue.video_offers(date(2026, 8, 1))
    assert ("novita", "kimi-k2.5") in offers
    assert ("together", "kimi-k2.6") in catalogue.video_offers(date(2026, 8, 1))
    assert ("together", "kimi-k2.6") not in offers
    assert ("together", "kimi-k3") not in offers
    assert {provider for provider, _ in offers} == {name for name, golden in PROVIDERS.items() if golden.video}


def test_a_row_may_differ_from_its_provider(catalogue: Catalogue) -> None:
    coder = at(catalogue, "together", "kimi-k2.7-code")
    assert not coder.takes("image")
    assert coder.output_ceiling == 131_072
    assert at(catalogue, "together", "kimi-k2.6").takes("image")
    assert at(catalogue, "openrouter", "kimi-k2.7-code").output_ceiling == 16_384
