"""Owns the reading of files within the roots: :func:`open_within` and what it opens. I/O, blocking: for worker threads.

A file is opened without following links and without blocking (see ``walk``), then judged and read through that one
descriptor. Nothing is read beyond the size it had when it was opened, so a file that grows can't outgrow a limit.

Hard links are taken as the files they are: nothing tells them from the original, and whoever can make one to a file
can read that file already.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import PurePath
from types import TracebackType
from typing import Final, Self

from kimi_mcp.core.errors import MediaRejected, PathRefused
from kimi_mcp.media.open_path import open_file, refused, shown
from kimi_mcp.media.roots import ResolvedPath, Roots
from kimi_mcp.media.secret_files import (
    HEAD_BYTES,
    LONGEST_KEY_START,
    SCANNED_BYTES,
    key_in,
    key_like,
    key_within,
    may_hold_keys,
)

CHUNK_BYTES: Final = 256 * 1024
"""How much of a file is in memory at once while it is streamed."""

_POSITIONED: Final = hasattr(os, "pread")


class OpenFile:
    """A regular file within the roots, open for reading; a context manager that closes it.

    Every read names its own offset: iterators don't disturb each other. Not to be read after ``close``.
    """

    __slots__ = ("_file", "_found", "_lock", "_place", "head", "name", "size")

    def __init__(self, place: ResolvedPath, descriptor: int) -> None:
        self._file = io.FileIO(descriptor, "rb")  # closes even when nobody does
        self._found = os.fstat(descriptor)
        self._lock = threading.Lock()
        self._place = place
        self.name: str = place.name
        """Relative to its root, with slashes."""
        self.size: int = self._found.st_size
        """Bytes, when it was opened; no more are ever read."""
        self.head: bytes = b""
        """The first 8 KiB, to judge the content by."""

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode: the same for every name of one file."""
        return self._found.st_dev, self._found.st_ino

    def chunks(self, limit: int, *, size: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The content in pieces of up to ``size`` bytes, ``self.size`` bytes in all.

        Raises ``MediaRejected`` before the first read if the file is larger than ``limit`` bytes, and ``PathRefused``
        if it became shorter or can't be read to its end.
        """
        self.check_size(limit)
        return self._pieces(size)

    def read_all(self, limit: int) -> bytes:
        """The whole content; raises as :meth:`chunks` does."""
        self.check_size(limit)
        # Nearly always one piece, which is then handed on as it is: the file is held once.
        return b"".join(list(self._pieces(max(self.size, 1))))

    def sha256(self) -> str:
        """The content's SHA-256 in hex, read in pieces. Raises ``PathRefused`` as :meth:`chunks` does."""
        digest = hashlib.sha256()
        for piece in self._pieces(CHUNK_BYTES):
            digest.update(piece)
        return digest.hexdigest()

    def check_size(self, limit: int) -> None:
        """Raise ``MediaRejected`` if the file is larger than ``limit`` bytes; reads nothing."""
        if self.size > limit:
            raise MediaRejected(
                f"`{shown(self.name)}` has {self.size:,} bytes; at most {limit:,} are taken here.",
                fix="Name a smaller file, or make this one smaller.",
            )

    @property
    def stamp(self) -> tuple[int, ...]:
        """The same as long as it is the same file with the same content: device, inode, size and times."""
        found = self._found
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def unchanged(self) -> bool:
        """Whether the file looks as it did when it was opened (size and times): what was hashed is what was sent."""
        now, then = os.fstat(self._file.fileno()), self._found
        return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (then.st_size, then.st_mtime_ns, then.st_ctime_ns)

    def close(self) -> None:
        """Close the descriptor; once is enough, more does no harm."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Opened(name={self.name!r}, size={self.size})"

    def look(self) -> Self:
        """Read ``head``, and refuse what holds a private key; :func:`open_within` has done so.

        Text is searched up to ``SCANNED_BYTES``; of anything else the head alone is judged.
        """
        self.head = self.read_at(0, min(HEAD_BYTES, self.size))
        if key_in(self.head) or (may_hold_keys(self.head) and self._has_key_within()):
            raise _is_a_key(self._place)
        return self

    def _has_key_within(self) -> bool:
        overlap = 2 * LONGEST_KEY_START  # an even number: UTF-16 stays whole
        step = CHUNK_BYTES - overlap
        return any(
            key_within(self.read_at(offset, CHUNK_BYTES), self.head)
            for offset in range(0, min(self.size, SCANNED_BYTES), step)
        )

    def _pieces(self, size: int) -> Iterator[bytes]:
        offset = 0
        while offset < self.size:
            piece = self.read_at(offset, min(size, self.size - offset))
            offset += len(piece)
            yield piece

    def read_at(self, offset: int, count: int) -> bytes:
        """The ``count`` bytes at an offset, fewer only at the end that the file had when it was opened.

        Raises ``PathRefused`` if it became shorter or can't be read.
        """
        found, wanted = b"", max(min(count, self.size - offset), 0)
        while len(found) < wanted:
            piece = self._read(offset + len(found), wanted - len(found))
            if not piece:
                raise refused(self._place, "became shorter while it was read", fix="Call again once it is written.")
            found = found + piece if found else piece
        return found

    def _read(self, offset: int, count: int) -> bytes:
        try:
            if _POSITIONED:
                return os.pread(self._file.fileno(), count, offset)
            with self._lock:
                self._file.seek(offset)
                return self._file.read(count) or b""
        except OSError:
            raise refused(
                self._place, "can't be read to its end", fix="Look whether the file can be read at all."
            ) from None


def open_within(path: str, roots: Roots) -> OpenFile:
    """A regular file within the roots, open for reading; the caller closes it, best by ``with``.

    ``path`` is taken as :meth:`Roots.place` says. Never follows a link below a root, never blocks on a special file.
    Raises ``PathRefused`` for whatever lies outside, is no regular file, is a key or password file by its name or
    content, or can't be opened, and ``InvalidArguments`` for an empty path. No message names a path outside.
    """
    return open_place(roots.place(path))


def open_place(place: ResolvedPath) -> OpenFile:
    """:func:`open_within` for a place that is already known to lie within the roots."""
    if key_like((*PurePath(place.root.path).parts, *place.parts)):
        raise _is_a_key(place)
    opened = OpenFile(place, open_file(place))
    try:
        return opened.look()
    except BaseException:
        opened.close()
        raise


def _is_a_key(place: ResolvedPath) -> PathRefused:
    return refused(
        place,
        "holds keys or passwords by its name or content, and such files are never read",
        fix="Leave it out, or name a copy without the secrets (`.env.example`, say); no setting allows it.",
    )
