"""Reading the headers of bmp and tiff, which are converted before they are sent. Pure, no I/O.

Sources: Microsoft's bitmap header structures, TIFF 6.0, the BigTIFF design. heic and avif are in ``boxes.py``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from kimi_mcp.media.formats.media_info import ByteSource, MediaInfo, check_dimensions, damaged

_PAGES_MAX = 10_000
_VALUES_MAX = 4_096
"""Strips or tiles whose place is checked; beyond these the decoder finds out."""

_WIDTHS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
"""Bytes of one value of each TIFF type, by its number."""

_NUMBERS = frozenset({3, 4, 16})
"""The types SHORT, LONG and LONG8."""


def bmp(source: ByteSource) -> MediaInfo:
    """A bitmap; its rows must all be there."""
    name = "BMP picture"
    head = source.at(0, 54)
    old = head[14] == 12
    if len(head) < (26 if old else 54):
        raise source.truncated(name, "a whole header")
    start = int.from_bytes(head[10:14], "little")
    width, height, planes, depth = struct.unpack("<HHHH" if old else "<iiHH", head[18 : 26 if old else 30])
    packing, stored = (0, 0) if old else struct.unpack("<II", head[30:38])
    check_dimensions(name, width, abs(height))
    if planes != 1 or depth not in (1, 2, 4, 8, 16, 24, 32):
        raise damaged(name, f"its header says {planes} planes of {depth} bits")
    rows = (width * depth + 31) // 32 * 4 * abs(height) if packing in (0, 3, 6) else stored
    if start + rows > source.size:
        raise source.truncated(name, f"{start + rows:,}")
    return MediaInfo(kind="image", mime="image/bmp", width=width, height=abs(height), length=source.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tiff:
    source: ByteSource
    order: Literal["little", "big"]
    big: bool

    def number(self, at: int, width: int) -> int | None:
        data = self.source.at(at, width)
        return int.from_bytes(data, self.order) if len(data) == width else None

    def values(self, entry: int, name: str) -> list[int]:
        """The numbers of an entry; none where they are no numbers. Raises ``MediaRejected`` where they are cut off."""
        wide = 8 if self.big else 4
        kind, count = self.number(entry + 2, 2) or 0, self.number(entry + 4, wide) or 0
        width = _WIDTHS[kind] if kind < len(_WIDTHS) else 0
        at = entry + 4 + wide
        if count * width > wide:
            at = self.number(at, wide) or 0
        if at + count * width > self.source.size:
            raise self.source.truncated(name, f"{at + count * width:,}")
        if kind not in _NUMBERS or count > _VALUES_MAX:
            return []
        data = self.source.at(at, count * width)
        return [int.from_bytes(data[one : one + width], self.order) for one in range(0, len(data), width)]


def tiff(source: ByteSource) -> MediaInfo:
    """A TIFF or BigTIFF: every page is held to the limits and must be whole; the first one says how large it is."""
    name = "TIFF picture"
    head = source.at(0, 16)
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    file = _Tiff(source=source, order=order, big=int.from_bytes(head[2:4], order) == 43)
    wide = 8 if file.big else 4
    at, pages, size = file.number(8 if file.big else 4, wide), 0, (0, 0)
    seen: set[int] = set()
    while at and at not in seen and pages < _PAGES_MAX:
        seen.add(at)
        count = file.number(at, 8 if file.big else 2)
        first, each = at + (8 if file.big else 2), 20 if file.big else 12
        if count is None or first + count * each + wide > source.size:
            raise source.truncated(name, f"the directory at byte {at:,}")
        page = _page(file, range(first, first + count * each, each), name)
        size = size if pages else page
        pages += 1
        at = file.number(first + count * each, wide)
    if not pages:
        raise source.truncated(name, "a directory")
    return MediaInfo(kind="image", mime="image/tiff", width=size[0], height=size[1], pages=pages, length=source.size)


def _page(file: _Tiff, entries: range, name: str) -> tuple[int, int]:
    found: dict[int, list[int]] = {}
    for entry in entries:
        file.source.step(name)
        found[file.number(entry, 2) or 0] = file.values(entry, name)
    width, height = (next(iter(found.get(tag, [])), 0) for tag in (256, 257))
    check_dimensions(name, width, height)
    for starts, sizes in ((273, 279), (324, 325)):
        pieces = zip(found.get(starts, []), found.get(sizes, []), strict=False)
        end = max((start + size for start, size in pieces), default=0)
        if end > file.source.size:
            raise file.source.truncated(name, f"{end:,}")
    return width, height
