"""The format of a medium by its magic number, and the size of an image by its header. Pure, no I/O.

Formats: png, jpeg, webp, gif; mp4, mpeg, mov, avi, x-flv, mpg, webm, wmv, 3gpp (Moonshot's vision guide).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

FORMATS: dict[str, frozenset[str]] = {
    "image": frozenset({"png", "jpeg", "webp", "gif"}),
    "video": frozenset({"mp4", "mpeg", "mov", "avi", "x-flv", "mpg", "webm", "wmv", "3gpp"}),
}
"""Subtypes of a data URL that Moonshot's vision guide names, by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMedium:
    """An image or a video by its header."""

    kind: str
    """`image` or `video`."""
    format: str
    """As in a data URL: png, mp4, x-flv."""
    width: int | None = None
    """Pixels of an image."""
    height: int | None = None


_VIDEOS = (
    (rb"....ftypqt  |....(?:moov|mdat|wide|free)", "mov"),
    (rb"....ftyp3gp", "3gpp"),
    (rb"....ftyp", "mp4"),
    (rb"RIFF....AVI ", "avi"),
    (rb"\x1aE\xdf\xa3.{0,60}webm", "webm"),
    (rb"FLV", "x-flv"),
    (rb"\x30\x26\xb2\x75", "wmv"),
    (rb"\x00\x00\x01[\xba\xb3]", "mpeg"),
)
"""How each format of a video begins."""


def sniff(data: bytes) -> ReceivedMedium | None:
    """The format of the bytes, by magic number; None where it is none of the known ones."""
    head = data[:64]
    found: tuple[str, tuple[int | None, int | None]] | None = None
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        found = "png", struct.unpack(">II", head[16:24]) if len(head) >= 24 else (None, None)
    elif head.startswith(b"\xff\xd8\xff"):
        found = "jpeg", _jpeg_size(data)
    elif head[:6] in (b"GIF87a", b"GIF89a"):
        found = "gif", struct.unpack("<HH", head[6:10]) if len(head) >= 10 else (None, None)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        found = "webp", _webp_size(head)
    if found:
        return ReceivedMedium(kind="image", format=found[0], width=found[1][0], height=found[1][1])
    video = next((form for pattern, form in _VIDEOS if re.match(pattern, head, re.DOTALL)), None)
    return ReceivedMedium(kind="video", format=video) if video else None


def _jpeg_size(data: bytes) -> tuple[int | None, int | None]:
    at, end = 2, len(data)
    while at + 9 <= end:
        if data[at] != 0xFF:
            return None, None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
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
