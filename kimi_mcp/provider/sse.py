"""Parses server-sent events from bytes. Pure, no I/O.

A body that is one JSON object instead of a stream (a provider that ignored ``stream: true``, or reports an error with
200) counts as one payload.
"""

from __future__ import annotations

from typing import Literal

from kimi_mcp.core import bounds

Form = Literal["unknown", "events", "json", "markup"]
"""What a body is, by its first byte that is not blank."""

_BOM = b"\xef\xbb\xbf"
_LINE_OVERHEAD = 40
"""Bytes of memory that a line costs beside its own."""


class Payloads:
    """Takes a body in pieces and returns the payloads of its events.

    Lines end in LF, CR or CRLF, however the pieces are cut; several ``data`` lines of one event are joined by LF;
    comments and the fields ``event``, ``id`` and ``retry`` are skipped. Raises ``bounds.OutOfBounds``.
    """

    __slots__ = ("_after_cr", "_data", "_data_size", "_tail", "_taken", "form")

    def __init__(self) -> None:
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
        if self._taken > bounds.MOST_BYTES:
            raise bounds.OutOfBounds(f"an answer of more than {bounds.MOST_BYTES:,} bytes")
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
        if b"\r" in piece:
            lines = whole.splitlines()  # of bytes: LF, CR and CRLF, nothing else
            if whole.endswith((b"\n", b"\r")):
                lines.append(b"")
        else:
            lines = whole.split(b"\n")
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
