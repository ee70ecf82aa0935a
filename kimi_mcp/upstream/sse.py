"""Server-sent events from bytes: which payloads a piece of a body completes. Pure, no I/O.

Works on bytes throughout, so a character that is split between two reads needs no care. A body that is one JSON object
instead of a stream (a provider that ignored ``stream: true``, or reports an error with 200) counts as one payload.
"""

from __future__ import annotations

from typing import Literal

LARGEST_PAYLOAD = 64 * 1024 * 1024
"""Bytes that one event, or a whole JSON body, may have; more is no answer that anybody asked for."""

Form = Literal["unknown", "events", "json", "markup"]
"""What a body turned out to be, by its first byte that is not blank."""

_BOM = b"\xef\xbb\xbf"


class TooLarge(Exception):
    """An event grew past ``LARGEST_PAYLOAD``."""


class Payloads:
    """Takes a body piece by piece and hands out the payloads of its events.

    Lines end in LF, CR or CRLF, whichever way they are cut; several ``data`` lines of one event are joined by LF;
    comments and the fields ``event``, ``id`` and ``retry`` are skipped.
    """

    __slots__ = ("_after_cr", "_data", "_size", "_tail", "form")

    def __init__(self) -> None:
        self.form: Form = "unknown"
        """What the body is; ``unknown`` until its first byte has come."""
        self._tail: list[bytes] = []
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def take(self, piece: bytes) -> list[bytes]:
        """The payloads that this piece completes, in order."""
        if (
            self.form == "events"
            and piece.startswith(b"data: ")
            and piece.endswith(b"\n\n")
            and not self._tail
            and not self._data
            and b"\r" not in piece
            and piece.find(b"\n") == len(piece) - 2
        ):
            return [piece[6:-2]]  # what nearly every piece is: one whole event
        if self.form == "unknown":
            piece = self._look(piece)
        if self.form == "events":
            return self._split(piece)
        self._keep(piece)
        return []

    def rest(self) -> bytes | None:
        """After the end of the body: the whole of a JSON body; None for anything else (an unfinished event is void)."""
        return b"".join(self._tail) if self.form == "json" else None

    def _look(self, piece: bytes) -> bytes:
        """Find out what the body is; until that is known, everything is kept back."""
        seen = b"".join((*self._tail, piece))
        first = seen.removeprefix(_BOM).lstrip()[:1]
        if not first or (seen != _BOM and _BOM.startswith(seen)):
            return piece
        self.form = "json" if first == b"{" else "markup" if first == b"<" else "events"
        self._tail.clear()
        self._size = 0
        return seen.removeprefix(_BOM)

    def _keep(self, piece: bytes) -> None:
        if self.form == "markup":
            return
        self._grow(len(piece))
        if piece:
            self._tail.append(piece)

    def _grow(self, by: int) -> None:
        self._size += by
        if self._size > LARGEST_PAYLOAD:
            raise TooLarge

    def _split(self, piece: bytes) -> list[bytes]:
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if b"\n" not in piece and b"\r" not in piece:
            self._keep(piece)
            return []
        self._after_cr = piece.endswith(b"\r")
        lines = b"".join((*self._tail, piece)).split(b"\n") if b"\r" not in piece else self._mixed(piece)
        self._tail.clear()
        self._size = sum(map(len, self._data))
        found: list[bytes] = []
        for line in lines[:-1]:
            if not line:
                if self._data:
                    found.append(b"\n".join(self._data) if len(self._data) > 1 else self._data[0])
                    self._data.clear()
                    self._size = 0
            elif line.startswith(b"data"):
                self._field(line)
        self._keep(lines[-1])
        return found

    def _mixed(self, piece: bytes) -> list[bytes]:
        whole = b"".join((*self._tail, piece))
        lines = whole.splitlines()  # of bytes: LF, CR and CRLF, nothing else
        if whole.endswith((b"\n", b"\r")):
            lines.append(b"")
        return lines

    def _field(self, line: bytes) -> None:
        if line.startswith(b"data: "):
            value = line[6:]
        elif line.startswith(b"data:"):
            value = line[5:]
        elif line == b"data":
            value = b""
        else:
            return
        self._grow(len(value))
        self._data.append(value)
