"""One request and the reading of its answer: deadlines, gulps, and what went wrong. Does I/O.

Nothing here raises: an attempt ends well, or with a ``AttemptFailure``. Nothing that follows a finish reason can
spoil an
answer: the rest is waited for a little, for the usage that it may bring.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.lowlevel

from kimi_mcp.core import bounds
from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.profiles import Provider
from kimi_mcp.provider.error_bodies import ProviderError, read_error
from kimi_mcp.provider.error_mapping import refusal
from kimi_mcp.provider.events import BadEvent, ErrorEvent
from kimi_mcp.provider.failures import AttemptFailure, Deadline, Deadlines, FailureKind, failure, timed_out
from kimi_mcp.provider.inline_media import StreamedBody
from kimi_mcp.provider.retry import asked_wait
from kimi_mcp.provider.sse import Payloads

if TYPE_CHECKING:
    from kimi_mcp.provider.clients import Client, Method
    from kimi_mcp.provider.connections import PacedStream

AFTER_FINISH_S = 5.0
"""Seconds after the finish reason within which usage and the end of the stream are waited for."""

AFTER_DONE_S = 0.05
"""Seconds after ``[DONE]`` within which the connection may come to its end, so that it can be used again."""

PACE_S = 0.25
"""Seconds at most between two reads of an answer that is streaming: what the end of a long one may come late."""

TURN_PIECES = 256
"""Pieces of a body after which others have their turn: one read may bring ten thousand, if its chunks are hostile."""

_log = logging.getLogger(__name__)


class StreamSink(Protocol):
    """What an answer is fed to (``wire.Fold``)."""

    def feed(self, payload: bytes) -> bool:
        """Take one payload; True when it carried a piece of reasoning, answer or tool call.

        Raises ``BadEvent`` or ``ErrorEvent``.
        """
        ...

    def settle(self) -> None:
        """All that came at once has been fed."""
        ...

    def reset(self) -> None:
        """Forget everything: a new attempt begins."""
        ...

    @property
    def finished(self) -> bool:
        """Whether a finish reason has been seen."""
        ...


class Destination(Protocol):
    """Where the request goes (``Endpoint``)."""

    @property
    def provider(self) -> Provider:
        """Whose endpoint it is."""
        ...

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        ...

    @property
    def key(self) -> str | None:
        """What must not be quoted."""
        ...


class _Watch:
    """The one timer of an attempt, moved as the answer comes: not by each token, but by each gulp that has one."""

    def __init__(self, scope: anyio.CancelScope, deadlines: Deadlines, left_s: float) -> None:
        self._scope = scope
        self._first_s = deadlines.first_token_s
        self._idle_s = deadlines.idle_s
        self._end = anyio.current_time() + left_s
        self._gulp = -1
        self.armed: Deadline = "first"
        """The deadline that would pass next."""
        self.tokens = False
        """Whether a token has come."""
        self.over = False
        """Whether the answer is at its end, so that no deadline matters any more."""
        self._until("first", self._first_s)

    def sending(self, sent: int) -> None:
        """A piece of the body was taken: what is still on its way can't be answered yet, so the wait begins anew."""
        self._until("first", self._first_s)

    def token(self, socket: PacedStream | None) -> None:
        """A piece of the body that held tokens has come through that socket."""
        if socket is None:
            self._until("idle", self._idle_s)
        elif self._gulp != socket.reads:
            if self._gulp < 0:
                socket.live_at(min(PACE_S, self._idle_s / 4))
            self._gulp = socket.reads
            self._until("idle", self._idle_s)

    def end(self, seconds: float, socket: PacedStream | None) -> None:
        """The answer is there: wait no longer than that for what may follow, and hurry."""
        self.over = True
        self._scope.deadline = min(self._scope.deadline, anyio.current_time() + seconds)
        if socket is not None:
            socket.live = False

    def _until(self, what: Deadline, seconds: float) -> None:
        deadline = anyio.current_time() + seconds
        self.armed, self._scope.deadline = (what, deadline) if deadline < self._end else ("total", self._end)


async def attempt_once(
    client: Client,
    content: bytes | StreamedBody,
    sink: StreamSink,
    *,
    to: Destination,
    deadlines: Deadlines,
    left_s: float,
    wall: Callable[[], float],
) -> AttemptFailure | None:
    """Send the request and feed the answer; None when it came to its end, with or without a finish reason."""
    sink.reset()
    fault: AttemptFailure | None = None
    scope = anyio.CancelScope()
    watch = _Watch(scope, deadlines, left_s)
    with scope:
        try:
            await _read(client, content, sink, watch)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever the libraries raise becomes ours here
            fault = _fault(error, to, wall)
    if sink.finished:
        return None
    if watch.over or (fault is None and not scope.cancelled_caught):
        return None if watch.tokens else _failure("empty", to)
    if fault is None:
        return timed_out(watch.armed, deadlines, provider=to.provider.id)
    return AttemptFailure(error=fault.error) if watch.tokens else fault


async def read_whole(
    client: Client,
    path: str,
    *,
    to: Destination,
    wall: Callable[[], float],
    method: Method = "GET",
    content: bytes | StreamedBody | None = None,
    content_type: str = "application/json",
    on_sent: Callable[[int], None] | None = None,
) -> bytes | AttemptFailure:
    """The body of what a request is answered with, bounded; or why it can't be had."""
    found = bytearray()
    try:
        answer = await client.send(method, path, content, content_type, on_sent)
        try:
            async for piece in answer.pieces():
                found += piece
                if answer.compressed:
                    return _failure("compressed", to)
                if len(found) > bounds.LARGEST_DOCUMENT:
                    raise bounds.OutOfBounds(f"a document of more than {bounds.LARGEST_DOCUMENT:,} bytes")
        finally:
            await answer.aclose()
        bounds.check_values(found)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever the libraries raise becomes ours here
        return _fault(error, to, wall)
    return bytes(found)


async def _read(client: Client, content: bytes | StreamedBody, sink: StreamSink, watch: _Watch) -> None:
    answer = await client.send("POST", "chat/completions", content, on_sent=watch.sending)
    try:
        if answer.compressed:
            raise _Unreadable("compressed")
        socket, payloads, silent, number = answer.socket, Payloads(), 0, 0
        async for piece in answer.pieces():
            if (number := number + 1) % TURN_PIECES == 0:
                await anyio.lowlevel.checkpoint()
            token = done = False
            for payload in payloads.take(piece):
                if payload.startswith(b"[DONE]"):
                    done = True
                elif payload and sink.feed(payload):
                    token = watch.tokens = True
            sink.settle()
            silent = 0 if token or payloads.form == "json" else silent + len(piece)
            if silent > bounds.MOST_SILENT_BYTES:
                raise bounds.OutOfBounds(f"more than {bounds.MOST_SILENT_BYTES:,} bytes without a piece of an answer")
            if done:
                watch.end(AFTER_DONE_S, socket)
            elif watch.over:
                pass  # what follows the end of an answer keeps nothing alive
            elif sink.finished:
                watch.end(AFTER_FINISH_S, socket)
            elif token:
                watch.token(socket)
            if payloads.form == "markup":
                raise _Unreadable("markup")
        if (whole := payloads.rest()) is not None and sink.feed(whole):
            watch.tokens = True
    finally:
        await answer.aclose()


class _Unreadable(Exception):
    """The body of a 200 is no answer."""

    def __init__(self, kind: FailureKind) -> None:
        super().__init__(kind)
        self.kind: FailureKind = kind


def _fault(error: Exception, to: Destination, wall: Callable[[], float]) -> AttemptFailure:
    """What an exception of an attempt is with us."""
    from kimi_mcp.provider.clients import ErrorResponse, trouble

    match error:
        case KimiError():  # a file that went away while it was sent
            return AttemptFailure(error=error)
        case ErrorResponse():
            return refusal(
                read_error(error.body),
                status=error.status,
                provider=to.provider,
                host=to.host,
                key=to.key,
                wait_s=asked_wait(error.headers, wall()),
            )
        case ErrorEvent():
            told = ProviderError(kind=error.type.lower(), message=error.message)
            return refusal(told, status=error.status, provider=to.provider, host=to.host, key=to.key)
        case BadEvent():
            return _failure("json", to)
        case bounds.OutOfBounds():
            return failure("large", provider=to.provider.id, host=to.host, what=error.what)
        case _Unreadable():
            return _failure(error.kind, to)
        case _:
            kind = trouble(error)
            if kind == "ours":
                at = error.__traceback__
                while at is not None and at.tb_next is not None:
                    at = at.tb_next
                where = "" if at is None else f"{at.tb_frame.f_code.co_qualname}:{at.tb_lineno}"
                _log.error("a request failed by a fault of ours: %s in %s", type(error).__name__, where)
            return _failure(kind, to)


def _failure(kind: FailureKind, to: Destination) -> AttemptFailure:
    return failure(kind, provider=to.provider.id, host=to.host)
