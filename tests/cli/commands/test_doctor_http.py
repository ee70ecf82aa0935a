"""``kimi-mcp doctor`` on the settings of the HTTP server: what they make of it, and each mistake with its fix."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands.shell import kimi
from tests.cli.commands.test_doctor import findings
from tests.server.http.identity_provider import CLIENT, identity_provider

URL = "https://kimi.example.org/mcp"
SECRET = "s3cret-of-n0body"


async def diagnosed(*options: str, **settings: str) -> Any:
    """The findings that there are before a provider is looked for."""
    ended = await kimi("doctor", "--json", *options, settings=settings)
    assert SECRET not in ended.out + ended.err
    return ended.json


async def with_tokens(file: Path, *names: str) -> dict[str, str]:
    """The setting for a file with tokens of these names."""
    settings = {"KIMI_HTTP_TOKENS": str(file)}
    for name in names:
        assert (await kimi("tokens", "add", name, settings=settings)).status == 0
    return settings


async def test_what_the_settings_make_of_the_server_is_explained(tmp_path: Path) -> None:
    tokens = await with_tokens(tmp_path / "tokens", "alice", "bob")
    more = {"KIMI_HTTP_ORIGINS": "https://app.example", "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY": "5"}
    explained = findings(await diagnosed(**tokens, KIMI_HTTP_URL=URL, **more), "ok")
    for words in (
        f"clients reach this server at {URL}",
        "1 other origin",
        "callers need a token (KIMI_HTTP_TOKENS)",
        "none of its files",
        "30 s at the end",
        "KIMI_HTTP_TOKENS has 2 tokens.",
        "60 calls a minute, 8 at once, and spend 5.00 USD a day; all together any amount",
    ):
        assert words in explained


async def test_nothing_is_reported_of_it_where_none_of_its_settings_is_set() -> None:
    assert not {check["about"] for check in (await diagnosed())["checks"]} & {"http", "tokens", "limits"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"KIMI_HTTP_URL": URL}, "http: KIMI_HTTP_URL names another machine, but callers need no token"),
        ({"KIMI_HTTP_URL": "http://kimi.example.org"}, "http: KIMI_HTTP_URL is plain http"),
        ({"KIMI_HTTP_ORIGINS": "http://app.example"}, "http: KIMI_HTTP_ORIGINS has an origin of plain http"),
        ({"KIMI_HTTP_URL": URL, "KIMI_ROOTS": "/"}, "http: KIMI_ROOTS is set on a server for others"),
        ({"KIMI_DRAIN_S": "0"}, "http: KIMI_DRAIN_S is 0"),
        ({"KIMI_OIDC_ISSUER": "https://id.example.org"}, "tokens: Neither KIMI_OIDC_AUDIENCE nor KIMI_HTTP_URL is set"),
        (
            {
                "KIMI_OIDC_ISSUER": "https://id.example.org",
                "KIMI_BUDGET_USD_PER_PRINCIPAL_DAY": "9",
                "KIMI_BUDGET_USD_PER_DAY": "5",
            },
            "limits: KIMI_BUDGET_USD_PER_PRINCIPAL_DAY is above KIMI_BUDGET_USD_PER_DAY",
        ),
        (
            {"KIMI_OIDC_ISSUER": "https://id.example.org", "KIMI_QUOTA_ALL_CALLS_PER_MINUTE": "10"},
            "limits: KIMI_QUOTA_CALLS_PER_MINUTE is above KIMI_QUOTA_ALL_CALLS_PER_MINUTE",
        ),
    ],
)
async def test_what_is_worth_a_look_is_named_with_its_fix(settings: dict[str, str], expected: str) -> None:
    diagnosis = await diagnosed(**settings)
    assert expected in findings(diagnosis, "warn")
    assert all(check["fix"] for check in diagnosis["checks"] if check["state"] == "warn")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"KIMI_HTTP_URL": "kimi.example"}, "settings: KIMI_HTTP_URL can't be read"),
        ({"KIMI_HTTP_TOKENS": "/nowhere/tokens"}, "http: KIMI_HTTP_TOKENS names a file that does not exist"),
        ({"KIMI_HTTP_URL": URL, "KIMI_ROOTS": "/nowhere"}, "http: KIMI_ROOTS names a folder that is not there"),
        ({"KIMI_OIDC_AUDIENCE": "kimi"}, "http: KIMI_OIDC_AUDIENCE is set, but no issuer"),
        ({"KIMI_INTROSPECTION_CLIENT_SECRET": SECRET}, "KIMI_INTROSPECTION_CLIENT_ID must be set too"),
    ],
)
async def test_what_keeps_it_from_starting_is_named_with_its_fix(settings: dict[str, str], expected: str) -> None:
    diagnosis = await diagnosed(**settings)
    assert expected in findings(diagnosis, "bad")


async def test_expired_tokens_are_named_and_a_server_without_others_is_reported(tmp_path: Path) -> None:
    settings = await with_tokens(file := tmp_path / "tokens", "alice", "bob")
    content = json.loads(file.read_text("utf-8"))
    content["tokens"][0]["expires"] = "2026-01-01T00:00:00Z"
    file.write_text(json.dumps(content), "utf-8")
    diagnosis = await diagnosed(**settings)
    assert "1 token, and 1 more that expired" in findings(diagnosis, "ok")
    assert "Expired, and refused: alice." in findings(diagnosis, "warn")
    await kimi("tokens", "revoke", "bob", settings=settings)
    assert "has no valid token" in findings(await diagnosed(**settings), "warn")


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
async def test_a_file_of_tokens_that_others_may_write_is_reported(tmp_path: Path) -> None:
    settings = await with_tokens(file := tmp_path / "tokens", "alice")
    assert "may write" not in findings(await diagnosed(**settings), "warn")
    file.chmod(0o620)
    assert "may write the file of KIMI_HTTP_TOKENS (mode 620)" in findings(await diagnosed(**settings), "warn")


async def test_a_probe_asks_those_who_issue_tokens_and_says_why_they_do_not_do() -> None:
    async with identity_provider() as idp:
        settings = {
            "KIMI_HTTP_URL": URL,
            "KIMI_OIDC_ISSUER": idp.issuer,
            "KIMI_INTROSPECTION_URL": f"{idp.origin}/introspect",
            "KIMI_INTROSPECTION_CLIENT_ID": CLIENT[0],
            "KIMI_INTROSPECTION_CLIENT_SECRET": CLIENT[1],
        }
        await diagnosed(**settings)
        assert idp.requests == [], "nobody is asked without a probe"
        explained = findings(await diagnosed("--probe", **settings), "ok")
        assert "KIMI_OIDC_ISSUER answers" in explained
        assert "KIMI_INTROSPECTION_URL answers" in explained
        idp.metadata["issuer"] += "/"
        wrong = await diagnosed("--probe", **settings | {"KIMI_INTROSPECTION_CLIENT_SECRET": SECRET})
        assert "Its metadata names another issuer" in findings(wrong, "bad")
        assert "check KIMI_INTROSPECTION_CLIENT_ID and its secret" in findings(wrong, "bad")
