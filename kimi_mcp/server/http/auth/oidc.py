"""``OidcVerifier``: tokens that an OpenID provider, or another issuer of JWTs (RFC 9068), has signed. I/O: its keys.

The algorithm must be one of a fixed list, and fit the type of the key. Keys come from the issuer's own set alone: what
a token's header says about them (``jku``, ``jwk``, ``x5u``, ``x5c``) is never looked at.

An ID token is accepted where its audience is ours: an operator who names a client's id in ``KIMI_OIDC_AUDIENCE`` wants
that. Other tokens that name their kind (``typ``), such as logout tokens, are refused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
from mcp.server.auth.provider import AccessToken

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import Settings
from kimi_mcp.server.http.auth.claims import MAX_TOKEN_BYTES, ResourceServer, TokenRefused, access_token, server_of
from kimi_mcp.server.http.auth.issuer_keys import KEY_TYPES, IssuerKeys
from kimi_mcp.server.http.auth.known_tokens import ACCEPTED_S, KnownTokens, hash_of

TOKEN_TYPES: Final = ("", "jwt", "at+jwt", "application/at+jwt")
"""What ``typ`` may be, in small letters."""

_logger = logging.getLogger(__name__)


class OidcVerifier:
    """A ``TokenVerifier`` for the JWTs of one issuer."""

    def __init__(self, issuer: str, server: ResourceServer, clock: Callable[[], float] = time.time) -> None:
        """``issuer``: its URL, to the letter as it names itself; ``clock``: seconds since 1970."""
        self._issuer, self._server, self._clock = issuer, server, clock
        self._keys = IssuerKeys(issuer)
        self._accepted = KnownTokens()

    async def ready(self) -> None:
        """Read the issuer's keys unless they are known. Raises ``Refusal`` where it does not answer."""
        await self._keys.load()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Who bears the token; None: it is no token of this issuer for us.

        Raises ``Refusal`` (503) where that can't be known because the issuer does not answer.
        """
        if not 0 < len(token) <= MAX_TOKEN_BYTES or not token.isascii():
            return None
        key = hash_of(token)
        if (known := self._accepted.get(key)) is not None:
            return known.token
        try:
            accepted = await self._verify(token)
        except TokenRefused as refused:
            _logger.info("a token was refused as JWT: %s", refused)
            return None
        self._accepted.put(key, accepted, min(ACCEPTED_S, (accepted.expires_at or 0) - self._clock()))
        return accepted

    async def _verify(self, token: str) -> AccessToken:
        unverified = _decode(token, "", {"verify_signature": False})
        algorithm = _checked(unverified["header"])
        if unverified["payload"].get("iss") != self._issuer:
            raise TokenRefused("It is of another issuer.")
        key = await self._keys.find(algorithm, unverified["header"].get("kid"))
        claims = _decode(token, key, _SIGNATURE_ALONE, algorithm)["payload"]
        if claims.get("exp") is None:
            raise TokenRefused("It never expires (`exp`).")
        return access_token(claims, issuer=self._issuer, server=self._server, now=self._clock())


def oidc_verifier(settings: Settings, resource: str) -> OidcVerifier:
    """The verifier of the settings; ``resource``: the URL by which clients reach us. Raises ``NotConfigured``."""
    if settings.oidc_issuer is None:
        raise NotConfigured(
            "KIMI_OIDC_AUDIENCE is set, but no issuer of tokens.",
            fix="Set KIMI_OIDC_ISSUER or KIMI_INTROSPECTION_URL, or unset KIMI_OIDC_AUDIENCE.",
        )
    return OidcVerifier(settings.oidc_issuer, server_of(settings, resource))


_SIGNATURE_ALONE: Final = {
    **dict.fromkeys((f"verify_{name}" for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")), False),
    "enforce_minimum_key_length": True,
}
"""PyJWT checks the signature; ``claims`` holds the claims of every kind of token to one rule."""


def _decode(token: str, key: Any, options: Mapping[str, Any], algorithm: str = "") -> dict[str, Any]:
    try:
        return jwt.decode_complete(token, key, [algorithm], options=dict(options))  # type: ignore[arg-type]
    except jwt.PyJWTError as fault:
        raise TokenRefused(_REASONS.get(type(fault), "It is no signed JWT.")) from None


_REASONS: Final[Mapping[type[jwt.PyJWTError], str]] = {
    jwt.InvalidSignatureError: "Its signature is wrong.",
    jwt.InvalidKeyError: "Its issuer's key is too short, or does not fit its algorithm.",
}


def _checked(header: Mapping[str, Any]) -> str:
    """The algorithm of a header that can be accepted. Raises ``TokenRefused``."""
    algorithm, kind = header.get("alg"), header.get("typ", "")
    if not isinstance(algorithm, str) or algorithm not in KEY_TYPES:
        raise TokenRefused("Its algorithm is not accepted.")
    if not isinstance(kind, str) or kind.lower() not in TOKEN_TYPES:
        raise TokenRefused("It is no access token (`typ`).")
    if "crit" in header or "b64" in header:
        raise TokenRefused("It has critical headers.")
    return algorithm
