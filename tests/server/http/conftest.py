"""An identity provider, and a verifier of its tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kimi_mcp.server.http.auth.oidc import OidcVerifier
from tests.server.http.identity_provider import (
    NOW,
    US,
    IdentityProvider,
    identity_provider,
)


@pytest.fixture
async def idp() -> AsyncIterator[IdentityProvider]:
    async with identity_provider() as provider:
        yield provider


@pytest.fixture
def verifier(idp: IdentityProvider) -> OidcVerifier:
    return OidcVerifier(idp.issuer, US, clock=lambda: NOW)
