"""Callers over HTTP whose tokens an identity provider vouches for, by its signature or when it is asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import read_settings
from kimi_mcp.server.http.auth.verifiers import Verifiers, kinds_set
from kimi_mcp.simulator import Simulator
from tests.loop_time import LoopTime
from tests.server.http.identity_provider import (
    AUDIENCE,
    CLIENT,
    IdentityProvider,
    encoded,
    identity_provider,
    public_pem,
    signed,
    signed_with_secret,
)
from tests.server.http.served import HELLO, OLDER, Served, bearer, message, served

ALWAYS: dict[str, Any] = {"exp": 2**40, "iat": 0}
"""Whatever the clock of this machine says."""


@pytest.fixture
async def idp() -> AsyncIterator[IdentityProvider]:
    async with identity_provider("/team") as provider:
        yield provider


def by_signature(idp: IdentityProvider) -> dict[str, Any]:
    return {"KIMI_HTTP_URL": AUDIENCE, "KIMI_OIDC_ISSUER": idp.issuer}


def by_question(idp: IdentityProvider) -> dict[str, Any]:
    return {
        "KIMI_HTTP_URL": AUDIENCE,
        "KIMI_INTROSPECTION_URL": f"{idp.origin}/introspect",
        "KIMI_INTROSPECTION_CLIENT_ID": CLIENT[0],
        "KIMI_INTROSPECTION_CLIENT_SECRET": CLIENT[1],
    }


def opaque(idp: IdentityProvider, subject: str, **changed: str) -> str:
    token = f"opaque-{subject}"
    idp.tokens[token] = {"active": True, **idp.claims(sub=subject, **ALWAYS), **changed}
    return token


async def status(http: Served, token: str) -> int:
    answer = await http.post(message("initialize", HELLO), OLDER | bearer(token))
    if answer.status_code == 401:
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert not [part for part in token.split(".") if len(part) > 6 and part in answer.text + str(answer.headers)]
    return answer.status_code


@pytest.mark.parametrize(("mode", "way"), [("legacy", "signature"), ("auto", "question")])
async def test_a_caller_is_issuer_and_subject_and_sees_its_own_runs_alone(
    sim: Simulator, idp: IdentityProvider, mode: str, way: str
) -> None:
    if way == "signature":
        variables = by_signature(idp)
        alice, bob = (idp.token(sub=name, **ALWAYS) for name in ("alice", "bob"))
    else:
        variables = by_question(idp)
        alice, bob = opaque(idp, "alice"), opaque(idp, "bob")
    async with served(sim, **variables) as http:
        async with http.client(mode, token=alice) as kimi:
            ours = await kimi.think()
            assert await http.runs.store.find(ours.run_id, f"{idp.issuer}#alice") is not None
        async with http.client(mode, token=bob) as kimi:
            assert (await kimi.run(ours.run_id)).error["code"] == "run_not_found"
    assert not [each for each in sim.requests if alice in json.dumps(each.headers)], "no token goes upstream"


async def test_clients_are_sent_to_the_issuer_and_a_scope_that_is_missing_is_named(
    sim: Simulator, idp: IdentityProvider
) -> None:
    async with served(sim, **by_signature(idp)) as http:
        metadata = (await http.raw.get("/.well-known/oauth-protected-resource/mcp")).json()
        assert metadata["authorization_servers"] == [idp.issuer]
        refused = await http.post(message("initialize", HELLO), OLDER | bearer(idp.token(scope="openid", **ALWAYS)))
        assert refused.status_code == 403
        assert 'scope="kimi:call"' in refused.headers["www-authenticate"]


async def test_a_forged_or_foreign_token_is_answered_with_401(sim: Simulator, idp: IdentityProvider) -> None:
    claims = idp.claims(**ALWAYS)
    wrong = [
        f"{encoded({'alg': 'none'}, claims).decode()}.",
        signed_with_secret({"alg": "HS256", "kid": "a"}, claims, public_pem("ES256")),
        signed({"alg": "ES256", "kid": "a"}, claims, which=1),
        idp.token({"kid": "unknown"}, **ALWAYS),
        idp.token(iat=0, exp=1),
        idp.token(aud="https://other.example.org/mcp", **ALWAYS),
        idp.token(iss="https://other.example.org", **ALWAYS),
        idp.token(iss=idp.issuer + "/", **ALWAYS),
        idp.token(sub="a\nb", **ALWAYS),
        "opaque",
    ]
    async with served(sim, **by_signature(idp)) as http:
        assert await status(http, idp.token(**ALWAYS)) == 200
        for token in wrong:
            assert await status(http, token) == 401
    assert idp.requests.count("/keys") == 1


async def test_each_token_is_shown_to_the_one_who_gave_it_out(sim: Simulator, idp: IdentityProvider) -> None:
    async with served(sim, **(by_signature(idp) | by_question(idp))) as http:
        assert await status(http, idp.token(**ALWAYS)) == 200
        assert await status(http, idp.token(aud="other", **ALWAYS)) == 401
        assert "/introspect" not in idp.requests
        assert await status(http, opaque(idp, "alice")) == 200
        assert await status(http, "kimi_a-token-of-the-servers-own") == 401
        assert idp.requests.count("/introspect") == 1


@pytest.mark.parametrize("way", ["signature", "question"])
async def test_while_the_provider_is_away_a_token_is_neither_right_nor_wrong(
    sim: Simulator, idp: IdentityProvider, loop_time: LoopTime, way: str
) -> None:
    variables = by_signature(idp) if way == "signature" else by_question(idp)
    token = idp.token(**ALWAYS) if way == "signature" else opaque(idp, "alice")
    idp.status = 500
    async with served(sim, **variables) as http:
        refused = await http.post(message("initialize", HELLO), OLDER | bearer(token))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        ready = await http.raw.get("/readyz")
        assert ready.status_code == (503 if way == "signature" else 200)
        idp.status = 200
        await loop_time.forward(5)
        assert (await http.raw.get("/readyz")).status_code == 200
        idp.status = 500
        assert (await http.raw.get("/readyz")).status_code == 200, "once it had the keys it goes on without"
        idp.status = 200
        assert await status(http, token) == 200


MISTAKES = {
    "an audience, but no issuer": ({"KIMI_OIDC_AUDIENCE": "kimi"}, "KIMI_OIDC_ISSUER"),
    "a secret, but no endpoint": ({"KIMI_INTROSPECTION_CLIENT_SECRET": "x" * 20}, "KIMI_INTROSPECTION_URL"),
    "an endpoint, but no client": (
        {"KIMI_INTROSPECTION_URL": "https://x.example/i", "KIMI_OIDC_AUDIENCE": "kimi"},
        "KIMI_INTROSPECTION_CLIENT_ID and KIMI_INTROSPECTION_CLIENT_SECRET",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_half_of_a_setting_keeps_the_server_from_starting(case: str) -> None:
    variables, named = MISTAKES[case]
    settings = read_settings(variables)
    assert kinds_set(settings), "no address is open to everybody for it"
    with pytest.raises(NotConfigured) as caught:
        Verifiers(settings, AUDIENCE)
    assert named in caught.value.fix
