"""Bytes in, JSON-RPC messages and rejections out; messages in, lines out. No I/O but the log.

What a line may be
------------------
* One JSON object of JSON-RPC 2.0: a request, a notification, a response or an error. Empty lines are skipped.
* Not JSON at all (NaN and Infinity included): answered with -32700 and id null. Invalid UTF-8 and lone surrogates
  (a host that cuts a string in the middle of an emoji sends them) are replaced by U+FFFD, in lines of up to 8 MiB.
* Everything else that is wrong: answered with -32600 and, where it is known, the request's id. That is too long, too
  deep, too many values, a batch, no ``jsonrpc``, an ill-typed id, method, params or result.
* A line beyond the limit is skipped, not kept: only its head and its tail are searched for its id (the Python SDK
  writes the id first, the TypeScript SDK last).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, cast

from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """Limits of one line, and of the time that the end of a connection takes."""

    max_message_bytes: int = 48 * 1024 * 1024
    """Bytes of one line. Enough for media inlined as a data URI (36 MiB before base64)."""
    max_depth: int = 200
    """Nesting of arrays and objects; 200 is also where the JSON parser itself stops."""
    max_values: int = 500_000
    """Brackets and commas outside of strings: bounds what a line grows to once parsed."""
    max_id_chars: int = 1_000
    """Characters of a request's id; ids are kept and echoed."""
    grace_s: float = 0.3
    """Seconds that open requests get to finish once stdin has closed."""
    cleanup_s: float = 0.8
    """Seconds for the handlers' cancellation and the lifespan's clean-up together."""
    last_resort_s: float = 1.3
    """Seconds from the beginning of the end until the process leaves, whatever still hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedLine:
    """A line that never reaches the server, and the error that its sender gets."""

    id: RequestId | None
    """The request's id where it is known."""
    code: int
    """-32700 for what is not JSON, else -32600."""
    message: str
    """What is wrong with it; quotes nothing of the line itself."""

    def reply(self) -> JSONRPCError:
        """The answer for the wire."""
        return JSONRPCError(jsonrpc="2.0", id=self.id, error=ErrorData(code=self.code, message=self.message))


ReceivedLine = JSONRPCMessage | RejectedLine
"""What a line becomes."""

_ENDS: Final = 4096
"""Bytes at either end of a skipped line that are searched for its id."""

_SCALAR = rb'"(?:[^"\\]|\\.)*+"|-?\d+'
_HEAD_MEMBER: Final = re.compile(rb'\s*"((?:[^"\\]|\\.)*+)"\s*:\s*(' + _SCALAR + rb"|true|false|null)\s*,", re.DOTALL)
_TAIL_ID: Final = re.compile(
    rb'[,{]\s*"id"\s*:\s*(' + _SCALAR + rb')\s*(?:,\s*"(?:jsonrpc|method)"\s*:\s*"[^"\\]*+"\s*)*+\}\s*\Z',
    re.DOTALL,
)
# Consumes strings and whatever else lies between, then a run of structure. Both the closing quote and the run are
# optional: nothing is ever tried twice, so the search is linear on any input.
_STRUCTURE: Final = re.compile(rb'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z|\\\Z)|[^"\[\]{},]++)*+([\[\]{},]*+)', re.DOTALL)
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_REPAIRABLE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a line up to which broken text is replaced: that is slow."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LINE_BREAKS: Final = tuple((char.encode(), f"\\u{ord(char):04x}".encode()) for char in "\u2028\u2029\u0085")
"""Line ends for some readers (Node's readline, Python's splitlines): always written as escapes."""


class Framer:
    """Splits a byte stream into lines and turns each into a message or a rejection; holds at most one line."""

    def __init__(self, limits: TransportLimits) -> None:
        self._limits = limits
        self._pending = bytearray()
        self._head: bytes | None = None  # set while a line is being skipped
        self._tail = b""

    def feed(self, chunk: bytes) -> Iterator[ReceivedLine]:
        """The messages that ``chunk`` completes, in order."""
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            if (received := self._complete(line)) is not None:
                yield received
        if rest:
            self._keep(rest)

    def end(self) -> Iterator[ReceivedLine]:
        """The last line, where the stream ended without a newline."""
        if (received := self._complete(b"")) is not None:
            yield received

    def _keep(self, piece: bytes) -> None:
        if self._head is not None:
            self._tail = (self._tail + piece[-_ENDS:])[-_ENDS:]
            return
        self._pending += piece
        if len(self._pending) > self._limits.max_message_bytes:
            self._head = bytes(self._pending[:_ENDS])
            self._tail = bytes(self._pending[-_ENDS:])
            self._pending = bytearray()

    def _complete(self, piece: bytes) -> ReceivedLine | None:
        line = piece
        if self._head is not None or self._pending or len(piece) > self._limits.max_message_bytes:
            self._keep(piece)
            if self._head is not None:
                head, tail, self._head, self._tail = self._head, self._tail, None, b""
                limit = self._limits.max_message_bytes
                return self._refuse(_id_at_ends(head, tail), f"message of more than {limit} bytes refused")
            line = bytes(self._pending)  # parsed without another copy, which a bytearray is not
            self._pending = bytearray()
        if not line or line.isspace():
            return None
        return self.decode(line)

    def decode(self, line: bytes) -> ReceivedLine:
        """One message."""
        wrong = _wrong_shape(line, self._limits)
        if wrong is not None:
            return self._refuse(_id_at_ends(line[:_ENDS], line[-_ENDS:]), wrong)
        try:
            value = from_json(line, allow_inf_nan=False)
        except ValueError:
            try:
                value = _repaired(line)
            except ValueError:
                return RejectedLine(id=None, code=PARSE_ERROR, message="parse error: the message is not valid JSON")
            _log.warning("broken text in a message was replaced by U+FFFD")
        return self._classify(value)

    def _classify(self, value: Any) -> ReceivedLine:
        if type(value) is not dict:
            batch = type(value) is list
            wrong = "a batch is not part of this protocol" if batch else "a message is a JSON object"
            return self._refuse(None, f"invalid request: {wrong}")
        message = cast("dict[str, Any]", value)
        request_id = message.get("id")
        known_id = self._known_id(request_id)
        if "method" not in message:
            # A response: an error that carried its id would be taken for an answer to the peer's own request.
            return self._response(message, known_id) or self._refuse(
                None, 'invalid request: neither a request ("method") nor a well-formed response'
            )
        params = message.get("params")
        if message.get("jsonrpc") != "2.0":
            wrong = '"jsonrpc" must be "2.0"'
        elif type(message["method"]) is not str:
            wrong = '"method" must be a string'
        elif params is not None and type(params) is not dict:
            wrong = '"params" must be an object'
        elif "id" not in message:
            return JSONRPCNotification.model_validate(message)
        elif known_id is None:
            most = self._limits.max_id_chars
            wrong = f'"id" must be a 64-bit integer or a string of at most {most} characters'
        else:
            return JSONRPCRequest.model_validate(message)
        return self._refuse(known_id, f"invalid request: {wrong}")

    def _response(self, message: dict[str, Any], known_id: RequestId | None) -> JSONRPCMessage | None:
        try:
            if "error" in message and (known_id is not None or message.get("id") is None):
                return JSONRPCError.model_validate({"id": None, **message})
            if "result" in message and known_id is not None:
                return JSONRPCResponse.model_validate(message)
        except ValidationError:
            pass
        return None

    def _known_id(self, value: object) -> RequestId | None:
        if type(value) is int and -(2**63) <= value < 2**63:
            return value
        if type(value) is str and len(value) <= self._limits.max_id_chars:
            return value
        return None

    def _refuse(self, request_id: object, message: str) -> RejectedLine:
        return RejectedLine(id=self._known_id(request_id), code=INVALID_REQUEST, message=message)


def _wrong_shape(line: bytes, limits: TransportLimits) -> str | None:
    """Why the line must not be parsed: too deep or too many values. Linear, flat in memory, no recursion."""
    brackets = sum(map(line.count, (b"[", b"]", b"{", b"}")))
    if brackets <= limits.max_depth and brackets + line.count(b",") <= limits.max_values:
        return None
    structure = bytearray()
    for run in _STRUCTURE.finditer(line):
        structure += run[1]
        if len(structure) > limits.max_values:
            break
    steps = structure[: limits.max_values].translate(None, b",")
    if max(accumulate(map(_STEP.__getitem__, steps)), default=0) > limits.max_depth:
        return f"message nested deeper than {limits.max_depth} levels refused"
    if len(structure) > limits.max_values:
        return f"message of more than {limits.max_values} brackets and commas refused"
    return None


def _id_at_ends(head: bytes, tail: bytes) -> object:
    """The id of a message of which only both ends are known, or None."""
    at = len(head) - len(head.lstrip())
    if head[at : at + 1] == b"{":
        at += 1
        while member := _HEAD_MEMBER.match(head, at):
            if member[1] == b"id":
                return _scalar(member[2])
            at = member.end()
        last = _TAIL_ID.search(tail)
        return _scalar(last[1]) if last else None
    return None


def _scalar(text: bytes) -> object:
    try:
        return from_json(text)
    except ValueError:
        return None


def _repaired(line: bytes) -> Any:
    """The JSON value of a line without a byte order mark, with U+FFFD for invalid UTF-8 and for lone surrogates."""
    if len(line) > _REPAIRABLE_BYTES:
        raise ValueError("too long to be repaired")
    value = json.loads(line.decode("utf-8", "replace").removeprefix("\ufeff"))
    return from_json(_without_surrogates(value), allow_inf_nan=False)


def _without_surrogates(value: Any) -> str:
    return _SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False))


def encode(message: JSONRPCMessage) -> bytes:
    """The message as one line, newline included.

    Lone surrogates become U+FFFD; an answer that is no JSON at all becomes an internal error, anything else raises.
    """
    try:
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode()
    except (PydanticSerializationError, ValueError, RecursionError):
        line = _encode_repaired(message)
    for char, escape in _LINE_BREAKS:
        if char in line:
            line = line.replace(char, escape)
    return line + b"\n"


def _encode_repaired(message: JSONRPCMessage) -> bytes:
    try:
        value = from_json(_without_surrogates(message.model_dump(by_alias=True, exclude_unset=True)))
        return to_json(value, inf_nan_mode="null")
    except (TypeError, ValueError, RecursionError, PydanticSerializationError):
        if not isinstance(message, JSONRPCResponse | JSONRPCError):
            raise
        wrong = "the result could not be written as JSON"
        error = RejectedLine(id=message.id, code=INTERNAL_ERROR, message=wrong).reply()
        return error.model_dump_json(by_alias=True, exclude_unset=True).encode()
