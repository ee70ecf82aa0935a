"""The type of a file by its signature, and the fix for what can't be sent. Pure, no I/O."""

from __future__ import annotations

import re
from typing import Final

from kimi_mcp.media.formats.media_info import FORMATS

_AS_PICTURE: Final = "Export it as png or jpeg."
_AS_CLIP: Final = "Turn it into mp4, for example: ffmpeg -i clip.{} clip.mp4."
_AS_TEXT: Final = "Give its text in the prompt, or in `files` of kimi_think."
_UNPACK: Final = "Unpack it, and give the file that is in it."
_OTHER: Final = "Give a picture or a clip in one of these formats."

_FOREIGN: Final = tuple(
    (re.compile(pattern, re.DOTALL), name, fix)
    for pattern, name, fix in (
        (rb"%PDF-", "a PDF document", "Export the page that matters as png or jpeg."),
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


def sniff(head: bytes) -> str | None:
    """The media type of a picture or clip that begins with ``head``, if it is one."""
    return next((mime for mime, form in FORMATS.items() if form.signature.match(head)), None)


def foreign_type(head: bytes) -> tuple[str, str] | None:
    """The name of another binary file that begins with ``head``, and the fix, if its signature is known."""
    return next(((name, fix) for pattern, name, fix in _FOREIGN if pattern.match(head)), None)


def describe(head: bytes) -> tuple[str, str]:
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
