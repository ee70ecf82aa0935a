"""The ways to prove who one is, a row each. I/O: a verifier's own.

A token is shown to one verifier alone, the first whose kind it looks like: what one issuer gave out is nobody else's
business.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Final, Protocol, runtime_checkable

from mcp.server.auth.provider import AccessToken, TokenVerifier

from kimi_mcp.core.callers import OWN_ISSUER
from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.settings import Settings
from kimi_mcp.server.http.auth.token_file import PREFIX, VARIABLE, StoredToken, TokenFile, digest
from kimi_mcp.server.http.refusal import Refusal

log = logging.getLogger(__name__)

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a bearer token may be written with (RFC 6750, ``b64token``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKind:
    """One kind of token."""

    variable: str
    """The setting that turns it on."""
    value: Callable[[Settings], object]
    """What that holds; None: it is not set."""
    takes: Callable[[str], bool]
    """Whether a token looks like one of the kind."""
    open: Callable[[Settings, str], TokenVerifier]
    """Its verifier, for the settings and the URL that tokens must be issued for, which it gives back as ``resource``;
    raises ``NotConfigured``. A verifier returns None for a token that is not valid, and raises ``Refusal`` (503) where
    it can't find out."""
    issuer: Callable[[Settings], str | None] = lambda _: None
    """The authorization server that clients are sent to for such a token; None: a person gives it out."""
    always: bool = False
    """Whether it takes its tokens even where it is not set, so that no other kind gets them."""


class OwnTokens:
    """Verifies the tokens of the server's own file, as it is now."""

    def __init__(self, settings: Settings, resource: str) -> None:
        """Raises ``NotConfigured`` for a file that is missing or damaged."""
        self._file, self._resource = TokenFile.of(settings), resource
        self._state, self._tokens = self._file.state(), self._read()
        if not self._tokens:
            log.warning("%s has no token yet: nobody can call. `kimi-mcp tokens add NAME` makes one.", VARIABLE)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Whose token it is; raises ``Refusal`` while the file can't be read: then nobody's counts."""
        hashed = digest(token)
        found = self._current().get(hashed)
        if found is None or not compare_digest(found.sha256, hashed):
            return None
        return AccessToken(
            token=token,
            client_id=found.name,
            scopes=list(found.scopes),
            expires_at=None if found.expires is None else int(found.expires.timestamp()),
            resource=self._resource,
            subject=found.name,
            claims={"iss": OWN_ISSUER, "sub": found.name},
        )

    def _current(self) -> Mapping[str, StoredToken]:
        state = self._file.state()
        if state != self._state or state is None:
            was_readable, self._state = self._state is not None, None
            try:
                self._tokens = self._read()
            except NotConfigured as error:
                if was_readable:
                    log.error("no token is accepted: %s %s", error.message, error.fix)
                message = "The server can't read its list of tokens just now: tell its operator, and call again later."
                raise Refusal(503, message, headers={"Retry-After": "5"}) from None
            self._state = state
        return self._tokens

    def _read(self) -> Mapping[str, StoredToken]:
        return {each.sha256: each for each in self._file.read()}


def _oidc(settings: Settings, resource: str) -> TokenVerifier:
    from kimi_mcp.server.http.auth.oidc import oidc_verifier  # with PyJWT and cryptography

    return oidc_verifier(settings, resource)


def _introspection(settings: Settings, resource: str) -> TokenVerifier:
    from kimi_mcp.server.http.auth.introspection import introspection_verifier

    return introspection_verifier(settings, resource)


KINDS: Final = (
    TokenKind(
        variable=VARIABLE,
        value=lambda settings: settings.http_tokens,
        takes=lambda token: token.startswith(PREFIX),
        open=OwnTokens,
        always=True,
    ),
    # Each of the two is on where any of its settings is there: its verifier names those that are missing.
    TokenKind(
        variable="KIMI_OIDC_ISSUER",
        value=lambda each: each.oidc_issuer or (each.oidc_audience if each.introspection_url is None else None),
        takes=lambda token: token.count(".") == 2 and token.startswith("e"),  # a JWT, which begins with {
        open=_oidc,
        issuer=lambda settings: settings.oidc_issuer,
    ),
    TokenKind(
        variable="KIMI_INTROSPECTION_URL",
        value=lambda each: each.introspection_url or each.introspection_client_id or each.introspection_client_secret,
        takes=lambda token: True,
        open=_introspection,
    ),
)
"""Every kind, in the order in which a token is compared with them."""


def kinds_set(settings: Settings) -> tuple[TokenKind, ...]:
    """The kinds that the settings turn on."""
    return tuple(kind for kind in KINDS if kind.value(settings) is not None)


@runtime_checkable
class _Prepared(Protocol):
    """A verifier that needs something before its first token."""

    async def ready(self) -> None: ...


class Verifiers:
    """All of them as one ``TokenVerifier``."""

    def __init__(self, settings: Settings, resource: str) -> None:
        """Raises ``NotConfigured``."""
        on = kinds_set(settings)
        self._kinds = [
            (kind, kind.open(settings, resource) if kind in on else None) for kind in KINDS if kind.always or kind in on
        ]

    async def ready(self) -> None:
        """Raises ``Refusal`` while a kind of token can't be verified yet, for want of its issuer's keys."""
        for _, verifier in self._kinds:
            if isinstance(verifier, _Prepared):
                await verifier.ready()

    async def verify_token(self, token: str) -> AccessToken | None:
        """What the one verifier says whose kind it is."""
        if not _TOKEN.fullmatch(token):
            return None
        kind, verifier = next(((kind, verifier) for kind, verifier in self._kinds if kind.takes(token)), (None, None))
        found = None if verifier is None else await verifier.verify_token(token)
        if found is not None and ((found.claims or {}).get("iss") == OWN_ISSUER) != (kind is KINDS[0]):
            log.error("a verifier (%s) named the server itself as issuer", kind and kind.variable)
            return None
        return found
