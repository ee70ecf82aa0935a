"""The format of a medium by its magic number, and the size of an image by its header. Pure, no I/O.

Formats: png, jpeg, webp, gif; mp4, mpeg, mov, avi, x-flv, mpg, webm, wmv, 3gpp (Moonshot's vision guide).
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass

from PIL import Image

FORMATS: dict[str, frozenset[str]] = {
    "image": frozenset({"png", "jpeg", "webp", "gif"}),
    "video": frozenset({"mp4", "mpeg", "mov", "avi", "x-flv", "mpg", "webm", "wmv", "3gpp"}),
}
"""Subtypes of a data URL that Moonshot's vision guide names, by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMedium:
    """A medium that has arrived, in a data URL or as a file, by its header."""

    kind: str | None
    """`image` or `video`; None for a file that is neither."""
    format: str | None
    """As in a data URL: png, mp4, x-flv."""
    width: int | None = None
    """Pixels of an image."""
    height: int | None = None
    size: int = 0
    """Bytes."""
    sha256: str = ""
    purpose: str | None = None
    """Of an uploaded file."""
    url: str | None = None
    """Of a link that an engine would fetch by itself."""


_SIGNATURES = (
    (rb"\x89PNG\r\n\x1a\n", "image", "png"),
    (rb"\xff\xd8\xff", "image", "jpeg"),
    (rb"GIF8[79]a", "image", "gif"),
    (rb"RIFF....WEBP", "image", "webp"),
    (rb"....ftypqt  |....(?:moov|mdat|wide|free)", "video", "mov"),
    (rb"....ftyp3gp", "video", "3gpp"),
    (rb"....ftyp", "video", "mp4"),
    (rb"RIFF....AVI ", "video", "avi"),
    (rb"\x1aE\xdf\xa3.{0,60}webm", "video", "webm"),
    (rb"FLV", "video", "x-flv"),
    (rb"\x30\x26\xb2\x75", "video", "wmv"),
    (rb"\x00\x00\x01[\xba\xb3]", "video", "mpeg"),
)
"""How each format begins, its kind and name."""


def sniff(data: bytes, purpose: str | None = None) -> ReceivedMedium:
    """What the bytes are, by magic number."""
    kind, form = next(
        ((kind, form) for pattern, kind, form in _SIGNATURES if re.match(pattern, data, re.DOTALL)), (None, None)
    )
    width, height = _size(data) if kind == "image" else (None, None)
    return ReceivedMedium(
        kind=kind,
        format=form,
        width=width,
        height=height,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        purpose=purpose,
    )


def _size(data: bytes) -> tuple[int, int] | tuple[None, None]:
    """The pixels of an image by its header; None where that is broken."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except Exception:  # noqa: BLE001 - a decoder raises anything on broken input
        return None, None
