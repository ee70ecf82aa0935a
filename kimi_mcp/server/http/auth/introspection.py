"""``IntrospectionVerifier``: tokens about which their issuer is asked (RFC 7662). I/O: HTTP.

What it answers counts for at most a minute, so a token that was revoked is soon refused. Tokens are remembered by
their hash alone.

The answer must say who the bearer is (``sub``) and that the token is for us (``aud``). There is no substitute for
``sub``: a ``username`` may be another user's ``sub`` and may be given anew, and many users share a ``client_id``.
"""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus

import anyio
from mcp.server.auth.provider import AccessToken

from kimi_mcp.core.errors import NotConfigured
from kimi_mcp.core.redaction import hide
from kimi_mcp.core.settings import Settings
from kimi_mcp.server.http.auth.claims import (
    MAX_TOKEN_BYTES,
    ResourceServer,
    TokenRefused,
    access_token,
    issuer_in,
    origin_of,
    server_of,
)
from kimi_mcp.server.http.auth.fetching import FetchFailed, fetch_object, not_verifiable
from kimi_mcp.server.http.auth.known_tokens import ACCEPTED_S, KnownToken, KnownTokens, hash_of

REFUSED_S: Final = 10.0
"""Seconds for which a token that was refused is not asked about again."""

MAX_REFUSED: Final = 1_000
"""Refused tokens that are remembered: they are cheap to make up, and drive no accepted one out."""

AT_ONCE: Final = 16
"""Questions at once about tokens that were not accepted lately, and as many about others: whoever makes tokens up keeps
nobody waiting who has called before."""

LATELY_S: Final = 24 * 3600.0
"""Seconds for which it is remembered that a token was accepted; it is asked about all the same."""

ANSWER_S: Final = 5.0
"""Seconds for an answer."""

WAIT_S: Final = 10.0
"""Seconds for an answer, and until the question can be put."""

RETRY_S: Final = 5

_logger = logging.getLogger(__name__)


class IntrospectionVerifier:
    """A ``TokenVerifier`` that asks."""

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str,
        server: ResourceServer,
        *,
        clock: Callable[[], float] = time.time,
        max_refused: int = MAX_REFUSED,
    ) -> None:
        """``client_id`` and ``client_secret``: ours at the issuer; ``clock``: seconds since 1970."""
        hide(client_secret)
        both = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"  # RFC 6749, 2.3.1
        self._url, self._authorization = url, f"Basic {b64encode(both.encode()).decode()}"
        self._server, self._clock = server, clock
        self._accepted, self._refused = KnownTokens(), KnownTokens(max_refused)
        self._questions: dict[bytes, _Question] = {}
        self._accepted_lately = KnownTokens()
        self._limiter, self._limiter_lately = anyio.Semaphore(AT_ONCE), anyio.Semaphore(AT_ONCE)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Who bears the token; None: it is not valid, or not for us.

        Raises ``Refusal`` (503) where nobody answers: then nobody is let in, and nobody's token is called wrong.
        """
        if not 0 < len(token) <= MAX_TOKEN_BYTES or not (token.isascii() and token.isprintable()):
            return None
        key = hash_of(token)
        try:
            with anyio.fail_after(WAIT_S):
                known = self._known(key) or await self._find(token, key)
        except TimeoutError:
            _logger.warning("KIMI_INTROSPECTION_URL has too many tokens to check")
            known = None
        if known is None:
            raise not_verifiable(RETRY_S)
        return known.token

    async def _find(self, token: str, key: bytes) -> KnownToken | None:
        """However many want to know about one token, one of them asks; None: nobody answered."""
        question = self._questions.setdefault(key, _Question())
        question.waiting += 1
        try:
            async with question.lock:
                if question.failed:
                    return None
                known = self._known(key)
                if known is None:
                    async with self._limiter if self._accepted_lately.get(key) is None else self._limiter_lately:
                        known = await self._ask(token, key)
                    question.failed = known is None
                return known
        finally:
            question.waiting -= 1
            if self._questions.get(key) is question and (question.failed or not question.waiting):
                del self._questions[key]

    def _known(self, key: bytes) -> KnownToken | None:
        return self._accepted.get(key) or self._refused.get(key)

    async def _ask(self, token: str, key: bytes) -> KnownToken | None:
        form = {"token": token, "token_type_hint": "access_token"}
        try:
            answer = await fetch_object(self._url, form=form, authorization=self._authorization, within_s=ANSWER_S)
        except FetchFailed as fault:
            ours = "; check KIMI_INTROSPECTION_CLIENT_ID and its secret" if fault.status in (400, 401, 403) else ""
            _logger.warning("KIMI_INTROSPECTION_URL did not check a token: %s (status %s)%s", fault, fault.status, ours)
            return None
        try:
            accepted = self._accept(answer)
        except TokenRefused as refused:
            _logger.info("a token was refused by introspection: %s", refused)
            return self._refused.put(key, None, REFUSED_S)
        expiry = answer.get("exp")
        valid_s = ACCEPTED_S if expiry is None else min(ACCEPTED_S, expiry - self._clock())
        self._accepted_lately.put(key, accepted, LATELY_S)
        return self._accepted.put(key, accepted, valid_s)

    def _accept(self, answer: dict[str, Any]) -> AccessToken:
        if answer.get("active") is not True:
            raise TokenRefused("It is not active.")
        kind, use = answer.get("token_type") or "bearer", answer.get("token_use") or "access_token"
        if str(kind).lower() not in ("bearer", "access_token") or use not in ("access_token", "access"):
            raise TokenRefused("It is no bearer token (`token_type`), or no access token (`token_use`).")
        issuer = issuer_in(answer) or origin_of(self._url)
        return access_token(answer, issuer=issuer, server=self._server, now=self._clock())


def introspection_verifier(settings: Settings, resource: str) -> IntrospectionVerifier:
    """The verifier of the settings; ``resource``: the URL by which clients reach us. Raises ``NotConfigured``."""
    url, client_id, secret = (
        settings.introspection_url,
        settings.introspection_client_id,
        settings.introspection_client_secret,
    )
    if url is None or client_id is None or secret is None:
        values = {"URL": url, "CLIENT_ID": client_id, "CLIENT_SECRET": secret}
        missing = " and ".join(f"KIMI_INTROSPECTION_{name}" for name, value in values.items() if value is None)
        raise NotConfigured(
            f"{missing} must be set too: the server asks about tokens as a client of their issuer.",
            fix=f"Set {missing}, or unset every KIMI_INTROSPECTION_ variable.",
        )
    return IntrospectionVerifier(url, client_id, secret, server_of(settings, resource))


@dataclass(slots=True)
class _Question:
    """One that is being asked."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    waiting: int = 0
    failed: bool = False
