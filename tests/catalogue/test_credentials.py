"""Who sees data and keys: the contract's rules, each with the ways round it that somebody will try."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kimi_mcp import catalogue
from kimi_mcp.catalogue.credentials import (
    Access,
    access_to,
    allowed_providers,
    check,
    chosen_provider,
    named_provider,
)
from kimi_mcp.core.errors import InvalidArguments, KimiError, NotConfigured
from kimi_mcp.core.settings import read_settings

FACTS = catalogue.load().providers
OWN = {name: (row.key_variables[0], row.base_url) for name, row in FACTS.items() if row.needs_key}
"""The key variable and the base URL of each hosted provider."""

ENGINES = [name for name, row in FACTS.items() if not row.needs_key]
ALL_KEYS = {variable: f"sk-{variable.lower()}" for variable in {row[0] for row in OWN.values()} | {"KIMI_API_KEY"}}
PROVIDER_KEYS = {variable: key for variable, key in ALL_KEYS.items() if variable != "KIMI_API_KEY"}


def access(provider: str | None = None, **environment: str) -> Access:
    """How a call goes out, with or without a ``provider`` argument."""
    settings, facts = read_settings(environment), catalogue.load()
    check(settings, facts)
    default = chosen_provider(settings, facts)
    return access_to(named_provider(provider, facts) if provider else default, settings, default)


def refusal(provider: str | None = None, **environment: str) -> KimiError:
    with pytest.raises(KimiError) as raised:
        access(provider, **environment)
    for key in environment.values():
        if key.startswith("sk-"):
            assert key not in raised.value.message + raised.value.fix
    return raised.value


# ── which provider ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_key_of_the_contracts_order_chooses() -> None:
    order = list(OWN)
    order.remove("moonshot-cn")
    for first, second in itertools.combinations(order, 2):
        chosen = access(**{OWN[second][0]: "sk-2", OWN[first][0]: "sk-1"})
        assert (chosen.provider.id, chosen.key, chosen.base_url) == (first, "sk-1", OWN[first][1])


def test_kimi_api_key_alone_means_moonshot() -> None:
    chosen = access(KIMI_API_KEY="sk-any")
    assert (chosen.provider.id, chosen.key, chosen.key_variable) == ("moonshot", "sk-any", "KIMI_API_KEY")


def test_nothing_configured_says_what_to_set() -> None:
    error = refusal()
    assert error.code == "not_configured"
    for variable, _ in OWN.values():
        assert variable in error.fix
    assert "KIMI_BASE_URL" in error.fix
    assert "simulator" in error.fix


@pytest.mark.parametrize("provider", OWN)
def test_a_base_url_of_a_providers_own_host_chooses_that_provider(provider: str) -> None:
    variable, url = OWN[provider]
    for form in (url, url + "/", url.upper().replace("HTTPS", "https")):
        chosen = access(KIMI_BASE_URL=form, **{variable: "sk-own"})
        assert (chosen.provider.id, chosen.key) == (provider, "sk-own")


def test_any_other_base_url_is_a_vllm_and_gets_no_providers_key() -> None:
    for url in ("http://127.0.0.1:8000/v1", "https://gpu.example/v1", "http://[::1]:8000/v1", "http://10.0.0.1/v1"):
        chosen = access(KIMI_BASE_URL=url, **PROVIDER_KEYS)
        assert (chosen.provider.id, chosen.key, chosen.base_url) == ("vllm", None, url)


def test_a_name_that_nobody_has_is_answered_with_the_nearest() -> None:
    error = refusal(KIMI_PROVIDER="moonshoot", **PROVIDER_KEYS)
    assert isinstance(error, NotConfigured)
    assert "KIMI_PROVIDER" in error.fix
    assert "moonshot" in error.fix
    error = refusal("fire-works", **PROVIDER_KEYS)
    assert isinstance(error, InvalidArguments)
    assert "`provider`" in error.message + error.fix
    assert "The nearest: fireworks" in error.fix


# ── which key ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("provider", OWN)
def test_a_provider_gets_its_own_key_and_no_other(provider: str) -> None:
    chosen = access(KIMI_PROVIDER=provider, **PROVIDER_KEYS)
    assert (chosen.key_variable, chosen.key) == (OWN[provider][0], PROVIDER_KEYS[OWN[provider][0]])
    assert not chosen.borrowed
    others = {variable: key for variable, key in PROVIDER_KEYS.items() if variable != OWN[provider][0]}
    for borrowed in FACTS[provider].borrowed_key_variables:
        others.pop(borrowed)
    error = refusal(KIMI_PROVIDER=provider, **others)
    assert error.code == "not_configured"
    assert OWN[provider][0] in error.fix
    assert "KIMI_API_KEY" in error.fix


@pytest.mark.parametrize("provider", ENGINES)
def test_an_engine_of_ones_own_needs_no_key_and_gets_no_providers_key(provider: str) -> None:
    assert access(KIMI_PROVIDER=provider, **PROVIDER_KEYS).key is None
    assert access(KIMI_PROVIDER=provider, **ALL_KEYS).key == ALL_KEYS["KIMI_API_KEY"]


@pytest.mark.parametrize("provider", OWN)
def test_kimi_api_key_goes_to_whoever_is_chosen(provider: str) -> None:
    assert access(KIMI_PROVIDER=provider, KIMI_API_KEY="sk-any").key == "sk-any"


@pytest.mark.parametrize("named", [*OWN, *ENGINES])
@pytest.mark.parametrize("chosen", [*OWN, *ENGINES])
def test_kimi_api_key_never_goes_to_a_provider_that_an_argument_chose(chosen: str, named: str) -> None:
    environment = {"KIMI_PROVIDER": chosen, **ALL_KEYS}
    way = access(named, **environment)
    if named == chosen:
        assert way.key == ALL_KEYS["KIMI_API_KEY"]
    else:
        assert way.key == (PROVIDER_KEYS[OWN[named][0]] if named in OWN else None)


def test_a_base_url_belongs_to_the_chosen_provider_alone() -> None:
    way = access("novita", KIMI_PROVIDER="vllm", KIMI_BASE_URL="https://gpu.example/v1", NOVITA_API_KEY="sk-n")
    assert (way.base_url, way.key) == (OWN["novita"][1], "sk-n")


@pytest.mark.parametrize("provider", OWN)
def test_a_providers_key_goes_elsewhere_only_where_the_provider_is_named(provider: str) -> None:
    variable, own_url = OWN[provider]
    named = access(KIMI_PROVIDER=provider, KIMI_BASE_URL="https://proxy.example/v1", **{variable: "sk-own"})
    assert (named.key, named.base_url) == ("sk-own", "https://proxy.example/v1")
    unnamed = access(KIMI_BASE_URL="https://proxy.example/v1", **{variable: "sk-own"})
    assert unnamed.key is None
    argued = access(provider, KIMI_BASE_URL="https://proxy.example/v1", **{variable: "sk-own"})
    assert (argued.key, argued.base_url) == ("sk-own", own_url)


def test_a_key_stays_here_even_where_a_stranger_is_taken_for_the_provider() -> None:
    settings = read_settings({"KIMI_BASE_URL": "https://proxy.example/v1", "MOONSHOT_API_KEY": "sk-own"})
    moonshot = catalogue.load().providers["moonshot"]
    with pytest.raises(NotConfigured) as raised:
        access_to(moonshot, settings, moonshot)
    assert "MOONSHOT_API_KEY is set" in raised.value.message
    assert "KIMI_PROVIDER=moonshot" in raised.value.fix


def test_hf_token_serves_nim_only_where_nim_is_named_and_has_no_key_of_its_own() -> None:
    lent = access(KIMI_PROVIDER="nim", HF_TOKEN="sk-hf")
    assert (lent.key, lent.key_variable, lent.borrowed) == ("sk-hf", "HF_TOKEN", True)
    own = access(KIMI_PROVIDER="nim", HF_TOKEN="sk-hf", NVIDIA_API_KEY="sk-nv")
    assert (own.key, own.borrowed) == ("sk-nv", False)
    general = access(KIMI_PROVIDER="nim", HF_TOKEN="sk-hf", KIMI_API_KEY="sk-any")
    assert (general.key, general.borrowed) == ("sk-any", False)
    assert access(HF_TOKEN="sk-hf").provider.id == "huggingface"
    assert refusal("nim", HF_TOKEN="sk-hf").code == "not_configured"
    assert refusal(KIMI_BASE_URL=OWN["nim"][1], HF_TOKEN="sk-hf").code == "not_configured"
    assert access("huggingface", KIMI_PROVIDER="nim", HF_TOKEN="sk-hf").borrowed is False


# ── which URL ─────────────────────────────────────────────────────────────────────────────────────────────────────

LOOKALIKES = [
    "https://api.moonshot.ai.evil.com/v1",
    "https://evil.com/api.moonshot.ai",
    "https://evil.com/?https://api.moonshot.ai",
    "https://evil.com#api.moonshot.ai",
    "https://evilapi.moonshot.ai/v1",
    "https://x.api.moonshot.ai/v1",
    "https://moonshot.ai/v1",
    "https://api.moonshot.ai@evil.com/v1",
    "https://evil.com:443/api.moonshot.ai",
    "https://evil.com\\api.moonshot.ai/v1",
    "https://api.moonshot.ai\\@evil.com/v1",
    "https://api.moonshot.ai\t.evil.com/v1",
    "https://api.moonshot.ai%2eevil.com/v1",
    "https://api.moonshot.ai%00.evil.com/v1",
    "https://api。moonshot.ai.evil.com/v1",
    "https://api-moonshot.ai/v1",
    "https://арi.moonshot.ai/v1",
]


@pytest.mark.parametrize("url", LOOKALIKES)
def test_a_host_that_only_looks_like_moonshots_gets_no_key(url: str) -> None:
    try:
        key = access(KIMI_BASE_URL=url, MOONSHOT_API_KEY="sk-own").key
    except NotConfigured:
        key = None
    assert key is None


@pytest.mark.parametrize(
    "url",
    [
        "https://API.Moonshot.AI/v1",
        "https://api.moonshot.ai./v1",
        "https://api.moonshot.ai:443/v1",
        "https://api.moonshot.ai:8443/v1/",
        "HTTPS://api.moonshot.ai/v1",
    ],
)
def test_other_spellings_of_moonshots_own_host_are_its_own_host(url: str) -> None:
    way = access(KIMI_BASE_URL=url, MOONSHOT_API_KEY="sk-own")
    assert (way.provider.id, way.key) == ("moonshot", "sk-own")


@pytest.mark.parametrize(
    "url",
    [
        "http://api.moonshot.ai/v1",
        "HTTP://api.moonshot.ai/v1",
        "Http://10.0.0.1/v1",
        "http://gpu.example/v1",
        "http://localhost.evil.com/v1",
        "http://127.0.0.1.evil.com/v1",
        "http://0.0.0.0:8000/v1",
        "http://[::2]/v1",
        "http://192.168.0.1/v1",
        "http://2130706433/v1",
    ],
)
def test_no_key_travels_in_clear_beyond_this_machine(url: str) -> None:
    error = refusal(KIMI_PROVIDER="moonshot", KIMI_BASE_URL=url, MOONSHOT_API_KEY="sk-own")
    assert error.code == "not_configured"
    assert "KIMI_BASE_URL" in error.fix
    assert refusal(KIMI_BASE_URL=url, KIMI_API_KEY="sk-any").code == "not_configured"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "http://localhost:8000/v1",
        "http://LOCALHOST./v1",
        "http://[::1]/v1",
        "http://127.9.9.9",
    ],
)
def test_plain_http_is_fine_on_this_machine(url: str) -> None:
    for provider in (*OWN, *ENGINES):
        assert access(KIMI_PROVIDER=provider, KIMI_BASE_URL=url, KIMI_API_KEY="sk-any").key == "sk-any"


def test_plain_http_elsewhere_is_fine_where_no_key_goes() -> None:
    assert access(KIMI_BASE_URL="http://10.0.0.1:8000/v1").key is None
    assert access(KIMI_PROVIDER="vllm", KIMI_BASE_URL="http://10.0.0.1:8000/v1", MOONSHOT_API_KEY="sk-own").key is None


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1", "http://[bad]/v1", "https://", "api.moonshot.ai/v1", "//api.moonshot.ai", "ftp://x/v1", "file:///x",
        "https://user:secret@gpu.example/v1", "https://user@gpu.example/v1", "https://@gpu.example/v1", "https://:@x/v1",
        "https://gpu.example:port/v1", "https://gpu.example:99999/v1", "https://gpu.example/v1?key=1",
        "https://gpu.example/v1#x", "javascript:alert(1)", "http:/x", "https:///v1", "127.0.0.1:8000",
    ],
)  # fmt: skip
@pytest.mark.parametrize("provider", [None, "moonshot", "vllm"])
def test_what_is_no_usable_url_is_not_configured_and_not_repeated(url: str, provider: str | None) -> None:
    environment: dict[str, Any] = {"KIMI_PROVIDER": provider} if provider else {}
    error = refusal(KIMI_BASE_URL=url, MOONSHOT_API_KEY="sk-own", **environment)
    assert error.code == "not_configured"
    assert "KIMI_BASE_URL" in error.message + error.fix
    assert "secret" not in error.message + error.fix


def test_a_base_url_loses_its_last_slash_and_nothing_else() -> None:
    assert access(KIMI_BASE_URL="http://127.0.0.1:8000/a/b/").base_url == "http://127.0.0.1:8000/a/b"


def test_a_withheld_key_is_explained() -> None:
    error = refusal("nim", KIMI_PROVIDER="vllm")
    assert "NVIDIA_API_KEY" in error.fix
    assert "sk-" not in repr(access(KIMI_API_KEY="sk-any"))


@pytest.mark.parametrize("host", ["api.kimi。com", "api.kimi．com", "api%2ekimi.com", "ａｐｉ.kimi.com"])
def test_a_host_that_reads_as_another_on_the_way_is_refused(host: str) -> None:
    error = refusal(KIMI_BASE_URL=f"https://{host}/coding/v1", KIMI_API_KEY="sk-kimi")
    assert (error.code, "KIMI_BASE_URL" in error.fix) == ("not_configured", True)


def test_a_key_that_belongs_to_the_chosen_provider_is_not_offered_as_a_fix_for_another() -> None:
    error = refusal("moonshot", KIMI_PROVIDER="simulator", KIMI_API_KEY="sk-kimi")
    assert error.fix == "Set MOONSHOT_API_KEY."
    assert "KIMI_API_KEY belongs to the provider that the settings choose" in error.message


def test_kimi_api_key_is_another_providers_where_that_ones_key_made_the_choice() -> None:
    assert access(NVIDIA_API_KEY="sk-nvidia", KIMI_API_KEY="sk-kimi").key == "sk-nvidia"
    assert access(KIMI_PROVIDER="nim", NVIDIA_API_KEY="sk-nvidia", KIMI_API_KEY="sk-kimi").key == "sk-kimi"


def test_an_allowed_provider_that_does_not_exist_is_named_with_the_nearest() -> None:
    settings, facts = read_settings({"KIMI_ALLOWED_PROVIDERS": "mooonshot"}), catalogue.load()
    with pytest.raises(NotConfigured) as raised:
        allowed_providers(settings, facts, facts.providers["vllm"])
    assert "KIMI_ALLOWED_PROVIDERS" in raised.value.fix
    assert "The nearest: moonshot" in raised.value.fix


def test_the_chosen_provider_is_always_allowed_and_stands_first() -> None:
    settings, facts = read_settings({"KIMI_ALLOWED_PROVIDERS": "nim, moonshot"}), catalogue.load()
    assert allowed_providers(settings, facts, facts.providers["moonshot"]) == ("moonshot", "nim")
