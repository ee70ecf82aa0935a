"""The stdio transport: feeds the SDK's server from stdin, answers on stdout, ends cleanly. I/O, signals, exit.

The SDK's own transport has no bound on a line, gives malformed input no reply, lets a second request overwrite
one with the same id, hangs on SIGINT and dies of SIGTERM without clean-up; hence this one. ``framing.py`` says what a
line may be.

How a connection ends (EOF on stdin, SIGINT, SIGTERM, a peer that is gone)
--------------------------------------------------------------------------
1. EOF only: open requests get ``TransportLimits.grace_s`` to finish, so a one-shot pipe gets its quick answers.
2. The server's input is closed: the SDK cancels its handlers, the lifespan cleans up; after ``cleanup_s`` all of it is
   cancelled.
3. What remains to be written is written. If anything hangs, a watchdog ends the process after ``last_resort_s``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NoReturn, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
from mcp.server import Server
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)

from kimi_mcp.core import json_logs
from kimi_mcp.server.stdio.early import Handover, claim
from kimi_mcp.server.stdio.eras import reply_without_era
from kimi_mcp.server.stdio.framing import Framer, ReceivedLine, RejectedLine, TransportLimits, encode

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LAST_WRITES_S = 0.2
"""Seconds for what remains to be written once the server has ended."""

_CHUNK_BYTES: Final = 64 * 1024
"""Bytes of one read: what a pipe holds."""

_WRITE_BYTES: Final = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe which polls as writable takes without blocking."""

_MOST_EARLY_LINES: Final = 1_000
"""How many answers wait during the replay for a host that does not read."""

_POLLS: Final = hasattr(select, "poll")
"""Whether descriptors can be polled: everywhere but on Windows."""


async def serve_stdio(
    server: Server[Any], limits: TransportLimits | None = None, handover: Handover | None = None
) -> None:
    """Serve one client on stdin and stdout, in both protocol eras, until either side ends it.

    Claims descriptors 0 and 1 for good, unless they come with what an ``EarlyConnection`` passes on, and SIGINT and
    SIGTERM; call :func:`leave` when it returns or raises. Raises what ``server.run`` raised, if it failed.
    """
    if handover is None:
        source, sink = claim()
        handover = Handover(source=source, sink=sink)
    asyncio.get_running_loop().set_exception_handler(json_logs.loop_exception)
    await _HostConnection(server, handover, limits or TransportLimits()).run()


def leave(status: int = 0) -> NoReturn:
    """End the process now: flushes the logs, runs no exit handlers, waits for no thread."""
    for handler in logging.getLogger().handlers:
        with suppress(Exception):
            handler.flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


class _HostConnection:
    """One client, from the first byte to the last."""

    def __init__(self, server: Server[Any], handover: Handover, limits: TransportLimits) -> None:
        self._server = server
        self._handover = handover
        self._source, self._sink = handover.source, handover.sink
        self._limits = limits
        self._open_requests: set[RequestId] = set()
        self._answered_early = set(handover.replies.answered)
        self._unwanted: set[RequestId] = set()
        """Requests whose answers are dropped: the host has them."""
        self._era_is_settled = False
        self._request_closed = anyio.Event()
        self._ending = anyio.Event()
        self._server_ended = anyio.Event()
        self._is_replaying = True
        """Whether what was received early is still being passed on."""
        self._early_written = anyio.Event()
        self._to_early, self._early_lines = anyio.create_memory_object_stream[bytes](_MOST_EARLY_LINES)
        self._peer_is_gone = False
        self._all_written = anyio.Event()
        self._reading = anyio.CancelScope()
        self._watchdog = threading.Timer(limits.last_resort_s, _leave_hanging)
        self._watchdog.daemon = True
        self._failure: Exception | None = None
        self._to_server, self._from_peer = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self._to_peer, self._from_server = anyio.create_memory_object_stream[SessionMessage](0)

    async def run(self) -> None:
        """Serve until the end, then end."""
        self._watch_signals()
        rejections = self._to_peer.clone()
        with (
            self._to_server,
            self._from_peer,
            self._to_peer,
            self._from_server,
            self._to_early,
            self._early_lines,
            rejections,
        ):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write_early)
                tasks.start_soon(self._write)
                tasks.start_soon(self._serve)
                tasks.start_soon(self._read, rejections)
                await self._ending.wait()
                await self._end()
                tasks.cancel_scope.cancel()
        self._watchdog.cancel()
        if self._failure is not None:
            raise self._failure

    async def _serve(self) -> None:
        try:
            options = self._server.create_initialization_options()
            await self._server.run(self._from_peer, self._to_peer, options)
        except Exception as failure:  # noqa: BLE001 - raised again once everything is written
            self._failure = failure
        self._server_ended.set()
        self._ending.set()

    async def _read(self, rejections: anyio.abc.ObjectSendStream[SessionMessage]) -> None:
        framer = Framer(self._limits)
        # A stream that is broken or closed: the server has ended.
        with self._reading, suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with self._to_server, rejections:
                try:
                    for received in framer.feed(self._handover.received):
                        await self._replay(received, rejections)
                finally:
                    self._is_replaying = False
                    self._to_early.close()
                while not self._handover.ended and (chunk := await read_chunk(self._source)):
                    for received in framer.feed(chunk):
                        await self._pass_on(received, rejections)
                self._start_watchdog()
                for received in framer.end():
                    await self._pass_on(received, rejections)
                with anyio.move_on_after(self._limits.grace_s):
                    while self._open_requests:
                        self._request_closed = anyio.Event()
                        await self._request_closed.wait()
                self._ending.set()
                await anyio.sleep_forever()  # ``_end`` closes the streams

    async def _replay(self, received: ReceivedLine, rejections: anyio.abc.ObjectSendStream[SessionMessage]) -> None:
        """Pass on what was received early; a request that was answered then is through before the next message."""
        if not isinstance(received, JSONRPCRequest) or received.id not in self._answered_early:
            await self._pass_on(received, rejections)
            return
        self._answered_early.discard(received.id)
        if received.method != "server/discover":
            key = coerce_request_id(received.id)
            self._unwanted.add(key)
            await self._pass_on(received, rejections)
            while key in self._open_requests:
                self._request_closed = anyio.Event()
                await self._request_closed.wait()

    async def _pass_on(self, received: ReceivedLine, rejections: anyio.abc.ObjectSendStream[SessionMessage]) -> None:
        metadata = None
        if isinstance(received, JSONRPCRequest):
            if not self._era_is_settled:
                reply = reply_without_era(received, self._handover.replies.discovery)
                if reply is not None:
                    await rejections.send(_OwnReply(reply))
                    return
            self._era_is_settled = True
            key = coerce_request_id(received.id)
            if key in self._open_requests:
                wrong = "invalid request: a request with this id is still being worked on"
                received = RejectedLine(id=received.id, code=INVALID_REQUEST, message=wrong)
            else:
                self._open_requests.add(key)

                async def unanswered() -> None:
                    self._close_request(key)

                metadata = ServerMessageMetadata(on_request_unanswered=unanswered)
        if isinstance(received, RejectedLine):
            _log.warning("refused a message: %s", received.message, extra={"code": received.code})
            # Answered with its id, as JSON-RPC asks, but the open request of that id stays open.
            await rejections.send(_OwnReply(received.reply()))
        else:
            await self._to_server.send(SessionMessage(received, metadata))

    def _close_request(self, key: RequestId) -> None:
        self._open_requests.discard(key)
        self._request_closed.set()

    async def _write_early(self) -> None:
        """Write during the replay, which a host that does not read must not hold up: it may have left."""
        if self._handover.unwritten:
            await self._write_line(self._handover.unwritten)
        with self._early_lines:
            async for line in self._early_lines:
                if not self._peer_is_gone:
                    await self._write_line(line)
        self._early_written.set()

    async def _write(self) -> None:
        async for item in self._from_server:
            message = item.message
            answered = message.id if isinstance(message, JSONRPCResponse | JSONRPCError) else None
            if answered is not None and not isinstance(item, _OwnReply):
                key = coerce_request_id(answered)
                self._close_request(key)
                if key in self._unwanted:
                    self._unwanted.discard(key)
                    continue
            if self._peer_is_gone:
                continue  # received anyway, so that no sender waits
            try:
                line = encode(_without_exception_text(message))
            except Exception as failure:  # noqa: BLE001 - one message is lost, not the connection
                _log.error("a message could not be written as JSON", exc_info=failure)
                continue
            if self._is_replaying:
                with suppress(anyio.ClosedResourceError):  # it is over meanwhile
                    await self._to_early.send(line)
                    continue
            if not self._early_written.is_set():
                await self._early_written.wait()
            await self._write_line(line)
        await self._early_written.wait()
        self._all_written.set()

    async def _write_line(self, line: bytes) -> None:
        try:
            await write_all(self._sink, line)
        except OSError:
            self._peer_is_gone = True
            self._ending.set()

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def end(number: int, frame: FrameType | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process is ending already
                loop.call_soon_threadsafe(self._ending.set)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)

    def _start_watchdog(self) -> None:
        if not self._watchdog.is_alive():
            self._watchdog.start()

    async def _end(self) -> None:
        self._start_watchdog()
        self._reading.cancel()
        with anyio.move_on_after(self._limits.cleanup_s):
            await self._server_ended.wait()
        with anyio.move_on_after(_LAST_WRITES_S):
            await self._all_written.wait()


class _OwnReply(SessionMessage):
    """An answer of the transport's own, which closes no request."""


def _without_exception_text(message: JSONRPCMessage) -> JSONRPCMessage:
    """The message, unless it has the SDK's code 0, which carries the text of a handler's exception (handshake era)."""
    if isinstance(message, JSONRPCError) and message.error.code == 0:
        error = ErrorData(code=INTERNAL_ERROR, message="internal error; the log on stderr says where")
        return JSONRPCError(jsonrpc="2.0", id=message.id, error=error)
    return message


def _leave_hanging() -> NoReturn:
    _log.warning("the server could not end in time and leaves at once: what is not written down yet may be lost")
    leave()


# ── descriptors ───────────────────────────────────────────────────────────────────────────────────────────────────
#
# The event loop polls pipes, sockets and terminals; what can't be polled (regular files, the null device, everything
# on Windows) is read and written in threads, which ``leave`` leaves behind. No descriptor is made non-blocking: that
# would change it for every process that shares it.


async def read_chunk(fd: int | None) -> bytes:
    """The next bytes, as many as are there; none at the end of the stream, or where it was never open."""
    if fd is None:
        return b""
    while True:
        try:
            if not _POLLS:
                return await _in_thread(os.read, fd, _CHUNK_BYTES)
            try:
                await anyio.wait_readable(fd)
            except OSError:  # a regular file, the null device
                return await _in_thread(os.read, fd, _CHUNK_BYTES)
            return os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:  # another process made it non-blocking, and took what was there
            await anyio.lowlevel.checkpoint()
        except OSError:  # a terminal that hung up, a socket that was reset
            return b""


async def write_all(fd: int | None, line: bytes) -> None:
    """Write all of ``line``, waiting while the peer does not read; ``OSError`` where the peer is gone."""
    if fd is None:
        raise BrokenPipeError
    rest = memoryview(line)
    while rest:
        if not _POLLS:
            rest = rest[await _in_thread(os.write, fd, rest) :]
            continue
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(0):
            await anyio.wait_writable(fd)
        with suppress(BlockingIOError):
            rest = rest[os.write(fd, rest[:_WRITE_BYTES]) :]


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call it in a thread beside those that other work shares; a cancelled caller leaves it running."""
    limiter = anyio.CapacityLimiter(1)
    return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=limiter)
