"""Stamps of the files that a call names, by which a repeated call is recognised. I/O, blocking.

A stamp is a file's device, inode, size and times: it costs no reading of a clip of 100 MB. A change of the times alone
makes another call, which is paid for; a change of the content is never missed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.types import MediaKind
from kimi_mcp.media.globs import has_magic
from kimi_mcp.media.loading import part_of
from kimi_mcp.media.open_path import open_descriptor
from kimi_mcp.media.roots import ResolvedPath, Roots
from kimi_mcp.media.search import Search, SearchLimits, Skipped

NOT_THERE = "-"
"""The stamp of what can't be opened: the call reports why."""


def stamps(texts: Sequence[str], media: Sequence[tuple[MediaKind, str]], roots: Roots) -> tuple[str, ...]:
    """The stamps of all files within the roots that the names and globs of texts and the sources of media mean.

    Sources that are no paths have none. Never raises: what is wrong with a name is reported when the file is read.
    """
    return (*_of_texts(texts, roots), *_of_media(media, roots))


def _of_texts(patterns: Sequence[str], roots: Roots) -> Iterator[str]:
    search = Search(roots, SearchLimits())
    for pattern in patterns:
        yield _of_path(pattern, roots)
        if has_magic(pattern):
            try:
                yield from (f"{place.name}:{_of_place(place)}" for place in search.find(pattern, Skipped()))
            except KimiError:
                yield NOT_THERE


def _of_media(media: Sequence[tuple[MediaKind, str]], roots: Roots) -> Iterator[str]:
    for kind, source in media:
        try:
            url = part_of(kind, source).url
        except KimiError:
            continue
        if not url.startswith(("https:", "data:", "ms:")):
            yield _of_path(url.partition(":")[2], roots)


def _of_path(path: str, roots: Roots) -> str:
    try:
        return _of_place(roots.resolve(path))
    except KimiError:
        return NOT_THERE


def _of_place(place: ResolvedPath) -> str:
    try:
        descriptor = open_descriptor(place)
    except KimiError:
        return NOT_THERE
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return f"{found.st_dev}.{found.st_ino}.{found.st_size}.{found.st_mtime_ns}.{found.st_ctime_ns}"
