"""What a client may do with a connection: how many there are, and how long one may be silent. I/O: sockets.

uvicorn bounds the size of a request's headers (64 KiB), what it reads ahead and what it writes ahead (64 KiB and one
message), but no time before the first request, none for headers that come slowly, and none for a client that does not
read: these are bounded here. A body's time is ``bodies``'. A client that has vanished without a word is noticed by
keep-alive probes and by what is written to it (progress, and a ping every 15 s); where the platform has no
``TCP_USER_TIMEOUT``, as macOS and Windows, by the system's own clock, which may take a quarter of an hour.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from math import inf
from typing import Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.refusal import Refusal

HEADER_BYTES = 64 * 1024
"""Bytes of a request's line and headers."""

BACKLOG = 1024
"""Connections that the system accepts before we do."""

_VANISHED_MS = 60_000

_SENTENCES = {
    431: f"The line and the headers of a request have {HEADER_BYTES // 1024} KiB at most.",
    501: "`Transfer-Encoding` must be chunked.",
}


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with a clock for every wait for a client."""

    limits: ClassVar[HttpLimits]

    _due: asyncio.TimerHandle | None = None
    _since = 0.0
    """Since when it has been waited for the client, by the loop's clock."""

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections and not self._leave_a_silent_one():
            transport.abort()
        else:
            self._expect(self.limits.headers_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come. After the last request of a connection none counts: uvicorn would refuse that request."""
        if self.conn.their_state is not h11.MUST_CLOSE:
            super().data_received(data)

    def handle_events(self) -> None:
        """Read what has come; a request whose headers are complete is answered."""
        super().handle_events()
        if self._answering and not self.flow.write_paused:
            self._expect(None)

    def on_response_complete(self) -> None:
        """A response is complete; what may still come of its request is thrown away."""
        unread = self.conn.their_state is h11.SEND_BODY
        self._expect(self.limits.unread_s if unread else self.limits.idle_s)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What has come is no HTTP: say so, unless a response is under way, and end the connection."""
        fault = sys.exception()
        status = fault.error_status_hint if isinstance(fault, h11.RemoteProtocolError) else 400
        if self.conn.our_state is not h11.IDLE:
            self.cycle.disconnected = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            sentence = _SENTENCES.get(status, "That is no request of HTTP/1.1.")
            refused = Refusal(status, sentence, headers={"Connection": "close"}).response()
            head = h11.Response(status_code=status, headers=refused.raw_headers, reason=STATUS_PHRASES[status])
            for event in (head, h11.Data(bytes(refused.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        self._expect(self.limits.unread_s)
        self.transport.close()

    def pause_writing(self) -> None:
        """The client reads more slowly than is written."""
        super().pause_writing()
        self._expect(self.limits.stalled_s, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It has read most of it."""
        super().resume_writing()
        if self._answering:
            self._expect(None)

    @property
    def _answering(self) -> bool:
        return self.conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY)

    def _leave_a_silent_one(self) -> bool:
        """End the connection that has waited longest for a request of its client; whether there was any."""
        all_of_them = cast("set[BoundedProtocol]", self.connections)
        silent = [each for each in all_of_them if each._due is not None and not each._answering]
        if not silent:
            return False
        longest = min(silent, key=lambda each: each._since)
        longest._expect(None)  # the next that comes takes the place of another
        longest.transport.abort()
        return True

    def _expect(self, within_s: float | None, unread: float = inf) -> None:
        """Something of the client within that time, else the connection ends; ``unread``: bytes that wait for it."""
        if self._due is not None:
            self._due.cancel()
        self._since = self.loop.time()
        self._due = None if within_s is None else self.loop.call_later(within_s, self._expire, unread)

    def _expire(self, unread: float) -> None:
        left = self.transport.get_write_buffer_size()
        if 0 < left < unread:
            self._expect(self.limits.stalled_s, left)
        else:
            self.transport.abort()


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
