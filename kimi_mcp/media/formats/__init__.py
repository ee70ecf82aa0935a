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

import re
from collections.abc import Callable, Mapping
from typing import Final

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.formats import clips, stills
from kimi_mcp.media.formats.media_info import FORMATS, GENERIC_TYPES, PIXELS_MAX, ByteSource, MediaInfo, ReadAt

__all__ = ["FORMATS", "PIXELS_MAX", "MediaInfo", "foreign_type", "inspect", "inspect_bytes", "require_label", "sniff"]

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


_AS_PICTURE: Final = "Export it as png or jpeg."
_AS_CLIP: Final = "Turn it into mp4, for example: ffmpeg -i clip.{} clip.mp4."
_AS_PAGE: Final = "Name a page of it (`report.pdf#page=1`) to have it seen; `files` of kimi_think takes its text."
_AS_TEXT: Final = "Give its text in the prompt, or in `files` of kimi_think."
_UNPACK: Final = "Unpack it, and give the file that is in it."
_OTHER: Final = "Give a picture or a clip in one of these formats."

_FOREIGN: Final = tuple(
    (re.compile(pattern, re.DOTALL), name, fix)
    for pattern, name, fix in (
        (rb"%PDF-", "a PDF document", _AS_PAGE),
        (rb"\x00\x00\x00\x0cJXL |\xff\x0a", "a JPEG XL picture", _AS_PICTURE),
        (rb"\x00\x00\x00\x0cjP  |....ftyp(?:jpx |jp2 )", "a JPEG 2000 picture", _AS_PICTURE),
        (rb"....ftypcrx ", "a camera's raw picture", _AS_PICTURE),
        (rb"....ftyp", "a HEIF picture that is neither HEIC nor AVIF", _AS_PICTURE),
        (rb"8BPS", "a Photoshop document", _AS_PICTURE),
        (rb"\x00\x00\x01\x00", "a Windows icon", _AS_PICTURE),
        (rb"gimp xcf", "a GIMP document", _AS_PICTURE),
        (rb"v/1\x01", "an OpenEXR picture", _AS_PICTURE),
        (rb"%!PS", "a PostScript document", _AS_PICTURE),
        (rb"OggS", "an Ogg file", _AS_CLIP.format("ogv")),
        (rb"ID3|fLaC|.{8}WAVE", "a sound file", _OTHER),
        (rb"PK\x03\x04", "a ZIP archive or an office document", _UNPACK),
        (rb"\x1f\x8b", "a gzip file", _UNPACK),
        (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
        (rb"Rar!", "a RAR archive", _UNPACK),
        (rb"BZh", "a bzip2 file", _UNPACK),
        (rb"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
        (rb"\xfd7zXZ", "an XZ file", _UNPACK),
        (rb"\x7fELF|MZ|\xcf\xfa\xed\xfe", "a program", _OTHER),
        (rb"SQLite format 3", "a database", _OTHER),
        (
            rb"version https://git-lfs",
            "a Git LFS pointer, not the file itself",
            "Run git lfs pull, then give it again.",
        ),
        (rb"G.{187}G.{187}G|.{4}G.{191}G.{191}G", "an MPEG transport stream", _AS_CLIP.format("ts")),
    )
)
"""Signatures of other files, their names, and the fix."""


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
    what, fix = _describe(start)
    raise MediaRejected(
        f"This is no picture or clip that can be sent: found {what}, expected png, jpeg, webp, gif, heic, avif, bmp or "
        "tiff for a picture; mp4, mov, mpeg, avi, flv, webm, wmv or 3gp for a clip.",
        fix=fix,
    )


def inspect_bytes(data: bytes | bytearray) -> MediaInfo:
    """``inspect`` a medium in memory."""
    return inspect(bytes(data[:4_096]), len(data), lambda at, length: bytes(data[at : at + length]))


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


def sniff(head: bytes) -> str | None:
    """The media type of a picture or clip that begins with ``head``, if it is one."""
    return next((mime for mime, form in FORMATS.items() if form.signature.match(head)), None)


def foreign_type(head: bytes) -> tuple[str, str] | None:
    """The name of another binary file that begins with ``head``, and the fix, if its signature is known."""
    return next(((name, fix) for pattern, name, fix in _FOREIGN if pattern.match(head)), None)


def _describe(head: bytes) -> tuple[str, str]:
    """The kind of content that begins with ``head``, and the fix."""
    if found := foreign_type(head):
        return found
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = head[: len(head) & ~1].decode("utf-16", "replace") if wide else head.decode("utf-8", "replace")
    begins = text.lstrip("\ufeff \t\r\n").lower()
    if begins.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "an HTML page", "Give the address of the picture itself, not of the page that shows it."
    if begins.startswith("<svg") or (begins.startswith(("<?xml", "<!--", "<!doctype")) and "<svg" in begins):
        return "an SVG drawing", "Draw it as png first: open it in a browser and save a screenshot, or export it."
    if begins.startswith("<?xml"):
        return "an XML document", _AS_TEXT
    if not wide and (re.search(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]", text) or "\ufffd" in text[:-3]):
        return "bytes of no known format", _OTHER
    return "JSON text" if begins.startswith(("{", "[")) else "text", _AS_TEXT
