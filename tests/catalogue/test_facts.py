"""The catalogue's facts against golden values that were typed from the published facts, never read from the files."""

from __future__ import annotations

from datetime import date

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


def test_the_family_is_complete(catalogue: Catalogue) -> None:
    assert list(catalogue.models) == [
        "kimi-k2.5",
        "kimi-k2.6",
        "kimi-k2.7-code",
        "kimi-k2.7-code-highspeed",
        "kimi-k3",
        "kimi-k3.1-pro",
        "kimi-k3.1-pro-highspeed",
    ]


def test_providers_stand_in_the_order_of_the_contract(catalogue: Catalogue) -> None:
    assert " ".join(catalogue.providers) == (
        "moonshot moonshot-cn nim huggingface openrouter together fireworks novita vllm sglang ktransformers simulator"
    )


@pytest.mark.parametrize("model", ["kimi-k2.5", "kimi-k2.6"])
def test_k2_5_and_k2_6_fix_their_sampling_per_mode(catalogue: Catalogue, model: str) -> None:
    profile = at(catalogue, "moonshot", model)
    assert profile.fixed("thinking") == THINKING
    assert profile.fixed("instant") == INSTANT
    assert profile.modes == ("thinking", "instant")
    assert profile.model.efforts == ()
    assert not profile.model.forced_tool_choice_thinking


@pytest.mark.parametrize("model", ["kimi-k2.7-code", "kimi-k2.7-code-highspeed"])
def test_k2_7_always_thinks(catalogue: Catalogue, model: str) -> None:
    profile = at(catalogue, "moonshot", model)
    assert profile.modes == ("thinking",)
    assert profile.model.efforts == ()
    assert profile.switch == "thinking-object"
    assert not profile.model.forced_tool_choice_thinking
    assert profile.fixed("thinking") == THINKING


@pytest.mark.parametrize("model", ["kimi-k3", "kimi-k3.1-pro", "kimi-k3.1-pro-highspeed"])
def test_k3_is_told_its_effort_and_takes_a_forced_tool_choice(catalogue: Catalogue, model: str) -> None:
    profile = at(catalogue, "moonshot", model)
    assert profile.modes == ("thinking",)
    assert profile.model.efforts == ("low", "high", "max")
    assert profile.model.default_effort == "max"
    assert profile.switch == "reasoning-effort"
    assert profile.model.forced_tool_choice_thinking
    assert profile.fixed("thinking") == THINKING


@pytest.mark.parametrize(
    ("model", "context", "output"),
    [
        ("kimi-k2.5", 262_144, 32_768),
        ("kimi-k2.6", 262_144, 32_768),
        ("kimi-k2.7-code", 262_144, None),
        ("kimi-k2.7-code-highspeed", 262_144, None),
        ("kimi-k3", 1_048_576, 131_072),
        ("kimi-k3.1-pro", 1_048_576, None),
        ("kimi-k3.1-pro-highspeed", 1_048_576, None),
    ],
)
def test_contexts_and_default_outputs(catalogue: Catalogue, model: str, context: int, output: int | None) -> None:
    assert catalogue.models[model].context_tokens == context
    assert catalogue.models[model].default_output_tokens == output


@pytest.mark.parametrize("provider", ["moonshot", "moonshot-cn", "simulator"])
@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("kimi-k2.5", (0.60, 0.10, 3.00)),
        ("kimi-k2.6", (0.95, 0.16, 4.00)),
        ("kimi-k2.7-code", (0.95, 0.19, 4.00)),
        ("kimi-k2.7-code-highspeed", (1.90, 0.38, 8.00)),
        ("kimi-k3", (3.00, 0.30, 15.00)),
        ("kimi-k3.1-pro", (2.00, 0.20, 10.00)),
        ("kimi-k3.1-pro-highspeed", (4.00, 0.20, 20.00)),
    ],
)
def test_moonshots_list_prices(
    catalogue: Catalogue, provider: str, model: str, price: tuple[float, float, float]
) -> None:
    expected = Price(input=price[0], cached=price[1], output=price[2])
    assert at(catalogue, provider, model).price == expected


def test_novita_serves_k2_5_at_moonshots_old_price(catalogue: Catalogue) -> None:
    profile = at(catalogue, "novita", "kimi-k2.5")
    assert profile.price == Price(input=0.60, cached=0.10, output=3.00)
    assert profile.serving.wire_id == "moonshotai/kimi-k2.5"
    assert profile.takes("video")
    assert profile.serving.served_on(TODAY)


def test_the_highest_price_is_taken_component_by_component(catalogue: Catalogue) -> None:
    assert catalogue.highest_price == Price(input=4.00, cached=0.38, output=20.00)


@pytest.mark.parametrize(
    ("provider", "url", "hosts"),
    [
        ("moonshot", "https://api.moonshot.ai/v1", ("api.moonshot.ai",)),
        ("moonshot-cn", "https://api.moonshot.cn/v1", ("api.moonshot.cn",)),
        ("nim", "https://integrate.api.nvidia.com/v1", ("integrate.api.nvidia.com",)),
        ("huggingface", "https://router.huggingface.co/v1", ("router.huggingface.co",)),
        ("openrouter", "https://openrouter.ai/api/v1", ("openrouter.ai",)),
        ("together", "https://api.together.xyz/v1", ("api.together.xyz", "api.together.ai")),
        ("fireworks", "https://api.fireworks.ai/inference/v1", ("api.fireworks.ai",)),
        ("novita", "https://api.novita.ai/openai", ("api.novita.ai",)),
        ("vllm", "http://127.0.0.1:8000/v1", ()),
        ("sglang", "http://127.0.0.1:30000/v1", ()),
        ("ktransformers", "http://127.0.0.1:30000/v1", ()),
        ("simulator", "http://127.0.0.1:8731/v1", ()),
    ],
)
def test_base_urls_and_the_hosts_that_a_key_may_go_to(
    catalogue: Catalogue, provider: str, url: str, hosts: tuple[str, ...]
) -> None:
    assert catalogue.providers[provider].base_url == url
    assert catalogue.providers[provider].hosts == hosts


@pytest.mark.parametrize(
    ("provider", "variables", "borrowed"),
    [
        ("moonshot", ("MOONSHOT_API_KEY",), ()),
        ("moonshot-cn", ("MOONSHOT_API_KEY",), ()),
        ("nim", ("NVIDIA_API_KEY",), ("HF_TOKEN",)),
        ("huggingface", ("HF_TOKEN",), ()),
        ("openrouter", ("OPENROUTER_API_KEY",), ()),
        ("together", ("TOGETHER_API_KEY",), ()),
        ("fireworks", ("FIREWORKS_API_KEY",), ()),
        ("novita", ("NOVITA_API_KEY",), ()),
    ],
)
def test_hosted_providers_need_their_own_key(
    catalogue: Catalogue, provider: str, variables: tuple[str, ...], borrowed: tuple[str, ...]
) -> None:
    row = catalogue.providers[provider]
    assert row.needs_key
    assert not row.self_hosted
    assert row.key_variables == variables
    assert row.borrowed_key_variables == borrowed


@pytest.mark.parametrize("provider", ["vllm", "sglang", "ktransformers"])
def test_engines_need_no_key_take_no_video_and_are_sent_the_sampling(catalogue: Catalogue, provider: str) -> None:
    row = catalogue.providers[provider]
    assert row.self_hosted
    assert not row.needs_key
    assert row.key_variables == ()
    assert row.switch == "chat-template"
    assert row.sends_sampling
    assert row.output_limit_field == "max_tokens"
    assert row.takes_image
    assert not row.takes_video
    assert not row.takes_uploads
    assert row.models[0].model == "kimi-k2.5"
    assert row.models[0].wire_id == "moonshotai/Kimi-K2.5"
    assert row.models[0].price is None


def test_vllm_reads_and_sends_both_names_of_reasoning(catalogue: Catalogue) -> None:
    row = catalogue.providers["vllm"]
    assert row.reasoning_read == ("reasoning", "reasoning_content")
    assert set(row.reasoning_send) == {"reasoning", "reasoning_content"}


@pytest.mark.parametrize("provider", ["moonshot", "moonshot-cn", "sglang", "ktransformers", "simulator"])
def test_moonshot_and_sglang_call_it_reasoning_content(catalogue: Catalogue, provider: str) -> None:
    assert catalogue.providers[provider].reasoning_read[0] == "reasoning_content"
    assert catalogue.providers[provider].reasoning_send == ("reasoning_content",)


def test_together_calls_it_reasoning_both_ways(catalogue: Catalogue) -> None:
    assert catalogue.providers["together"].reasoning_read[0] == "reasoning"
    assert catalogue.providers["together"].reasoning_send == ("reasoning",)


@pytest.mark.parametrize("provider", ["moonshot", "moonshot-cn", "simulator"])
def test_moonshots_own_dialect(catalogue: Catalogue, provider: str) -> None:
    row = catalogue.providers[provider]
    assert row.switch == "thinking-object"
    assert row.output_limit_field == "max_completion_tokens"
    assert row.response_format == ("json_object", "json_schema")
    assert not row.sends_sampling
    assert row.moonshot_schemas
    assert row.takes_video
    assert row.takes_uploads
    assert row.caches_by_key
    assert row.lists_models


def test_only_moonshots_dialect_wants_its_schemas_and_uploads(catalogue: Catalogue) -> None:
    own = ["moonshot", "moonshot-cn", "simulator"]
    assert [row.id for row in catalogue.providers.values() if row.moonshot_schemas] == own
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
        ("moonshot", TODAY, "kimi-k2.6"),
        ("moonshot", date(2027, 1, 1), "kimi-k3"),
        ("moonshot-cn", TODAY, "kimi-k2.6"),
        ("nim", date(2026, 4, 1), "kimi-k2.5"),
        ("nim", TODAY, "kimi-k3"),
        ("huggingface", TODAY, "kimi-k2.6"),
        ("openrouter", TODAY, "kimi-k2.6"),
        ("together", TODAY, "kimi-k3"),
        ("fireworks", TODAY, "kimi-k2.6"),
        ("novita", TODAY, "kimi-k2.5"),
        ("vllm", TODAY, "kimi-k2.5"),
        ("sglang", TODAY, "kimi-k2.5"),
        ("ktransformers", TODAY, "kimi-k2.5"),
        ("simulator", date(2027, 1, 1), "kimi-k2.5"),
    ],
)
def test_auto_goes_through_the_preferences_and_skips_what_has_ended(
    catalogue: Catalogue, provider: str, day: date, model: str
) -> None:
    assert catalogue.profiles(provider, day)[0].model.id == model


def test_the_simulator_serves_the_whole_family_for_ever(catalogue: Catalogue) -> None:
    served = {profile.model.id for profile in catalogue.profiles("simulator", date(2030, 1, 1))}
    assert served == set(catalogue.models)
    assert not catalogue.providers["simulator"].needs_key


def test_video_is_a_matter_of_provider_and_model(catalogue: Catalogue) -> None:
    offers = catalogue.video_offers(TODAY)
    assert ("moonshot", "kimi-k2.6") in offers
    assert ("moonshot", "kimi-k2.5") not in offers
    assert ("moonshot", "kimi-k2.5") in catalogue.video_offers(date(2026, 8, 1))
    assert ("novita", "kimi-k2.5") in offers
    assert ("together", "kimi-k2.6") in catalogue.video_offers(date(2026, 8, 1))
    assert ("together", "kimi-k2.6") not in offers
    assert ("together", "kimi-k3") not in offers
    without = {"vllm", "sglang", "ktransformers", "nim", "huggingface", "openrouter", "fireworks"}
    assert without.isdisjoint(provider for provider, _ in offers)


def test_a_row_may_differ_from_its_provider(catalogue: Catalogue) -> None:
    coder = at(catalogue, "together", "kimi-k2.7-code")
    assert not coder.takes("image")
    assert coder.output_ceiling == 131_072
    assert at(catalogue, "together", "kimi-k2.6").takes("image")
    assert at(catalogue, "openrouter", "kimi-k2.7-code").output_ceiling == 16_384
