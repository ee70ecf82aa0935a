"""Walks png, jpeg, gif and webp, which are sent unchanged, to their last byte. Pure, no I/O.

Sources: PNG third edition (chunks), ITU T.81 annex B (markers), GIF89a specification, WebP container specification.
"""

from __future__ import annotations

import re
import struct
import zlib

from kimi_mcp.media.formats.media_info import ByteSource, MediaInfo, check_dimensions

_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""The first marker after a JPEG scan: 0xFF stuffed with 0, fill bytes and restarts belong to the scan."""

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15; DHT, JPG and DAC share their range."""


def png(source: ByteSource) -> MediaInfo:
    """A PNG: chunk by chunk to IEND."""
    head = source.at(8, 25)
    if len(head) < 25:
        raise source.truncated("a whole IHDR chunk")
    size, kind, width, height = struct.unpack(">I4sII", head[:16])
    if size != 13 or kind != b"IHDR" or zlib.crc32(head[4:21]) != int.from_bytes(head[21:], "big"):
        raise source.damaged("its IHDR chunk is not sound")
    check_dimensions(source.mime, width, height)
    at, drawn = 33, False
    while True:
        source.step()
        head = source.at(at, 8)
        size, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        end = at + 12 + size
        if not kind or (kind.isalpha() and end > source.size):
            raise source.truncated(f"at least {end:,}, up to an IEND chunk")
        if not kind.isalpha():
            raise source.damaged(f"at byte {at:,} no chunk begins")
        drawn = drawn or kind == b"IDAT"
        at = end
        if kind == b"IEND":
            break
    if not drawn:
        raise source.damaged("it holds no picture data")
    return source.info(at, width, height)


def jpeg(source: ByteSource) -> MediaInfo:
    """A JPEG: marker by marker, over every scan, to EOI, without a phone's second picture or clip behind it."""
    at, width, height, scanned = 2, 0, 0, False
    while True:
        source.step()
        head = source.at(at, 4)
        if len(head) < 2 or (len(head) < 4 and head[1] not in (0xD9, 0xFF)):
            raise source.truncated("an EOI marker at the end")
        marker = head[1]
        if head[0] != 0xFF or marker in (0x00, 0xD8):
            raise source.damaged(f"at byte {at:,} no marker begins")
        if marker == 0xFF:
            at += 1
        elif marker == 0xD9:
            break
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 2
        else:
            size = int.from_bytes(head[2:4], "big")
            if at + 2 + size > source.size:
                raise source.truncated(f"at least {at + 2 + size:,}")
            if marker in _FRAME_HEADERS and size >= 8:
                height, width = struct.unpack(">HH", source.at(at + 5, 4))
                check_dimensions(source.mime, width, height)
            at += 2 + max(size, 2)
            if marker == 0xDA:
                scanned = True
                at = _after_scan(source, at)
    if not width or not scanned:
        raise source.damaged("it holds no picture data")
    return source.info(at + 2, width, height)


def _after_scan(source: ByteSource, at: int) -> int:
    while True:
        source.step()
        data = source.at(at, 32_768)
        if found := _SCAN_END.search(data):
            return at + found.start()
        if len(data) < 2 or at + len(data) >= source.size:
            raise source.truncated("an EOI marker at the end")
        at += len(data) - 1


def gif(source: ByteSource) -> MediaInfo:
    """A GIF: block by block to its trailer. Each frame is checked."""
    head = source.at(0, 13)
    if len(head) < 13:
        raise source.truncated("a whole header")
    width, height = struct.unpack("<HH", head[6:10])
    check_dimensions(source.mime, width, height)
    at, drawn = 13 + _palette_bytes(head[10]), False
    while True:
        source.step()
        block = source.at(at, 10)
        if not block or (block[0] == 0x2C and len(block) < 10):
            raise source.truncated("a trailer at the end")
        if block[0] == 0x3B:
            break
        if block[0] == 0x21:
            at = _after_sub_blocks(source, at + 2)
        elif block[0] == 0x2C:
            left, top, wide, high = struct.unpack("<HHHH", block[1:9])
            check_dimensions(source.mime, max(width, left + wide), max(height, top + high))
            drawn = True
            at = _after_sub_blocks(source, at + 11 + _palette_bytes(block[9]))
        elif block[0] == 0:
            at += 1  # padding that some writers leave
        else:
            raise source.damaged(f"at byte {at:,} no block begins")
    if not drawn:
        raise source.damaged("it holds no picture data")
    return source.info(at + 1, width, height)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(source: ByteSource, at: int) -> int:
    while True:
        source.step()
        size = source.at(at, 1)
        if not size:
            raise source.truncated("a trailer at the end")
        at += 1 + size[0]
        if not size[0]:
            return at


def webp(source: ByteSource) -> MediaInfo:
    """A WebP: chunk by chunk to the end in its RIFF header. Each frame is checked."""
    whole = 8 + int.from_bytes(source.at(4, 4), "little")
    if whole > source.size:
        raise source.truncated(f"{whole:,} by its RIFF header")
    at, size, drawn = 12, (0, 0), False
    while at + 8 <= whole:
        source.step()
        kind, long = struct.unpack("<4sI", source.at(at, 8))
        if at + 8 + long > whole:
            raise source.damaged(f"its chunk at byte {at:,} reaches beyond the end")
        found = _webp_size(kind, source.at(at + 8, min(long, 32)))
        if found is not None:
            check_dimensions(source.mime, *found)
            size = size if any(size) else found
        drawn = drawn or kind in (b"VP8 ", b"VP8L", b"ANMF")
        at += 8 + long + (long & 1)
    if not drawn or not any(size):
        raise source.damaged("it holds no picture data")
    return source.info(whole, *size)


def _webp_size(kind: bytes, data: bytes) -> tuple[int, int] | None:
    if kind == b"VP8X" and len(data) >= 10:
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8 " and len(data) >= 10 and data[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", data[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(data) >= 5 and data[0] == 0x2F:
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"ANMF" and len(data) >= 16:
        return 1 + int.from_bytes(data[6:9], "little"), 1 + int.from_bytes(data[9:12], "little")
    return None
