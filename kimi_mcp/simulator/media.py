"""Owns telling media formats by their magic numbers, and size and duration by their headers. Pure, no I/O.

Formats: png, jpeg, webp, gif; mp4, mpeg, mov, avi, x-flv, mpg, webm, wmv, 3gpp (Moonshot's vision guide).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from mmap import mmap

Bytes = bytes | mmap
"""Something that can be sliced without being read whole."""

FORMATS: dict[str, frozenset[str]] = {
    "image": frozenset({"png", "jpeg", "webp", "gif"}),
    "video": frozenset({"mp4", "mpeg", "mov", "avi", "x-flv", "mpg", "webm", "wmv", "3gpp"}),
}
"""Subtypes of a data URL that Moonshot's vision guide names, by kind."""

_SAME = {"mpg": "mpeg"}
"""Subtypes that are another's second name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMedium:
    """What the header of an image or video says."""

    kind: str
    """`image` or `video`."""
    format: str
    """As in a data URL: png, mp4, x-flv."""
    width: int | None = None
    height: int | None = None
    seconds: float | None = None


def names_format(claimed: str, found: str) -> bool:
    """Whether a claimed subtype is a name of the format that the bytes have."""
    return _SAME.get(claimed, claimed) == found


def sniff(data: Bytes) -> ReceivedMedium | None:
    """The format that the bytes are in, by magic number; None when it is none of the known ones."""
    head = bytes(data[:32])
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack(">II", head[16:24]) if len(head) >= 24 else (None, None)
        return ReceivedMedium(kind="image", format="png", width=width, height=height)
    if head.startswith(b"\xff\xd8\xff"):
        width, height = _jpeg_size(data)
        return ReceivedMedium(kind="image", format="jpeg", width=width, height=height)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        width, height = struct.unpack("<HH", head[6:10]) if len(head) >= 10 else (None, None)
        return ReceivedMedium(kind="image", format="gif", width=width, height=height)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        width, height = _webp_size(head)
        return ReceivedMedium(kind="image", format="webp", width=width, height=height)
    return _sniff_video(data, head)


def _sniff_video(data: Bytes, head: bytes) -> ReceivedMedium | None:
    if head[4:8] == b"ftyp":
        return _iso_media(data, head[8:12])
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return _iso_media(data, b"qt  ")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _avi(data)
    if head[:4] == b"\x1aE\xdf\xa3":
        return ReceivedMedium(kind="video", format="webm") if b"webm" in bytes(data[:64]) else None
    if head[:3] == b"FLV":
        return ReceivedMedium(kind="video", format="x-flv")
    if head[:4] == b"\x30\x26\xb2\x75":
        return ReceivedMedium(kind="video", format="wmv")
    if head[:4] in (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"):
        return ReceivedMedium(kind="video", format="mpeg")
    return None


def _jpeg_size(data: Bytes) -> tuple[int | None, int | None]:
    at, end = 2, len(data)
    while at + 9 <= end:
        if data[at] != 0xFF:
            return None, None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", bytes(data[at + 5 : at + 9]))
            return width, height
        at += 2 + struct.unpack(">H", bytes(data[at + 2 : at + 4]))[0]
    return None, None


def _webp_size(head: bytes) -> tuple[int | None, int | None]:
    if head[12:16] == b"VP8X" and len(head) >= 30:
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8 " and len(head) >= 30:
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if head[12:16] == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None, None


def _boxes(data: Bytes, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """The boxes of an ISO media container: name → where its payload starts and ends (the last of a name wins)."""
    found: dict[bytes, tuple[int, int]] = {}
    at = start
    while at + 8 <= end:
        size = int.from_bytes(data[at : at + 4], "big")
        name, header = bytes(data[at + 4 : at + 8]), 8
        if size == 1 and at + 16 <= end:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if size == 0:
            size = end - at
        if size < header:
            break
        if name != b"trak" or b"trak" not in found:
            found[name] = (at + header, min(at + size, end))
        at += size
    return found


def _iso_media(data: Bytes, brand: bytes) -> ReceivedMedium:
    form = "mov" if brand == b"qt  " else "3gpp" if brand[:3] == b"3gp" else "mp4"
    width = height = seconds = None
    moov = _boxes(data, 0, len(data)).get(b"moov")
    if moov:
        inside = _boxes(data, *moov)
        if b"mvhd" in inside:
            start = inside[b"mvhd"][0]
            wide = data[start : start + 1] == b"\1"
            fields = bytes(data[start + (20 if wide else 12) : start + (32 if wide else 20)])
            if len(fields) == (12 if wide else 8):
                scale, length = struct.unpack(">IQ" if wide else ">II", fields)
                seconds = length / scale if scale else None
        if b"trak" in inside:
            track = _boxes(data, *inside[b"trak"]).get(b"tkhd")
            if track and track[1] - track[0] >= 8:
                width, height = (part >> 16 for part in struct.unpack(">II", bytes(data[track[1] - 8 : track[1]])))
    return ReceivedMedium(kind="video", format=form, width=width or None, height=height or None, seconds=seconds)


def _avi(data: Bytes) -> ReceivedMedium:
    head = bytes(data[:512])
    at = head.find(b"avih")
    if at < 0 or at + 48 > len(head):
        return ReceivedMedium(kind="video", format="avi")
    micros, frames = (
        struct.unpack("<I", head[at + 8 : at + 12])[0],
        struct.unpack("<I", head[at + 24 : at + 28])[0],
    )
    width, height = struct.unpack("<II", head[at + 40 : at + 48])
    return ReceivedMedium(kind="video", format="avi", width=width, height=height, seconds=micros * frames / 1e6)
