"""One chat request and its streamed response: deadlines, pacing, and what went wrong. Does I/O.

Nothing after the finish reason can spoil an answer; the rest is waited for briefly, because usage may follow.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel

from kimi_mcp.core import bounds, observing
from kimi_mcp.core.errors import Cancelled, KimiError, UpstreamBroken
from kimi_mcp.provider.decoding import ErrorEvent, StreamAccumulator
from kimi_mcp.provider.endpoint import ApiRequest, Endpoint, StreamedBody
from kimi_mcp.provider.error_mapping import read_error, response_failure
from kimi_mcp.provider.failures import AttemptFailure, Deadline, Deadlines, Unreadable, failure, timed_out
from kimi_mcp.provider.retry import requested_wait

if TYPE_CHECKING:
    from kimi_mcp.provider.clients import Client
    from kimi_mcp.provider.connections import PacedStream

AFTER_DONE_S = 0.05
"""Seconds to wait for the end of the body after ``[DONE]``, so that the connection can be reused."""

PACE_S = 0.25
"""Longest pause between two reads of a streaming answer."""

PIECES_PER_TURN = 256
"""Pieces of a body after which other tasks run: one read may bring ten thousand, if its chunks are hostile."""

Form = Literal["unknown", "events", "json", "markup"]
"""What a body is, by its first byte that is not blank."""

_BOM = b"\xef\xbb\xbf"
_LINE_OVERHEAD = 40
"""Bytes of memory that a line costs beside its own."""

_log = logging.getLogger(__name__)


class _DeadlineTimer:
    """The one timer of an attempt. It is moved once per read that holds a token, not once per token."""

    def __init__(self, deadlines: Deadlines, left_s: float) -> None:
        self.scope, self.deadlines = anyio.CancelScope(), deadlines
        self.began = anyio.current_time()
        """When the attempt had, by anyio's clock."""
        self._end = self.began + left_s
        self._reads = -1
        self.next: Deadline = "first"
        """The deadline that would pass next."""
        self.tokens = False
        """Whether a token has arrived."""
        self.first: float | None = None
        """When the first one had, by anyio's clock."""
        self.over = False
        """Whether the answer has ended, so that no deadline matters any more."""
        self.body_sent(0)

    def body_sent(self, _bytes: int) -> None:
        """The provider accepted a piece of the body: the wait for the first token starts again."""
        self._set("first", self.deadlines.first_token_s)

    def token(self, socket: PacedStream | None) -> None:
        """Tokens arrived through that socket."""
        if socket is not None:
            if self._reads == socket.reads:
                return
            if self._reads < 0:
                socket.live_at(min(PACE_S, self.deadlines.idle_s / 4))
            self._reads = socket.reads
        self._set("idle", self.deadlines.idle_s)

    def end(self, socket: PacedStream | None, *, done: bool) -> None:
        """The answer has ended, with ``[DONE]`` or a finish reason: wait briefly for what follows, without pacing."""
        self.over = True
        seconds = AFTER_DONE_S if done else self.deadlines.after_finish_s
        self.scope.deadline = min(self.scope.deadline, anyio.current_time() + seconds)
        if socket is not None:
            socket.live = False

    def _set(self, which: Deadline, seconds: float) -> None:
        deadline = anyio.current_time() + seconds
        self.next, self.scope.deadline = (which, deadline) if deadline < self._end else ("total", self._end)


async def attempt_once(
    client: Client,
    content: bytes | StreamedBody,
    accumulator: StreamAccumulator,
    endpoint: Endpoint,
    *,
    body: Mapping[str, Any],
    deadlines: Deadlines,
    left_s: float,
    wall: Callable[[], float],
) -> AttemptFailure | None:
    """Send the request and feed the answer; None when it ended, with or without a finish reason.

    ``body``: what ``content`` has, for those who observe.
    """
    accumulator.reset()
    timer, began_at = _DeadlineTimer(deadlines, left_s), wall()
    error: str | None = Cancelled.code
    try:
        failed = await _attempt(client, content, accumulator, endpoint, timer, wall)
        unfinished = None if accumulator.finished else UpstreamBroken.code
        error = unfinished if failed is None else failed.error.code
        return failed
    finally:
        if observing.is_observed():
            event = observing.AttemptEnded(
                provider=endpoint.provider,
                base_url=endpoint.base_url,
                body=body,
                began_at=began_at,
                took_s=anyio.current_time() - timer.began,
                first_chunk_s=None if timer.first is None else timer.first - timer.began,
                completion=accumulator.completion(),
                error=error,
            )
            observing.emit(event)


async def _attempt(
    client: Client,
    content: bytes | StreamedBody,
    accumulator: StreamAccumulator,
    endpoint: Endpoint,
    timer: _DeadlineTimer,
    wall: Callable[[], float],
) -> AttemptFailure | None:
    failed: AttemptFailure | None = None
    with timer.scope:
        try:
            await _read(client, content, accumulator, timer)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever the libraries raise becomes ours here
            failed = failure_of(error, endpoint, wall)
    if accumulator.finished:
        return None
    if timer.over or (failed is None and not timer.scope.cancelled_caught):
        return None if timer.tokens else failure("empty", endpoint)
    if failed is None:
        return timed_out(timer.next, timer.deadlines, endpoint)
    return AttemptFailure(error=failed.error) if timer.tokens else failed


async def _read(
    client: Client, content: bytes | StreamedBody, accumulator: StreamAccumulator, timer: _DeadlineTimer
) -> None:
    request = ApiRequest("POST", "chat/completions", content, on_sent=timer.body_sent, repeatable=True)
    response = await client.send(request)
    try:
        if response.compressed:
            raise Unreadable("compressed")
        socket, payloads, silent, number = response.socket, Payloads(), 0, 0
        async for piece in response.pieces():
            if (number := number + 1) % PIECES_PER_TURN == 0:
                await anyio.lowlevel.checkpoint()
            token = done = False
            for payload in payloads.take(piece):
                if payload.startswith(b"[DONE]"):
                    done = True
                elif payload and accumulator.feed(payload):
                    token = timer.tokens = True
            if token and timer.first is None:
                timer.first = anyio.current_time()
            accumulator.settle()
            silent = 0 if token or payloads.form == "json" else silent + len(piece)
            if silent > bounds.MOST_SILENT_BYTES:
                raise bounds.OutOfBounds(f"more than {bounds.MOST_SILENT_BYTES:,} bytes without a piece of an answer")
            if done:
                timer.end(socket, done=True)
            elif not timer.over:  # else what follows the end of an answer extends no deadline
                if accumulator.finished:
                    timer.end(socket, done=False)
                elif token:
                    timer.token(socket)
            if payloads.form == "markup":
                raise Unreadable("markup")
        if (whole := payloads.rest()) is not None and accumulator.feed(whole):
            timer.tokens, timer.first = True, anyio.current_time()
    finally:
        await response.aclose()


class Payloads:
    """Takes a body in pieces and returns the payloads of its server-sent events. Pure.

    A body that is one JSON object instead (a provider that ignored ``stream: true``, or reports an error with 200)
    counts as one payload. Lines end in LF, CR or CRLF, however the pieces are cut; several ``data`` lines of one event
    are joined by LF; comments and the fields ``event``, ``id`` and ``retry`` are skipped. Raises ``OutOfBounds``.
    """

    def __init__(self, most_bytes: int = bounds.MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self.form: Form = "unknown"
        """What the body is; ``unknown`` until its first byte has arrived."""
        self._tail = bytearray()  # an unfinished line, or a JSON body
        self._data: list[bytes] = []
        self._data_size = 0
        self._taken = 0
        self._after_cr = False

    def take(self, piece: bytes) -> list[bytes]:
        """The payloads that this piece completes, in order."""
        self._taken += len(piece)
        if self._taken > self._most_bytes:
            raise bounds.OutOfBounds(f"an answer of more than {self._most_bytes:,} bytes")
        if self.form == "unknown":
            piece = self._look(piece)
        if self.form == "events":
            return self._split(piece)
        self._keep(piece)
        return []

    def rest(self) -> bytes | None:
        """At the end: the whole of a JSON body, else None (an unfinished event is void)."""
        return bytes(self._tail) if self.form == "json" else None

    def _look(self, piece: bytes) -> bytes:
        """Detect the form; until it is known, keep only what may matter."""
        seen = bytes(self._tail) + piece
        if seen != _BOM and _BOM.startswith(seen):
            self._tail[:] = seen
            return b""
        seen = seen.removeprefix(_BOM)
        first = seen.lstrip()[:1]
        if not first:
            self._tail[:] = seen[-1:]  # whether the first line begins with a blank
            return b""
        self.form = "json" if first == b"{" else "markup" if first == b"<" else "events"
        self._tail.clear()
        return seen

    def _keep(self, piece: bytes) -> None:
        if self.form in ("events", "json"):
            self._check(len(piece))
            self._tail += piece

    def _check(self, more: int) -> None:
        if self._data_size + len(self._tail) + more > bounds.LARGEST_EVENT:
            raise bounds.OutOfBounds(f"an event of more than {bounds.LARGEST_EVENT:,} bytes")

    def _split(self, piece: bytes) -> list[bytes]:
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if b"\n" not in piece and b"\r" not in piece:
            self._keep(piece)
            return []
        self._after_cr = piece.endswith(b"\r")
        whole = bytes(self._tail) + piece
        lines = whole.splitlines()  # of bytes: LF, CR and CRLF, nothing else
        if whole.endswith((b"\n", b"\r")):
            lines.append(b"")
        self._tail.clear()
        found: list[bytes] = []
        for line in lines[:-1]:
            if not line:
                if self._data:
                    found.append(b"\n".join(self._data))
                    self._data.clear()
                    self._data_size = 0
            elif line.startswith(b"data"):
                self._field(line)
        self._keep(lines[-1])
        return found

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name != b"data":
            return
        value = value.removeprefix(b" ")
        self._check(len(value))
        self._data_size += len(value) + _LINE_OVERHEAD
        self._data.append(value)


def failure_of(error: Exception, endpoint: Endpoint, wall: Callable[[], float]) -> AttemptFailure:
    """Map an exception of an attempt to a failure of ours."""
    from openai import APIStatusError

    from kimi_mcp.provider.clients import connection_failure

    match error:
        case KimiError():  # a file that went away while it was sent
            return AttemptFailure(error=error)
        case APIStatusError():
            wait_s = requested_wait(error.response.headers, wall())
            found = read_error(error.response.content)
            return response_failure(found, endpoint, status=error.status_code, wait_s=wait_s)
        case ErrorEvent():
            return response_failure(error.error, endpoint, status=error.error.status)
        case bounds.OutOfBounds():
            return failure("large", endpoint, what=error.what)
        case Unreadable():
            return failure(error.kind, endpoint)
        case _:
            kind = connection_failure(error)
            if kind == "ours":
                (where,) = traceback.extract_tb(error.__traceback__, limit=-1)
                _log.error("a bug of ours: %s in %s:%d", type(error).__name__, where.name, where.lineno or 0)
            return failure(kind, endpoint)
