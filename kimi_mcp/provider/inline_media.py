"""Media inside a body: base64 in place of placeholders, encoded while the body is sent. Pure, but for ``read_at``.

No medium is held in memory as text: each attempt reads and encodes it again in pieces, in worker threads.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from kimi_mcp.provider.endpoint import StreamedBody

WINDOW = 786_432
"""Bytes that are read and encoded at once; a multiple of three, so that base64 needs no padding in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineMedium:
    """A medium that goes into the body."""

    mime: str
    """MIME type."""
    size: int
    """Bytes, before they are encoded."""
    read_at: Callable[[int, int], bytes]
    """(offset, length) → the bytes there."""
    placeholder: str = field(default_factory=lambda: f"inline:{secrets.token_hex(16)}")
    """Its URL in the body: random, so that no text can hold it by chance or by design."""

    @property
    def head(self) -> bytes:
        """The data URL up to the base64."""
        return f"data:{self.mime};base64,".encode()

    @property
    def length(self) -> int:
        """Bytes of the whole data URL."""
        return len(self.head) + 4 * ((self.size + 2) // 3)

    def pieces(self) -> Iterator[bytes]:
        """The data URL in pieces."""
        yield self.head
        for offset in range(0, self.size, WINDOW):
            yield base64.b64encode(self.read_at(offset, min(WINDOW, self.size - offset)))


def spliced(body: bytes, inlined: Mapping[str, InlineMedium]) -> bytes | StreamedBody:
    """A JSON body with each medium in place of its placeholder; ``inlined`` is in the order of the body."""
    if not inlined:
        return body
    parts: list[bytes | InlineMedium] = []
    for medium in inlined.values():
        before, found, body = body.partition(medium.placeholder.encode())
        assert found, "media are in the body in the order in which they are given"
        parts += [before, medium]
    parts.append(body)
    length = sum(part.length if isinstance(part, InlineMedium) else len(part) for part in parts)

    def pieces() -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, InlineMedium):
                yield from part.pieces()
            else:
                yield part

    return StreamedBody(length=length, pieces=pieces)
