"""Reading ISO base media: mp4, mov, 3gpp, and the stills heic and avif. Pure, no I/O.

Sources: ISO/IEC 14496-12 (boxes), 23008-12 (still pictures), Apple's QuickTime File Format, the MP4 registry of brands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.formats.inspected import (
    FORMATS,
    ByteSource,
    Inspected,
    damaged,
    held_to_limits,
    sound_alone,
    truncated,
)

_STILL_BRANDS = {
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"hevc": "image/heic",
    b"hevx": "image/heic",
    b"avif": "image/avif",
    b"avis": "image/avif",
}
_GENERAL_STILLS = frozenset({b"mif1", b"msf1", b"miaf"})
"""Brands of a still picture that leave open how it is packed: a later brand says."""

_TOP = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp meta uuid udta pdin pnot prft emsg idat imda".split()
)
"""Boxes that stand at the top of a file. One that reaches beyond the end means that the file was cut off; anything
else that does is no box, but what somebody left behind the clip."""

_OLD_QUICKTIME = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    name: bytes
    at: int
    start: int
    """Where its payload begins."""
    end: int


def is_boxes(head: bytes) -> bool:
    """Whether ISO base media, or the older QuickTime, begins here."""
    return head[4:8] == b"ftyp" or (head[4:8] in _OLD_QUICKTIME and head[:1] in (b"\0", b"\1"))


def read(source: ByteSource) -> Inspected:
    """A clip or a still, by its brand."""
    head = source.at(0, 16)
    brands: list[bytes] = []
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), 512)
        raw = source.at(8, max(size - 8, 4))
        brands = [raw[:4], *(raw[one : one + 4] for one in range(8, len(raw) - 3, 4))]
    major = brands[0] if brands else b"qt  "
    still = _STILL_BRANDS.get(major)
    if still is None and major in _GENERAL_STILLS:
        still = next((_STILL_BRANDS[one] for one in brands if one in _STILL_BRANDS), None)
        if still is None:
            raise damaged("HEIF picture", "it is packed neither as HEIC nor as AVIF")
    if still is not None:
        return _still(source, still)
    if major in (b"jpx ", b"jp2 ", b"crx "):
        raise MediaRejected(
            "The file is a JPEG 2000 or a camera's raw picture, which nobody takes.", fix="Export it as jpeg or png."
        )
    mime = "video/mov" if major == b"qt  " else "video/3gpp" if major[:2] == b"3g" else "video/mp4"
    return _clip(source, mime)


def _top(source: ByteSource, name: str) -> tuple[dict[bytes, _Box], int]:
    """The boxes at the top (the first of each name) and where the last of them ends."""
    found: dict[bytes, _Box] = {}
    at = 0
    while at < source.size:
        source.step(name)
        box = _box(source, at, source.size)
        if box is None or box.end > source.size:
            if box is not None and box.name in _TOP:
                raise truncated(name, found=f"{source.size:,} bytes", expected=f"{box.end:,}")
            break
        found.setdefault(box.name, box)
        at = box.end
    return found, at


def _box(source: ByteSource, at: int, end: int) -> _Box | None:
    """The box at a place; None where none can be."""
    head = source.at(at, 16)
    if len(head) < 8 or at + 8 > end:
        return None
    size, name, start = int.from_bytes(head[:4], "big"), head[4:8], at + 8
    if size == 1:
        size, start = int.from_bytes(head[8:16], "big"), at + 16
    elif size == 0:
        size = end - at
    return _Box(name=name, at=at, start=start, end=at + size) if at + size >= start else None


def _inside(source: ByteSource, box: _Box, name: str, skip: int = 0) -> Iterator[_Box]:
    """The boxes within a box, as far as they are sound."""
    at = box.start + skip
    while (one := _box(source, at, box.end)) is not None and one.end <= box.end:
        source.step(name)
        yield one
        at = one.end


def _first(source: ByteSource, box: _Box | None, kind: bytes, name: str) -> _Box | None:
    if box is None:
        return None
    return next((one for one in _inside(source, box, name) if one.name == kind), None)


def _still(source: ByteSource, mime: str) -> Inspected:
    name = FORMATS[mime].name
    top, length = _top(source, name)
    if b"meta" not in top:
        raise truncated(name, found=f"{source.size:,} bytes", expected="a meta box that describes the picture")
    properties = next((one for one in _inside(source, top[b"meta"], name, skip=4) if one.name == b"iprp"), None)
    sizes: list[tuple[int, int]] = []
    container = _first(source, properties, b"ipco", name)
    for one in _inside(source, container, name) if container else ():
        data = source.at(one.start, 12)
        if one.name == b"ispe" and len(data) == 12 and one.end - one.start >= 12:
            sizes.append((int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:], "big")))
    if not sizes:
        raise damaged(name, "its header does not say how large it is")
    for width, height in sizes:
        held_to_limits(name, width, height)
    if not top.keys() & {b"mdat", b"idat", b"imda"} and b"idat" not in {
        one.name for one in _inside(source, top[b"meta"], name, skip=4)
    }:
        raise truncated(name, found=f"{source.size:,} bytes", expected="the picture's data behind its header")
    width, height = max(sizes, key=lambda size: size[0] * size[1])  # tiles, thumbnails and masks are smaller
    return Inspected(kind="image", mime=mime, width=width, height=height, frames=1, length=length)


def _clip(source: ByteSource, mime: str) -> Inspected:
    name = FORMATS[mime].name
    top, length = _top(source, name)
    moov = top.get(b"moov")
    if moov is None or b"mdat" not in top:
        missing = "the table of contents (moov)" if moov is None else "the pictures (mdat)"
        raise truncated(name, found=f"{source.size:,} bytes without {missing}", expected="both")
    duration, extended, size, tracks, video = None, None, None, 0, False
    for box in _inside(source, moov, name):
        if box.name == b"mvhd":
            duration = _seconds(source, box)
        elif box.name == b"mvex":
            extended = _first(source, box, b"mehd", name)
        elif box.name == b"trak":
            tracks += 1
            if _handler(source, box, name) == b"vide":
                video = True
                size = size or _track_size(source, box, name)
    if tracks and not video:
        raise sound_alone(name)
    if not video:
        raise damaged(name, "its table of contents names no track")
    if duration is None and extended is not None:
        duration = _extended_seconds(source, moov, extended, name)
    width, height = size or (None, None)
    if width and height:
        held_to_limits(name, width, height)
    return Inspected(
        kind="video", mime=mime, width=width or None, height=height or None, duration_s=duration, length=length
    )


def _handler(source: ByteSource, track: _Box, name: str) -> bytes:
    handler = _first(source, _first(source, track, b"mdia", name), b"hdlr", name)
    return source.at(handler.start + 8, 4) if handler else b""


def _track_size(source: ByteSource, track: _Box, name: str) -> tuple[int, int] | None:
    header = _first(source, track, b"tkhd", name)
    if header is None or header.end - header.start < 84:
        return None
    width, height = struct.unpack(">II", source.at(header.end - 8, 8))
    return width >> 16, height >> 16


def _times(source: ByteSource, header: _Box) -> tuple[int, int, int] | None:
    """Timescale, duration, and the duration that stands for unknown, of an mvhd box."""
    data = source.at(header.start, 32)
    if len(data) < 32 or header.end - header.start < 32:
        return None
    if data[0] == 1:
        return *struct.unpack(">IQ", data[20:32]), (1 << 64) - 1
    return *struct.unpack(">II", data[12:20]), (1 << 32) - 1


def _seconds(source: ByteSource, header: _Box) -> float | None:
    match _times(source, header):
        case scale, length, unknown if scale and length and length != unknown:
            return length / scale
        case _:
            return None


def _extended_seconds(source: ByteSource, moov: _Box, header: _Box, name: str) -> float | None:
    """The duration of a clip in fragments, which its mvhd leaves open."""
    movie = _first(source, moov, b"mvhd", name)
    times = _times(source, movie) if movie else None
    data = source.at(header.start, 12)
    length = int.from_bytes(data[4:12] if data[:1] == b"\1" else data[4:8], "big")
    return length / times[0] if times and times[0] and length else None
