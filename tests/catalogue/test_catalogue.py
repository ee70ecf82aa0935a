"""What the catalogue answers: profiles, hosts, near names, rows; and what loading it costs."""

from __future__ import annotations

import json
from datetime import date
from typing import cast

import pytest
from pydantic import ValidationError

from kimi_mcp.catalogue import Catalogue, CatalogueRow, load

TODAY = date(2026, 11, 23)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load()


def row_of(catalogue: Catalogue, provider: str, model: str, day: date = TODAY) -> CatalogueRow:
    return next(row for row in catalogue.rows(day) if (row.provider, row.model) == (provider, model))


def test_the_packages_own_catalogue_is_read_once() -> None:
    assert load() is load()


@pytest.mark.parametrize(
    "name", ["kimi-k2.5", "KIMI-K2.5", "moonshotai/Kimi-K2.5", "moonshotai/kimi-k2.5", "MOONSHOTAI/KIMI-K2.5"]
)
def test_a_model_is_found_by_its_id_and_by_the_providers_own(catalogue: Catalogue, name: str) -> None:
    profile = catalogue.profile("vllm", name)
    assert profile is not None
    assert profile.model.id == "kimi-k2.5"
    assert profile.provider.id == "vllm"
    assert profile.serving.wire_id == "moonshotai/Kimi-K2.5"


def test_an_exact_name_comes_before_one_that_differs_in_case(catalogue: Catalogue) -> None:
    provider = catalogue.providers["vllm"]
    first, second = provider.models[:2]
    rows = (first.model_copy(update={"wire_id": "KIMI"}), second.model_copy(update={"wire_id": "kimi"}))
    doubled = provider.model_copy(update={"models": rows})
    with_doubles = Catalogue(models=catalogue.models, providers={"vllm": doubled})
    exact, loose = with_doubles.profile("vllm", "kimi"), with_doubles.profile("vllm", "Kimi")
    assert exact is not None
    assert loose is not None
    assert (exact.serving.wire_id, loose.serving.wire_id) == ("kimi", "KIMI")


@pytest.mark.parametrize(
    ("provider", "model"),
    [("moonshot", "moonshotai/kimi-k2.5"), ("moonshot", "gpt"), ("moonshot", ""), ("nobody", "kimi-k2.5")],
)
def test_what_a_provider_does_not_list_has_no_profile(catalogue: Catalogue, provider: str, model: str) -> None:
    assert catalogue.profile(provider, model) is None


@pytest.mark.parametrize("host", ["api.moonshot.ai", "API.Moonshot.AI", "api.moonshot.ai:443", "api.moonshot.ai."])
def test_a_provider_is_known_by_its_host(catalogue: Catalogue, host: str) -> None:
    provider = catalogue.provider_of_host(host)
    assert provider is not None
    assert provider.id == "moonshot"


@pytest.mark.parametrize(
    "host",
    ["", "127.0.0.1", "localhost", "[::1]", "moonshot.ai", "api.moonshot.ai.evil.example", "evil-api.moonshot.ai"],
)
def test_no_other_host_is_a_providers(catalogue: Catalogue, host: str) -> None:
    assert catalogue.provider_of_host(host) is None


def test_near_names_are_offered_the_likeliest_first(catalogue: Catalogue) -> None:
    assert catalogue.nearest("kimi-k25", catalogue.models)[0] == "kimi-k2.5"
    assert catalogue.nearest("MoonShot", catalogue.providers)[0] == "moonshot"
    assert catalogue.nearest("hugging-face", catalogue.providers) == ("huggingface",)
    assert catalogue.nearest("zzzz", catalogue.providers) == ()


@pytest.mark.parametrize(
    ("provider", "model", "day", "state"),
    [
        ("moonshot", "kimi-k2.5", TODAY, "ended 2026-08-31"),
        ("moonshot", "kimi-k2.5", date(2026, 8, 30), "until 2026-08-31"),
        ("moonshot", "kimi-k2.6", TODAY, "until 2027-01-01"),
        ("moonshot", "kimi-k2.6", date(2027, 1, 1), "ended 2027-01-01"),
        ("moonshot", "kimi-k3", TODAY, "served"),
        ("huggingface", "kimi-k2.5", TODAY, "gone by 2026-11-23"),
        ("huggingface", "kimi-k2.5", date(2026, 11, 22), "served"),
        ("simulator", "kimi-k2.5", TODAY, "served"),
        ("vllm", "kimi-k2.5", TODAY, "unknown"),
    ],
)
def test_a_rows_state_depends_on_the_day(
    catalogue: Catalogue, provider: str, model: str, day: date, state: str
) -> None:
    assert row_of(catalogue, provider, model, day).state == state


def test_there_is_a_row_for_every_model_of_every_provider(catalogue: Catalogue) -> None:
    listed = [(row.provider, row.model) for row in catalogue.rows(TODAY)]
    assert listed == [(provider.id, row.model) for provider in catalogue.providers.values() for row in provider.models]


def test_a_row_is_plain_json(catalogue: Catalogue) -> None:
    row = row_of(catalogue, "moonshot", "kimi-k2.6").as_json()
    assert json.loads(json.dumps(row)) == row
    assert row["modes"] == ["thinking", "instant"]
    assert row["context_tokens"] == 262_144
    assert row["price"] == {"input": 0.95, "cached": 0.16, "output": 4.00, "write_1h": None}
    assert row["media"] == ["image", "video"]
    assert row["source"]
    assert row["checked"] == "2026-10-24"


def test_a_row_without_a_price_says_null_and_without_video_does_not_offer_it(catalogue: Catalogue) -> None:
    row = row_of(catalogue, "vllm", "kimi-k2.5").as_json()
    assert row["price"] is None
    assert row["media"] == ["image"]


def test_the_records_can_not_be_changed(catalogue: Catalogue) -> None:
    with pytest.raises(TypeError):
        cast("dict[str, object]", catalogue.models)["kimi-k4"] = None
    with pytest.raises(TypeError):
        cast("dict[str, object]", catalogue.models["kimi-k2.5"].thinking_sampling)["n"] = 2
    with pytest.raises(ValidationError, match="frozen"):
        catalogue.providers["moonshot"].needs_key = False
