"""Answers a host's first requests while the SDK is still being imported, which takes a second. I/O: stdin and stdout.

Some hosts begin without a server that takes longer. So ``initialize``, ``server/discover``, ``ping`` and ``tools/list``
are answered from ``early_replies.json``, which ``python -m scripts.generate`` makes of what the SDK's server answers.
Only requests that are beyond doubt are answered so; everything else waits. The SDK's server then gets every message,
and what it answers to those requests once more is dropped. Not on Windows, where a pipe can't be polled.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, NoReturn, TextIO, cast

if sys.platform != "win32":
    import fcntl

Json = dict[str, Any]

_MOST_BYTES: Final = 1024 * 1024
"""Bytes that are kept for the SDK; what comes after them stays in the pipe."""
_CHUNK_BYTES: Final = 64 * 1024
_MOST_BRACKETS: Final = 100
_MOST_COMMAS: Final = 10_000
"""Of a line that is beyond doubt; whether one with more is refused is the SDK's transport's to say."""
_PLAIN_ID: Final = re.compile(r"[ !#-\[\]-~]{1,100}")
"""Text that every JSON writer writes alike."""
_ENVELOPE: Final = "io.modelcontextprotocol/"
"""What the newest era's fields of ``_meta`` begin with."""
_BROKEN: Final = "kimi-mcp could not start: its installation is broken. Install it again; its log says what is missing."


class _ObjectShape(NamedTuple):
    """The shape of a JSON object whose members can't be of a wrong type."""

    required: Mapping[str, _Shape] = {}
    optional: Mapping[str, _Shape] = {}
    others: _Shape | None = None
    """Of every other member; None: there may be none."""


_Shape = tuple[type, ...] | _ObjectShape

_CLIENT: Final = _ObjectShape(
    {"name": (str,), "version": (str,)}, {"title": (str,), "description": (str,), "websiteUrl": (str,)}
)
_OBJECTS: Final = _ObjectShape(others=(dict,))
_CAPABILITIES: Final = _ObjectShape(
    optional={
        "roots": _ObjectShape(optional={"listChanged": (bool,)}),
        **dict.fromkeys(("sampling", "elicitation", "experimental", "extensions"), _OBJECTS),
    }
)
_INITIALIZE: Final = _ObjectShape({"protocolVersion": (str,), "capabilities": _CAPABILITIES, "clientInfo": _CLIENT})
_PROGRESS: Final = _ObjectShape(optional={"_meta": _ObjectShape(optional={"progressToken": (int, str)})})
_NEWEST: Final = _ObjectShape(
    {
        "_meta": _ObjectShape(
            {
                f"{_ENVELOPE}protocolVersion": (str,),
                f"{_ENVELOPE}clientInfo": _CLIENT,
                f"{_ENVELOPE}clientCapabilities": _CAPABILITIES,
            }
        )
    }
)


def _fits(value: object, shape: _Shape) -> bool:
    """Whether a JSON value has a shape."""
    if not isinstance(shape, _ObjectShape):
        return type(value) in shape
    if type(value) is not dict or not shape.required.keys() <= value.keys():
        return False
    members = {**shape.optional, **shape.required}
    return all(
        (wanted := members.get(name, shape.others)) is not None and _fits(member, wanted)
        for name, member in cast(Json, value).items()
    )


class EarlyReplies:
    """Which requests are answered without the SDK, and with what. No I/O but reading its file.

    Follows the era of the connection: the first request settles it that belongs to one (see ``eras.py``).
    """

    def __init__(self, replies: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.answered: set[str | int] = set()
        """Ids of the requests that were answered; the first of each id is meant."""
        self._replies = _recorded() if replies is None else replies
        self._version: str | None = None
        """The version of the handshake; None before it, and in the newest era."""
        self._era: Literal["older", "newest"] | None = None
        self._sure = True
        """False once something came that only the SDK understands: then nothing more is answered."""
        self._ids: set[str | int] = set()

    def answer_line(self, line: bytes) -> bytes | None:
        """The reply to a line, newline included; None where the SDK has to answer, or no reply is due."""
        message = _plain_message_of(line)
        if message is None:
            self._sure = self._sure and not line.strip()
            return None
        well_formed = message.get("jsonrpc") == "2.0" and type(message.get("method")) is str
        if "id" not in message or "method" not in message:
            self._sure = self._sure and well_formed
            return None
        key = _plain_id(message["id"])
        if key is None or not well_formed or message.keys() - {"jsonrpc", "id", "method", "params"}:
            self._sure = False
            return None
        one_id = _correlated(message["id"])
        self._sure = self._sure and one_id not in self._ids
        if not self._sure:
            return None
        self._ids.add(one_id)
        result = self._result(message["method"], message.get("params"))
        if result is None:
            return None
        self.answered.add(message["id"])
        return f'{{"jsonrpc":"2.0","id":{key},"result":{result}}}\n'.encode()

    def discovery(self, version: str) -> str:
        """The result of ``server/discover`` in a version of the newest era, as JSON."""
        return self._replies["server/discover"][version]

    def _result(self, method: str, params: object) -> str | None:
        """The result as JSON."""
        if method == "server/discover" and self._era != "older":
            return self._newest_result(method, params)
        newest = method != "initialize" and has_envelope(params)
        if newest and self._era is None and not self._is_read(params):
            return None
        first = self._era is None
        if self._era is None:
            self._era = "newest" if newest else "older"
        if self._era == "newest":
            return self._newest_result(method, params)
        if method == "initialize":
            if not first or not _fits(params, _INITIALIZE):
                self._sure = False  # whether the handshake succeeds is the SDK's to say
                return None
            versions = self._replies["initialize"]
            wanted = cast(Json, params)["protocolVersion"]
            self._version = version = wanted if wanted in versions else max(versions)
            return versions[version]
        plain = params is None or _fits(params, _PROGRESS)
        if method == "ping" and plain:
            return "{}"
        if method == "tools/list" and plain and self._version is not None:
            return self._replies["tools/list"][self._version]
        return None

    def _is_read(self, params: object) -> bool:
        """Whether the SDK reads an envelope, rather than refuse it before it looks at the request."""
        meta = cast(Json, params)["_meta"]
        versions = [*self._replies["server/discover"]]
        return f"{_ENVELOPE}clientCapabilities" in meta and meta[f"{_ENVELOPE}protocolVersion"] in versions

    def _newest_result(self, method: str, params: object) -> str | None:
        if method not in ("server/discover", "tools/list") or not _fits(params, _NEWEST) or not self._is_read(params):
            return None
        return self._replies[method][cast(Json, params)["_meta"][f"{_ENVELOPE}protocolVersion"]]


def _recorded() -> Mapping[str, Mapping[str, str]]:
    """The results by method and version. Raises ``OSError`` or ``ValueError`` where the installation is broken."""
    return json.loads(Path(__file__).with_name("early_replies.json").read_text("utf-8"))


def _plain_message_of(line: bytes) -> Json | None:
    """The JSON object in a line of UTF-8; None where it holds none, or much more than a first request does."""
    if line.count(b"{") + line.count(b"[") > _MOST_BRACKETS or line.count(b",") > _MOST_COMMAS:
        return None
    with suppress(UnicodeDecodeError):
        return _message_of(line.decode("utf-8"))  # of bytes the parser would guess the encoding
    return None


def _message_of(line: str | bytes) -> Json | None:
    """The JSON object in a line; None where it holds none."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    with suppress(ValueError, RecursionError):
        message = json.loads(line, parse_constant=refuse)
        if type(message) is dict:
            return cast(Json, message)
    return None


def _plain_id(value: object) -> str | None:
    """A request's id as JSON; None where writers may write it otherwise."""
    if type(value) is int and abs(value) < 2**53:
        return str(value)
    return f'"{value}"' if type(value) is str and _PLAIN_ID.fullmatch(value) else None


def _correlated(value: str | int) -> str | int:
    """A request's id, "7" being the same as 7, as it is for the SDK."""
    try:
        return int(value)
    except ValueError:
        return value


def has_envelope(params: object) -> bool:
    """Whether a request has the newest era's fields of ``_meta``, by which it belongs to that era."""
    meta = cast(Json, params).get("_meta") if type(params) is dict else None
    return type(meta) is dict and f"{_ENVELOPE}protocolVersion" in meta


@dataclass(slots=True, kw_only=True)
class Handover:
    """What the SDK's transport takes over."""

    source: int | None
    """The descriptor of stdin."""
    sink: int | None
    """The descriptor of stdout."""
    replies: EarlyReplies = field(default_factory=EarlyReplies)
    received: bytes = b""
    """All that was read."""
    unwritten: bytes = b""
    """The rest of a reply whose reader was slow."""
    ended: bool = False
    """Whether the host closed stdin. A terminal says so only once."""


class EarlyConnection:
    """Reads and answers in a thread, from ``start`` to ``stop``."""

    def __init__(self, source: int | None, sink: int | None) -> None:
        self._handover = Handover(source=source, sink=sink)
        self._thread: threading.Thread | None = None
        self._wake: tuple[int, int] = (-1, -1)

    def start(self) -> None:
        """Begin, where descriptors can be polled."""
        source, sink = self._handover.source, self._handover.sink
        if not hasattr(select, "poll") or source is None or sink is None:
            return
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._serve, args=(source, sink), daemon=True)
        self._thread.start()

    def stop(self) -> Handover:
        """End; the caller goes on with what was received."""
        if self._thread is not None:
            os.write(self._wake[1], b"x")
            self._thread.join()
            for descriptor in self._wake:
                os.close(descriptor)
            self._thread = None
        return self._handover

    def _serve(self, source: int, sink: int) -> None:
        start, state = 0, self._handover
        while len(state.received) < _MOST_BYTES and not state.unwritten and self._ready(source, select.POLLIN):
            try:
                chunk = os.read(source, _CHUNK_BYTES)
            except BlockingIOError:  # another process made it non-blocking, and took what was there
                continue
            except OSError:
                chunk = b""
            if not chunk:
                state.ended = True
                return
            state.received += chunk
            while (end := state.received.find(b"\n", start)) >= 0:
                line, start = state.received[start:end], end + 1
                state.unwritten += state.replies.answer_line(line) or b""
            self._write(sink)

    def _write(self, sink: int) -> None:
        """Write what is to be written; the rest is kept where the host does not read, or is gone."""
        state = self._handover
        while state.unwritten and self._ready(sink, select.POLLOUT):
            try:
                written = os.write(sink, state.unwritten[: select.PIPE_BUF])
            except BlockingIOError:  # another process made it non-blocking
                continue
            except OSError:
                return
            state.unwritten = state.unwritten[written:]

    def _ready(self, descriptor: int, event: int) -> bool:
        """Wait for a descriptor; False once ``stop`` was called."""
        poll = select.poll()
        poll.register(descriptor, event)
        poll.register(self._wake[0], select.POLLIN)
        return self._wake[0] not in dict(poll.poll())


def refuse_all(handover: Handover) -> None:
    """Answer every request that is open, and every later one, with an error, until the host leaves.

    For an installation that is broken: a host shows its user the error of a call, but seldom a server's log.
    """
    if handover.source is None or handover.sink is None:
        return
    with suppress(OSError), os.fdopen(handover.sink, "wb") as sink, os.fdopen(handover.source, "rb") as source:
        sink.write(handover.unwritten)
        sink.flush()
        *lines, rest = handover.received.split(b"\n")
        answered = set(handover.replies.answered)
        for line in chain(lines, [rest] if handover.ended else _lines(rest, source)):
            message = _message_of(line) or {}
            key = message.get("id")
            if "method" not in message or type(key) not in (int, str):
                continue
            if key in answered:
                answered.discard(key)
            else:
                error = {"code": -32603, "message": _BROKEN}
                sink.write(json.dumps({"jsonrpc": "2.0", "id": key, "error": error}).encode() + b"\n")
                sink.flush()


def _lines(rest: bytes, source: BinaryIO) -> Iterator[bytes]:
    following = source.readline()
    yield rest + following
    if following:  # a terminal says only once that it has ended
        yield from source


def claim() -> tuple[int | None, int | None]:
    """Take stdin and stdout for the transport: private duplicates of both, or None for one that was never open.

    Afterwards descriptor 0 is the null device and descriptor 1 is stderr, for this process and its children and
    for good: neither a stray print nor a child that reads can disturb the transport, even while the process ends.
    """
    source = _move(0, sys.__stdin__, lambda: os.open(os.devnull, os.O_RDONLY))
    sink = _move(1, sys.__stdout__, _stderr_or_null)
    with suppress(OSError, ValueError, AttributeError):  # it is None where it was never open
        sys.stdout.flush()  # what was printed before goes to stderr too
    return source, sink


def _move(fd: int, stream: TextIO | None, open_replacement: Callable[[], int]) -> int | None:
    if stream is None:
        return None  # closed from the start: the number may be somebody else's by now
    try:
        # Above the standard descriptors, and not inherited by children.
        private = os.dup(fd) if sys.platform == "win32" else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return None
    with suppress(OSError):
        replacement = open_replacement()
        try:
            os.dup2(replacement, fd)
        finally:
            os.close(replacement)
        if sys.platform == "win32":
            # Children inherit the standard handle, which dup2 does not touch.
            from mcp.os.win32.utilities import rebind_std_handle_to_fd

            rebind_std_handle_to_fd(fd)
    return private


def _stderr_or_null() -> int:
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
