"""Owns what the files that a call names look like now: by it the same call again is told from another. I/O, blocking.

A file is looked at and not read: a clip of 100 MB is not hashed only to find out that it is the same one. Its place on
the disk, its size and the two times of its last change tell it from what it was. A change that touches nothing but the
clock makes another call of it, which is paid for; a change that touches the content is never missed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.types import MediaKind
from kimi_mcp.media.globs import has_magic
from kimi_mcp.media.loading import part_of
from kimi_mcp.media.open_path import open_file
from kimi_mcp.media.roots import ResolvedPath, Roots
from kimi_mcp.media.search import SearchLimits, Skipped
from kimi_mcp.media.text_files import matching, trees_of

NOT_THERE = "-"
"""The stamp of what can't be opened: the call will say why."""

_NO_PATHS = ("https:", "data:", "ms:")


def stamps(texts: Sequence[str], media: Sequence[tuple[MediaKind, str]], roots: Roots) -> tuple[str, ...]:
    """What all files within the roots look like that names and globs of text files and sources of media mean.

    Sources that are no paths have none. Never raises: what is wrong with a name is reported when the file is read.
    """
    return (*_of_texts(texts, roots), *_of_media(media, roots))


def _of_texts(patterns: Sequence[str], roots: Roots) -> Iterator[str]:
    trees = trees_of(roots, SearchLimits())
    for pattern in patterns:
        yield _of_path(pattern, roots)
        if has_magic(pattern):
            try:
                yield from (f"{place.name}:{_stamp(place)}" for place in matching(pattern, roots, trees, Skipped()))
            except KimiError:
                yield NOT_THERE


def _of_media(media: Sequence[tuple[MediaKind, str]], roots: Roots) -> Iterator[str]:
    for kind, source in media:
        try:
            url = part_of(kind, source).url
        except KimiError:
            continue
        if not url.startswith(_NO_PATHS):
            yield _of_path(url.partition(":")[2], roots)


def _of_path(path: str, roots: Roots) -> str:
    try:
        return _stamp(roots.place(path))
    except KimiError:
        return NOT_THERE


def _stamp(place: ResolvedPath) -> str:
    try:
        descriptor = open_file(place)
    except KimiError:
        return NOT_THERE
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return f"{found.st_dev}.{found.st_ino}.{found.st_size}.{found.st_mtime_ns}.{found.st_ctime_ns}"
