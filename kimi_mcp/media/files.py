"""Reading files within the roots. I/O, blocking: for worker threads.

A file is opened without following links and without blocking (see ``open_path``), then judged and read through that one
descriptor. Nothing is read beyond the size it had when it was opened, so a file that grows can't exceed a limit.

Hard links are read like any file: nothing distinguishes them, and whoever can make one can read the file already. An
open file is for one thread at a time.
"""

from __future__ import annotations

import io
import os
from contextlib import AbstractContextManager
from functools import partial

from kimi_mcp.core.errors import MediaRejected, PathRefused
from kimi_mcp.media.open_path import open_descriptor, refused, shown
from kimi_mcp.media.roots import ResolvedPath
from kimi_mcp.media.secret_files import HEAD_BYTES, holds_key, key_like


class OpenFile(AbstractContextManager["OpenFile"]):
    """A regular file within the roots, open for reading; a context manager that closes it."""

    __slots__ = ("_file", "_path", "head", "identity", "name", "size", "stamp")

    def __init__(self, path: ResolvedPath, descriptor: int) -> None:
        self._file = io.FileIO(descriptor, "rb")  # closes even when nobody does
        self._path = path
        found = os.fstat(descriptor)
        self.name: str = path.name
        """Relative to its root, with slashes."""
        self.size: int = found.st_size
        """Bytes, when it was opened; no more are ever read."""
        self.identity = found.st_dev, found.st_ino
        """Device and inode: the same for every name of one file."""
        self.stamp = stamp_of(found)
        self.head: bytes = b""
        """The first 8 KiB, to judge the content by."""

    def check_size(self, limit: int) -> None:
        """Raise ``MediaRejected`` if the file is larger than ``limit`` bytes; reads nothing."""
        if self.size > limit:
            raise MediaRejected(
                f"`{shown(self.name)}` has {self.size:,} bytes; at most {limit:,} are taken here.",
                fix="Name a smaller file, or make this one smaller.",
            )

    def read_at(self, offset: int, count: int) -> bytes:
        """The ``count`` bytes at an offset, fewer only at the end that the file had when it was opened.

        Raises ``PathRefused`` if it became shorter or can't be read.
        """
        found, wanted = b"", max(min(count, self.size - offset), 0)
        while len(found) < wanted:
            try:
                self._file.seek(offset + len(found))
                piece = self._file.read(wanted - len(found))
            except OSError:
                fix = "Look whether the file can be read at all."
                raise refused(self._path, "can't be read to its end", fix=fix) from None
            if not piece:
                raise refused(self._path, "became shorter while it was read", fix="Call again once it is written.")
            found = found + piece if found else piece
        return found

    def close(self) -> None:
        """Close the descriptor; once is enough, more does no harm."""
        self._file.close()

    def __exit__(self, *error: object) -> None:
        self.close()


def stamp_of(found: os.stat_result) -> tuple[int, ...]:
    """Device, inode, size and times: the same as long as the file has the same content."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def open_file(path: ResolvedPath) -> OpenFile:
    """A regular file within the roots, open for reading; the caller closes it, best by ``with``.

    Raises ``PathRefused`` for whatever is no regular file, is a key or password file by its name or content, or can't
    be opened. No message names a path outside.
    """
    if key_like(path.full.parts):
        raise _secret(path)
    opened = OpenFile(path, open_descriptor(path))
    try:
        opened.head = opened.read_at(0, HEAD_BYTES)
        if holds_key(opened.head, partial(opened.read_at, 0)):
            raise _secret(path)
    except BaseException:
        opened.close()
        raise
    return opened


def _secret(path: ResolvedPath) -> PathRefused:
    return refused(
        path,
        "holds keys or passwords by its name or content, and such files are never read",
        fix="Leave it out, or name a copy without the secrets (`.env.example`, say); no setting allows it.",
    )
