"""Settings: each variable read once, and no environment so odd that the server could not start."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kimi_mcp import catalogue
from kimi_mcp.catalogue import credentials
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import Settings, read_settings
from kimi_mcp.runs.store.config import StoreLimits
from tests import contract

FACTS = catalogue.load()
VARIABLES = credentials.variables(FACTS)

KEYS = {"KIMI_API_KEY", *credentials.key_variables(FACTS)}

DEFAULTS = {
    "provider": None,
    "base_url": None,
    "model": "auto",
    "allowed_providers": (),
    "policy": "adjust",
    "reply_within_s": 45,
    "first_token_timeout_s": 120,
    "idle_timeout_s": 60,
    "total_timeout_s": 1800,
    "reasoning_inline_chars": 2000,
    "max_concurrency": 16,
    "log_level": "WARNING",
    "http_url": None,
    "http_origins": (),
    "http_card": "off",
    "drain_s": 30,
    "quota_calls_per_minute": 60,
    "quota_calls_at_once": 8,
    "quota_all_calls_per_minute": None,
    "quota_all_calls_at_once": 2000,
    "budget_usd_per_principal_day": None,
}

GOOD: list[tuple[str, str, str, Any]] = [
    ("KIMI_PROVIDER", " NIM ", "provider", "nim"),
    ("KIMI_BASE_URL", "http://127.0.0.1:8000/v1", "base_url", "http://127.0.0.1:8000/v1"),
    ("KIMI_MODEL", "kimi-k2.5", "model", "kimi-k2.5"),
    ("KIMI_MODEL", "moonshotai/Kimi-K2.5", "model", "moonshotai/Kimi-K2.5"),
    ("KIMI_ALLOWED_PROVIDERS", "nim, Moonshot ,,vllm,", "allowed_providers", ("nim", "moonshot", "vllm")),
    ("KIMI_POLICY", "strict", "policy", "strict"),
    ("KIMI_POLICY", "Adjust", "policy", "adjust"),
    ("KIMI_REPLY_WITHIN_S", "0.5", "reply_within_s", 0.5),
    ("KIMI_FIRST_TOKEN_TIMEOUT_S", "5", "first_token_timeout_s", 5),
    ("KIMI_IDLE_TIMEOUT_S", "5", "idle_timeout_s", 5),
    ("KIMI_TOTAL_TIMEOUT_S", "5", "total_timeout_s", 5),
    ("KIMI_REASONING_INLINE_CHARS", "0", "reasoning_inline_chars", 0),
    ("KIMI_MAX_CONCURRENCY", "1", "max_concurrency", 1),
    ("KIMI_LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ("KIMI_HTTP_URL", "https://kimi.example/", "http_url", "https://kimi.example/mcp"),
    ("KIMI_HTTP_URL", "http://[::1]:9/a/mcp/", "http_url", "http://[::1]:9/a/mcp"),
    ("KIMI_HTTP_URL", "https://kimi.example:443/mcp", "http_url", "https://kimi.example/mcp"),
    ("KIMI_HTTP_URL", "http://[::1]:80", "http_url", "http://[::1]/mcp"),
    ("KIMI_HTTP_ORIGINS", "https://App.example/, app://x", "http_origins", ("https://app.example", "app://x")),
    ("KIMI_HTTP_CARD", "ON", "http_card", "on"),
    ("KIMI_METRICS_PRINCIPALS", "on", "metrics_principals", "on"),
    ("KIMI_CLUSTER", "on", "cluster", "on"),
    ("KIMI_DRAIN_S", "0", "drain_s", 0),
    ("KIMI_QUOTA_ALL_CALLS_PER_MINUTE", "600", "quota_all_calls_per_minute", 600),
    ("KIMI_BUDGET_USD_PER_PRINCIPAL_DAY", "2.5", "budget_usd_per_principal_day", 2.5),
    *(
        ("KIMI_OIDC_ISSUER", url, "oidc_issuer", url)
        for url in (
            "https://id.example.org",
            "https://id.example.org/",
            "https://id.example.org:8443/a/b",
            "http://[::1]:1",
        )
    ),
    ("KIMI_INTROSPECTION_URL", "http://localhost:9/i?a=1", "introspection_url", "http://localhost:9/i?a=1"),
]

BAD = [
    ("KIMI_POLICY", "lenient"),
    *(("KIMI_HTTP_URL", value) for value in ("localhost:9", "ftp://x.example", "https://", "https://a:b@x", "https://x:y",
                                             "https://x/mcp?a=1", "https://x/#a", "https://x:99999")),
    *(("KIMI_HTTP_ORIGINS", value) for value in ("*", "x.example", "https://x/path", "https://x, null")),
    *(("KIMI_DRAIN_S", value) for value in ("-1", "nan", "inf", "soon")),
    ("KIMI_HTTP_CARD", "yes"),
    *((name, value) for name in ("KIMI_OIDC_ISSUER", "KIMI_INTROSPECTION_URL")
      for value in ("login.example.com", "http://id.example.org", "http://127.0.0.1.evil.example", "https://", "https://a:b@x",
                    "https://x:y", "https://x/ y", "https://ü.example", "https://x/#a", "file:///keys")),
    ("KIMI_OIDC_ISSUER", "https://x/?a=1"),
    ("KIMI_METRICS_PRINCIPALS", "all"),
    ("KIMI_CLUSTER", "3"),
    *((name, value) for name in ("KIMI_REPLY_WITHIN_S", "KIMI_FIRST_TOKEN_TIMEOUT_S", "KIMI_IDLE_TIMEOUT_S",
                                 "KIMI_TOTAL_TIMEOUT_S")
      for value in ("0", "-1", "nan", "inf", "-inf", "1e999", "soon", "45s", "9" * 5_000)),
    *(("KIMI_REASONING_INLINE_CHARS", value) for value in ("-1", "1.5", "many", "9" * 5_000)),
    *(("KIMI_MAX_CONCURRENCY", value) for value in ("0", "-5", "1.5", "sixteen")),
    *(("KIMI_QUOTA_CALLS_AT_ONCE", value) for value in ("0", "-1", "none")),
    ("KIMI_BUDGET_USD_PER_PRINCIPAL_DAY", "0"),
    ("KIMI_LOG_LEVEL", "LOUD"),
    *((name, value) for name in sorted(KEYS) for value in ("sk with blank", "sk-ümlaut", "sk-\nline", "sk-\x07bell")),
]  # fmt: skip


def test_the_variables_of_the_contract_are_read_and_no_others() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))
    assert set(names) == set(contract.SETTINGS), "docs/contract.md names each of them"


def test_a_key_is_secret_and_so_is_the_secret_of_a_client_and_nothing_else() -> None:
    secret = {variable.name for variable in VARIABLES if variable.secret}
    assert secret == KEYS | {"KIMI_INTROSPECTION_CLIENT_SECRET"}


def test_every_variable_has_its_sentence_and_its_default_in_words() -> None:
    for variable in VARIABLES:
        assert variable.meaning.endswith(".")
        assert variable.default


def test_keys_choose_a_provider_in_the_order_of_the_contract() -> None:
    keys = credentials.key_variables(FACTS)
    assert [name for name in contract.SETTINGS if name in keys] == list(keys)


def test_a_provider_of_the_catalogue_is_named_where_the_setting_is_explained() -> None:
    (row,) = (variable for variable in VARIABLES if variable.name == "KIMI_PROVIDER")
    for text in (row.meaning, contract.SETTINGS["KIMI_PROVIDER"]):
        assert [name for name in re.findall(r"[\w-]+", text) if name in FACTS.providers] == list(FACTS.providers)


def test_nothing_set_means_the_contracts_defaults() -> None:
    found = read_settings({})
    assert {name: getattr(found, name) for name in DEFAULTS} == DEFAULTS
    assert found == Settings()
    assert (credentials.keys(found, FACTS), credentials.unreadable(found, FACTS)) == ({}, ())
    credentials.check(found, FACTS)


@pytest.mark.parametrize(("name", "text", "field", "value"), GOOD)
def test_a_good_value_is_read(name: str, text: str, field: str, value: Any) -> None:
    found = read_settings({name: text})
    assert credentials.unreadable(found, FACTS) == ()
    assert getattr(found, field) == value
    assert read_settings({name: f"  {text}\n"}) == found


@pytest.mark.parametrize("text", ["", " ", "\n", "${X}", "${KIMI_POLICY}", "${env:X}", "x${Y:-z}"])
def test_what_is_empty_or_was_never_expanded_counts_as_unset(text: str) -> None:
    assert read_settings(dict.fromkeys(contract.SETTINGS, text)) == Settings()


@pytest.mark.parametrize(("name", "text"), BAD, ids=lambda text: repr(text[:30]))
def test_a_value_that_can_not_be_read_is_remembered_and_not_shown(name: str, text: str) -> None:
    found = read_settings({name: text})
    (error,) = credentials.unreadable(found, FACTS)
    assert error.code == "not_configured"
    assert name in error.message
    assert name in error.fix
    if name in KEYS or len(text) > 10:
        assert text not in error.message + error.fix
    assert found == Settings(unreadable=found.unreadable, impossible_keys=found.impossible_keys)
    assert not found.impossible_keys - {name}
    with pytest.raises(NotConfigured):
        credentials.check(found, FACTS)


def test_the_other_variables_are_read_beside_a_bad_one() -> None:
    found = read_settings({"KIMI_POLICY": "x", "KIMI_MAX_CONCURRENCY": "y", "KIMI_MODEL": "kimi-k3"})
    assert found.model == "kimi-k3"
    assert len(found.unreadable) == 2


def test_a_key_is_kept_but_never_shown() -> None:
    found = read_settings({"MOONSHOT_API_KEY": " sk-secret-1 ", "KIMI_API_KEY": "sk-secret-2"})
    assert credentials.keys(found, FACTS) == {"MOONSHOT_API_KEY": "sk-secret-1", "KIMI_API_KEY": "sk-secret-2"}
    assert "secret" not in repr(found)
    assert "secret" not in str(found)


def test_no_environment_raises() -> None:
    odd = ["\x00", "\ud800", "💥", "{}", "%s", "'", "~nobody", "-" * 10_000, "1_000", "１６", "0x10", "true", "None"]
    for text in odd:
        read_settings(dict.fromkeys(contract.SETTINGS, text))


def test_what_is_kept_without_a_journal_is_explained_with_the_setting() -> None:
    (journal,) = (variable for variable in VARIABLES if variable.name == "KIMI_JOURNAL")
    assert f"the latest {StoreLimits().runs_in_memory} " in journal.meaning
