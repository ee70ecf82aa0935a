"""Reads the body of a request: bounded in size, in time, and in what all requests hold together. Does I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
from starlette.datastructures import Headers
from starlette.types import Receive

from kimi_mcp.server.http.refusal import Refusal
from kimi_mcp.server.stdio.framing import TransportLimits

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What clients over HTTP may take, each and together."""

    message: TransportLimits = field(default_factory=TransportLimits)
    """Of one message, as over stdio: 48 MiB hold a medium of 32 MB as a data URI."""
    max_bodies_bytes: int = 512 * MIB
    """Of the bodies of all open requests together."""
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
    max_connections: int = 4096
    """Connections at once."""
    max_sessions: int = 2000
    """Sessions of the handshake era at once."""
    last_answers_s: float = 1.0
    """Seconds that calls get to be answered with what is there, when the server ends."""


class Gone(Exception):
    """The client left before its request was complete."""


class Bodies:
    """The bodies of all open requests."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._held = 0

    async def read(self, headers: Headers, receive: Receive) -> HeldBody:
        """The whole body, held until its ``release``. Raises ``Refusal`` and ``Gone``."""
        limit = self._limits.message.max_message_bytes
        too_large = Refusal(
            413, f"The request is larger than {limit // MIB} MiB: send large media as an https URL, or smaller ones."
        )
        announced = headers.get("content-length", "")
        if announced.isdigit() and (len(announced) > 15 or int(announced) > limit):
            raise too_large
        content, held = bytearray(), HeldBody(self)
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
                    raise too_large
                held.grow(len(piece))
                content += piece
                deadline += len(piece) / self._limits.body_bytes_per_s
                if not message.get("more_body", False):
                    held.content = bytes(content)
                    return held
        except BaseException:
            held.release()
            raise

    def take(self, size: int) -> None:
        """Count ``size`` more bytes, or fewer. Raises ``Refusal`` where all requests hold too much."""
        if size > 0 and self._held + size > self._limits.max_bodies_bytes:
            message = "The server holds as many large requests as it can: send this one again in a few seconds."
            raise Refusal(503, message, headers={"Retry-After": "5"})
        self._held += size


class HeldBody:
    """The body of one request."""

    def __init__(self, bodies: Bodies) -> None:
        self.content = b""
        """All of it."""
        self._bodies, self._size = bodies, 0

    def grow(self, size: int) -> None:
        """Count ``size`` more bytes. Raises ``Refusal``."""
        self._bodies.take(size)
        self._size += size

    def release(self) -> None:
        """It is needed no longer."""
        self._bodies.take(-self._size)
        self._size = 0
