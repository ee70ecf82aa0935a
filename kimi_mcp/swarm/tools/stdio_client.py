"""A tool server as a child process: its pipes as MCP streams, its stderr in our log, its end for certain. Does I/O.

The SDK's own stdio client reads a line without any bound, in time that grows with its square, and leaves behind what
a server started. So the pipes are ours: a line has a limit, whoever floods is read slowly, and with the server goes
its whole process group, on Linux with what has left that (``strays``). On Windows the SDK's client is used, which has
a job object for that; there the limits don't hold, and stderr is not logged.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from kimi_mcp.core.redaction import scrub
from kimi_mcp.swarm.tools.config import ServerConfig, printable_name
from kimi_mcp.swarm.tools.orphans import ProcessMark

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams
    from mcp.shared.message import SessionMessage

LARGEST_MESSAGE: Final = 8 * 1024 * 1024
"""Bytes of one message of a server; of a longer one only its head and tail are kept, to see what it answers."""

TOO_LARGE: Final = -32901
"""The code of the error that stands in for an answer beyond ``LARGEST_MESSAGE``; never on any wire."""

UNREADABLE: Final = -32902
"""The code of the error that stands in for an answer that is no JSON-RPC message; never on any wire."""

CHUNK: Final = 64 * 1024
"""Bytes read at once."""

FREE_BYTES: Final = 1024 * 1024
"""Bytes that a server may send unasked between two answers before it is read slowly."""

FREE_MESSAGES: Final = 1_000
"""Messages, the same."""

SLOWLY_S: Final = 0.05
"""Seconds between two reads of a server that floods."""

STDERR_LINES: Final = 20
"""Lines of a child's stderr that are logged at once; one more comes free with each second."""

STDERR_CHARS: Final = 500
"""Code points of one such line."""

EXIT_GRACE_S: Final = 1.0
"""Seconds that a server may take to leave once its stdin is closed."""

TERM_GRACE_S: Final = 0.4
"""Seconds between SIGTERM and SIGKILL for whatever is left of its process group, or has left that."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


def child_environment(server: ServerConfig) -> dict[str, str]:
    """What its process gets: the few variables that the SDK holds for safe, none that holds a key, and the entry's."""
    from mcp.client.stdio import get_default_environment

    safe = {name: value for name, value in get_default_environment().items() if scrub(value) == value}
    return {**safe, **server.environment}


@asynccontextmanager
async def stdio_streams(server: ServerConfig, *, on_end: Callable[[], None]) -> AsyncGenerator[TransportStreams]:
    """Start a server's process; its pipes as the streams of an MCP session. Raises ``OSError`` where it can't start.

    ``on_end`` is called when it says no more, and never will.
    """
    if sys.platform == "win32":
        async with _by_the_sdk(server) as streams:
            yield streams
        return
    mark = ProcessMark()
    process = await anyio.open_process(
        list(server.command),
        env={**child_environment(server), **mark.environment},
        cwd=server.folder,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    calm = False
    to_session, from_server = anyio.create_memory_object_stream[Any](0)
    to_server, from_session = anyio.create_memory_object_stream[Any](0)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process.stdout, to_session, on_end)
            tasks.start_soon(_write, process.stdin, from_session)
            tasks.start_soon(_log_stderr, process.stderr, server.name)
            yield from_server, to_server
            calm = True
            from_server.close()
            to_server.close()
            with anyio.CancelScope(shield=True):
                await _leave(process)
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process, mark, patient=calm)
        for stream in (to_session, from_server, to_server, from_session):
            stream.close()


@asynccontextmanager
async def _by_the_sdk(server: ServerConfig) -> AsyncGenerator[TransportStreams]:
    from mcp.client.stdio import StdioServerParameters, stdio_client

    asked = StdioServerParameters(
        command=server.command[0],
        args=list(server.command[1:]),
        env=child_environment(server),
        cwd=server.folder,
    )
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: ASYNC230, PTH123 - opening it never waits
        async with stdio_client(asked, errlog=nowhere) as streams:
            yield streams


# ── reading and writing ───────────────────────────────────────────────────────────────────────────────────────────


class LineSplitter:
    """Cuts bytes into lines; of a line beyond the limit only the head and the tail are kept."""

    _KEPT = 4096

    def __init__(self, limit: int = LARGEST_MESSAGE) -> None:
        self._limit = limit
        self._begun: list[bytes] = []
        self._size = 0

    @property
    def over(self) -> bool:
        """Whether the line that has begun is beyond the limit."""
        return self._size > self._limit

    def take(self, piece: bytes) -> Generator[tuple[bytes, bool]]:
        """Each line that is complete now, and whether it is whole."""
        *complete, rest = piece.split(b"\n")
        for line in complete:
            self._add(line)
            whole = not self.over
            yield b"".join(self._begun), whole
            self._begun, self._size = [], 0
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._begun.append(piece)
        if self.over:
            joined = b"".join(self._begun)
            if len(joined) > 2 * self._KEPT:
                joined = joined[: self._KEPT] + joined[-self._KEPT :]
            self._begun = [joined]


async def _read(stdout: ByteReceiveStream, to_session: Any, on_end: Callable[[], None]) -> None:
    """Pass the server's messages on until it ends; its end is told first, so that what follows from it is known."""
    async with to_session:
        await _pass_on(stdout, to_session)
        on_end()


async def _pass_on(stdout: ByteReceiveStream, to_session: Any) -> None:
    """Whatever is no message is dropped; who sends much unasked is read slowly."""
    lines = LineSplitter()
    unasked_bytes = unasked = 0
    while True:
        try:
            piece = await stdout.receive(CHUNK)
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            return
        for line, whole in lines.take(piece):
            message = read_message(line, whole=whole)
            if message is not None and is_answer(message):
                unasked_bytes = unasked = 0
            else:
                unasked_bytes += len(line)
                unasked += 1
            if message is not None:
                try:
                    await to_session.send(message)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return
            if unasked > FREE_MESSAGES and unasked % 20 == 0:
                await anyio.sleep(SLOWLY_S)
        if unasked_bytes > FREE_BYTES:
            await anyio.sleep(SLOWLY_S)
        elif lines.over:
            await anyio.sleep(SLOWLY_S / 50)


def read_message(line: bytes, *, whole: bool) -> SessionMessage | None:
    """The message of a line; None: it is none. An answer that can't be read becomes an error to the same request."""
    from mcp.shared.message import SessionMessage
    from mcp.types import ErrorData, JSONRPCError, jsonrpc_message_adapter

    if line.lstrip()[:1] != b"{":
        return None
    if whole:
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except (ValueError, RecursionError):
            pass
    identity = _answered(line)
    if identity is None:
        return None
    fault = ErrorData(code=UNREADABLE if whole else TOO_LARGE, message="")
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=identity, error=fault))


def is_answer(message: SessionMessage) -> bool:
    """Whether a message answers a request of ours."""
    return not hasattr(message.message, "method")


_ID = rb'"id"\s*:\s*(-?\d{1,15}|"[\x20\x21\x23-\x5b\x5d-\x7e]{1,100}")'
_AT_HEAD = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?' + _ID)
_AT_TAIL = re.compile(_ID + rb'\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')


def _answered(line: bytes) -> int | str | None:
    """The id of the request that a line answers, as far as its head or its tail tells; requests have a method."""
    found = _AT_HEAD.match(line[:4096]) or _AT_TAIL.search(line[-512:])
    if found is None or b'"method"' in line[: found.end() + 40]:
        return None
    return json.loads(found[1])


async def _write(stdin: ByteSendStream, from_session: Any) -> None:
    """Pass our messages on; a server that reads no more closes its own way."""
    async with from_session:
        async for sent in from_session:
            text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                await stdin.send(text.encode("utf-8", "replace") + b"\n")
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                return


async def _log_stderr(stderr: ByteReceiveStream, name: str) -> None:
    """Put what the server says on stderr into our log, as a field and at a bounded rate."""
    said = StderrLogger(name)
    lines = LineSplitter(limit=CHUNK)
    while True:
        try:
            piece = await stderr.receive(CHUNK)
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            return
        for line, _ in lines.take(piece):
            said.line(line)
        if said.dropped:
            await anyio.sleep(SLOWLY_S)


class StderrLogger:
    """Logs the lines of a child, so many and no more, and counts the others."""

    def __init__(self, name: str, clock: Callable[[], float] = anyio.current_time) -> None:
        self._name, self._clock = printable_name(name), clock
        self._free: float = STDERR_LINES
        self._at = clock()
        self.dropped = 0
        """Lines since the last one that was logged."""

    def line(self, line: bytes) -> None:
        """Take one line."""
        if not line.strip():
            return
        now = self._clock()
        self._free, self._at = min(STDERR_LINES, self._free + now - self._at), now
        if self._free < 1:
            self.dropped += 1
            return
        self._free -= 1
        said = line[: 4 * STDERR_CHARS].decode("utf-8", "replace")[:STDERR_CHARS]
        extra: Mapping[str, Any] = {"server": self._name, "said": said}
        if self.dropped:
            extra = {**extra, "dropped_lines": self.dropped}
        self.dropped = 0
        _log.info("a tool server wrote to stderr", extra=extra)


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def _leave(process: Process) -> None:
    """Close its stdin and give it a moment: a good server leaves by itself."""
    assert process.stdin is not None
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        await process.stdin.aclose()
    await _until(lambda: process.returncode is not None, EXIT_GRACE_S)


async def _end(process: Process, mark: ProcessMark, *, patient: bool) -> None:
    """End whatever it started and is left: of its process group, and of what has left that. Bounded."""
    group = process.pid  # it leads a session of its own
    if not patient and process.stdin is not None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await process.stdin.aclose()
    there = _signal(group, signal.SIGTERM)
    if (strays := await _in_thread(partial(mark.signal, signal.SIGTERM))) or there:
        await _until(lambda: _is_over(process) and not any(map(mark.is_on, strays)), TERM_GRACE_S)
        if _signal(group, signal.SIGKILL):
            await _until(lambda: process.returncode is not None, TERM_GRACE_S)
        await _in_thread(partial(mark.kill, TERM_GRACE_S))
    # A descendant that left the group may hold the pipes; nothing public closes them without waiting for it.
    transport: Any = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:
        with suppress(PermissionError):
            transport.close()


def _is_over(process: Process) -> bool:
    return process.returncode is not None and not _signal(process.pid, 0)


async def _in_thread(work: Callable[[], T]) -> T:
    """Not among the threads of others, who may all be waiting for a slow disk or resolver."""
    return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))


def _signal(group: int, number: int) -> bool:
    """Signal a process group; whether there is one."""
    if sys.platform == "win32":
        return False
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS: some member is a zombie
        return True
    return True


async def _until(done: Callable[[], bool], within_s: float) -> None:
    """Look again and again until it is so, or the time is over. Not by waiting: that waits for the pipes as well."""
    with anyio.move_on_after(within_s):
        while not done():  # noqa: ASYNC110 - no event tells of it
            await anyio.sleep(0.01)
