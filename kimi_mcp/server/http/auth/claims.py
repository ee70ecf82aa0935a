"""What a token must say, however it was verified: by its signature (``oidc``) or by its issuer (``introspection``).

Pure, no I/O. The names are those of RFC 7519 and RFC 7662.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

from mcp.server.auth.provider import AccessToken

from kimi_mcp.core.settings import Settings

MAX_TOKEN_BYTES: Final = 16 * 1024
"""Bytes of a token; one with hundreds of groups has some 10 KiB."""

CLOCK_SKEW_S: Final = 60
"""Seconds by which the issuer's clock may be ahead of ours, or behind."""

MAX_NAME_CHARS: Final = 255
"""Characters of a subject, as OpenID Connect allows, of an issuer and of a client's id."""


class TokenRefused(Exception):
    """A token is not accepted; the text is a fixed sentence that says why and holds nothing of the token."""


@dataclass(frozen=True, slots=True)
class ResourceServer:
    """This server, as tokens know it."""

    audience: str
    """What tokens for it name in ``aud``."""
    resource: str
    """The URL by which clients reach it."""


def server_of(settings: Settings, resource: str) -> ResourceServer:
    """Who we are by the settings, at that URL."""
    return ResourceServer(settings.oidc_audience or resource, resource)


def access_token(claims: Mapping[str, Any], *, issuer: str, server: ResourceServer, now: float) -> AccessToken:
    """What the claims of a verified token say about its bearer. Raises ``TokenRefused``.

    ``issuer``: who vouches for them; ``now``: seconds since 1970. The token itself is not in the result: whatever holds
    that may be logged.
    """
    named = claims.get("aud")
    if server.audience not in (named if isinstance(named, list) else [named]):
        raise TokenRefused("It is for another audience.")
    if claims.get("cnf") is not None:
        # Accepted as bearer, whoever steals it could use it (RFC 9449, 7.2).
        raise TokenRefused("It is bound to a key of its client (`cnf`); only bearer tokens are taken.")
    expiry = _date(claims, "exp")
    if expiry is not None and expiry <= now - CLOCK_SKEW_S:
        raise TokenRefused("It has expired.")
    if max(_date(claims, name) or 0 for name in ("nbf", "iat")) > now + CLOCK_SKEW_S:
        raise TokenRefused("It is not valid yet.")
    subject = name_in(claims, "sub")
    if subject is None:
        raise TokenRefused("It has no usable subject (`sub`).")
    return AccessToken(
        token="",
        client_id=name_in(claims, "client_id") or name_in(claims, "azp") or subject,
        scopes=_scopes(claims),
        expires_at=None if expiry is None else int(expiry) + CLOCK_SKEW_S,  # the SDK compares it with our own clock
        resource=server.resource,
        subject=subject,
        claims={"iss": issuer, "sub": subject},
    )


def name_in(claims: Mapping[str, Any], name: str) -> str | None:
    """A claim that names somebody: a short printable text; None where there is no such."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS:
        return None
    return value if value.isprintable() and value == value.strip() else None


def issuer_in(claims: Mapping[str, Any]) -> str | None:
    """The issuer that the claims name by an http(s) URL; None where they name none. Raises ``TokenRefused``."""
    if claims.get("iss") is None:
        return None
    issuer = name_in(claims, "iss")
    if issuer is None or not issuer.startswith(("https://", "http://")):
        raise TokenRefused("Its issuer (`iss`) is no http or https URL.")
    return issuer


def origin_of(url: str) -> str:
    """The origin of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _date(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise TokenRefused(f"Its `{name}` is no time.")
    return value


def _scopes(claims: Mapping[str, Any]) -> list[str]:
    """``scope`` of RFC 9068 and RFC 7662, or ``scp`` of Entra ID and Okta; each as a text or a list."""
    value = claims.get("scope") or claims.get("scp")
    words = value.split() if isinstance(value, str) else cast(list[Any], value) if isinstance(value, list) else []
    return [word for word in words if isinstance(word, str)]
