"""``EventStream``: what a feed brings, as server-sent events, as long as somebody reads. ASGI, no I/O of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kimi_mcp.core.errors import KimiError, Overloaded
from kimi_mcp.view.feed import ViewEvent

log = logging.getLogger(__name__)

MOST_STREAMS = 128
"""Streams that are open at once at most."""

COMMENT_EVERY_S = 15.0
"""Seconds of silence at most, so that no proxy closes a stream."""

RETRY_MS = 1_000
"""Milliseconds after which a browser opens a broken stream again."""


class Streams:
    """The streams that are open."""

    def __init__(self) -> None:
        self.open = 0
        """How many they are."""

    def stream(self, events: AsyncGenerator[list[ViewEvent]]) -> EventStream:
        """The response that is a stream of events. Raises ``Overloaded`` where as many are open as may be."""
        if self.open >= MOST_STREAMS:
            raise Overloaded(f"{MOST_STREAMS} pages are open here, as many as may be.", fix="Close one.")
        return EventStream(self, events)


class EventStream(Response):
    """One stream of events."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, events: AsyncGenerator[list[ViewEvent]]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
        del self.headers["Content-Length"]
        self._streams, self._events, self._sending = streams, events, anyio.Lock()
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream to its end, or until its reader is gone."""
        self._streams.open += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(send, f"retry: {RETRY_MS}\n\n".encode())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._end_with_reader, receive, tasks.cancel_scope)
                tasks.start_soon(self._comment, send)
                async with aclosing(self._events) as events:
                    try:
                        async for some in events:
                            await self._send(send, b"".join(map(_written, some)))
                    except KimiError as fault:  # the store is away: the page opens the stream again
                        log.info("a stream of the page ends: %s", fault.message)
                tasks.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.open -= 1

    async def _send(self, send: Send, content: bytes) -> None:
        async with self._sending:
            self._sent_at = anyio.current_time()
            await send({"type": "http.response.body", "body": content, "more_body": True})

    async def _comment(self, send: Send) -> None:
        while True:
            silent_s = anyio.current_time() - self._sent_at
            if silent_s >= COMMENT_EVERY_S:
                await self._send(send, b":\n\n")
            else:
                await anyio.sleep(COMMENT_EVERY_S - silent_s)

    async def _end_with_reader(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


def _written(event: ViewEvent) -> bytes:
    cursor = "" if event.cursor is None else f"id: {event.cursor}\n"
    return f"event: {event.name}\n{cursor}data: ".encode() + to_json(event.data, inf_nan_mode="null") + b"\n\n"
