"""The stdio transport: feeds the SDK's server from stdin, answers on stdout, ends cleanly. I/O, signals, exit.

The SDK's own transport has no bound on a line, gives malformed input no reply, lets a second request overwrite
one with the same id, hangs on SIGINT and dies of SIGTERM without clean-up; hence this one. What a line may be is
in ``framing.py``, the two ends of the wire are in ``descriptors.py``.

The end, whatever brings it (EOF on stdin, SIGINT, SIGTERM, a peer that is gone)
-------------------------------------------------------------------------------
1. EOF only: requests being worked on get ``TransportLimits.grace_s`` to finish: a one-shot pipe gets its quick answers.
2. ``on_shutdown`` is awaited, for at most half of ``TransportLimits.cleanup_s``.
3. The server is told: the SDK cancels its handlers, the lifespan cleans up; past ``cleanup_s`` it is cancelled.
4. What is still to be written is written. If anything hangs, a watchdog leaves at ``TransportLimits.last_resort_s``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, NoReturn

import anyio
import anyio.abc
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
from kimi_mcp.server.stdio.descriptors import StdinReader, StdoutWriter, claim
from kimi_mcp.server.stdio.framing import Framer, ReceivedLine, RejectedLine, TransportLimits, encode

__all__ = ["TransportLimits", "leave", "serve_stdio"]

_log = logging.getLogger(__name__)

_DEFAULTS = TransportLimits()
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_WORDS_S = 0.2
"""Seconds for what is still to be written once the server has ended."""


async def serve_stdio(
    server: Server[Any],
    *,
    limits: TransportLimits = _DEFAULTS,
    on_shutdown: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve one client on stdin and stdout, in both protocol eras, until either side ends it.

    Claims descriptors 0 and 1 for good, and SIGINT and SIGTERM; call :func:`leave` when it returns.
    ``on_shutdown`` runs once as the end begins, while handlers and the lifespan are still alive.
    Raises what ``server.run`` raised, if it failed.
    """
    source, sink = claim()
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop().set_exception_handler(json_logs.loop_exception)
    await _Connection(server, StdinReader(source), StdoutWriter(sink), limits, on_shutdown).run()


def leave(status: int = 0) -> NoReturn:
    """Leave the process now: flushes the logs, runs no exit handlers, waits for no thread."""
    for handler in logging.getLogger().handlers:
        with contextlib.suppress(Exception):
            handler.flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


class _Connection:
    """One client, from the first byte to the last."""

    def __init__(
        self,
        server: Server[Any],
        source: StdinReader,
        sink: StdoutWriter,
        limits: TransportLimits,
        on_shutdown: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._server = server
        self._source = source
        self._sink = sink
        self._limits = limits
        self._on_shutdown = on_shutdown
        self._in_flight: set[RequestId] = set()
        self._settled = anyio.Event()
        self._ending = anyio.Event()
        self._served = anyio.Event()
        self._written = anyio.Event()
        self._reading = anyio.CancelScope()
        self._serving = anyio.CancelScope()
        self._watchdog: threading.Timer | None = None
        self._failure: Exception | None = None
        self._to_server, self._from_peer = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self._to_peer, self._from_server = anyio.create_memory_object_stream[SessionMessage](0)

    async def run(self) -> None:
        """Serve until the end, then end."""
        refusals = self._to_peer.clone()
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._watch_signals)
                tasks.start_soon(self._write)
                tasks.start_soon(self._serve)
                tasks.start_soon(self._read, refusals)
                await self._ending.wait()
                await self._end()
                tasks.cancel_scope.cancel()
        finally:
            for stream in (self._to_server, self._from_peer, self._to_peer, self._from_server, refusals):
                stream.close()
            self._source.close()
            self._sink.close()
            if self._watchdog is not None:
                self._watchdog.cancel()
        if self._failure is not None:
            raise self._failure

    async def _serve(self) -> None:
        with self._serving:
            try:
                options = self._server.create_initialization_options()
                await self._server.run(self._from_peer, self._to_peer, options)
            except Exception as failure:  # noqa: BLE001 - raised again once the wire is closed
                self._failure = failure
        self._served.set()
        self._ending.set()

    # ------------------------------------------------------------------------------------ reading

    async def _read(self, refusals: anyio.abc.ObjectSendStream[SessionMessage]) -> None:
        framer = Framer(self._limits)
        mended = 0
        with self._reading:
            async with self._to_server, refusals:
                try:
                    while chunk := await self._source.chunk():
                        for received in framer.feed(chunk):
                            await self._take(received, refusals)
                        if framer.mended > mended:
                            mended = framer.mended
                            _log.warning("broken text in a message was replaced by U+FFFD")
                    for received in framer.end():
                        await self._take(received, refusals)
                    self._arm_watchdog()
                    with anyio.move_on_after(self._limits.grace_s):
                        while self._in_flight:
                            self._settled = anyio.Event()
                            await self._settled.wait()
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass  # the server has ended
                self._ending.set()
                await anyio.sleep_forever()  # the streams close when the end says so

    async def _take(self, received: ReceivedLine, refusals: anyio.abc.ObjectSendStream[SessionMessage]) -> None:
        if isinstance(received, JSONRPCRequest):
            key = coerce_request_id(received.id)
            if key in self._in_flight:
                wrong = "invalid request: a request with this id is still being worked on"
                received = RejectedLine(id=received.id, code=INVALID_REQUEST, message=wrong)
            else:
                self._in_flight.add(key)

                async def unanswered() -> None:
                    self._settle(key)

                metadata = ServerMessageMetadata(on_request_unanswered=unanswered)
                await self._to_server.send(SessionMessage(received, metadata))
                return
        if isinstance(received, RejectedLine):
            _log.warning("refused a message: %s", received.message, extra={"code": received.code})
            # Answered with its id, as JSON-RPC asks, but without settling the request being worked on.
            await refusals.send(_Rejected(received.reply()))
            return
        await self._to_server.send(SessionMessage(received))

    def _settle(self, key: RequestId) -> None:
        self._in_flight.discard(key)
        self._settled.set()

    # ------------------------------------------------------------------------------------ writing

    async def _write(self) -> None:
        gone = False
        async for item in self._from_server:
            message = item.message
            answered = message.id if isinstance(message, JSONRPCResponse | JSONRPCError) else None
            if answered is not None and not isinstance(item, _Rejected):
                self._settle(coerce_request_id(answered))
            if gone:
                continue  # taken all the same, so that nobody waits to say what nobody hears
            try:
                line = encode(_without_foreign_text(message))
            except Exception as failure:  # noqa: BLE001 - one message is lost, not the connection
                _log.error("a message could not be written as JSON", exc_info=failure)
                continue
            try:
                await self._sink.write(line)
            except OSError:
                gone = True
                self._ending.set()
        self._written.set()

    # ------------------------------------------------------------------------------------ ending

    async def _watch_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            with anyio.open_signal_receiver(*_SIGNALS) as received:
                task_status.started()
                async for _ in received:
                    self._ending.set()
        except NotImplementedError:  # Windows
            loop = asyncio.get_running_loop()

            def end(number: int, frame: FrameType | None) -> None:
                loop.call_soon_threadsafe(self._ending.set)

            for number in _SIGNALS:
                signal.signal(number, end)
            task_status.started()
        except (RuntimeError, ValueError):  # not the main thread: signals are somebody else's
            task_status.started()
        finally:
            if self._ending.is_set():
                with contextlib.suppress(ValueError):
                    for number in _SIGNALS:
                        signal.signal(number, signal.SIG_IGN)  # the process is leaving already

    def _arm_watchdog(self) -> None:
        if self._watchdog is None:
            self._watchdog = threading.Timer(self._limits.last_resort_s, _leave_hanging)
            self._watchdog.daemon = True
            self._watchdog.start()

    async def _end(self) -> None:
        self._arm_watchdog()
        with anyio.move_on_after(self._limits.cleanup_s):
            if self._on_shutdown is not None:
                with anyio.move_on_after(self._limits.cleanup_s / 2):
                    try:
                        await self._on_shutdown()
                    except Exception as failure:  # noqa: BLE001 - the end goes on
                        _log.error("on_shutdown failed", exc_info=failure)
            self._reading.cancel()
            await self._served.wait()
        self._reading.cancel()
        self._serving.cancel()
        await self._served.wait()
        with anyio.move_on_after(_LAST_WORDS_S):
            await self._written.wait()


class _Rejected(SessionMessage):
    """An answer of the transport's own, which settles no request."""


def _without_foreign_text(message: JSONRPCMessage) -> JSONRPCMessage:
    """The message, unless it is the SDK's code 0, which carries a handler's exception text (handshake era)."""
    if isinstance(message, JSONRPCError) and message.error.code == 0:
        error = ErrorData(code=INTERNAL_ERROR, message="internal error; the log on stderr says where")
        return JSONRPCError(jsonrpc="2.0", id=message.id, error=error)
    return message


def _leave_hanging() -> NoReturn:
    _log.warning("the server could not end in time and leaves at once: what is not written down yet may be lost")
    leave()
