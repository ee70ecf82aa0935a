"""What a fetch brought: small bodies in memory, large ones in a file that has no name. Does I/O on that file."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from anyio import to_thread

from kimi_mcp.core.errors import MediaRejected

IN_MEMORY = 4 << 20
"""Bytes that are kept in memory; a larger body goes to a temporary file, and memory stays flat."""

WRITTEN_AT_ONCE = 1 << 20
"""Bytes that are gathered for one write to that file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedBody:
    """A body, whole, and where it came from. A context manager: closing it removes it."""

    file: IO[bytes]
    """All of it, at its beginning, seekable. A real file (with a ``fileno``) exactly where ``on_disk``; it has no name
    that anybody could open, and is gone with the process at the latest."""
    size: int
    """Bytes."""
    on_disk: bool
    """Whether it is in a temporary file."""
    content_type: str
    """As the server labelled it: without parameters, in lower case; empty without a label. Only a claim."""
    host: str
    """The host that sent it, after all redirects."""
    redirects: int
    """Redirects that were followed."""

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at an offset, fewer at the end; what ``formats.inspect`` asks for. For one thread at a time."""
        self.file.seek(offset)
        return self.file.read(length)

    def close(self) -> None:
        """Let go of it."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class IncomingBody:
    """A body while it comes, held to a cap."""

    def __init__(self, cap_bytes: int) -> None:
        self._cap = cap_bytes
        self._pending = bytearray()
        self._disk: IO[bytes] | None = None
        self._host = ""
        self._content_type = ""
        self.size = 0
        """Bytes that have come."""
        self.announced: int | None = None
        """Bytes that the server says will come; None where it does not."""

    def begin(self, host: str, headers: Mapping[bytes, bytes]) -> None:
        """Read the headers; raises ``MediaRejected`` for a length above the cap."""
        self._host = host
        label = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        self._content_type = label if label.isascii() and label.isprintable() else ""
        length = headers.get(b"content-length", b"")
        self.announced = int(length) if length.isdigit() and len(length) < 20 else None
        if self.announced is not None and self.announced > self._cap:
            raise self._too_large(f"{self.announced:,} bytes")

    async def take(self, piece: bytes) -> None:
        """Keep one more piece; raises ``MediaRejected`` beyond the cap."""
        self.size += len(piece)
        if self.size > self._cap:
            raise self._too_large(f"more than {self._cap:,} bytes")
        self._pending += piece
        if len(self._pending) >= (IN_MEMORY if self._disk is None else WRITTEN_AT_ONCE):
            await to_thread.run_sync(self._write)

    async def end(self) -> None:
        """Nothing more comes."""
        if self._disk is not None:
            await to_thread.run_sync(self._write)
        if not self.size:
            raise MediaRejected(
                f"{self._host} sent nothing: found 0 bytes, expected a picture or a clip.", fix="Check the URL."
            )

    def done(self, *, host: str, redirects: int) -> FetchedBody:
        """Hand it over; whoever gets it closes it."""
        file: IO[bytes] = io.BytesIO(self._pending) if self._disk is None else self._disk
        fetched = FetchedBody(
            file=file,
            size=self.size,
            on_disk=self._disk is not None,
            content_type=self._content_type,
            host=host,
            redirects=redirects,
        )
        file.seek(0)
        self._disk = None
        self._pending = bytearray()
        return fetched

    def close(self) -> None:
        """Let go of what has come."""
        if self._disk is not None:
            self._disk.close()
            self._disk = None
        self._pending = bytearray()

    def _write(self) -> None:
        try:
            if self._disk is None:
                self._disk = tempfile.TemporaryFile(prefix="kimi-mcp-")  # noqa: SIM115 - it is closed later
            self._disk.write(self._pending)
            self._disk.flush()
        except OSError:
            raise MediaRejected(
                f"What {self._host} sent finds no room on disk: found {self.size:,} bytes so far.",
                fix="Make room in the folder for temporary files (TMPDIR), or give a smaller file.",
            ) from None
        self._pending = bytearray()

    def _too_large(self, found: str) -> MediaRejected:
        return MediaRejected(
            f"What {self._host} sends is too large: found {found}, {self._cap:,} are allowed.",
            fix="Give a smaller file, or download it and cut out the part that matters.",
        )
