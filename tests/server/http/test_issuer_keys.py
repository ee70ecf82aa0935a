"""Where the keys of an issuer come from, and what happens while it does not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from kimi_mcp.server.http.auth.issuer_keys import FRESH_S, KEPT_S, RENEW_EVERY_S, RETRY_S
from kimi_mcp.server.http.auth.oidc import OidcVerifier
from kimi_mcp.server.http.refusal import Refusal
from tests.loop_time import LoopTime, fail_after_real
from tests.server.http.identity_provider import (
    NOW,
    US,
    IdentityProvider,
    identity_provider,
    jwk,
    signed,
)


async def unknown(verifier: OidcVerifier, token: str) -> bool:
    """Whether a token can be neither accepted nor refused now."""
    try:
        await verifier.verify_token(token)
    except Refusal as refusal:
        response = refusal.response()
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert token.encode() not in response.body
        return True
    return False


@pytest.mark.parametrize("path", ["", "/", "/realms/team", "/realms/team/"])
@pytest.mark.parametrize("standard", ["OpenID Connect", "RFC 8414"])
async def test_keys_are_found_by_either_kind_of_metadata(path: str, standard: str) -> None:
    async with identity_provider(path) as idp:
        if standard == "RFC 8414":
            idp.places = ["/.well-known/oauth-authorization-server" + path.rstrip("/")]
        found = await OidcVerifier(idp.issuer, US, clock=lambda: NOW).verify_token(idp.token())
        assert found is not None
        assert found.claims == {"iss": idp.issuer, "sub": "alice"}


async def test_keys_are_read_once_for_all_who_ask_at_once(idp: IdentityProvider, verifier: OidcVerifier) -> None:
    idp.gate = asyncio.Event()
    found: list[Any] = []

    async def call() -> None:
        found.append(await verifier.verify_token(idp.token()))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(21):
                tasks.start_soon(call)
            while not idp.requests:
                await anyio.sleep(0.01)
            idp.gate.set()
    assert len(found) == 21
    assert None not in found
    assert idp.requests == [*idp.places, "/keys"]


async def test_keys_survive_the_client_that_asked_for_them_first(idp: IdentityProvider, verifier: OidcVerifier) -> None:
    idp.gate = asyncio.Event()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(verifier.verify_token, idp.token())
            while not idp.requests:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
            idp.gate.set()
    assert await verifier.verify_token(idp.token()) is not None
    assert idp.requests == [*idp.places, "/keys"]


async def test_unknown_keys_make_us_ask_seldom_and_a_new_one_is_found(
    idp: IdentityProvider, verifier: OidcVerifier, loop_time: LoopTime
) -> None:
    for number in range(50):
        assert await verifier.verify_token(idp.token({"kid": f"forged {number}"})) is None
    assert idp.requests.count("/keys") == 1
    idp.keys["keys"].append(jwk("EdDSA", "new"))
    renewed = signed({"alg": "EdDSA", "kid": "new"}, idp.claims())
    assert await verifier.verify_token(renewed) is None
    await loop_time.forward(RENEW_EVERY_S)
    assert await verifier.verify_token(renewed) is not None
    assert idp.requests.count("/keys") == 2


async def test_a_key_that_was_withdrawn_counts_no_longer(
    idp: IdentityProvider, verifier: OidcVerifier, loop_time: LoopTime
) -> None:
    assert await verifier.verify_token(idp.token()) is not None
    idp.keys = {"keys": [jwk("EdDSA", "new")]}
    assert await verifier.verify_token(idp.token()) is not None
    await loop_time.forward(FRESH_S)
    assert await verifier.verify_token(idp.token()) is None


async def test_a_token_is_remembered_no_longer_than_it_is_valid(idp: IdentityProvider, loop_time: LoopTime) -> None:
    verifier = OidcVerifier(idp.issuer, US, clock=lambda: NOW + loop_time.passed)
    token = idp.token(exp=NOW + 20)
    assert await verifier.verify_token(token) is not None
    await loop_time.forward(79)
    assert await verifier.verify_token(token) is not None
    await loop_time.forward(1)
    assert await verifier.verify_token(token) is None


async def test_known_keys_outlive_an_outage_for_some_hours(
    idp: IdentityProvider, verifier: OidcVerifier, loop_time: LoopTime
) -> None:
    assert await verifier.verify_token(idp.token()) is not None
    idp.status = 503
    await loop_time.forward(FRESH_S)
    assert await verifier.verify_token(idp.token()) is not None
    assert await unknown(verifier, idp.token({"kid": "new"})), "it may be good: that can't be known"
    await loop_time.forward(KEPT_S)
    assert await unknown(verifier, idp.token())
    idp.status = 200
    await loop_time.forward(RETRY_S)
    assert await verifier.verify_token(idp.token()) is not None


async def test_a_token_of_another_issuer_asks_nobody(idp: IdentityProvider, verifier: OidcVerifier) -> None:
    assert await verifier.verify_token(idp.token(iss="https://other.example.org")) is None
    assert idp.requests == []


BROKEN = {
    "another issuer": lambda idp: idp.metadata.update(issuer=idp.issuer + "/"),
    "no place of keys": lambda idp: idp.metadata.pop("jwks_uri"),
    "keys by http": lambda idp: idp.metadata.update(jwks_uri="http://keys.example.org/"),
    "keys in a file": lambda idp: idp.metadata.update(jwks_uri="file:///etc/passwd"),
    "keys at no URL": lambda idp: idp.metadata.update(jwks_uri=["x"]),
    "metadata is a list": lambda idp: setattr(idp, "metadata", [1]),
    "metadata is too large": lambda idp: idp.metadata.update(more="x" * 600_000),
    "metadata is deep": lambda idp: setattr(idp, "metadata", b"[" * 100_000),
    "there is none": lambda idp: idp.places.clear(),
    "keys are a text": lambda idp: setattr(idp, "keys", {"keys": "no"}),
    "keys are none": lambda idp: setattr(
        idp,
        "keys",
        {
            "keys": [
                7,
                None,
                {},
                {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
                {"kty": ["RSA"]},
                {"kty": "RSA", "alg": {}, "n": 7, "e": []},
                {"kty": "RSA", "n": "!", "e": "!", "key_ops": 7},
                {"kty": "OKP", "crv": "Ed448", "x": "AA"},
                {**jwk("ES256", "a"), "d": "AA"},
                {**jwk("ES256", "a"), "kid": 7},
                {**jwk("ES256", "a"), "alg": "HS256"},
                {**jwk("ES256", "a"), "key_ops": ["sign"]},
            ]
        },
    ),
    "it fails": lambda idp: setattr(idp, "status", 500),
    "it redirects": lambda idp: vars(idp).update(status=302, headers="Location: /keys\r\n"),
    "it speaks no HTTP": lambda idp: setattr(idp, "headers", "\x00\r\n"),
    "it answers compressed": lambda idp: setattr(idp, "headers", "Content-Encoding: br\r\n"),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_an_issuer_whose_keys_can_not_be_had_lets_nobody_in(
    idp: IdentityProvider, verifier: OidcVerifier, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = idp.token()
    if how == "it answers compressed":
        idp.metadata = b"\x00"
    BROKEN[how](idp)
    assert await unknown(verifier, token)
    requested = len(idp.requests)
    assert await unknown(verifier, token)
    assert len(idp.requests) == requested, "it is not asked again at once"
    assert "the keys of KIMI_OIDC_ISSUER can't be read: " in caplog.text
    assert idp.origin not in caplog.text
    with pytest.raises(Refusal):
        await verifier.ready()


async def test_an_issuer_that_is_silent_is_waited_for_a_short_while(
    idp: IdentityProvider, verifier: OidcVerifier, loop_time: LoopTime
) -> None:
    idp.gate = asyncio.Event()
    outcome: list[bool] = []

    async def call() -> None:
        outcome.append(await unknown(verifier, idp.token()))

    with fail_after_real(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            while not idp.requests:
                await anyio.sleep(0.01)
            await loop_time.until(lambda: outcome)
    idp.gate.set()
    assert outcome == [True]
