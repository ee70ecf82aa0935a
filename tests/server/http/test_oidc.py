"""JWTs of an issuer: which are accepted."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import read_settings
from kimi_mcp.server.http.auth.oidc import OidcVerifier, oidc_verifier
from tests.server.http.identity_provider import (
    AUDIENCE,
    NOW,
    IdentityProvider,
    b64,
    encoded,
    jwk,
    kind_of,
    public_pem,
    signed,
    signed_with_secret,
)

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


# ----------------------------------------------------------------------------------------------- what is accepted


async def test_a_good_token_says_who_calls_and_what_for(idp: IdentityProvider, verifier: OidcVerifier) -> None:
    found = await verifier.verify_token(idp.token(client_id="an agent", exp=NOW + 300))
    assert found is not None
    assert (found.subject, found.claims, found.client_id) == ("alice", {"iss": idp.issuer, "sub": "alice"}, "an agent")
    assert (found.scopes, found.resource, found.expires_at) == (["kimi:call"], AUDIENCE, NOW + 360)
    assert found.token == "", "whatever holds it may be logged"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_each_asymmetric_algorithm_is_accepted(
    idp: IdentityProvider, verifier: OidcVerifier, algorithm: str
) -> None:
    idp.keys = {"keys": [jwk(kind_of(algorithm), "b")]}
    assert await verifier.verify_token(signed({"alg": algorithm, "kid": "b"}, idp.claims())) is not None


@pytest.mark.parametrize(
    ("changed", "scopes"),
    [
        ({"scope": "kimi:call kimi:admin"}, ["kimi:call", "kimi:admin"]),
        ({"scope": None, "scp": ["kimi:swarm", 7]}, ["kimi:swarm"]),
        ({"scope": None, "scp": "kimi:swarm"}, ["kimi:swarm"]),
        ({"scope": None}, []),
        ({"scope": "", "scp": "kimi:swarm"}, ["kimi:swarm"]),
        ({"scope": 7}, []),
    ],
)
async def test_scopes_are_read_in_each_form(
    idp: IdentityProvider, verifier: OidcVerifier, changed: dict[str, Any], scopes: list[str]
) -> None:
    found = await verifier.verify_token(idp.token(**changed))
    assert found is not None
    assert found.scopes == scopes


@pytest.mark.parametrize(
    ("header", "changed"),
    [
        ({"typ": "at+jwt"}, {}),
        ({"typ": "application/AT+JWT"}, {}),
        ({}, {"aud": ["https://other.example.org", AUDIENCE], "azp": "an agent"}),
        ({}, {"exp": NOW - 50}),
        ({}, {"nbf": NOW + 50, "iat": NOW + 50}),
        ({}, {"sub": "Zoë Ångström|github|42"}),
        # Where a token says that its key is found is never looked at.
        ({"jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/x", "jwk": {"kty": "oct", "k": "AA"}}, {}),
    ],
)
async def test_what_the_standards_leave_open_is_accepted(
    idp: IdentityProvider, verifier: OidcVerifier, header: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert await verifier.verify_token(idp.token(header, **changed)) is not None
    assert idp.requests == [*idp.places, "/keys"]


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW - 3600},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": -1},
        {"nbf": NOW + 3600},
        {"iat": NOW + 3600},
        {"nbf": "soon"},
        {"aud": "https://other.example.org/mcp"},
        {"aud": AUDIENCE + "/"},
        {"aud": None},
        {"aud": []},
        {"aud": [[AUDIENCE], {}]},
        {"aud": {AUDIENCE: AUDIENCE}},
        {"iss": "https://other.example.org"},
        {"iss": None},
        {"iss": ["x"]},
        {"sub": None},
        {"sub": ""},
        {"sub": " "},
        {"sub": "alice "},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": "a\x00b"},
        {"sub": "a\u202eb"},
        {"sub": "\ud800"},
        {"sub": "x" * 256},
        {"cnf": {"jkt": "x"}},
        {"padding": "x" * 17_000},
    ],
    ids=lambda changed: f"{changed!r:.40}",
)
async def test_a_token_with_a_wrong_claim_is_refused(
    idp: IdentityProvider, verifier: OidcVerifier, changed: dict[str, Any]
) -> None:
    token = signed({"alg": "ES256", "kid": "a"}, {**idp.claims(), **changed} if changed else {})
    if None in changed.values():
        token = idp.token(**changed)
    assert await verifier.verify_token(token) is None


def forged(idp: IdentityProvider) -> dict[str, str]:
    """Tokens that nobody has signed, or not as their header says."""
    good, claims = idp.token(), idp.claims()
    head, body, end = good.split(".")
    encrypted = b64(b'{"alg":"RSA-OAEP","enc":"A256GCM"}')
    none = encoded({"alg": "none"}, claims).decode()
    secrets = {"pem": public_pem("ES256"), "jwk": json.dumps(idp.keys["keys"][0]).encode(), "empty": b""}
    confused = {
        f"HS256 with the public key as {name}": signed_with_secret({"alg": "HS256", "kid": "a"}, claims, secret)
        for name, secret in secrets.items()
    }
    return {
        **confused,
        "empty": "",
        "garbage": "garbage",
        "dots": "..",
        "more dots": "." * 5_000,
        "words": "a.b.c",
        "not ASCII": good + "ü",
        "not signed": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "five parts, as JWE": f"{encrypted}.{end}.{end}.{body}.{end}",
        "another's signature": idp.token(sub="bob").rsplit(".", 1)[0] + f".{end}",
        "another key": signed({"alg": "ES256", "kid": "a"}, claims, which=1),
        "alg none": f"{none}.",
        "alg None, signed": f"{encoded({'alg': 'nOnE', 'kid': 'a'}, claims).decode()}.{end}",
        "no alg": f"{encoded({'kid': 'a'}, claims).decode()}.{end}",
        "alg is a list": f"{encoded({'alg': ['ES256'], 'kid': 'a'}, claims).decode()}.{end}",
        "kid is a number": f"{encoded({'alg': 'ES256', 'kid': 7}, claims).decode()}.{end}",
        "kid of a key of another type": signed({"alg": "RS256", "kid": "a"}, claims),
        "kid of a key of another curve": signed({"alg": "ES384", "kid": "a"}, claims),
        "kid of an encryption key": signed({"alg": "EdDSA", "kid": "enc"}, claims),
        "kid of a short key": f"{encoded({'alg': 'RS256', 'kid': 'short'}, claims).decode()}.{end}",
        "kid of a key for another algorithm": signed({"alg": "RS256", "kid": "ps"}, claims),
        "kid that leads out": signed({"alg": "ES256", "kid": "../../dev/null"}, claims),
        "its own key": signed({"alg": "EdDSA", "kid": "own", "jwk": jwk("EdDSA", "own")}, claims),
        "no kid where there is a choice": signed({"alg": "ES256"}, claims),
        "critical header": idp.token({"crit": ["exp"], "exp": NOW + 300}),
        "critical b64": idp.token({"crit": ["b64"], "b64": True}),
        "payload of its own": idp.token({"crit": ["b64"], "b64": False}),
        "a logout token": idp.token({"typ": "logout+jwt"}),
        "typ is a number": idp.token({"typ": 7}),
        "header is a list": signed_with_secret({}, claims, b"x" * 40).replace(b64(b"{}"), b64(b"[]"), 1),
        "header is deep": f"{b64(b'[' * 9_000)}.{body}.{end}",
        "claims are a list": signed({"alg": "ES256", "kid": "a"}, [claims]),
        "claims are no JSON": signed({"alg": "ES256", "kid": "a"}, b"\xff{"),
        "claims have a huge number": signed({"alg": "ES256", "kid": "a"}, b'{"exp": ' + b"9" * 6_000 + b"}"),
        "huge header": idp.token({"x": "x" * 17_000}),
    }


FORGED = list(forged(IdentityProvider(1)))


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_refused(
    idp: IdentityProvider, verifier: OidcVerifier, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    idp.keys["keys"] += [
        jwk("ES256", "b", which=2),
        jwk("EdDSA", "enc", use="enc"),
        jwk("RSA-1024", "short"),
        jwk("RSA-2048", "ps", alg="PS256"),
        {"kty": "oct", "kid": "secret", "k": b64(b"x" * 32)},
    ]
    token = forged(idp)[name]
    assert await verifier.verify_token(token) is None
    ours = "".join(record.getMessage() for record in caplog.records)
    assert not [part for part in token.split(".") if len(part) > 6 and part in ours]


async def test_a_secret_in_a_set_of_keys_signs_nothing(idp: IdentityProvider, verifier: OidcVerifier) -> None:
    idp.keys["keys"].append({"kty": "oct", "kid": "b", "k": b64(b"x" * 32), "alg": "HS256"})
    token = signed_with_secret({"alg": "HS256", "kid": "b"}, idp.claims(), b"x" * 32)
    assert await verifier.verify_token(token) is None


async def test_a_token_may_leave_out_its_key_where_there_is_no_choice(
    idp: IdentityProvider, verifier: OidcVerifier
) -> None:
    idp.keys = {"keys": [jwk("ES256", None), jwk("EdDSA", "b")]}
    assert await verifier.verify_token(signed({"alg": "ES256"}, idp.claims())) is not None


# ------------------------------------------------------------------------------------------------------- settings


async def test_the_audience_is_the_servers_url_unless_it_is_set(idp: IdentityProvider) -> None:
    for variables, audience in ({}, AUDIENCE), ({"KIMI_OIDC_AUDIENCE": "kimi"}, "kimi"):
        verifier = oidc_verifier(read_settings({"KIMI_OIDC_ISSUER": idp.issuer, **variables}), AUDIENCE)
        found = await verifier.verify_token(idp.token(aud=audience, exp=2**40, iat=0))
        assert found is not None
        assert found.resource == AUDIENCE
        assert await verifier.verify_token(idp.token(aud="another", exp=2**40, iat=0)) is None


def test_an_audience_without_an_issuer_is_a_mistake() -> None:
    with pytest.raises(NotConfigured, match="KIMI_OIDC_AUDIENCE"):
        oidc_verifier(read_settings({"KIMI_OIDC_AUDIENCE": "kimi"}), AUDIENCE)
