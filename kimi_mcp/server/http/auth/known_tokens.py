"""``KnownTokens``: what was found out about the latest tokens, by their hashes. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import anyio
from mcp.server.auth.provider import AccessToken

ACCEPTED_S: Final = 60.0
"""Seconds for which a token that was accepted is not verified again; never longer than it is valid."""

MAX_ACCEPTED: Final = 4_096
"""Accepted tokens that are remembered."""


@dataclass(frozen=True, slots=True)
class KnownToken:
    """One of them."""

    token: AccessToken | None
    """Who bears it; None: it was refused."""
    until: float
    """On the event loop's clock."""


def hash_of(token: str) -> bytes:
    """What is remembered of a token."""
    return sha256(token.encode()).digest()


class KnownTokens:
    """At most so many of them, the latest."""

    def __init__(self, most: int = MAX_ACCEPTED) -> None:
        self._most = most
        self._known: OrderedDict[bytes, KnownToken] = OrderedDict()

    def get(self, key: bytes) -> KnownToken | None:
        """What is known of a token now."""
        known = self._known.get(key)
        if known is not None and known.until <= anyio.current_time():
            del self._known[key]
            return None
        return known

    def put(self, key: bytes, token: AccessToken | None, seconds: float) -> KnownToken:
        """Remember a token for so long."""
        known = self._known[key] = KnownToken(token, anyio.current_time() + seconds)
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return known
