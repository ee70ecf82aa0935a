"""Reading the other clips: avi, flv, mpeg, webm, wmv. Pure, no I/O.

Sources: Microsoft's AVI RIFF reference and OpenDML 1.02, Adobe's FLV 10.1, ISO/IEC 13818-1 and -2, RFC 8794 and the
WebM container guidelines, Microsoft's ASF 1.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.formats.inspected import ByteSource, Inspected, damaged, held_to_limits, sound_alone, truncated

ASF_START = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
EBML_START = b"\x1aE\xdf\xa3"
MPEG_STARTS = (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")

_STREAMED = (0, 0xFFFF_FFFF)
"""Sizes that a writer leaves behind who could not go back to the header."""


def _clip(mime: str, name: str, length: int, size: tuple[int, int] | None, duration_s: float | None) -> Inspected:
    if size is not None and any(size):
        held_to_limits(name, *size)
    width, height = size if size and all(size) else (None, None)
    seconds = duration_s if duration_s is not None and 0 < duration_s < 1e9 else None
    return Inspected(kind="video", mime=mime, width=width, height=height, duration_s=seconds, length=length)


def avi(source: ByteSource) -> Inspected:
    """An AVI, of one RIFF piece or of several (OpenDML)."""
    name, at = "AVI clip", 0
    while (head := source.at(at, 12))[:4] == b"RIFF" and head[8:] in (b"AVI ", b"AVIX"):
        source.step(name)
        size = int.from_bytes(head[4:8], "little")
        end = source.size if size in _STREAMED else at + 8 + size
        if end > source.size:
            raise truncated(name, found=f"{source.size:,} bytes", expected=f"{end:,} by its RIFF header")
        at = end + (end & 1)
    head = source.at(0, 72)
    if head[24:28] != b"avih" or len(head) < 72:
        raise damaged(name, "its header is not where it belongs")
    micros, total = int.from_bytes(head[32:36], "little"), int.from_bytes(head[48:52], "little")
    if not _holds_pictures(source, name):
        raise truncated(name, found=f"{source.size:,} bytes without pictures (movi)", expected="pictures")
    width, height = struct.unpack("<II", head[64:72])
    return _clip("video/avi", name, min(at, source.size), (width, height), micros * total / 1e6)


def _holds_pictures(source: ByteSource, name: str) -> bool:
    at = 12
    while len(head := source.at(at, 12)) == 12:
        source.step(name)
        size = int.from_bytes(head[4:8], "little")
        if head[:4] == b"LIST" and head[8:] == b"movi":
            return size in _STREAMED or at + 8 + size <= source.size
        at += 8 + size + (size & 1)
    return False


def flv(source: ByteSource) -> Inspected:
    """An FLV: its last tag must be whole, which its last four bytes tell."""
    name = "FLV clip"
    head = source.at(0, 9)
    start = int.from_bytes(head[5:9], "big")
    back = int.from_bytes(source.at(source.size - 4, 4), "big") if source.size >= start + 15 else 0
    last = source.at(source.size - 4 - back, 11) if back >= 11 else b""
    if len(head) < 9 or len(last) < 11 or last[0] & 0x1F not in (8, 9, 18) or source.size - 4 - back < start + 4:
        raise truncated(name, found=f"{source.size:,} bytes", expected="a whole tag at the end")
    if int.from_bytes(last[1:4], "big") + 11 != back:
        raise truncated(name, found=f"{source.size:,} bytes", expected="a whole tag at the end")
    script = source.at(start + 4, 8_192) if source.at(start + 4, 1)[:1] == b"\x12" else b""
    width, height, seconds, whole = (
        _flv_number(script, key) for key in (b"width", b"height", b"duration", b"filesize")
    )
    if whole is not None and whole > source.size:
        raise truncated(name, found=f"{source.size:,} bytes", expected=f"{int(whole):,} by its metadata")
    if seconds is None:
        seconds = int.from_bytes(last[7:8] + last[4:7], "big") / 1_000
    size = (int(width), int(height)) if width and height else None
    return _clip("video/x-flv", name, source.size, size, seconds)


def _flv_number(script: bytes, key: bytes) -> float | None:
    at = script.find(len(key).to_bytes(2, "big") + key + b"\0")
    data = script[at + len(key) + 3 : at + len(key) + 11]
    if at < 0 or len(data) < 8:
        return None
    value: float = struct.unpack(">d", data)[0]
    return value if 0 < value < 1e12 else None


def mpeg(source: ByteSource) -> Inspected:
    """An MPEG program or video stream. It has no length of its own: where it was cut off can't be told."""
    name = "MPEG clip"
    head = source.at(0, 65_536)
    at = head.find(b"\x00\x00\x01\xb3")
    data = head[at + 4 : at + 7]
    if at < 0 or len(data) < 3:
        raise damaged(name, f"no picture begins within its first {len(head):,} bytes")
    tail_at = max(0, source.size - 65_536)
    tail = source.at(tail_at, 65_536)
    first, last = _clock(head[:14]), _clock(tail[max(tail.rfind(b"\x00\x00\x01\xba"), 0) :][:14])
    seconds = last - first if first is not None and last is not None else None
    size = (data[0] << 4 | data[1] >> 4, (data[1] & 15) << 8 | data[2])
    return _clip("video/mpeg", name, source.size, size, seconds)


def _clock(pack: bytes) -> float | None:
    """Seconds of a pack header's clock, of MPEG-1 or MPEG-2."""
    if len(pack) < 12 or pack[:4] != b"\x00\x00\x01\xba":
        return None
    bits = int.from_bytes(pack[4:9], "big")
    if pack[4] >> 6 == 1:
        high, mid, low = bits >> 35 & 7, bits >> 19 & 0x7FFF, bits >> 3 & 0x7FFF
    else:
        high, mid, low = bits >> 33 & 7, bits >> 17 & 0x7FFF, bits >> 1 & 0x7FFF
    return (high << 30 | mid << 15 | low) / 90_000


class _Element(NamedTuple):
    id: int
    start: int
    end: int
    """-1: the element does not say how long it is."""


def webm(source: ByteSource) -> Inspected:
    """A WebM, element by element to the end of its segment. Matroska is refused with the mend."""
    name = "WebM clip"
    header = _element(source, 0)
    if header is None or header.end < 0 or header.end > min(source.size, 4_096):
        raise truncated(name, found=f"{source.size:,} bytes", expected="a whole EBML header")
    kinds = [source.at(one.start, one.end - one.start) for one in _elements(source, header, name) if one.id == 0x4282]
    if not kinds or kinds[0].rstrip(b"\0") != b"webm":
        raise MediaRejected(
            "The clip is Matroska (mkv): found another kind of EBML file, expected webm.",
            fix="Put it into mp4 without loss: ffmpeg -i clip.mkv -c copy clip.mp4.",
        )
    segment = _element(source, header.end)
    if segment is None or segment.id != 0x18538067:
        raise truncated(name, found=f"{source.size:,} bytes", expected="a segment behind its header")
    end = source.size if segment.end < 0 else segment.end
    if end > source.size:
        raise truncated(name, found=f"{source.size:,} bytes", expected=f"{end:,}")
    size, seconds, clusters, tracks = None, None, 0, False
    for one in _elements(source, _Element(segment.id, segment.start, end), name):
        if one.end > end:
            raise truncated(name, found=f"{source.size:,} bytes", expected=f"{one.end:,}")
        if one.id == 0x1549A966:
            seconds = _webm_seconds(source, one, name)
        elif one.id == 0x1654AE6B:
            tracks, size = True, _webm_size(source, one, name)
        clusters += one.id == 0x1F43B675
    if not clusters or not tracks:
        raise truncated(name, found=f"{source.size:,} bytes without pictures", expected="tracks and clusters")
    if size is None:
        raise sound_alone(name)
    return _clip("video/webm", name, end, size, seconds)


def _element(source: ByteSource, at: int) -> _Element | None:
    head = source.at(at, 12)
    wide = 9 - head[0].bit_length() if head else 9
    if wide > 4 or len(head) <= wide:
        return None
    long = 9 - head[wide].bit_length()
    start = at + wide + long
    if long > 8 or len(head) < wide + long:
        return None
    raw = int.from_bytes(head[wide : wide + long], "big") & (1 << 7 * long) - 1
    return _Element(int.from_bytes(head[:wide], "big"), start, -1 if raw == (1 << 7 * long) - 1 else start + raw)


def _elements(source: ByteSource, parent: _Element, name: str) -> Iterator[_Element]:
    at = parent.start
    while at < parent.end:
        source.step(name)
        one = _element(source, at)
        if one is None:
            return
        yield one
        if one.end < 0:
            return
        at = one.end


def _webm_seconds(source: ByteSource, info: _Element, name: str) -> float | None:
    scale, ticks = 1_000_000, None
    for one in _elements(source, info, name):
        data = source.at(one.start, min(max(one.end - one.start, 0), 8))
        if one.id == 0x2AD7B1:
            scale = int.from_bytes(data, "big")
        elif one.id == 0x4489 and len(data) in (4, 8):
            ticks = struct.unpack(">f" if len(data) == 4 else ">d", data)[0]
    return ticks * scale / 1e9 if ticks is not None else None


def _webm_size(source: ByteSource, tracks: _Element, name: str) -> tuple[int, int] | None:
    for entry in _elements(source, tracks, name):
        if entry.id != 0xAE:
            continue
        for video in _elements(source, entry, name):
            if video.id == 0xE0:
                found = {
                    one.id: int.from_bytes(source.at(one.start, min(max(one.end - one.start, 0), 8)), "big")
                    for one in _elements(source, video, name)
                    if one.id in (0xB0, 0xBA)
                }
                return found.get(0xB0, 0), found.get(0xBA, 0)
    return None


_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_STREAM_PROPERTIES = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_VIDEO_STREAM = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def wmv(source: ByteSource) -> Inspected:
    """A WMV: its header object and the data object behind it."""
    name = "WMV clip"
    header = int.from_bytes(source.at(16, 8), "little")
    data = source.at(header, 24)
    if source.size < 30 or header < 30 or len(data) < 24:
        raise truncated(name, found=f"{source.size:,} bytes", expected=f"at least {header + 50:,}")
    long = int.from_bytes(data[16:], "little")
    if data[:16] != _DATA or header + long > source.size:
        raise truncated(name, found=f"{source.size:,} bytes", expected=f"at least {header + long:,}")
    size, seconds, at = None, None, 30
    while at + 24 <= header:
        source.step(name)
        one = source.at(at, 104)
        step = int.from_bytes(one[16:24], "little")
        if step < 24 or at + step > header:
            raise damaged(name, f"at byte {at:,} no object begins")
        if one[:16] == _FILE_PROPERTIES and len(one) >= 92:
            length, _, preroll = struct.unpack("<QQQ", one[64:88])
            seconds = length / 1e7 - preroll / 1e3
        elif one[:16] == _STREAM_PROPERTIES and one[24:40] == _VIDEO_STREAM and len(one) >= 86:
            width, height = struct.unpack("<II", one[78:86])
            size = size or (width, height)
        at += step
    if size is None:
        raise sound_alone(name)
    return _clip("video/wmv", name, source.size, size, seconds)
