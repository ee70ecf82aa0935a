"""Facts about a medium, the names of formats, and the limits of sizes. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.core.types import MediaKind

PIXELS_MAX = 100_000_000
"""Pixels of a picture, or of a frame. Ours: above what phones make (48 million); decoded it takes 400 MB."""

SIDE_MAX = 65_535
"""Pixels of one side: the most in a JPEG header."""

STEPS_MAX = 1_000_000
"""Chunks, boxes or blocks that are read in one file: no real file within the limits has more."""

WINDOW = 65_536
"""Bytes that are read at once."""

WHOLE_FILE = "Give the whole file: export it, or download it, once more."
"""The fix for what is truncated or damaged."""

ReadAt = Callable[[int, int], bytes]
"""(offset, length) → the bytes there; fewer only where the file ends."""


class Format(NamedTuple):
    """A format, recognised by its content."""

    name: str
    """Its name in messages."""
    other_types: frozenset[str]
    """Other valid labels of servers and data URIs."""
    signature: re.Pattern[bytes]
    """How its files begin."""


_STILLS_OF_ANY_CODING = rb"....ftyp(?:mif1|msf1|miaf).{4}(?:.{4}){0,12}?"
"""They say by a later brand how they are coded."""

FORMATS = {
    mime: Format(name, frozenset(other_types.split()), re.compile(signature, re.DOTALL))
    for mime, name, other_types, signature in (
        ("image/png", "PNG picture", "image/x-png image/apng", rb"\x89PNG\r\n\x1a\n"),
        ("image/jpeg", "JPEG picture", "image/jpg image/pjpeg image/jfif", rb"\xff\xd8\xff"),
        ("image/webp", "WebP picture", "", rb"RIFF....WEBP"),
        ("image/gif", "GIF picture", "", rb"GIF8[79]a"),
        (
            "image/heic",
            "HEIC picture",
            "image/heif image/heic-sequence image/heif-sequence",
            rb"(?:....ftyp|" + _STILLS_OF_ANY_CODING + rb")(?:hei[cxms]|hev[cx])",
        ),
        (
            "image/avif",
            "AVIF picture",
            "image/avif-sequence image/heif",
            rb"(?:....ftyp|" + _STILLS_OF_ANY_CODING + rb")avi[fs]",
        ),
        # Two letters are no proof.
        ("image/bmp", "BMP picture", "image/x-bmp image/x-ms-bmp", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00{3}"),
        ("image/tiff", "TIFF picture", "image/tif image/x-tiff", rb"II[*+]\x00|MM\x00[*+]"),
        (
            "video/mov",
            "QuickTime clip",
            "video/quicktime",
            rb"....ftypqt  |[\x00\x01]...(?:moov|mdat|free|skip|wide|pnot)",
        ),
        ("video/3gpp", "3GPP clip", "video/3gp video/3gpp2", rb"....ftyp3g"),
        ("video/mp4", "MP4 clip", "video/x-m4v application/mp4", rb"....ftyp(?!mif1|msf1|miaf|jpx |jp2 |crx )"),
        ("video/mpeg", "MPEG clip", "video/mpg video/x-mpeg video/mp2p", rb"\x00\x00\x01[\xba\xb3]"),
        ("video/avi", "AVI clip", "video/x-msvideo video/msvideo video/vnd.avi", rb"RIFF....AVI "),
        ("video/x-flv", "FLV clip", "video/flv", rb"FLV\x01"),
        ("video/webm", "WebM clip", "", rb"\x1aE\xdf\xa3"),
        (
            "video/wmv",
            "WMV clip",
            "video/x-ms-wmv video/x-ms-asf",
            rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
        ),
    )
}
"""Every format that is read, by its type as Moonshot's vision guide writes it in a data URL (``video/mov``, not
``video/quicktime``); the first whose signature a file has is its own."""

GENERIC_TYPES = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-download", "application/force-download"}
)
"""Types that name no format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """Facts from the content of a picture or a clip."""

    mime: str
    """Its type, one of ``FORMATS``."""
    length: int
    """Bytes up to the end of the medium; what follows in the file is never sent."""
    width: int | None = None
    """Pixels of a picture as stored, before any rotation; None for a clip, and for what is converted by Pillow."""
    height: int | None = None
    """The same."""

    @property
    def kind(self) -> MediaKind:
        """A picture or a clip."""
        return "image" if self.mime.startswith("image/") else "video"

    @property
    def name(self) -> str:
        """Its name in messages: ``PNG picture``."""
        return FORMATS[self.mime].name


class ByteSource:
    """A file, read in windows; counts the pieces that are read."""

    def __init__(self, head: bytes, size: int, read_at: ReadAt) -> None:
        self.size = size
        self.mime = ""
        """Its type, one of ``FORMATS``, once that is known."""
        self._head = head[:size]
        self._read_at = read_at
        self._window = b""
        self._start = 0
        self._steps = 0

    def at(self, offset: int, length: int) -> bytes:
        """The bytes at an offset; fewer where the file ends. ``length`` is never taken from the file."""
        end = min(offset + length, self.size)
        if offset < 0 or end <= offset:
            return b""
        if end <= len(self._head):
            return self._head[offset:end]
        if offset < self._start or end > self._start + len(self._window):
            self._start = offset
            self._window = bytes(self._read_at(offset, min(max(WINDOW, end - offset), self.size - offset)))
        return self._window[offset - self._start : end - self._start]

    def step(self) -> None:
        """Count one more chunk, box or block; raises ``MediaRejected`` beyond ``STEPS_MAX``."""
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise self.damaged(f"it is made of more than {STEPS_MAX:,} pieces")

    def info(self, length: int, width: int | None = None, height: int | None = None) -> MediaInfo:
        """What was found: where the medium ends, and its size."""
        return MediaInfo(mime=self.mime, length=length, width=width, height=height)

    def truncated(self, expected: str) -> MediaRejected:
        """The error for a file that ends too early."""
        message = f"The {FORMATS[self.mime].name} is truncated: found {self.size:,} bytes, expected {expected}."
        return MediaRejected(message, fix=WHOLE_FILE)

    def damaged(self, why: str) -> MediaRejected:
        """The error for a malformed file."""
        return MediaRejected(f"The {FORMATS[self.mime].name} can't be read: {why}.", fix=WHOLE_FILE)

    def no_video_track(self) -> MediaRejected:
        """The error for a clip without a video track."""
        return MediaRejected(
            f"The {FORMATS[self.mime].name} shows nothing: found sound alone, expected a video track.",
            fix="Give a clip with pictures.",
        )


def check_dimensions(mime: str, width: int, height: int) -> None:
    """Raise ``MediaRejected`` for a size that no decoder should allocate."""
    name = FORMATS[mime].name
    if width <= 0 or height <= 0:
        raise MediaRejected(f"The {name} can't be read: its header says {width:,} × {height:,} pixels.", fix=WHOLE_FILE)
    if width * height > PIXELS_MAX or max(width, height) > SIDE_MAX:
        raise MediaRejected(
            f"The {name} is too large: found {width:,} × {height:,} pixels in its header, expected at most "
            f"{PIXELS_MAX // 1_000_000} million in all and {SIDE_MAX:,} a side.",
            fix="Scale it down, or cut out the part that matters.",
        )
