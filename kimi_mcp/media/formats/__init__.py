"""Judges media by content: type, size, and whether it is whole, from headers alone. Pure, no I/O.

Nothing is decoded, and no file name counts. ``inspect`` reads what it needs through the caller's ``read_at``, in
windows of 64 kB and a bounded number of steps; it raises ``MediaRejected`` and nothing else.

- A medium ends where its format says. What follows it (an archive, a script: polyglots) is cut off by
  ``MediaInfo.length``.
- Sizes are checked first, in every frame that has a header of its own.
- A transport stream and Matroska are refused with the fix: Moonshot's list names neither.
- heic, avif, bmp, tiff and mpeg are recognised by signature alone: Pillow converts the pictures, and mpeg has no
  length. A stream of unknown size extends to the end of the file; an FLV is whole after each tag, a clip in fragments
  after each one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.formats import clips, stills
from kimi_mcp.media.formats.magic import describe, sniff
from kimi_mcp.media.formats.media_info import FORMATS, GENERIC_TYPES, PIXELS_MAX, ByteSource, MediaInfo, ReadAt

__all__ = ["FORMATS", "PIXELS_MAX", "MediaInfo", "inspect", "inspect_bytes", "require_label"]

_READERS: Final[Mapping[str, Callable[[ByteSource], MediaInfo]]] = {
    "image/png": stills.png,
    "image/jpeg": stills.jpeg,
    "image/gif": stills.gif,
    "image/webp": stills.webp,
    "video/mp4": clips.boxed,
    "video/mov": clips.boxed,
    "video/3gpp": clips.boxed,
    "video/avi": clips.avi,
    "video/webm": clips.webm,
    "video/wmv": clips.wmv,
    "video/x-flv": clips.flv,
}
"""Of other formats the signature alone counts."""


def inspect(head: bytes, size: int, read_at: ReadAt) -> MediaInfo:
    """Judge a medium; raises ``MediaRejected`` for what is foreign, truncated, damaged or too large.

    ``head``: its beginning, of any length, which saves the first reads; ``size``: bytes in all. A large file may take
    some hundred milliseconds: use a worker thread.
    """
    source = ByteSource(head, size, read_at)
    start = source.at(0, 4_096)
    if mime := sniff(start):
        source.mime = mime
        reader = _READERS.get(mime)
        return reader(source) if reader else source.info(size)
    if not start:
        raise MediaRejected(
            "The file is empty: found 0 bytes, expected a picture or a clip.", fix="Give a file that is not empty."
        )
    what, fix = describe(start)
    raise MediaRejected(
        f"This is no picture or clip that can be sent: found {what}, expected png, jpeg, webp, gif, heic, avif, bmp or "
        "tiff for a picture; mp4, mov, mpeg, avi, flv, webm, wmv or 3gp for a clip.",
        fix=fix,
    )


def inspect_bytes(data: bytes) -> MediaInfo:
    """``inspect`` a medium in memory."""
    return inspect(data[:4_096], len(data), lambda at, length: data[at : at + length])


def require_label(found: MediaInfo, label: str, *, source: str) -> None:
    """Raise ``MediaRejected`` for media labelled as another format.

    ``label``: a media type, with or without parameters; one that names no format (``application/octet-stream``) is
    fine. ``source``: whose label it is, as in "the data URI".
    """
    claimed = label.partition(";")[0].strip().lower()
    form = FORMATS[found.mime]
    if claimed in GENERIC_TYPES or claimed == found.mime or claimed in form.other_types:
        return
    shown = claimed if len(claimed) <= 60 and claimed.isascii() and claimed.isprintable() else "something else"
    raise MediaRejected(
        f"The {form.name} is mislabelled: found {found.mime}, expected {shown} as {source} says.",
        fix=f"Label it {found.mime}, or give the file that was meant.",
    )
