"""A tool server as a child process: its pipes as MCP streams, its stderr in our log, its end for certain. Does I/O.

On Windows the SDK's client is used, which has a job object; there the limits don't hold, and stderr is not logged.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from kimi_mcp.core.redaction import scrub
from kimi_mcp.swarm.tools.config import ServerConfig, printable_name

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams
    from mcp.shared.message import SessionMessage

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of one message of a server; of a longer one only its head and tail are kept, to see what it answers."""

TOO_LARGE: Final = -32901
"""The code of the error that replaces an answer beyond ``MAX_MESSAGE_BYTES``; never on any wire."""

UNREADABLE: Final = -32902
"""The code of the error that replaces an answer that is no JSON-RPC message; never on any wire."""

CHUNK_BYTES: Final = 64 * 1024
"""Bytes read at once."""

FREE_BYTES: Final = 1024 * 1024
"""Bytes that a server may send unrequested between two answers before it is read slowly."""

MESSAGE_COST_BYTES: Final = 1024
"""What an unrequested message counts beside its own bytes: each takes time to parse."""

SLOWDOWN_S: Final = 0.05
"""Seconds between two reads of a server that floods."""

STDERR_LINES: Final = 20
"""Lines of a child's stderr that are logged at once; one more with each second."""

STDERR_CHARS: Final = 500
"""Code points of one such line."""

EXIT_GRACE_S: Final = 1.0
"""Seconds that a server may take to exit once its stdin is closed."""

TERM_GRACE_S: Final = 0.4
"""Seconds between SIGTERM and SIGKILL for what is left of its process group, or has left that."""

MARK: Final = "TOOL_SERVER_OF_KIMI_MCP"
"""The environment variable that marks what a server starts."""

_PIPE_ERRORS = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)

_log = logging.getLogger(__name__)


@asynccontextmanager
async def stdio_streams(server: ServerConfig, *, on_end: Callable[[], None]) -> AsyncGenerator[TransportStreams]:
    """A process for one MCP session. Raises ``OSError`` where it can't start.

    ``on_end`` is called once nothing more can come from it. Its environment is what the SDK takes for safe, which holds
    no key, and the entry's.
    """
    from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client

    safe = {name: value for name, value in get_default_environment().items() if scrub(value) == value}
    environment = {**safe, **server.environment}
    if sys.platform == "win32":
        program, *arguments = server.command
        parameters = StdioServerParameters(command=program, args=arguments, env=environment, cwd=server.folder)
        with open(os.devnull, "w", encoding="utf-8") as errors:  # noqa: ASYNC230, PTH123 - opening it never waits
            async with stdio_client(parameters, errlog=errors) as streams:
                yield streams
        return
    mark = ProcessMark()
    process = await anyio.open_process(
        list(server.command), env={**environment, **mark.environment}, cwd=server.folder, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    to_session, from_server = anyio.create_memory_object_stream[Any](0)
    to_server, from_session = anyio.create_memory_object_stream[Any](0)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read_messages, process.stdout, to_session, on_end)
            tasks.start_soon(_write_messages, process.stdin, from_session)
            tasks.start_soon(_log_stderr, process.stderr, server.name)
            yield from_server, to_server
            with anyio.CancelScope(shield=True):
                with suppress(*_PIPE_ERRORS):
                    await process.stdin.aclose()  # at which a good server exits
                await _poll(lambda: process.returncode is not None, EXIT_GRACE_S)
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(*_PIPE_ERRORS):
                await process.stdin.aclose()
            await _end_processes(process, mark)
        for stream in (to_session, from_server, to_server, from_session):
            stream.close()


class LineSplitter:
    """Cuts bytes into lines; of a line beyond the limit only the head and the tail are kept, 4,096 bytes each."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._begun = bytearray()

    @property
    def too_long(self) -> bool:
        """Whether the line that has begun is beyond the limit."""
        return self._size > self._limit

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bool]]:
        """Each line that is complete now, and whether it is whole."""
        *complete, rest = piece.split(b"\n")
        for line in complete:
            self._add(line)
            yield bytes(self._begun), not self.too_long
            self._begun.clear()
            self._size = 0
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._begun += piece
        if self.too_long:
            del self._begun[4096:-4096]


async def _chunks(pipe: ByteReceiveStream) -> AsyncIterator[bytes]:
    """The bytes that come through a pipe, until its end."""
    with suppress(*_PIPE_ERRORS):
        while True:
            yield await pipe.receive(CHUNK_BYTES)


async def _read_messages(stdout: ByteReceiveStream, to_session: Any, on_end: Callable[[], None]) -> None:
    """Pass messages on until the server's end; a server that sends much unrequested is read slowly."""
    lines, unrequested = LineSplitter(MAX_MESSAGE_BYTES), 0
    async with to_session:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the session has ended
            async for chunk in _chunks(stdout):
                for line, whole in lines.feed(chunk):
                    message = parse_message(line, whole=whole)
                    chunks_before = unrequested // CHUNK_BYTES
                    if message is None or hasattr(message.message, "method"):
                        unrequested += len(line) + MESSAGE_COST_BYTES
                    else:  # the answer to a request of ours
                        unrequested = 0
                    if message is not None:
                        await to_session.send(message)
                    if unrequested > FREE_BYTES and unrequested // CHUNK_BYTES > chunks_before:
                        await anyio.sleep(SLOWDOWN_S)
                if lines.too_long:
                    await anyio.sleep(SLOWDOWN_S / 50)
        on_end()  # before the stream is closed, so that the session's end is known for the process's


def parse_message(line: bytes, *, whole: bool) -> SessionMessage | None:
    """The message of a line; None: it is none. An answer that can't be read becomes an error to the same request."""
    from mcp.shared.message import SessionMessage
    from mcp.types import ErrorData, JSONRPCError, jsonrpc_message_adapter

    if line.lstrip()[:1] != b"{":
        return None
    if whole:
        with suppress(ValueError, RecursionError):
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    found = _ID_AT_HEAD.match(line[:4096]) or _ID_AT_TAIL.search(line[-512:])
    if found is None or b'"method"' in line[: found.end() + 40]:  # a request has a method, an answer none
        return None
    fault = ErrorData(code=UNREADABLE if whole else TOO_LARGE, message="")
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=json.loads(found[1]), error=fault))


_ID = rb'"id"\s*:\s*(-?\d{1,15}|"[\x20\x21\x23-\x5b\x5d-\x7e]{1,100}")'
_ID_AT_HEAD = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?' + _ID)
_ID_AT_TAIL = re.compile(_ID + rb'\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')


async def _write_messages(stdin: ByteSendStream, from_session: Any) -> None:
    """Pass our messages on, as long as the server reads them."""
    async with from_session:
        with suppress(*_PIPE_ERRORS):
            async for sent in from_session:
                text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                await stdin.send(text.encode("utf-8", "replace") + b"\n")


async def _log_stderr(stderr: ByteReceiveStream, name: str) -> None:
    """Log what the server writes to stderr, as a field and at a bounded rate; lines beyond that are counted."""
    lines, dropped = LineSplitter(CHUNK_BYTES), 0
    free, at = float(STDERR_LINES), anyio.current_time()
    async for chunk in _chunks(stderr):
        for line, _ in lines.feed(chunk):
            if not line.strip():
                continue
            now = anyio.current_time()
            free, at = min(STDERR_LINES, free + now - at), now
            if free < 1:
                dropped += 1
                continue
            text = line[: 4 * STDERR_CHARS].decode("utf-8", "replace")[:STDERR_CHARS]
            extra = {"server": printable_name(name), "line": text, **({"dropped_lines": dropped} if dropped else {})}
            _log.info("a tool server wrote to stderr", extra=extra)
            free, dropped = free - 1, 0
        if dropped:
            await anyio.sleep(SLOWDOWN_S)


class ProcessMark:
    """The mark of one start of a server, which all that it starts inherits with its environment.

    So a child is found that called ``setsid`` or whose parent has ended, by ``/proc/<pid>/environ``; but not one that
    was started with a cleared environment (``env -i``), has overwritten it, or runs as another user; on macOS none is.
    """

    def __init__(self) -> None:
        self.environment: dict[str, str] = {MARK: secrets.token_hex(16)}
        """What goes into the environment of the server's process."""
        self._entry = f"{MARK}={self.environment[MARK]}".encode()

    def signal(self, number: signal.Signals) -> list[int]:
        """Signal every process that has it; the ids of those that live. Blocking: it reads all processes."""
        try:
            pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
        except OSError:
            return []
        living: list[int] = []
        for pid in filter(self.is_on, pids):
            with suppress(OSError):  # it has just ended
                os.kill(pid, number)
                living.append(pid)
        return living

    def kill(self, within_s: float) -> None:
        """Kill every process that has it, until there is none or the time is over. Blocking."""
        until = time.monotonic() + within_s
        while self.signal(signal.SIGKILL) and time.monotonic() < until:
            time.sleep(0.01)  # one that was being started is found in the next round

    def is_on(self, pid: int) -> bool:
        """Whether a process runs and has it."""
        try:
            return self._entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or belongs to somebody else
            return False


async def _end_processes(process: Process, mark: ProcessMark) -> None:
    """End what the server started and is left: of its process group, and of what has left that. Bounded."""
    from mcp.os.posix.utilities import terminate_posix_process_tree

    own_thread = anyio.CapacityLimiter(1)  # the others may all be waiting for a slow disk or resolver
    marked = await anyio.to_thread.run_sync(mark.signal, signal.SIGTERM, limiter=own_thread)
    await terminate_posix_process_tree(process, TERM_GRACE_S)
    await _poll(lambda: process.returncode is not None and not any(map(mark.is_on, marked)), TERM_GRACE_S)
    await anyio.to_thread.run_sync(mark.kill, TERM_GRACE_S, limiter=own_thread)
    # A descendant that left the group may hold the pipes; nothing public closes them without waiting for it.
    transport: Any = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:
        with suppress(PermissionError):
            transport.close()


async def _poll(done: Callable[[], bool], within_s: float) -> None:
    """Return once it is done, or the time is over. Not by ``process.wait``: that waits for the pipes as well."""
    with anyio.move_on_after(within_s):
        while not done():  # noqa: ASYNC110 - no event announces it
            await anyio.sleep(0.01)
