"""Naming what is neither a picture nor a clip that is taken, and the mend for it. Pure, no I/O."""

from __future__ import annotations

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.formats.inspected import TAKEN

_AS_PICTURE = "Export it as png or jpeg."
_AS_CLIP = "Turn it into mp4, for example: ffmpeg -i clip.{} clip.mp4."
_AS_TEXT = "Give its text in the prompt, or in `files` of kimi_think."
_UNPACK = "Unpack it, and give the file that is in it."
_OTHER = "Give a picture or a clip in one of these formats."

_SIGNS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%PDF-", "a PDF document", "Export the page that matters as png or jpeg."),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture", _AS_PICTURE),
    (0, b"\xff\x0a", "a JPEG XL picture", _AS_PICTURE),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture", _AS_PICTURE),
    (0, b"8BPS", "a Photoshop document", _AS_PICTURE),
    (0, b"\x00\x00\x01\x00", "a Windows icon", _AS_PICTURE),
    (0, b"gimp xcf", "a GIMP document", _AS_PICTURE),
    (0, b"v/1\x01", "an OpenEXR picture", _AS_PICTURE),
    (0, b"%!PS", "a PostScript document", _AS_PICTURE),
    (0, b"OggS", "an Ogg file", _AS_CLIP.format("ogv")),
    (0, b"ID3", "a sound file", _OTHER),
    (0, b"fLaC", "a sound file", _OTHER),
    (8, b"WAVE", "a sound file", _OTHER),
    (0, b"PK\x03\x04", "a zip archive or an office document", _UNPACK),
    (0, b"\x1f\x8b", "a gzip file", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (0, b"BZh", "a bzip2 file", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (0, b"\xfd7zXZ", "an XZ file", _UNPACK),
    (0, b"\x7fELF", "a program", _OTHER),
    (0, b"MZ", "a program", _OTHER),
    (0, b"SQLite format 3", "a database", _OTHER),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run git lfs pull, then give it again."),
)
"""Where a sign stands, the sign, what it is a sign of, and the mend."""


def refusal(head: bytes) -> MediaRejected:
    """Why content that no reader knows is refused: what it is, as far as can be told."""
    if not head:
        return MediaRejected(
            "The file is empty: found 0 bytes, expected a picture or a clip.", fix="Give a file that is not empty."
        )
    what, mend = _named(head)
    return MediaRejected(f"This is no picture or clip that can be sent: found {what}, expected {TAKEN}.", fix=mend)


def _named(head: bytes) -> tuple[str, str]:
    for at, sign, what, mend in _SIGNS:
        if head[at : at + len(sign)] == sign:
            return what, mend
    if all(head[at : at + 1] == b"G" for at in (0, 188, 376)) or head[4:5] == head[196:197] == head[388:389] == b"G":
        return "an MPEG transport stream", _AS_CLIP.format("ts")
    markup = _markup(head)
    if markup is not None:
        return markup
    text = _text(head)
    if text is None:
        return "bytes of no known format", _OTHER
    return ("JSON text" if text.lstrip().startswith(("{", "[")) else "text"), _AS_TEXT


def _markup(head: bytes) -> tuple[str, str] | None:
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = (
        head[: len(head) & ~1].decode("utf-16", "replace")
        if wide
        else head.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    )
    begins = text.lstrip("\ufeff \t\r\n").lower()
    if begins.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "an HTML page", "Give the address of the picture itself, not of the page that shows it."
    if begins.startswith("<svg") or (begins.startswith(("<?xml", "<!--", "<!doctype")) and "<svg" in begins):
        return "an SVG drawing", "Draw it as png first: open it in a browser and save a screenshot, or export it."
    return ("an XML document", _AS_TEXT) if begins.startswith("<?xml") else None


def _text(head: bytes) -> str | None:
    """The head as text; None where it is none."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return head[: len(head) & ~1].decode("utf-16", "replace")
    text = head.decode("utf-8", "replace")
    strange = sum(letter < " " and letter not in "\t\r\n\f\x1b" for letter in text) + text[:-3].count("\ufffd")
    return text if strange == 0 else None
