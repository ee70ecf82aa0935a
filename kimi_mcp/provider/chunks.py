"""Merges the many small chunks of a chunked body that one read brings into one. Pure, no I/O.

A provider sends a chunk for each token, and parsing a chunk costs more than the token in it. The body and its framing
stay the same; whatever is not plainly a run of whole chunks passes unchanged.
"""

from __future__ import annotations

import re

_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_LONGEST_SIZE = 10
_LONGEST_HEAD = 65_536


class Chunks:
    """Follows the responses on one connection and merges their chunks."""

    __slots__ = ("_begun", "_head", "_left")

    def __init__(self) -> None:
        self.expect()

    def expect(self) -> None:
        """A request has been sent: the next read begins a response."""
        self._head: bytes | None = b""
        self._left: int | None = None
        self._begun = b""

    def take(self, data: bytes) -> bytes:
        """The bytes of a read, with each run of whole chunks merged."""
        if self._left is not None:
            return self._merged(data)
        if self._head is None:
            return data
        whole = self._head + data
        end = whole.find(b"\r\n\r\n") + 4
        if end < 4:
            self._head = whole if len(whole) < _LONGEST_HEAD else None
            return data
        known, self._head = len(self._head), None
        if whole.startswith(b"HTTP/1.1 200") and _CHUNKED.search(whole, 0, end - 2):
            self._left = 0
            return data[: end - known] + self._merged(data[end - known :])
        return data

    def _merged(self, data: bytes) -> bytes:
        assert self._left is not None
        if self._begun and not self._resume(data):
            return data
        if self._left >= len(data):
            self._left -= len(data)
            return data
        start = at = self._left
        self._left = 0
        found: list[bytes] = []
        while size := _SIZE.match(data, at):
            begin = size.end()
            end = begin + int(size[1], 16)
            if end == begin:
                self._left = None  # the last one: what follows are trailers
                break
            if end + 2 > len(data):
                self._left = end + 2 - len(data)
                break
            if data[end : end + 2] != b"\r\n":
                self._left = None
                break
            found.append(data[begin:end])
            at = end + 2
        else:
            self._begun = data[at:]
            if len(self._begun) >= _LONGEST_SIZE:
                self._left, self._begun = None, b""  # an extension, or no chunk at all
        if len(found) < 2:
            return data
        body = b"".join(found)
        return b"%b%x\r\n%b\r\n%b" % (data[:start], len(body), body, data[at:])

    def _resume(self, data: bytes) -> bool:
        """Complete the size in which the last read ended; False while it is incomplete, or if it is none."""
        whole = self._begun + data
        size = _SIZE.match(whole)
        if size is not None and (length := int(size[1], 16)):
            self._left, self._begun = size.end() + length + 2 - len(self._begun), b""
            return True
        self._begun = whole
        if size is not None or len(whole) >= _LONGEST_SIZE:
            self._left, self._begun = None, b""
        return False
