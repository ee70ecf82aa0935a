"""``Content``: bytes of a file or a medium, read in pieces when they are sent. I/O only through its reader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from kimi_mcp.media.formats.media_info import ReadAt

CHUNK = 256 * 1024
"""Bytes that are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes that were judged, and are read again to be sent."""

    size: int
    """Bytes that are sent."""
    read_at: ReadAt
    """(offset, length) → the bytes there; refuses where a file has changed since it was judged."""

    def chunks(self) -> Iterator[bytes]:
        """The content in pieces."""
        for offset in range(0, self.size, CHUNK):
            yield self.read_at(offset, min(CHUNK, self.size - offset))

    def sha256(self) -> str:
        """The hash of the content, hex. Blocking: for a worker thread."""
        digest = hashlib.sha256()
        for piece in self.chunks():
            digest.update(piece)
        return digest.hexdigest()
