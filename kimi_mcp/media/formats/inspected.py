"""What a header says, the names of formats, and the limits a header is held to. Pure, no I/O.

Whatever is refused here is a ``MediaRejected`` that says what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.core.types import MediaKind

PIXELS_MAX = 100_000_000
"""Pixels of a picture, or of one frame of a clip. Ours: above what cameras people send from make (48 million), and a
decoded picture of that size still fits into 400 MB. A 50,000 × 50,000 header is 25 times as much."""

SIDE_MAX = 65_535
"""Pixels of one side; what a JPEG header can say at most."""

STEPS_MAX = 1_000_000
"""Chunks, boxes or blocks that are looked at in one file: no honest file within the caps is made of more."""

WINDOW = 65_536
"""Bytes that are read at once while a file is walked."""

WHOLE_FILE = "Give the whole file: export it, or download it, once more."
"""The mend for what is cut off or damaged."""

TAKEN = (
    "png, jpeg, webp, gif, heic, avif, bmp or tiff for a picture; mp4, mov, mpeg, avi, flv, webm, wmv or 3gp for a clip"
)
"""What is read at all, in the caller's words."""

ReadAt = Callable[[int, int], bytes]
"""(offset, length) → the bytes there; fewer only where the file ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format that is known by its content."""

    mime: str
    """Its type as Moonshot's vision guide writes it in a data URL (``video/mov``, not ``video/quicktime``)."""
    name: str
    """What it is called in a message."""
    labels: frozenset[str] = frozenset()
    """Other types that servers and data URIs rightly give it."""


_STILLS = (
    Format(mime="image/png", name="PNG picture", labels=frozenset({"image/x-png", "image/apng"})),
    Format(mime="image/jpeg", name="JPEG picture", labels=frozenset({"image/jpg", "image/pjpeg", "image/jfif"})),
    Format(mime="image/webp", name="WebP picture"),
    Format(mime="image/gif", name="GIF picture"),
    Format(
        mime="image/heic",
        name="HEIC picture",
        labels=frozenset({"image/heif", "image/heic-sequence", "image/heif-sequence"}),
    ),
    Format(mime="image/avif", name="AVIF picture", labels=frozenset({"image/avif-sequence", "image/heif"})),
    Format(mime="image/bmp", name="BMP picture", labels=frozenset({"image/x-bmp", "image/x-ms-bmp"})),
    Format(mime="image/tiff", name="TIFF picture", labels=frozenset({"image/tif", "image/x-tiff"})),
)
_CLIPS = (
    Format(mime="video/mp4", name="MP4 clip", labels=frozenset({"video/x-m4v", "application/mp4"})),
    Format(mime="video/mov", name="QuickTime clip", labels=frozenset({"video/quicktime"})),
    Format(mime="video/3gpp", name="3GPP clip", labels=frozenset({"video/3gp", "video/3gpp2"})),
    Format(mime="video/mpeg", name="MPEG clip", labels=frozenset({"video/mpg", "video/x-mpeg", "video/mp2p"})),
    Format(
        mime="video/avi",
        name="AVI clip",
        labels=frozenset({"video/x-msvideo", "video/msvideo", "video/vnd.avi"}),
    ),
    Format(mime="video/x-flv", name="FLV clip", labels=frozenset({"video/flv"})),
    Format(mime="video/webm", name="WebM clip"),
    Format(mime="video/wmv", name="WMV clip", labels=frozenset({"video/x-ms-wmv", "video/x-ms-asf"})),
)

FORMATS = {one.mime: one for one in (*_STILLS, *_CLIPS)}
"""Every format that is read, by its type."""

SAYS_NOTHING = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-download", "application/force-download"}
)
"""Labels that claim no format at all, so that none of them can be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What the content of a picture or a clip says about itself."""

    kind: MediaKind
    """A picture or a clip."""
    mime: str
    """Its type, one of ``FORMATS``."""
    width: int | None = None
    """Pixels as they are stored, before any rotation; None only for a clip whose header does not say."""
    height: int | None = None
    """The same."""
    duration_s: float | None = None
    """Seconds; None for a picture, and for a clip whose header does not say."""
    frames: int | None = None
    """Pictures in a picture: 1, or the frames of an animation, or the pages of a TIFF; None for a clip."""
    length: int
    """Bytes from the beginning to the end of the medium. What a file holds after it is no part of it: never sent."""

    @property
    def name(self) -> str:
        """What it is called in a message: ``PNG picture``."""
        return FORMATS[self.mime].name


class ByteSource:
    """A file's bytes, read in windows, with a bound on how often it is looked at."""

    def __init__(self, head: bytes, size: int, read_at: ReadAt) -> None:
        self.size = size
        self.head = head[:size]
        self._read_at = read_at
        self._window = b""
        self._start = 0
        self._steps = 0

    def at(self, offset: int, length: int) -> bytes:
        """The bytes at an offset; fewer where the file ends. ``length`` is the caller's, never the file's."""
        end = min(offset + length, self.size)
        if offset < 0 or end <= offset:
            return b""
        if end <= len(self.head):
            return self.head[offset:end]
        if offset < self._start or end > self._start + len(self._window):
            self._start = offset
            self._window = bytes(self._read_at(offset, min(max(WINDOW, end - offset), self.size - offset)))
        return self._window[offset - self._start : end - self._start]

    def step(self, name: str) -> None:
        """Count one more chunk, box or block; raises ``MediaRejected`` beyond ``STEPS_MAX``."""
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise damaged(name, f"it is made of more than {STEPS_MAX:,} pieces")


def truncated(name: str, *, found: str, expected: str) -> MediaRejected:
    """What ends before it is whole."""
    return MediaRejected(f"The {name} is truncated: found {found}, expected {expected}.", fix=WHOLE_FILE)


def damaged(name: str, why: str) -> MediaRejected:
    """What can't be read, though it is not known to be cut off."""
    return MediaRejected(f"The {name} can't be read: {why}.", fix=WHOLE_FILE)


def sound_alone(name: str) -> MediaRejected:
    """What could hold a clip, but shows nothing."""
    return MediaRejected(
        f"The {name} shows nothing: found sound alone, expected a video track.", fix="Give a clip with pictures."
    )


def held_to_limits(name: str, width: int, height: int) -> None:
    """Refuse a size that no decoder should be asked to make room for; raises ``MediaRejected``."""
    if width <= 0 or height <= 0:
        raise damaged(name, f"its header says {width:,} × {height:,} pixels")
    if width * height > PIXELS_MAX or max(width, height) > SIDE_MAX:
        raise MediaRejected(
            f"The {name} is too large: found {width:,} × {height:,} pixels in its header, expected at most "
            f"{PIXELS_MAX // 1_000_000} million in all and {SIDE_MAX:,} a side.",
            fix="Scale it down, or cut out the part that matters.",
        )
