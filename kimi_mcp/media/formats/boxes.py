"""Checks ISO base media: mp4, mov, 3gpp, and the stills heic and avif. Pure, no I/O.

Sources: ISO/IEC 14496-12 (boxes), 23008-12 (still pictures), Apple's QuickTime File Format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kimi_mcp.media.formats.media_info import (
    FORMATS,
    ByteSource,
    MediaInfo,
    check_dimensions,
    damaged,
    no_video_track,
)

_TOP = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp meta uuid udta pdin pnot prft emsg idat imda".split()
)
"""Top-level boxes. One that exceeds the file means that it was truncated; anything else is data appended to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    name: bytes
    start: int
    """Start of its payload."""
    end: int


def _box(source: ByteSource, at: int, end: int) -> _Box | None:
    """The box at an offset, if there can be one."""
    head = source.at(at, 16)
    if len(head) < 8 or at + 8 > end:
        return None
    size, name, start = int.from_bytes(head[:4], "big"), head[4:8], at + 8
    if size == 1:
        size, start = int.from_bytes(head[8:16], "big"), at + 16
    elif size == 0:
        size = end - at
    return _Box(name=name, start=start, end=at + size) if at + size >= start else None


def _top(source: ByteSource, name: str) -> tuple[dict[bytes, _Box], int]:
    """The top-level boxes (the first of each name) and the end of the last one."""
    found: dict[bytes, _Box] = {}
    at = 0
    while (box := _box(source, at, source.size)) is not None:
        source.step(name)
        if box.end > source.size:
            if box.name in _TOP:
                raise source.truncated(name, f"{box.end:,}")
            break
        found.setdefault(box.name, box)
        at = box.end
    return found, at


def _inside(source: ByteSource, box: _Box | None, name: str, skip: int = 0) -> Iterator[_Box]:
    """The boxes within a box, up to the first malformed one."""
    at = box.start + skip if box else 0
    while box and (one := _box(source, at, box.end)) is not None and one.end <= box.end:
        source.step(name)
        yield one
        at = one.end


def _first(source: ByteSource, box: _Box | None, kind: bytes, name: str, skip: int = 0) -> _Box | None:
    return next((one for one in _inside(source, box, name, skip) if one.name == kind), None)


def still(source: ByteSource, mime: str) -> MediaInfo:
    """A HEIC or AVIF picture: every size in its header is checked."""
    name = FORMATS[mime].name
    top, length = _top(source, name)
    if b"meta" not in top:
        raise source.truncated(name, "a meta box that describes the picture")
    properties = _first(source, top[b"meta"], b"iprp", name, skip=4)
    sizes: list[tuple[int, int]] = []
    for one in _inside(source, _first(source, properties, b"ipco", name), name):
        data = source.at(one.start, 12)
        if one.name == b"ispe" and len(data) == 12 and one.end - one.start >= 12:
            sizes.append(struct.unpack(">II", data[4:]))
    if not sizes:
        raise damaged(name, "its header does not say how large it is")
    for width, height in sizes:
        check_dimensions(name, width, height)
    if not top.keys() & {b"mdat", b"idat", b"imda"} and not _first(source, top[b"meta"], b"idat", name, skip=4):
        raise source.truncated(name, "the picture's data behind its header")
    width, height = max(sizes, key=lambda size: size[0] * size[1])  # tiles, thumbnails and masks are smaller
    return MediaInfo(kind="image", mime=mime, width=width, height=height, length=length)


def clip(source: ByteSource, mime: str) -> MediaInfo:
    """An mp4, mov or 3gpp clip: its boxes are complete, and it has a video track within the limits."""
    name = FORMATS[mime].name
    top, length = _top(source, name)
    if missing := [part for part in (b"moov", b"mdat") if part not in top]:
        what = "the table of contents (moov)" if missing[0] == b"moov" else "the pictures (mdat)"
        raise source.truncated(name, f"both moov and mdat, but it is without {what}")
    tracks = [box for box in _inside(source, top[b"moov"], name) if box.name == b"trak"]
    videos = [track for track in tracks if _handler(source, track, name) == b"vide"]
    if not tracks:
        raise damaged(name, "its table of contents names no track")
    if not videos:
        raise no_video_track(name)
    for track in videos:
        header = _first(source, track, b"tkhd", name)
        if header and header.end - header.start >= 84:
            width, height = struct.unpack(">II", source.at(header.end - 8, 8))
            if width >> 16 and height >> 16:
                check_dimensions(name, width >> 16, height >> 16)
    return MediaInfo(kind="video", mime=mime, length=length)


def _handler(source: ByteSource, track: _Box, name: str) -> bytes:
    handler = _first(source, _first(source, track, b"mdia", name), b"hdlr", name)
    return source.at(handler.start + 8, 4) if handler else b""
