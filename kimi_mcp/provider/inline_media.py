"""Media inside a body: base64 where a placeholder stands, written while the body is sent. Pure, but for ``read_at``.

A picture or a clip is never held as text: the body is JSON with short placeholders, and what they stand for is read and
encoded piece by piece, anew for each attempt. ``upstream`` takes the pieces in worker threads.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

WINDOW = 786_432
"""Bytes that are read and encoded at once; a multiple of three, so that base64 needs no filling in between. Each of
them waits for a worker thread, which on a busy machine takes longer than the work itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineMedium:
    """A medium that goes into the body."""

    mime: str
    """Its type."""
    size: int
    """Bytes, before they are encoded."""
    read_at: Callable[[int, int], bytes]
    """(offset, length) → the bytes there."""
    placeholder: str = field(default_factory=lambda: f"inline:{secrets.token_hex(16)}")
    """The URL that stands for it in the body: random, so that no text can hold it by chance or by design."""

    @property
    def head(self) -> bytes:
        """What comes before the base64."""
        return f"data:{self.mime};base64,".encode()

    @property
    def length(self) -> int:
        """Bytes of the whole data URL."""
        return len(self.head) + 4 * ((self.size + 2) // 3)

    def pieces(self) -> Iterator[bytes]:
        """The data URL, piece by piece."""
        yield self.head
        for offset in range(0, self.size, WINDOW):
            yield base64.b64encode(self.read_at(offset, min(WINDOW, self.size - offset)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedBody:
    """A body that is written while it is sent."""

    length: int
    """Bytes in all."""
    pieces: Callable[[], Iterator[bytes]]
    """The body from its beginning; called once for each attempt."""


def spliced(body: bytes, inlined: Mapping[str, InlineMedium]) -> bytes | StreamedBody:
    """A JSON body with each placeholder's medium in its place; the body as it is where there is none."""
    if not inlined:
        return body
    parts: list[bytes | InlineMedium] = [body]
    for medium in inlined.values():
        before, _, after = _as_bytes(parts.pop()).partition(medium.placeholder.encode())
        parts += [before, medium, after]
    length = sum(part.length if isinstance(part, InlineMedium) else len(part) for part in parts)

    def pieces() -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, InlineMedium):
                yield from part.pieces()
            else:
                yield part

    return StreamedBody(length=length, pieces=pieces)


def _as_bytes(part: bytes | InlineMedium) -> bytes:
    assert isinstance(part, bytes), "media stand in the body in the order in which they are given"
    return part
