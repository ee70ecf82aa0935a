"""Responses over HTTP that calls wait with, and what becomes of a run that nobody waits for any more. No I/O.

A client over HTTP cancels by closing the stream of a response, and the host's own timeout looks the same. So a run
whose stream closed counts as abandoned: the same call made again within ``Timings.stream_grace_s`` joins it, a
``kimi_run`` keeps it, else it is cancelled. Over stdio, and where a client of the handshake era cancels by a
notification, the reason of the cancellation decides instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup
from mcp_types import RequestId

from kimi_mcp.core.background import start_contained
from kimi_mcp.server.callers import caller_of

if TYPE_CHECKING:
    from kimi_mcp.runs import RunView

KEY = "kimi_mcp.response_stream"
"""Where the ASGI scope of a request has its ``ResponseStream``."""

SESSION_HEADER = "mcp-session-id"
"""The header that names a session of the handshake era."""

SESSION = "kimi_mcp.session"
"""Where the ASGI scope of a request has that name as its client knows it; else the header has it."""

RequestKey = RequestId | tuple[str, str, RequestId]
"""What tells an open request apart from every other one."""


class ResponseStream:
    """The response to one HTTP request."""

    def __init__(self) -> None:
        self.settled = False
        """Whether its call was answered, or its client gave a reason why it wants no answer."""
        self._ended: bool | None = None
        self._on_end: Callable[[bool], None] | None = None

    def end(self, *, delivered: bool) -> None:
        """The response is over; ``delivered``: to its end."""
        self._ended = delivered
        self._report()

    def when_over(self, report: Callable[[bool], None]) -> None:
        """Call ``report`` once it is over, with whether its call is settled and all was delivered."""
        self._on_end = report
        self._report()

    def _report(self) -> None:
        if self._ended is not None and self._on_end is not None:
            report, self._on_end = self._on_end, None
            report(self._ended and self.settled)


class WaitingCalls:
    """The calls over HTTP that wait for runs; ``requests`` has those of every transport."""

    def __init__(
        self,
        tasks: TaskGroup,
        grace_s: float,
        abandon: Callable[[str], Awaitable[None]],
        is_wanted: Callable[[str], Awaitable[bool]],
        requests: dict[RequestKey, RunView],
    ) -> None:
        self._tasks, self._grace_s, self._requests = tasks, grace_s, requests
        self._abandon, self._is_wanted = abandon, is_wanted
        self._waiting: Counter[str] = Counter()
        self._left: dict[str, anyio.CancelScope] = {}
        self._streams: dict[RequestKey, ResponseStream] = {}

    def __len__(self) -> int:
        """How many runs are waited for."""
        return len(self._waiting)

    def add(self, stream: ResponseStream, run: RunView, key: RequestKey | None) -> None:
        """A call waits for a run, as long as its stream is open; ``key``: what tells its request apart."""
        self.keep(run.id)
        self._waiting[run.id] += 1
        if key is not None:
            self._streams[key] = stream
        stream.when_over(partial(self._remove, stream, run, key))

    def settle(self, key: RequestKey) -> None:
        """The client of a call gave a reason why it wants no answer."""
        if (stream := self._streams.get(key)) is not None:
            stream.settled = True

    def keep(self, run_id: str) -> None:
        """Somebody wants a run that was left: it is not cancelled."""
        if (grace := self._left.pop(run_id, None)) is not None:
            grace.cancel()

    def _remove(self, stream: ResponseStream, run: RunView, key: RequestKey | None, settled: bool) -> None:
        if key is not None and self._streams.get(key) is stream:  # a client may use an id again
            del self._streams[key]
            self._requests.pop(key, None)
        self._waiting[run.id] -= 1
        if not self._waiting[run.id]:
            del self._waiting[run.id]
            if not settled:
                start_contained(self._tasks, "a run whose stream closed was not cancelled", self._leave, run)

    async def _leave(self, run: RunView) -> None:
        if run.id in self._waiting:
            return
        with anyio.CancelScope() as grace:
            self._left[run.id] = grace
            try:
                await self._abandon(run.id)
                with anyio.move_on_after(self._grace_s):
                    await run.wait()
                    return
            finally:
                if self._left.get(run.id) is grace:
                    del self._left[run.id]
            if not await self._is_wanted(run.id):
                await run.cancel()


def stream_of(context: Any) -> ResponseStream | None:
    """The response to a request; None over stdio."""
    return None if context.request is None else context.request.scope.get(KEY)


def request_key(context: Any, request_id: RequestId) -> RequestKey | None:
    """The key of the open request of that id, for a notification that names it.

    Over HTTP each session of a caller has ids of its own. None: no session, so no notification can mean it.
    """
    if context.request is None:
        return request_id
    session = context.request.scope.get(SESSION) or context.request.headers.get(SESSION_HEADER)
    return None if session is None else (caller_of(context), session, request_id)
