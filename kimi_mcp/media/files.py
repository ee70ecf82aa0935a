"""Opens, lists and reads files within the roots, without following links or blocking. I/O: for worker threads.

Each name is opened relative to the descriptor of its folder, with ``O_NOFOLLOW``: what was checked is what is opened,
however the tree changes meanwhile. The path to the root, resolved at the start, is walked in the same way, from ``/``.
Without such calls (Windows) each name is checked, the file opened, and compared with its path: ``_open_by_path``.

A file is judged and read through that one descriptor. Nothing is read beyond the size it had when it was opened, so a
file that grows can't exceed a limit. Hard links are read like any file: nothing distinguishes them, and whoever can
make one can read the file already.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePath
from typing import Final, Literal

from kimi_mcp.core.errors import MediaRejected, PathRefused, TooManyFiles
from kimi_mcp.media.roots import WINDOWS, ResolvedPath
from kimi_mcp.media.secret_files import HEAD_BYTES, holds_key, key_like

_COMMON: Final = sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_NOINHERIT", "O_BINARY")
)
_FILE: Final = os.O_RDONLY | _COMMON
_LIST: Final = os.O_RDONLY | _COMMON | getattr(os, "O_DIRECTORY", 0)
# A folder on the way need not be readable, only passable: Linux has O_PATH for that.
_PASS: Final = getattr(os, "O_PATH", os.O_RDONLY) | _COMMON | getattr(os, "O_DIRECTORY", 0)

_NAME_SURROGATE: Final = 0x20000000
"""The bit of a Windows reparse tag for links and junctions."""

_LONGEST_SHOWN: Final = 200

_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)

_PSEUDO: Final = "belongs to the system's own view of processes and devices"

_REGULAR_FILE: Final = "Name a regular file within the roots."
"""The fix for anything else."""

_KINDS: Final = (
    (
        stat.S_ISLNK,
        "a link, and links are never followed",
        "Name the file that the link leads to; KIMI_ROOTS has to hold its folder.",
    ),
    (stat.S_ISDIR, "a folder", "Name a file in it; in `files` a glob such as `folder/*` takes all of them."),
    (stat.S_ISFIFO, "a pipe", _REGULAR_FILE),
    (stat.S_ISSOCK, "a socket", _REGULAR_FILE),
    (stat.S_ISCHR, "a device", _REGULAR_FILE),
    (stat.S_ISBLK, "a device", _REGULAR_FILE),
)


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """One name in a folder."""

    name: str
    """Its name in the folder."""
    kind: Literal["file", "folder", "other"]
    """``other``: a link or a special file, which is never opened."""
    hidden: bool
    """Whether its name begins with a dot, or Windows marks it as hidden."""


def shown(name: str, *, longest: int = _LONGEST_SHOWN) -> str:
    """A relative path for a message or a heading: one line of up to ``longest`` characters."""
    text = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in name)
    return text if len(text) <= longest else f"…{text[1 - longest :]}"


def refused(path: ResolvedPath, why: str, *, fix: str = _REGULAR_FILE) -> PathRefused:
    """The error for a path, which is named relative to its root."""
    return PathRefused(f"`{shown(path.name)}` {why}.", fix=fix)


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


def reread(path: ResolvedPath, judged: OpenFile, what: str) -> Callable[[int, int], bytes]:
    """Reads a file that was judged and is closed again: (offset, length) → the bytes there.

    Many calls may wait, and descriptors are few. Each read opens and checks the file again, and raises ``PathRefused``
    if it changed; if it only grew, no more is read than was judged. ``what``: the file in that message.
    """
    stamp, size = judged.stamp, judged.size

    def read_at(offset: int, length: int) -> bytes:
        with open_file(path) as again:
            is_appended = again.identity == stamp[:2] and again.size > size
            if again.stamp != stamp and not is_appended:
                raise PathRefused(f"{what} was written to while it was sent.", fix="Call again once it is written.")
            return again.read_at(offset, min(length, size - offset))

    return read_at


def _secret(path: ResolvedPath) -> PathRefused:
    return refused(
        path,
        "holds keys or passwords by its name or content, and such files are never read",
        fix="Leave it out, or name a copy without the secrets (`.env.example`, say); no setting allows it.",
    )


def is_file(path: ResolvedPath) -> bool:
    """Whether a regular file is at that path, whatever it holds; one behind a link is none."""
    try:
        os.close(open_descriptor(path))
    except PathRefused:
        return False
    return True


def is_folder(path: ResolvedPath) -> bool:
    """Whether a folder that can be listed is at that path; one behind a link is none."""
    try:
        list_folder(path, most=0)
    except PathRefused:
        return False
    return True


def open_descriptor(path: ResolvedPath) -> int:
    """A descriptor of the regular file at ``path``, open for reading; the caller closes it.

    Raises ``PathRefused`` for everything that is no regular file, is behind a link, or can't be opened. Never blocks:
    pipes, devices and sockets are not opened.
    """
    if not path.parts:
        raise refused(path, "is a folder, not a file")
    _check_not_pseudo(path)
    if not path.root.by_descriptor:
        return _open_by_path(path)
    with _folder(path, path.parts[:-1], _PASS) as folder:
        last = path.parts[-1]
        try:
            # Opening a device may act (rewind a tape), opening a pipe wakes its writer: check first.
            _check_regular(path, os.stat(last, dir_fd=folder, follow_symlinks=False))
            descriptor = os.open(last, _FILE, dir_fd=folder)
        except OSError as error:
            raise _error(path, error) from None
    return _checked(path, descriptor)


@contextmanager
def _folder(path: ResolvedPath, parts: tuple[str, ...], flags: int) -> Generator[int]:
    """A descriptor of a folder below the root of ``path``, opened with ``flags``."""
    at_root = PurePath(path.root.path)
    way = [at_root.anchor, *at_root.parts[1:], *parts]
    within = len(way) - len(parts)
    descriptor: int | None = None
    try:
        for index, name in enumerate(way):
            wanted = flags if index == len(way) - 1 else _PASS
            try:
                below = os.open(name, wanted, dir_fd=descriptor)
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    raise _error(path, error) from None
                if index < within:
                    raise PathRefused(
                        "The root folder is not there any more, or its place was taken by a link.",
                        fix="Restart the server, or set KIMI_ROOTS to a folder that exists.",
                    ) from None
                met = ResolvedPath(root=path.root, parts=parts[: index - within + 1])
                raise _error(met, error, descriptor) from None
            if descriptor is not None:
                os.close(descriptor)
            descriptor = below
        assert descriptor is not None
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def list_folder(path: ResolvedPath, *, most: int) -> list[DirectoryEntry]:
    """The names in a folder, sorted; stops after ``most`` + 1 of them. Raises ``PathRefused``."""
    _check_not_pseudo(path)
    with ExitStack() as closing:
        folder: int | str = str(path.full)
        if path.root.by_descriptor:
            folder = closing.enter_context(_folder(path, path.parts, _LIST))
        else:
            _check_path(path)
        try:
            with os.scandir(folder) as entries:
                found = [_entry(entry) for entry in islice(entries, most + 1)]
        except OSError as error:
            raise _error(path, error) from None
    return sorted(found, key=lambda entry: entry.name)


def _entry(entry: os.DirEntry[str]) -> DirectoryEntry:
    hidden = entry.name.startswith(".")
    with suppress(OSError):  # gone meanwhile, or unreadable
        if sys.platform == "win32":
            seen = entry.stat(follow_symlinks=False)
            hidden = hidden or bool(seen.st_file_attributes & stat.FILE_ATTRIBUTE_HIDDEN)
            if seen.st_reparse_tag & _NAME_SURROGATE:
                return DirectoryEntry(entry.name, "other", hidden)
        if entry.is_dir(follow_symlinks=False):
            return DirectoryEntry(entry.name, "folder", hidden)
        if entry.is_file(follow_symlinks=False):
            return DirectoryEntry(entry.name, "file", hidden)
    return DirectoryEntry(entry.name, "other", hidden)


def _checked(path: ResolvedPath, descriptor: int) -> int:
    """The descriptor, if it is of a regular file and not on a pseudo file system; else it is closed and refused."""
    with ExitStack() as closing:
        closing.callback(os.close, descriptor)
        found = os.fstat(descriptor)
        _check_regular(path, found)
        if found.st_dev in _pseudo_devices():
            raise refused(path, _PSEUDO)
        closing.pop_all()
    return descriptor


def _check_regular(path: ResolvedPath, found: os.stat_result) -> None:
    for is_kind, words, fix in _KINDS:
        if is_kind(found.st_mode):
            raise refused(path, f"is {words}", fix=fix)
    if not stat.S_ISREG(found.st_mode):
        raise refused(path, "is no regular file")


def _error(path: ResolvedPath, error: OSError, folder: int | None = None) -> PathRefused:
    """The error for one of the system, which may mean a link."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        linked = error.errno != errno.ENOTDIR
        if folder is not None:
            with suppress(OSError):  # swapped meanwhile: the first error counts
                linked = stat.S_ISLNK(os.stat(path.parts[-1], dir_fd=folder, follow_symlinks=False).st_mode)
        if linked:
            fix = "Name the file by its own path; KIMI_ROOTS has to hold the folder that the link leads to."
            return refused(path, "is a link, and links are never followed", fix=fix)
        return refused(path, "is no folder")
    if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENAMETOOLONG):
        return refused(path, "is not there", fix="Name a file that exists within the roots; names are case-sensitive.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return refused(path, "may not be read by this process", fix="Give the server's user the right to read it.")
    if error.errno in _NO_DESCRIPTORS:
        return TooManyFiles(
            f"`{shown(path.name)}` can't be opened: this server has as many files open as it may.",
            fix="Call again once others have ended; the operator can raise the limit of the server (`ulimit -n`).",
        )
    return refused(path, "can't be opened", fix="Look whether the file can be read at all.")


def _check_not_pseudo(path: ResolvedPath) -> None:
    """Refuse /proc, /sys and /dev by name: ``environ`` of a process would pass for a regular file."""
    parts = path.full.parts
    if parts[0] == "/" and parts[1:2] in (("proc",), ("sys",), ("dev",)) and parts[1:3] != ("dev", "shm"):
        raise refused(path, _PSEUDO)


def _pseudo_devices() -> set[int]:
    """The devices of those file systems, wherever they are mounted."""
    found: set[int] = set()
    for folder in ("/proc", "/sys", "/dev"):
        with suppress(OSError):
            found.add(os.stat(folder).st_dev)  # noqa: PTH116
    with suppress(OSError):
        found.discard(os.stat("/").st_dev)  # noqa: PTH116 - else it is a plain folder
    return found


def _check_path(path: ResolvedPath) -> os.stat_result:
    """Check each name from the root down, and refuse the first link; returns the status of the last name."""
    here = PurePath(path.root.path)
    seen = None
    for index, name in enumerate(("", *path.parts)):
        here /= name
        met = ResolvedPath(root=path.root, parts=path.parts[:index])
        # Windows takes a colon for a stream, and drops final dots and spaces.
        if WINDOWS and index and (":" in name or name != name.rstrip(". ")):
            raise refused(met, "is no plain file name")
        try:
            seen = os.lstat(here)
        except OSError as error:
            raise _error(met, error) from None
        if stat.S_ISLNK(seen.st_mode) or getattr(seen, "st_reparse_tag", 0) & _NAME_SURROGATE:
            raise refused(met, "is a link, and links are never followed")
    assert seen is not None
    return seen


def _open_by_path(path: ResolvedPath) -> int:
    """Check, open, check again: before and after, the open file must be the one of the path without links.

    Weaker than descriptors: an attacker who swaps a folder twice between two checks could win. Short names (``ENV~1``)
    and other aliases show up as a resolved path that differs.
    """
    _check_regular(path, _check_path(path))
    full = str(path.full)
    try:
        descriptor = os.open(full, _FILE)
    except OSError as error:
        raise _error(path, error) from None
    _checked(path, descriptor)
    with ExitStack() as closing:
        closing.callback(os.close, descriptor)
        again = _check_path(path)
        with suppress(OSError):  # it changed meanwhile
            resolved = os.path.realpath(full, strict=True)
            if os.path.normcase(resolved) == os.path.normcase(full) and os.path.samestat(again, os.fstat(descriptor)):
                closing.pop_all()
                return descriptor
        raise refused(path, "changed while it was opened, or has another name")
