"""What a client may do with a connection: how many there are, and how long one may be silent. I/O: sockets.

uvicorn bounds the size of a request's headers (64 KiB) and what it reads ahead, but no time before the first request,
and none for headers that come slowly: both are bounded here. A body's time is ``bodies``'. A client that has vanished
without a word is noticed by keep-alive probes and by what is written to it (progress, and a ping every 15 s); where
the platform has no ``TCP_USER_TIMEOUT``, as macOS and Windows, by the system's own clock, which may take a quarter of
an hour.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from kimi_mcp.server.http.bodies import HttpLimits

HEADER_BYTES = 64 * 1024
"""Bytes of a request's line and headers."""

BACKLOG = 1024
"""Connections that the system accepts before we do."""

_VANISHED_MS = 60_000


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with a clock for every wait for a request."""

    limits: ClassVar[HttpLimits]

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            transport.abort()
        else:
            self._expect(self.limits.headers_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._expect(None)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Read what has come; a request whose headers are complete is answered."""
        super().handle_events()
        if self.conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY):
            self._expect(None)

    def on_response_complete(self) -> None:
        """A response is complete; what may still come of its request is thrown away."""
        unread = self.conn.their_state is h11.SEND_BODY
        self._expect(self.limits.unread_s if unread else self.limits.idle_s)
        super().on_response_complete()

    def _expect(self, within_s: float | None) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = None if within_s is None else self.loop.call_later(within_s, self.transport.abort)


def bounded(limits: HttpLimits) -> type[BoundedProtocol]:
    """The protocol with those limits."""
    return type("Bounded", (BoundedProtocol,), {"limits": limits})


def bind(family: int, address: Any) -> socket.socket:
    """A socket that listens there, whose connections end where the other side vanished. Raises ``OSError``."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if socket.has_dualstack_ipv6() and family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        for name, value in {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_USER_TIMEOUT": _VANISHED_MS}.items():
            if hasattr(socket, name):
                options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
        if sys.platform != "win32":  # there it would let two servers share a port
            options.append((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1))
        for level, option, value in options:
            listener.setsockopt(level, option, value)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
