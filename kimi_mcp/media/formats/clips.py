"""Checks that clips are whole, as far as their headers say. Pure, no I/O.

Sources: ISO/IEC 14496-12 (boxes of mp4, mov, 3gpp), Apple's QuickTime File Format, Microsoft's AVI RIFF reference and
OpenDML 1.02, Adobe's FLV 10.1, RFC 8794 and the WebM container guidelines, Microsoft's ASF 1.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.formats.media_info import ByteSource, MediaInfo, check_dimensions

_TOP = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp meta uuid udta pdin pnot prft emsg idat imda".split()
)
"""Top-level boxes. One that exceeds the file means that it was truncated; anything else is data appended to it."""
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_EBML_DOC_TYPE, _EBML_SEGMENT = b"\x42\x82", b"\x18\x53\x80\x67"


def boxed(source: ByteSource) -> MediaInfo:
    """An mp4, mov or 3gpp: its boxes are complete, and it has a video track within the limits."""
    top, length = _top(source)
    if missing := [part for part in (b"moov", b"mdat") if part not in top]:
        what = "the table of contents (moov)" if missing[0] == b"moov" else "the pictures (mdat)"
        raise source.truncated(f"both moov and mdat, but it is without {what}")
    tracks = [box for box in _inside(source, top[b"moov"]) if box.name == b"trak"]
    videos = [track for track in tracks if _handler(source, track) == b"vide"]
    if not tracks:
        raise source.damaged("its table of contents names no track")
    if not videos:
        raise source.no_video_track()
    for track in videos:
        header = _first(source, track, b"tkhd")
        if header and header.end - header.start >= 84:
            width, height = struct.unpack(">II", source.at(header.end - 8, 8))
            if width >> 16 and height >> 16:
                check_dimensions(source.mime, width >> 16, height >> 16)
    return source.info(length)


def _handler(source: ByteSource, track: _Box) -> bytes:
    handler = _first(source, _first(source, track, b"mdia"), b"hdlr")
    return source.at(handler.start + 8, 4) if handler else b""


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


def _top(source: ByteSource) -> tuple[dict[bytes, _Box], int]:
    """The top-level boxes (the first of each name) and the end of the last one."""
    found: dict[bytes, _Box] = {}
    at = 0
    while (box := _box(source, at, source.size)) is not None:
        source.step()
        if box.end > source.size:
            if box.name in _TOP:
                raise source.truncated(f"{box.end:,}")
            break
        found.setdefault(box.name, box)
        at = box.end
    return found, at


def _inside(source: ByteSource, box: _Box | None) -> Iterator[_Box]:
    """The boxes within a box, up to the first malformed one."""
    at = box.start if box else 0
    while box and (one := _box(source, at, box.end)) is not None and one.end <= box.end:
        source.step()
        yield one
        at = one.end


def _first(source: ByteSource, box: _Box | None, kind: bytes) -> _Box | None:
    return next((one for one in _inside(source, box) if one.name == kind), None)


def avi(source: ByteSource) -> MediaInfo:
    """An AVI of one or several RIFF chunks (OpenDML)."""
    at = 0
    while (head := source.at(at, 12))[:4] == b"RIFF" and head[8:] in (b"AVI ", b"AVIX"):
        source.step()
        size = int.from_bytes(head[4:8], "little")
        end = source.size if size in (0, 0xFFFF_FFFF) else at + 8 + size  # a stream has no size
        if end > source.size:
            raise source.truncated(f"{end:,} by its RIFF header")
        at = end + (end & 1)
    return source.info(min(at, source.size))


def flv(source: ByteSource) -> MediaInfo:
    """An FLV: its last four bytes say how long its last tag is."""
    back = int.from_bytes(source.at(source.size - 4, 4), "big")
    last = source.at(source.size - 4 - back, 11)
    if back < 11 or len(last) < 11 or last[0] & 0x1F not in (8, 9, 18) or int.from_bytes(last[1:4], "big") + 11 != back:
        raise source.truncated("a whole tag at the end")
    return source.info(source.size)


def webm(source: ByteSource) -> MediaInfo:
    """A WebM to the end of its segment. Matroska is refused."""
    _, header, segment = _element(source, 0)
    if header is None or segment is None or segment > min(source.size, 4_096):
        raise source.truncated("a whole EBML header")
    kind = source.at(header, segment - header).partition(_EBML_DOC_TYPE)[2]
    if kind[1:].rstrip(b"\0")[:4] != b"webm":
        raise MediaRejected(
            "The clip is Matroska (mkv): found another kind of EBML file, expected webm.",
            fix="Put it into mp4 without loss: ffmpeg -i clip.mkv -c copy clip.mp4.",
        )
    label, start, end = _element(source, segment)
    if label != _EBML_SEGMENT or start is None:
        raise source.truncated("a segment behind its header")
    if end is not None and end > source.size:
        raise source.truncated(f"{end:,}")
    return source.info(source.size if end is None else end)


def _element(source: ByteSource, at: int) -> tuple[bytes, int | None, int | None]:
    """An element's id, the start of its content (None: truncated) and its end (None: unknown)."""
    head = source.at(at, 12)
    wide = 9 - head[0].bit_length() if head else 9
    long = 9 - head[wide].bit_length() if len(head) > wide else 9
    if wide > 4 or long > 8 or len(head) < wide + long:
        return b"", None, None
    unknown = (1 << 7 * long) - 1
    size = int.from_bytes(head[wide : wide + long], "big") & unknown
    start = at + wide + long
    return head[:wide], start, None if size == unknown else start + size


def wmv(source: ByteSource) -> MediaInfo:
    """A WMV: its header object and the data object behind it."""
    header = int.from_bytes(source.at(16, 8), "little")
    data = source.at(header, 24)
    end = header + int.from_bytes(data[16:], "little") if len(data) == 24 else header + 50
    if header < 30 or data[:16] != _ASF_DATA or end > source.size:
        raise source.truncated(f"at least {end:,}")
    if _ASF_VIDEO not in source.at(0, min(header, 65_536)):
        raise source.no_video_track()
    return source.info(source.size)
