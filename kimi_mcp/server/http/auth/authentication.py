"""``Authentication``: who sends a request, and whether that is allowed. I/O: that of the verifiers.

The SDK's own machinery verifies (``BearerAuthBackend``) and keeps sessions apart (``AuthenticatedUser``). It would read
the body before it asks for a token, and name neither the scope that is missing nor what to do: so ``Refusal`` answers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend
from mcp.server.auth.provider import AccessToken, principal_components
from mcp.server.auth.routes import build_resource_metadata_url, cors_middleware
from mcp_types import RequestId
from pydantic import AnyHttpUrl
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope as AsgiScope

from kimi_mcp.core.settings import Settings
from kimi_mcp.server.callers import KEY, Principal
from kimi_mcp.server.http.auth.scopes import ALL, CALL, USE, Scope
from kimi_mcp.server.http.auth.verifiers import Verifiers, kinds_set
from kimi_mcp.server.http.refusal import Refusal

log = logging.getLogger(__name__)

METADATA: Final = "/.well-known/oauth-protected-resource"
"""Where clients look for the metadata (RFC 9728): there, and below it under the path of the endpoint."""

MAX_ID_CHARS: Final = 1000
"""Characters of a principal's issuer and subject together."""


class Authentication:
    """Lets requests in, or refuses them. Without a setting for it everybody is let in."""

    def __init__(self, settings: Settings, url: str) -> None:
        """``url``: the endpoint as clients reach it, which tokens must be issued for. Raises ``NotConfigured``."""
        resource = AnyHttpUrl(url)
        kinds = kinds_set(settings)
        self.required: Final = bool(kinds)
        """Whether callers need a token."""
        self._verifiers = Verifiers(settings, url)
        self._backend = BearerAuthBackend(self._verifiers, resource_server_url=resource)
        self._metadata_url = build_resource_metadata_url(resource)
        issuers = [issuer for kind in kinds if (issuer := kind.issuer(settings)) is not None]
        self._metadata = {
            "resource": url,
            **({"authorization_servers": issuers} if issuers else {}),
            "scopes_supported": list(USE),
            "bearer_methods_supported": ["header"],
            "resource_name": "kimi-mcp",
        }
        paths = dict.fromkeys((str(self._metadata_url.path).rstrip("/"), METADATA))
        self.public_paths: Final = tuple(paths) if self.required else ()
        """The paths of ``routes``, which need no token."""

    def routes(self) -> list[Route]:
        """The routes of the metadata."""
        serve = cors_middleware(self._show_metadata, ["GET", "OPTIONS"])
        return [Route(path, serve, methods=["GET", "OPTIONS"]) for path in self.public_paths]

    async def ready(self) -> None:
        """Raises ``Refusal`` while tokens can't be verified yet."""
        await self._verifiers.ready()

    async def admit(self, scope: AsgiScope, needed: Iterable[Scope] = ()) -> None:
        """Find out who sends a request, and take the token out of it; ``Refusal`` where it may not be sent.

        ``needed``: the scopes of which it needs one, where that is known by now.
        """
        connection = HTTPConnection(scope)
        shown = connection.headers.getlist("authorization")
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
        scope[KEY] = None
        if not self.required:
            return
        if len(shown) > 1:
            raise Refusal(400, "There are two `Authorization` headers: send one.")
        tokens = [value for value in shown if value.lower().startswith("bearer ")]
        found = await self._verified(connection) if tokens else None
        principal = None if found is None else _principal(found)
        if found is None or principal is None:
            raise self._unauthorized(tuple(needed) or (CALL,), wrong=bool(tokens))
        # Whoever is behind this, the SDK's sessions included, knows who calls, and nobody has the token.
        scope["user"] = AuthenticatedUser(found.model_copy(update={"token": ""}))
        scope[KEY] = principal
        self.check(scope, needed)

    def check(self, scope: AsgiScope, needed: Iterable[Scope], request_id: RequestId | None = None) -> None:
        """Raises ``Refusal`` where the token of a request has none of the scopes; ``request_id``: that of its body."""
        principal, needed = scope[KEY], tuple(needed)
        if principal is None or not needed or principal.scopes.intersection(needed):
            return
        wanted = [each for each in ALL if each == needed[0] or each in principal.scopes]
        raise Refusal(
            403,
            f"This needs the scope {needed[0]}, which your token does not have: ask whoever gave you the token for one "
            "that has it.",
            request_id=request_id,
            headers=self._challenge(wanted, "insufficient_scope", f"The scope {needed[0]} is missing."),
        )

    def requires(self, needed: Scope, endpoint: Callable[[Request], Awaitable[Response]]) -> Any:
        """The endpoint of a route, for callers with that scope alone (for everybody without authentication)."""

        async def guarded(request: Request) -> Response:
            try:
                await self.admit(request.scope, (needed,))
            except Refusal as refusal:
                return refusal.response()
            return await endpoint(request)

        return guarded

    async def _verified(self, connection: HTTPConnection) -> AccessToken | None:
        try:
            found = await self._backend.authenticate(connection)
        except Refusal:
            raise
        except Exception:
            log.exception("a token could not be verified")
            message = "The server can't verify tokens just now: call again in a moment, or tell its operator."
            raise Refusal(503, message, headers={"Retry-After": "5"}) from None
        return None if found is None else found[1].access_token

    def _unauthorized(self, scopes: Iterable[Scope], *, wrong: bool) -> Refusal:
        if wrong:
            message = "That token is not valid here: it is wrong, expired, revoked, or was issued for another server."
            return Refusal(401, message, headers=self._challenge(scopes, "invalid_token", "The token is not valid."))
        message = "This server needs a token: send `Authorization: Bearer TOKEN`, with one that its operator gave you."
        return Refusal(401, message, headers=self._challenge(scopes))

    def _challenge(self, scopes: Iterable[str], error: str | None = None, description: str = "") -> dict[str, str]:
        parts = {} if error is None else {"error": error, "error_description": description}
        parts |= {"scope": " ".join(scopes), "resource_metadata": str(self._metadata_url)}
        return {"WWW-Authenticate": "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parts.items())}

    async def _show_metadata(self, request: Request) -> Response:
        return JSONResponse(self._metadata, headers={"Cache-Control": "public, max-age=3600"})


def _principal(token: AccessToken) -> Principal | None:
    """Whom a token stands for; None where it names nobody, or in no way that could be written down."""
    _, issuer, subject = principal_components(token)
    if not issuer or not subject or "#" in issuer or len(issuer + subject) > MAX_ID_CHARS:
        return None
    known = frozenset(token.scopes).intersection(ALL)
    return Principal(issuer=issuer, subject=subject, scopes=known) if (issuer + subject).isprintable() else None
