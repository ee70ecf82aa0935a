"""Reads the body of a request: bounded in size, in time, and in what all requests hold together. Does I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import anyio
from starlette.datastructures import Headers
from starlette.types import Receive

from kimi_mcp.server.callers import Principal
from kimi_mcp.server.http.refusal import Refusal
from kimi_mcp.server.stdio.framing import TransportLimits

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What clients over HTTP may take, each and together."""

    message: TransportLimits = field(default_factory=lambda: TransportLimits(max_values=50_000))
    """Of one message: 48 MiB hold a medium of 32 MB as a data URI. Half a million values, as over stdio, would keep
    everybody waiting for seconds; the largest schema that a provider takes has fewer than these."""
    max_bodies_bytes: int = 512 * MIB
    """Of the bodies of all open requests together, each without its beginning."""
    max_principal_bodies_bytes: int = 256 * MIB
    """Of those of one principal among them."""
    uncounted_bytes: int = 64 * 1024
    """The beginning of a body that does not count: large requests keep nobody from ordinary ones."""
    max_principal_requests: int = 1024
    """Open requests of one principal, those that only listen too: it may not have every connection."""
    max_principal_streams: int = 16
    """Event streams of the live page that one principal has open: each reads the store now and then."""
    body_grace_s: float = 30.0
    """Seconds for a body at least."""
    body_bytes_per_s: int = 16 * 1024
    """A slower body is refused, once that time is over."""
    headers_s: float = 20.0
    """Seconds from the beginning of a connection until the headers of its first request are there."""
    idle_s: float = 75.0
    """Seconds from the end of a response until the headers of the next request are there."""
    unread_s: float = 5.0
    """Seconds in which the rest of a refused body is thrown away, so that its sender reads why."""
    stalled_s: float = 30.0
    """Seconds in which a client reads something of a response that waits for it."""
    max_connections: int = 4096
    """Connections at once."""
    max_sessions: int = 2000
    """Sessions of the handshake era at once."""
    max_principal_sessions: int = 200
    """Those of one principal among them."""
    same_id_s: float = 1.0
    """Seconds that a request waits for the end of another one of its session with the same id."""
    unready_s: float = 3.0
    """Seconds that a replica which leaves still takes calls once it is not ready: until its balancer noticed."""
    last_answers_s: float = 1.0
    """Seconds that calls get to be answered with what is there, when the server ends."""


class Gone(Exception):
    """The client left before its request was complete."""


class Bodies:
    """The bodies of all open requests."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._held = 0
        self._held_for = Counter[Principal]()

    async def read(self, headers: Headers, receive: Receive, principal: Principal | None) -> HeldBody:
        """The whole body, held until its ``release``. Raises ``Refusal`` and ``Gone``."""
        limit = self._limits.message.max_message_bytes
        announced = headers.get("content-length", "")
        if announced.isdigit() and (len(announced) > 15 or int(announced) > limit):
            raise _too_large(limit)
        content, held = bytearray(), HeldBody(self, principal, uncounted=self._limits.uncounted_bytes)
        try:
            deadline = anyio.current_time() + self._limits.body_grace_s
            while True:
                try:
                    with anyio.fail_at(deadline):
                        message = await receive()
                except TimeoutError:
                    raise Refusal(408, "The request came too slowly: send it again, in one go.") from None
                if message["type"] != "http.request":
                    raise Gone
                piece: bytes = message.get("body", b"")
                if len(content) + len(piece) > limit:
                    raise _too_large(limit)
                held.grow(len(piece))
                content += piece
                deadline += len(piece) / self._limits.body_bytes_per_s
                if not message.get("more_body", False):
                    held.content = bytes(content)
                    return held
        except BaseException:
            content.clear()  # whoever handles the exception keeps this frame
            held.release()
            raise

    def take(self, size: int, principal: Principal | None) -> None:
        """Count ``size`` more bytes of a principal's, or fewer. Raises ``Refusal`` where it, or all, hold too much."""
        most = self._limits.max_principal_bodies_bytes
        if size > 0 and principal is not None and self._held_for[principal] + size > most:
            message = "You have as many large requests open as you may: send this one again once another has ended."
            raise Refusal(429, message, headers={"Retry-After": "5"})
        if size > 0 and self._held + size > self._limits.max_bodies_bytes:
            message = "The server holds as many large requests as it can: send this one again in a few seconds."
            raise Refusal(503, message, headers={"Retry-After": "5"})
        self._held += size
        if principal is not None:
            self._held_for[principal] += size
            if not self._held_for[principal]:
                del self._held_for[principal]


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413, f"The request is larger than {limit // MIB} MiB: send large media as an https URL, or smaller ones."
    )


class HeldBody:
    """The body of one request."""

    def __init__(self, bodies: Bodies, principal: Principal | None, *, uncounted: int) -> None:
        self.content = b""
        """All of it."""
        self._bodies, self._principal, self._uncounted, self._size = bodies, principal, uncounted, 0

    def grow(self, size: int) -> None:
        """Count ``size`` more bytes. Raises ``Refusal``."""
        counted = max(0, size - self._uncounted)
        self._uncounted = max(0, self._uncounted - size)
        self._bodies.take(counted, self._principal)
        self._size += counted

    def release(self) -> None:
        """It is needed no longer."""
        self._bodies.take(-self._size, self._principal)
        self._size = 0
