"""``IssuerKeys``: the keys with which an issuer signs its tokens, found, cached and renewed. I/O: HTTP.

The issuer's metadata (OpenID Connect Discovery, else RFC 8414) names the place of its keys (JWKS). Both are read anew

- before the first token, and then every ``FRESH_S``, so that a key that was withdrawn is soon refused;
- for a key that is not known, but at most every ``RENEW_EVERY_S``: forged tokens must not make us flood the issuer.

While the issuer does not answer, known keys count until they are ``KEPT_S`` old.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

import anyio
from jwt import PyJWK, PyJWTError

from kimi_mcp.core.setting_values import is_https_or_local
from kimi_mcp.server.http.auth.claims import TokenRefused
from kimi_mcp.server.http.auth.fetching import FetchFailed, fetch_object, not_verifiable

FRESH_S: Final = 600.0
"""Seconds after which keys are read again."""

KEPT_S: Final = 6 * 3600.0
"""Seconds for which keys count while the issuer does not answer."""

RENEW_EVERY_S: Final = 30.0
"""Seconds from one reading to the next for an unknown key, or after a failed one."""

RETRY_S: Final = 5.0
"""Seconds from a failed reading to the next, while there are no keys."""

FETCH_S: Final = 10.0
"""Seconds for the metadata and the keys together."""

MAX_KEYS: Final = 100
"""Keys that are taken of a set."""

KEY_TYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "OKP",
}
"""The algorithms that are accepted, and the type (``kty``) of their keys. All of them are asymmetric: whoever knows a
public key can't sign with it."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Key:
    id: str | None
    type: str
    algorithm: str | None
    """The only one that it may be used with; None: any of its type."""
    key: Any


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._keys: tuple[_Key, ...] = ()
        self._read_at = self._next_at = float("-inf")
        self._failed = False
        self._lock = anyio.Lock()

    async def load(self) -> None:
        """Read the keys unless some are known. Raises ``Refusal`` where the issuer does not answer."""
        if not self._known():
            await self._renew()
            if not self._known():
                raise not_verifiable(int(RETRY_S))

    async def find(self, algorithm: str, key_id: str | None) -> Any:
        """The key for a token's header, as ``cryptography`` has it.

        Raises ``TokenRefused`` where the issuer has no such key, and ``Refusal`` where that can't be known.
        """
        key = self._find(algorithm, key_id)
        if key is None or (self._stale() and not self._lock.locked()):
            await self._renew()
            key = self._find(algorithm, key_id)
        if key is not None:
            return key
        if self._failed:
            raise not_verifiable(int(RETRY_S))
        raise TokenRefused("Its issuer has no such key.")

    def _known(self) -> tuple[_Key, ...]:
        return self._keys if anyio.current_time() - self._read_at < KEPT_S else ()

    def _stale(self) -> bool:
        return anyio.current_time() - self._read_at >= FRESH_S

    def _find(self, algorithm: str, key_id: str | None) -> Any:
        matching = [
            each.key
            for each in self._known()
            if each.type == KEY_TYPES[algorithm]
            and each.algorithm in (None, algorithm)
            and (key_id is None or each.id == key_id)
        ]
        # A token may leave out which key it is where there is no choice.
        return matching[0] if matching and (key_id is not None or len(matching) == 1) else None

    async def _renew(self) -> None:
        """Read the keys, unless that was done a moment ago; however many ask, one of them reads."""
        async with self._lock:
            if anyio.current_time() < self._next_at:
                return
            with anyio.CancelScope(shield=True):  # those who wait must not lose the keys to a client that leaves
                try:
                    with anyio.fail_after(FETCH_S):
                        keys = await self._fetched()
                except (FetchFailed, TimeoutError) as fault:
                    # Whoever tries it again may have to wait: seldom, where there are keys to go on with.
                    wait_s = RENEW_EVERY_S if self._known() else RETRY_S
                    self._failed, self._next_at = True, anyio.current_time() + wait_s
                    reason = fault if isinstance(fault, FetchFailed) else "Nobody answered in time."
                    _logger.warning("the keys of KIMI_OIDC_ISSUER can't be read: %s", reason)
                else:
                    self._keys, self._failed = keys, False
                    self._read_at = anyio.current_time()
                    self._next_at = self._read_at + RENEW_EVERY_S

    async def _fetched(self) -> tuple[_Key, ...]:
        location = (await self._metadata()).get("jwks_uri")
        if not isinstance(location, str) or not is_https_or_local(location):
            raise FetchFailed("Its metadata has no `jwks_uri` by https.")
        listed = (await fetch_object(location, within_s=FETCH_S)).get("keys")
        members = cast(list[Any], listed)[:MAX_KEYS] if isinstance(listed, list) else []
        keys = tuple(filter(None, map(_key, members)))
        if not keys:
            raise FetchFailed("It has no key for any algorithm that is accepted.")
        return keys

    async def _metadata(self) -> dict[str, Any]:
        base, parts = self._issuer.rstrip("/"), urlsplit(self._issuer)
        found: dict[str, Any] | None = None
        for place in (
            f"{base}/.well-known/openid-configuration",
            f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path.rstrip('/')}",
        ):
            try:
                found = await fetch_object(place, within_s=FETCH_S)
                break
            except FetchFailed as fault:
                if fault.status is None or fault.status >= 500:
                    raise
        if found is None:
            raise FetchFailed("It has no metadata of OpenID Connect, nor of RFC 8414.")
        if found.get("issuer") != self._issuer:
            raise FetchFailed("Its metadata names another issuer: both must be the same to the letter.")
        return found


def _key(member: Any) -> _Key | None:
    """A key of a set; None for what is none, is secret, or verifies no algorithm that is accepted."""
    try:
        jwk = cast(dict[str, Any], member)
        usable = "d" not in jwk and jwk.get("use", "sig") == "sig" and "verify" in jwk.get("key_ops", ("verify",))
        if not usable or not isinstance(jwk.get("kid"), str | None) or jwk["kty"] not in KEY_TYPES.values():
            return None
        key = PyJWK(jwk)
    except (PyJWTError, AttributeError, KeyError, TypeError):
        return None
    # A key of RSA may leave its algorithm open; the curve of another one decides it.
    algorithm = jwk.get("alg") if jwk["kty"] == "RSA" else key.algorithm_name
    return _Key(jwk.get("kid"), jwk["kty"], algorithm, key.key)
