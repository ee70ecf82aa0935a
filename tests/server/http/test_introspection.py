"""Tokens about which their issuer is asked (RFC 7662): which are accepted, for how long, and what an outage does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from mcp.server.auth.provider import AccessToken

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.redaction import scrub
from kimi_mcp.core.settings import read_settings
from kimi_mcp.server.http.auth.claims import ResourceServer
from kimi_mcp.server.http.auth.introspection import (
    AT_ONCE,
    REFUSED_S,
    IntrospectionVerifier,
    introspection_verifier,
)
from kimi_mcp.server.http.auth.known_tokens import ACCEPTED_S
from kimi_mcp.server.http.refusal import Refusal
from tests.loop_time import LoopTime, fail_after_real
from tests.server.http.identity_provider import AUDIENCE, CLIENT, NOW, IdentityProvider, identity_provider

US = ResourceServer(AUDIENCE, AUDIENCE)

TOKEN = "opaque-token+of/alice=="

ALICE = {"active": True, "sub": "alice", "aud": AUDIENCE, "scope": "kimi:call kimi:swarm"}


@pytest.fixture
async def idp() -> AsyncIterator[IdentityProvider]:
    async with identity_provider() as provider:
        provider.tokens[TOKEN] = dict(ALICE)
        yield provider


@pytest.fixture
def verifier(idp: IdentityProvider) -> IntrospectionVerifier:
    return IntrospectionVerifier(f"{idp.origin}/introspect", *CLIENT, US, clock=lambda: NOW)


async def test_an_active_token_says_who_calls_and_what_for(
    idp: IdentityProvider, verifier: IntrospectionVerifier
) -> None:
    found = await verifier.verify_token(TOKEN)
    assert found is not None
    assert (found.subject, found.scopes, found.resource) == ("alice", ["kimi:call", "kimi:swarm"], AUDIENCE)
    assert found.claims == {"iss": idp.origin, "sub": "alice"}, "without `iss` it is the endpoint's origin"
    assert found.token == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://id.example.org/"},
        {"aud": ["x", AUDIENCE], "exp": NOW + 300, "iat": NOW, "token_type": "Bearer", "client_id": "an agent"},
        {"token_type": None, "token_use": "access_token"},
        {"exp": NOW - 30},
    ],
)
async def test_what_the_standard_leaves_open_is_accepted(
    idp: IdentityProvider, verifier: IntrospectionVerifier, changed: dict[str, Any]
) -> None:
    idp.tokens[TOKEN].update(changed)
    found = await verifier.verify_token(TOKEN)
    assert found is not None
    assert (found.claims or {})["iss"] == changed.get("iss", idp.origin)


@pytest.mark.parametrize(
    "changed",
    [
        {"active": False},
        {"active": None},
        {"active": "true"},
        {"active": 1},
        {"sub": None, "username": "alice"},
        {"sub": ""},
        {"sub": "a\rb"},
        {"sub": ["alice"]},
        {"aud": None},
        {"aud": "https://other.example.org/mcp"},
        {"aud": ["x"]},
        {"iss": "kimi-mcp"},
        {"iss": 7},
        {"iss": "https://id.example.org/\n"},
        {"exp": NOW - 3600},
        {"exp": "soon"},
        {"nbf": NOW + 3600},
        {"token_type": "DPoP"},
        {"token_use": "refresh_token"},
        {"cnf": {"x5t#S256": "x"}},
    ],
    ids=str,
)
async def test_an_answer_that_does_not_vouch_for_the_bearer_is_a_refusal(
    idp: IdentityProvider, verifier: IntrospectionVerifier, changed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kimi_mcp")
    idp.tokens[TOKEN].update(changed)
    assert await verifier.verify_token(TOKEN) is None
    assert "a token was refused by introspection" in caplog.text
    assert "alice" not in caplog.text


@pytest.mark.parametrize("token", ["", "x" * 17_000, "a\nb", "ü", "\x00"])
async def test_nobody_is_asked_about_what_is_no_token(
    idp: IdentityProvider, verifier: IntrospectionVerifier, token: str
) -> None:
    assert await verifier.verify_token(token) is None
    assert idp.requests == []


@pytest.mark.parametrize(("expiry", "seconds"), [(None, ACCEPTED_S), (NOW + 10_000, ACCEPTED_S), (NOW + 20, 20)])
async def test_an_accepted_token_is_asked_about_again_after_a_minute_or_once_it_has_expired(
    idp: IdentityProvider, loop_time: LoopTime, expiry: int | None, seconds: float
) -> None:
    verifier = IntrospectionVerifier(f"{idp.origin}/introspect", *CLIENT, US, clock=lambda: NOW)
    idp.tokens[TOKEN]["exp"] = expiry
    assert await verifier.verify_token(TOKEN) is not None
    idp.tokens.clear()
    assert await verifier.verify_token(TOKEN) is not None
    await loop_time.forward(seconds)
    assert await verifier.verify_token(TOKEN) is None
    assert idp.requests == ["/introspect"] * 2


async def test_a_refused_token_is_soon_asked_about_again(
    idp: IdentityProvider, verifier: IntrospectionVerifier, loop_time: LoopTime
) -> None:
    known = idp.tokens.pop(TOKEN)
    assert await verifier.verify_token(TOKEN) is None
    idp.tokens[TOKEN] = known
    assert await verifier.verify_token(TOKEN) is None
    await loop_time.forward(REFUSED_S)
    assert await verifier.verify_token(TOKEN) is not None


async def ask_at_once(idp: IdentityProvider, verifier: IntrospectionVerifier, times: int) -> list[Any]:
    """What callers with the same token get, who all ask before the first answer."""
    idp.gate = asyncio.Event()
    found: list[AccessToken | Refusal | None] = []

    async def call() -> None:
        try:
            found.append(await verifier.verify_token(TOKEN))
        except Refusal as refusal:
            found.append(refusal)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(times):
                tasks.start_soon(call)
            while not idp.requests:
                await anyio.sleep(0.01)
            idp.gate.set()
    return found


async def test_one_question_serves_all_who_ask_at_once(idp: IdentityProvider, verifier: IntrospectionVerifier) -> None:
    found = await ask_at_once(idp, verifier, 20)
    assert [each.subject for each in found] == ["alice"] * 20
    assert idp.requests == ["/introspect"]


async def test_one_failure_serves_all_who_ask_at_once(idp: IdentityProvider, verifier: IntrospectionVerifier) -> None:
    idp.status = 500
    found = await ask_at_once(idp, verifier, 20)
    assert [each.status for each in found] == [503] * 20
    assert idp.requests == ["/introspect"]
    idp.status = 200
    assert await verifier.verify_token(TOKEN) is not None, "the next one asks again"


async def test_forged_tokens_drive_no_good_one_out_and_are_forgotten(idp: IdentityProvider) -> None:
    verifier = IntrospectionVerifier(f"{idp.origin}/introspect", *CLIENT, US, clock=lambda: NOW, max_refused=3)
    for token in (TOKEN, "forged 1", "forged 2", "forged 3", "forged 4", TOKEN, "forged 4", "forged 1"):
        assert (await verifier.verify_token(token) is not None) == (token == TOKEN)
    assert len(idp.requests) == 6


async def test_forged_tokens_keep_no_one_waiting_who_called_before(
    idp: IdentityProvider, verifier: IntrospectionVerifier, loop_time: LoopTime
) -> None:
    assert await verifier.verify_token(TOKEN) is not None
    await loop_time.forward(ACCEPTED_S)
    idp.gate = asyncio.Event()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(AT_ONCE + 4):
                tasks.start_soon(verifier.verify_token, f"forged {number}")
            while len(idp.requests) < 1 + AT_ONCE:
                await anyio.sleep(0.01)
            tasks.start_soon(verifier.verify_token, TOKEN)
            while len(idp.requests) < 1 + AT_ONCE + 1:
                await anyio.sleep(0.01)
            idp.gate.set()


BROKEN: dict[str, Any] = {
    "it fails": lambda idp: setattr(idp, "status", 500),
    "it redirects": lambda idp: vars(idp).update(status=307, headers="Location: /introspect\r\n"),
    "it does not know us": lambda idp: setattr(idp, "status", 401),
    "its answer is a list": lambda idp: idp.tokens.update({TOKEN: [ALICE]}),
    "its answer is no JSON": lambda idp: idp.tokens.update({TOKEN: b"<html>"}),
    "its answer is too large": lambda idp: idp.tokens[TOKEN].update(more="x" * 600_000),
    "its answer is deep": lambda idp: idp.tokens.update({TOKEN: b'{"a":' * 100_000}),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_an_endpoint_that_does_not_answer_lets_nobody_in_and_calls_no_token_wrong(
    idp: IdentityProvider, verifier: IntrospectionVerifier, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    BROKEN[how](idp)
    with pytest.raises(Refusal) as caught:
        await verifier.verify_token(TOKEN)
    response = caught.value.response()
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert "KIMI_INTROSPECTION_URL did not check a token" in caplog.text
    assert ("KIMI_INTROSPECTION_CLIENT_ID" in caplog.text) == (how == "it does not know us")
    shown = caplog.text + bytes(response.body).decode()
    assert not [each for each in (TOKEN, CLIENT[1], idp.origin) if each in shown]


async def test_an_endpoint_that_is_silent_is_waited_for_a_short_while(
    idp: IdentityProvider, verifier: IntrospectionVerifier, loop_time: LoopTime
) -> None:
    idp.gate = asyncio.Event()
    outcome: list[int] = []

    async def call() -> None:
        try:
            await verifier.verify_token(TOKEN)
        except Refusal as refusal:
            outcome.append(refusal.status)

    with fail_after_real(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            while not idp.requests:
                await anyio.sleep(0.01)
            await loop_time.until(lambda: outcome)
    idp.gate.set()
    assert outcome == [503]


# ------------------------------------------------------------------------------------------------------- settings

SETTINGS = {
    "KIMI_INTROSPECTION_URL": "https://id.example.org/introspect",
    "KIMI_INTROSPECTION_CLIENT_ID": "kimi",
    "KIMI_INTROSPECTION_CLIENT_SECRET": "correct-horse-battery",
}


def test_all_three_settings_make_a_verifier_and_the_secret_is_hidden() -> None:
    settings = read_settings(SETTINGS)
    assert settings.secrets == ("correct-horse-battery",), "what every start hides"
    assert introspection_verifier(settings, AUDIENCE) is not None
    assert "correct-horse" not in repr(settings) + scrub("the secret is correct-horse-battery")


@pytest.mark.parametrize("missing", SETTINGS)
def test_one_setting_of_three_that_is_missing_is_named(missing: str) -> None:
    with pytest.raises(NotConfigured, match=missing):
        introspection_verifier(read_settings({name: SETTINGS[name] for name in SETTINGS if name != missing}), AUDIENCE)
