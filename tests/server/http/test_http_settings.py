"""Every mistake in a setting of the HTTP server: it does not start, and says which setting and what would be right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kimi_mcp.cli.doctor.http import PREFIXES
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import VARIABLES, read_settings
from kimi_mcp.server.http.auth.verifiers import Verifiers
from kimi_mcp.server.http.start_check import check_settings
from tests.cli.commands.shell import kimi, kimi_process

SECRET = "s3cret-of-n0body"
NUMBERS = ("0", "-1", "1.5", "many", "1e3")
AMOUNTS = ("0", "-1", "inf", "nan", "5 USD")
URLS = ("id.example.org", "ftp://id.example.org", "http://id.example.org", f"https://me:{SECRET}@id.example.org")

UNREADABLE = {
    "KIMI_HTTP_URL": (
        "kimi.example.org/mcp",
        "ftp://kimi.example.org/mcp",
        "https://",
        f"https://me:{SECRET}@kimi.example.org/mcp",
        f"https://kimi.example.org/mcp?key={SECRET}",
        "https://kimi.example.org:99999/mcp",
    ),
    "KIMI_HTTP_ORIGINS": ("*", "app.example.org", "https://app.example.org/page", "https://a.example,,b"),
    "KIMI_HTTP_CARD": ("yes", "1"),
    "KIMI_HTTP_UI": ("no", "0"),
    "KIMI_DRAIN_S": ("soon", "-1", "inf", "nan", "30s"),
    "KIMI_OIDC_ISSUER": URLS,
    "KIMI_INTROSPECTION_URL": URLS,
    "KIMI_QUOTA_CALLS_PER_MINUTE": NUMBERS,
    "KIMI_QUOTA_CALLS_AT_ONCE": NUMBERS,
    "KIMI_QUOTA_ALL_CALLS_PER_MINUTE": NUMBERS,
    "KIMI_QUOTA_ALL_CALLS_AT_ONCE": NUMBERS,
    "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY": AMOUNTS,
}
"""What can't be meant, of each setting that is checked when it is read."""

CONTENTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: None,
    "a folder": Path.mkdir,
    "no JSON": lambda file: file.write_text(f"alice {SECRET}\n", "utf-8"),
    "no UTF-8": lambda file: file.write_bytes(b"\xff\xfe"),
    "a token itself": lambda file: file.write_text(json.dumps({"version": 1, "tokens": [SECRET]}), "utf-8"),
    "another version": lambda file: file.write_text('{"version": 2, "tokens": []}', "utf-8"),
}
"""What the file of tokens can be instead."""


def refusal(**settings: str) -> str:
    """Why nobody could be authenticated with these settings, and the fix."""
    with pytest.raises(NotConfigured) as refused:
        Verifiers(read_settings(settings), "http://127.0.0.1:8000/mcp")
    reported = f"{refused.value.message} {refused.value.fix}"
    assert SECRET not in reported
    return reported


@pytest.mark.parametrize(("variable", "value"), [(name, value) for name, each in UNREADABLE.items() for value in each])
def test_a_value_that_can_not_be_meant_is_refused(variable: str, value: str) -> None:
    with pytest.raises(NotConfigured, match=f"^{variable} can't be read") as refused:
        check_settings(read_settings({variable: value}))
    assert refused.value.fix.startswith(f"Set {variable} to ")
    assert SECRET not in refused.value.message + refused.value.fix


def test_every_setting_of_the_http_server_that_is_checked_has_its_mistakes_here() -> None:
    checked = {each.name for each in VARIABLES if each.name.startswith(PREFIXES) and each.read is not str}
    assert checked == UNREADABLE.keys()


@pytest.mark.parametrize("what", CONTENTS)
def test_a_file_of_tokens_that_is_none_is_refused(what: str, tmp_path: Path) -> None:
    CONTENTS[what](file := tmp_path / "tokens")
    reported = refusal(KIMI_HTTP_TOKENS=str(file))
    assert "KIMI_HTTP_TOKENS" in reported
    assert str(tmp_path) not in reported


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"KIMI_OIDC_AUDIENCE": "https://kimi.example.org/mcp"}, "Set KIMI_OIDC_ISSUER or KIMI_INTROSPECTION_URL"),
        ({"KIMI_INTROSPECTION_URL": "https://id.example.org/introspect"}, "KIMI_INTROSPECTION_CLIENT_ID"),
        ({"KIMI_INTROSPECTION_CLIENT_ID": "kimi"}, "KIMI_INTROSPECTION_URL"),
        ({"KIMI_INTROSPECTION_CLIENT_SECRET": SECRET}, "KIMI_INTROSPECTION_URL"),
    ],
)
def test_settings_that_miss_another_are_refused(settings: dict[str, str], expected: str) -> None:
    assert expected in refusal(**settings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KIMI_PROVIDER", "moonshoot"),
        ("KIMI_BASE_URL", "kimi.example.org"),
        ("KIMI_ALLOWED_PROVIDERS", "nim, moonshoot"),
        ("KIMI_CATALOGUE", "/nowhere"),
        ("KIMI_DATABASE_URL", f"postgres:{SECRET}"),
        ("KIMI_DATABASE_URL", f"nosuchdatabase://me:{SECRET}@db.example.org/kimi"),
        ("KIMI_DATA_DIR", "/dev/null/kimi"),
        ("KIMI_DATA_DIR", "~nobody-of-that-name/kimi"),
        ("KIMI_SWARM_MCP", "/nowhere"),
        ("KIMI_ROOTS", "/nowhere"),
        ("MOONSHOT_API_KEY", f"{SECRET} {SECRET}"),
        ("KIMI_MAX_CONCURRENCY", "none"),
        *((variable, values[-1]) for variable, values in UNREADABLE.items()),
    ],
)
async def test_a_setting_by_which_every_call_would_be_refused_keeps_it_from_starting(variable: str, value: str) -> None:
    """Over stdio the first call learns of it."""
    ended = await kimi("serve", "--transport", "http", "--port", "0", settings={variable: value})
    assert (ended.status, ended.out) == (1, ""), ended.err
    assert variable in ended.err
    assert SECRET not in ended.err


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("KIMI_HTTP_TOKEN", "KIMI_HTTP_TOKENS"),
        ("KIMI_OICD_ISSUER", "KIMI_OIDC_ISSUER"),
        ("KIMI_QUOTA_CALLS_A_MINUTE", "KIMI_QUOTA_CALLS_PER_MINUTE"),
        ("KIMI_BUDGET_USD_DAY", "KIMI_BUDGET_USD_PER_DAY"),
    ],
)
def test_a_misspelt_setting_is_refused_with_the_one_that_is_meant(name: str, meant: str) -> None:
    with pytest.raises(NotConfigured, match=f"^{name} is no setting") as refused:
        check_settings(read_settings({"KIMI_JOURNAL": "off", name: SECRET}))
    assert f"Is {meant} meant?" in refused.value.fix
    assert SECRET not in refused.value.message + refused.value.fix


@pytest.mark.parametrize("name", ["KIMI_API_KEY", "KIMI_MODEL_NAME", "KIMI_SHARE_DIR", "KIMI_MCP_SERVICE_HOST"])
def test_a_variable_of_another_program_is_let_be(name: str) -> None:
    check_settings(read_settings({"KIMI_JOURNAL": "off", name: SECRET}))


def test_a_key_that_is_missing_keeps_no_server_from_starting() -> None:
    check_settings(read_settings({"KIMI_JOURNAL": "off"}))
    check_settings(read_settings({"KIMI_PROVIDER": "moonshot", "KIMI_JOURNAL": "off"}))


def test_what_a_principal_may_spend_is_not_counted_without_a_store() -> None:
    with pytest.raises(NotConfigured, match="KIMI_JOURNAL=off"):
        check_settings(read_settings({"KIMI_JOURNAL": "off", "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY": "1"}))


@pytest.mark.soak
async def test_what_authenticates_nobody_keeps_it_from_starting_on_any_address() -> None:
    """In a process of its own: a start that comes so far has changed the process."""
    settings = {"KIMI_INTROSPECTION_CLIENT_SECRET": SECRET}
    ended = await kimi_process("serve", "--transport", "http", "--host", "0.0.0.0", "--port", "0", settings=settings)
    assert (ended.status, ended.out) == (1, "")
    assert "KIMI_INTROSPECTION_URL" in ended.err
    assert SECRET not in ended.err
