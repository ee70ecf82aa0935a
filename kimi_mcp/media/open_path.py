"""Owns the way from a root down to a file: no link is followed, nothing blocks. I/O: opens and lists, reads nothing.

Every name on the way is opened relative to the descriptor of the folder above it, with ``O_NOFOLLOW``: what was judged
is what is opened, however the tree changes meanwhile. The way to the root itself is walked likewise, from ``/`` on,
along the path that was resolved at the start. Where the system has no such calls (Windows) each name is looked at, the
file opened, and then the open file compared with what its path names: see ``_open_by_path``.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Literal

from kimi_mcp.core.errors import PathRefused, TooManyFiles
from kimi_mcp.media.roots import WINDOWS, ResolvedPath

BY_DESCRIPTOR: Final = (
    os.open in os.supports_dir_fd
    and os.stat in os.supports_dir_fd
    and os.scandir in os.supports_fd
    and hasattr(os, "O_NOFOLLOW")
)
"""Whether the system opens names relative to a folder's descriptor: Linux and macOS do."""

_COMMON: Final = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_NOINHERIT", 0)
    | getattr(os, "O_BINARY", 0)
)
_FILE: Final = os.O_RDONLY | _COMMON
_LISTED: Final = os.O_RDONLY | _COMMON | getattr(os, "O_DIRECTORY", 0)
# On the way a folder need not be readable, only passable, and nothing is opened in earnest: Linux has O_PATH for that.
_PASSED: Final = getattr(os, "O_PATH", os.O_RDONLY) | _COMMON | getattr(os, "O_DIRECTORY", 0)

_NAME_SURROGATE: Final = 0x20000000
"""The bit of a Windows reparse tag that says: this name stands for another (links, junctions)."""

_LONGEST_SHOWN: Final = 200

_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)

_KINDS: Final = (
    (stat.S_ISLNK, "a link, and links are never followed"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """One name in a folder."""

    name: str
    """Its last name."""
    kind: Literal["file", "folder", "other"]
    """``other``: links and special files, which are never opened."""
    hidden: bool
    """Whether its name begins with a dot, or Windows marks it as hidden."""


def shown(name: str, *, longest: int = _LONGEST_SHOWN) -> str:
    """A relative path as a message or a heading may carry it: one line of up to ``longest`` characters."""
    text = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in name)
    return text if len(text) <= longest else f"…{text[1 - longest :]}"


def refused(place: ResolvedPath, why: str, *, fix: str = "Name a regular file within the roots.") -> PathRefused:
    """The error for a place within the roots: named relative to its root."""
    return PathRefused(f"`{shown(place.name)}` {why}.", fix=fix)


def open_file(place: ResolvedPath) -> int:
    """A descriptor of the regular file at ``place``, open for reading; the caller closes it.

    Returns at once for pipes without a writer, devices and sockets: they are looked at and not opened. Raises
    ``PathRefused`` for everything that is no regular file, that a link leads to, or that can't be opened.
    """
    if not place.parts:
        raise refused(place, "is a folder, not a file")
    if _pseudo_path(place):
        raise refused(place, "belongs to the system's own view of processes and devices")
    if not BY_DESCRIPTOR:
        return _open_by_path(place)
    with _folder(place, place.parts[:-1], _PASSED) as folder:
        last = place.parts[-1]
        try:
            # Opening a device can do something (rewind a tape), opening a pipe wakes its writer: look first.
            _judge(place, os.stat(last, dir_fd=folder, follow_symlinks=False))
            descriptor = os.open(last, _FILE, dir_fd=folder)
        except OSError as error:
            raise _explained(place, error) from None
    return _judged(place, descriptor)


@contextmanager
def _folder(place: ResolvedPath, parts: tuple[str, ...], flags: int) -> Generator[int]:
    """A descriptor of a folder below the root of ``place``, opened with ``flags``; closed at the end."""
    at_root = PurePath(place.root.path)
    way = [at_root.anchor, *at_root.parts[1:], *parts]
    within = len(way) - len(parts)
    descriptor: int | None = None
    try:
        for index, name in enumerate(way):
            wanted = flags if index == len(way) - 1 else _PASSED
            try:
                below = os.open(name, wanted, dir_fd=descriptor)
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    raise _explained(ResolvedPath(root=place.root, parts=place.parts), error) from None
                if index < within:
                    raise PathRefused(
                        "The root folder is not there any more, or its place was taken by a link.",
                        fix="Restart the server, or set KIMI_ROOTS to a folder that exists.",
                    ) from None
                met = ResolvedPath(root=place.root, parts=parts[: index - within + 1])
                raise _explained(met, error, descriptor) from None
            if descriptor is not None:
                os.close(descriptor)
            descriptor = below
        assert descriptor is not None
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def list_folder(place: ResolvedPath, *, most: int) -> list[DirectoryEntry]:
    """The names in a folder, sorted; stops after ``most`` + 1 of them. Raises ``PathRefused``."""
    if _pseudo_path(place):
        raise refused(place, "belongs to the system's own view of processes and devices")
    if not BY_DESCRIPTOR:
        _look_along(place)
        return _entries(place, str(PurePath(place.root.path, *place.parts)), most)
    with _folder(place, place.parts, _LISTED) as folder:
        return _entries(place, folder, most)


def _entries(place: ResolvedPath, folder: int | str, most: int) -> list[DirectoryEntry]:
    found: list[DirectoryEntry] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(_entry(entry))
                if len(found) > most:
                    break
    except OSError as error:
        raise _explained(place, error) from None
    return sorted(found, key=lambda entry: entry.name)


def _entry(entry: os.DirEntry[str]) -> DirectoryEntry:
    kind: Literal["file", "folder", "other"] = "other"
    hidden = entry.name.startswith(".")
    try:
        if sys.platform == "win32":
            seen = entry.stat(follow_symlinks=False)
            hidden = hidden or bool(seen.st_file_attributes & stat.FILE_ATTRIBUTE_HIDDEN)
            if seen.st_reparse_tag & _NAME_SURROGATE:
                return DirectoryEntry(name=entry.name, kind=kind, hidden=hidden)
        if entry.is_dir(follow_symlinks=False):
            kind = "folder"
        elif entry.is_file(follow_symlinks=False):
            kind = "file"
    except OSError:
        pass  # gone meanwhile, or unreadable: not ours to open
    return DirectoryEntry(name=entry.name, kind=kind, hidden=hidden)


def _judged(place: ResolvedPath, descriptor: int) -> int:
    """The descriptor itself if it is of a regular file on a file system of files; else closed and refused."""
    try:
        found = os.fstat(descriptor)
        _judge(place, found)
        if found.st_dev in _pseudo_devices():
            raise refused(place, "belongs to the system's own view of processes and devices")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _judge(place: ResolvedPath, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    kind = next((words for is_kind, words in _KINDS if is_kind(found.st_mode)), "no regular file")
    fix = "Name a regular file within the roots."
    if stat.S_ISLNK(found.st_mode):
        fix = "Name the file that the link leads to; KIMI_ROOTS has to hold its folder."
    elif stat.S_ISDIR(found.st_mode):
        fix = "Name a file in it; in `files` a glob such as `folder/*` takes all of them."
    raise refused(place, f"is {kind}", fix=fix)


def _explained(place: ResolvedPath, error: OSError, folder: int | None = None) -> PathRefused:
    """The error for one of the system; a link is recognised as one."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        linked = error.errno != errno.ENOTDIR
        if folder is not None:
            try:
                linked = stat.S_ISLNK(os.stat(place.parts[-1], dir_fd=folder, follow_symlinks=False).st_mode)
            except OSError:
                pass  # swapped meanwhile: the first answer stands
        if linked:
            fix = "Name the file by its own path; KIMI_ROOTS has to hold the folder that the link leads to."
            return refused(place, "is a link, and links are never followed", fix=fix)
        return refused(place, "is no folder")
    if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENAMETOOLONG):
        return refused(place, "is not there", fix="Name a file that exists within the roots; names are case-sensitive.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return refused(place, "may not be read by this process", fix="Give the server's user the right to read it.")
    if error.errno in _NO_DESCRIPTORS:
        return TooManyFiles(
            f"`{shown(place.name)}` can't be opened: this server has as many files open as it may.",
            fix="Call again once others have ended; whoever runs the server can raise its limit (`ulimit -n`).",
        )
    return refused(place, "can't be opened", fix="Look whether the file can be read at all.")


def _pseudo_path(place: ResolvedPath) -> bool:
    """Whether a place is in /proc, /sys or /dev, by name: its ``environ`` would pass for a regular file."""
    parts = (*PurePath(place.root.path).parts, *place.parts)
    return parts[0] == "/" and parts[1:2] in (("proc",), ("sys",), ("dev",)) and parts[1:3] != ("dev", "shm")


def _pseudo_devices() -> set[int]:
    """The devices of those file systems, wherever else they may be mounted."""
    found: set[int] = set()
    for folder in ("/proc", "/sys", "/dev", "/"):
        try:
            device = Path(folder).stat().st_dev
        except OSError:
            continue
        if folder == "/":
            found.discard(device)  # a bare folder of the ordinary file system
        else:
            found.add(device)
    return found


# ------------------------------------------------------------------------------------- without folder descriptors


def _look_along(place: ResolvedPath) -> os.stat_result:
    """Look at each name from the root down, and refuse the first link; what the last name is."""
    path = PurePath(place.root.path)
    seen = None
    for index, name in enumerate((".", *place.parts)):
        path = path if index == 0 else path / name
        met = ResolvedPath(root=place.root, parts=place.parts[:index])
        # There a colon opens a stream, and dots and spaces at a name's end are dropped.
        if WINDOWS and index and (":" in name or name != name.rstrip(". ")):
            raise refused(met, "is no plain file name")
        try:
            seen = os.lstat(path)
        except OSError as error:
            raise _explained(met, error) from None
        if stat.S_ISLNK(seen.st_mode) or getattr(seen, "st_reparse_tag", 0) & _NAME_SURROGATE:
            raise refused(met, "is a link, and links are never followed")
    assert seen is not None
    return seen


def _open_by_path(place: ResolvedPath) -> int:
    """Look, open, look again: the open file must be the one that the unlinked path names, before and after.

    Weaker than the walk: whoever swaps a folder twice between two looks could win. Short names (``ENV~1``) and
    anything else by which a path may name another file show up as a resolved path that differs.
    """
    _judge(place, _look_along(place))
    path = str(PurePath(place.root.path, *place.parts))
    try:
        descriptor = os.open(path, _FILE)
    except OSError as error:
        raise _explained(place, error) from None
    _judged(place, descriptor)
    try:
        again = _look_along(place)
        resolved = os.path.realpath(path, strict=True)
        if os.path.normcase(resolved) == os.path.normcase(path) and os.path.samestat(again, os.fstat(descriptor)):
            return descriptor
    except PathRefused:
        os.close(descriptor)
        raise
    except OSError:
        pass  # changed under our hands
    os.close(descriptor)
    raise refused(place, "changed while it was opened, or has another name")
