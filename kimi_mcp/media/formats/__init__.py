"""Judging media by content: what it is, how large, and whether it is whole, from headers alone. Pure, no I/O.

Nothing is decoded and no name is believed. ``inspect`` reads a head, and then what it needs of the rest by the
caller's ``read_at``, in windows of 64 kB and a bounded number of steps; it raises ``MediaRejected`` and nothing else.

What is decided here:

- A medium ends where its own format says. What follows (a second picture, a zip archive, a script: polyglots) is left
  out by ``Inspected.length``; only so many bytes are ever sent. What begins with anything else is what it begins with.
- A size is held to the limits before anything else is read, and in every frame that has a header of its own.
- A transport stream and Matroska are refused with the mend: Moonshot's list names neither.
- An MPEG stream has no length of its own, and a clip in fragments is whole after each of them: cut off there, they
  pass for shorter ones. A stream whose writer left its size open is taken to reach to the end of the file.
"""

from __future__ import annotations

from collections.abc import Callable

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.formats import boxes, clips, convertible, foreign, stills
from kimi_mcp.media.formats.inspected import (
    FORMATS,
    PIXELS_MAX,
    SAYS_NOTHING,
    SIDE_MAX,
    ByteSource,
    Inspected,
    ReadAt,
)

__all__ = ["FORMATS", "HEAD_BYTES", "PIXELS_MAX", "SIDE_MAX", "Inspected", "inspect", "inspect_bytes", "require_label"]

HEAD_BYTES = 65_536
"""A head of so many bytes saves the first reads; a shorter one will do, down to none."""

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[ByteSource], Inspected]], ...] = (
    (lambda head: head.startswith(stills.PNG_START), stills.png),
    (lambda head: head.startswith(b"\xff\xd8\xff"), stills.jpeg),
    (lambda head: head.startswith((b"GIF87a", b"GIF89a")), stills.gif),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", stills.webp),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI ", clips.avi),
    (boxes.is_boxes, boxes.read),
    (lambda head: head.startswith(clips.EBML_START), clips.webm),
    (lambda head: head.startswith(clips.ASF_START), clips.wmv),
    (lambda head: head.startswith(b"FLV\x01"), clips.flv),
    (lambda head: head.startswith(clips.MPEG_STARTS), clips.mpeg),
    (lambda head: head.startswith(_TIFF_STARTS), convertible.tiff),
    (convertible.is_bmp, convertible.bmp),
)
"""How each format is known by its first bytes, and what reads it."""


def inspect(head: bytes, size: int, read_at: ReadAt) -> Inspected:
    """What a medium is, by its content; raises ``MediaRejected`` for what is foreign, cut off, damaged or too large.

    ``head``: its first bytes, as many as there are or ``HEAD_BYTES``; ``size``: bytes in all; ``read_at``: the bytes at
    an offset, fewer only at the end. A walk over a large file may take some hundred milliseconds: use a worker thread.
    """
    source = ByteSource(head, size, read_at)
    start = source.at(0, 4_096)
    for begins, read in _READERS:
        if begins(start):
            return read(source)
    raise foreign.refusal(start)


def inspect_bytes(data: bytes | bytearray | memoryview) -> Inspected:
    """``inspect`` of what is in memory as a whole."""
    view = memoryview(data)
    return inspect(bytes(view[:4_096]), len(view), lambda at, length: bytes(view[at : at + length]))


def require_label(found: Inspected, label: str, *, said_by: str) -> None:
    """Refuse media that somebody labelled as something else; raises ``MediaRejected``.

    ``label``: a media type, with or without parameters, in any case; one that claims nothing (empty,
    ``application/octet-stream``) is fine. ``said_by``: who said it, as in "the data URI". A file's name never counts.
    """
    said = label.partition(";")[0].strip().lower()
    form = FORMATS[found.mime]
    if said in SAYS_NOTHING or said == form.mime or said in form.labels:
        return
    shown = said if len(said) <= 60 and said.isascii() and said.isprintable() else "something else"
    raise MediaRejected(
        f"The {form.name} is mislabelled: found {form.mime}, expected {shown} as {said_by} says.",
        fix=f"Label it {form.mime}, or give the file that was meant.",
    )
