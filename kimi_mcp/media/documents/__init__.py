"""Documents that a call names: recognised by content, and the pages of a PDF that are meant. Pure, no I/O.

``pdf`` reads a PDF, in a process of its own. Other documents are read by providers that extract text; here only the
list of what they pack is looked at, so that no archive that unpacks to gigabytes is passed on.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, NamedTuple

from kimi_mcp.core.errors import InvalidArguments, KimiError, MediaRejected
from kimi_mcp.media.content import Content
from kimi_mcp.media.formats.media_info import WHOLE_FILE, ReadAt

MOST_LISTED: Final = 4 * 1024 * 1024
"""Bytes of an archive's list of what it holds: some 50,000 names."""

LEAST_UNPACKED: Final = 64 * 1024 * 1024
MOST_UNPACKED: Final = 1024 * 1024 * 1024
MOST_RATIO: Final = 100
"""What a document may unpack to: 100 times its size, but at least 64 MiB and at most 1 GiB. Ours: tables full of equal
numbers come to 50 times their size."""

MOST_PAGES: Final = 50
"""Pages of one range that become pictures."""

Pages = tuple[int, int]
"""The first page and the last one; the first of a document is 1."""


class DocumentKind(NamedTuple):
    """A kind of document."""

    ending: str
    """Of its files' names, and of uploads."""
    mime: str
    name: str
    """In messages."""
    folder: str = ""
    """What an office document of this kind packs its content into."""


_OFFICE = "application/vnd.openxmlformats-officedocument."
PDF: Final = DocumentKind("pdf", "application/pdf", "PDF")
EPUB: Final = DocumentKind("epub", "application/epub+zip", "EPUB")
KINDS: Final = (
    PDF,
    DocumentKind("docx", _OFFICE + "wordprocessingml.document", "Word document", "word/"),
    DocumentKind("pptx", _OFFICE + "presentationml.presentation", "PowerPoint document", "ppt/"),
    DocumentKind("xlsx", _OFFICE + "spreadsheetml.sheet", "Excel document", "xl/"),
    EPUB,
)
"""Every kind that is taken: Moonshot extracts more (platform.kimi.ai docs/api/files-upload), mostly text."""

ENDINGS: Final = tuple(kind.ending for kind in KINDS)

_PDF: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,16}%PDF-")
_EPUB: Final = re.compile(rb"PK\x03\x04.{26}mimetypeapplication/epub\+zip", re.DOTALL)
_PAGES: Final = re.compile(r"#pages?=(\d{1,9})(?:-(\d{1,9}))?$")


def split_pages(source: str) -> tuple[str, Pages | None]:
    """A source without the pages that it names: ``report.pdf#page=3`` or ``report.pdf#page=3-7``.

    Raises ``InvalidArguments`` for pages that no document has.
    """
    found = _PAGES.search(source, max(len(source) - 32, 0))
    if found is None:
        return source, None
    first, last = int(found[1]), int(found[2] or found[1])
    if not 0 < first <= last:
        raise InvalidArguments(
            f"`{found[0]}` names no pages: the first one is 1, and a range goes upward.",
            fix="Name a page as `report.pdf#page=3`, several as `report.pdf#page=3-7`.",
        )
    return source[: found.start()], (first, last)


def single_pages(source: str) -> list[str]:
    """A source with each of its pages named alone; the source itself where it names one page or none.

    Raises ``InvalidArguments`` as :func:`split_pages`, and for more than ``MOST_PAGES``.
    """
    base, pages = split_pages(source)
    if pages is None or pages[0] == pages[1]:
        return [source]
    first, last = pages
    if last - first >= MOST_PAGES:
        raise InvalidArguments(
            f"A range of {last - first + 1:,} pages is too long: {MOST_PAGES} can be shown as pictures.",
            fix="Name the pages that matter; `files` of kimi_think takes the text of all.",
        )
    return [f"{base}#page={page}" for page in range(first, last + 1)]


def is_pdf(head: bytes) -> bool:
    """Whether a file that begins so is a PDF."""
    return _PDF.match(head) is not None


def identify(name: str, head: bytes, size: int, read_at: ReadAt) -> DocumentKind | None:
    """The kind of a document; None for anything else. ``name``: the file's, for messages.

    Raises ``MediaRejected`` for one that its name belies, for an archive that is damaged or unpacks to too much, and
    for office documents that are old or encrypted.
    """
    ending = PurePath(name).suffix[1:].lower()
    found: DocumentKind | None = None
    if is_pdf(head):
        found = PDF
    elif head.startswith(b"PK\x03\x04"):
        parts = _packed(name, size, read_at)
        if parts is None and ending in ENDINGS:
            raise MediaRejected(f"`{name}` is damaged: the list of what it packs can't be read.", fix=WHOLE_FILE)
        if _EPUB.match(head):
            found = EPUB
        elif parts and "[Content_Types].xml" in parts:
            offices = (kind for kind in KINDS if kind.folder)
            found = next((kind for kind in offices if any(part.startswith(kind.folder) for part in parts)), None)
    elif head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        raise MediaRejected(
            f"`{name}` is an office document in the format of before 2007, or one with a password.",
            fix="Save it as docx, pptx or xlsx without a password, or as PDF.",
        )
    if ending in ENDINGS and (found is None or found.ending != ending):
        what = f"a {found.name}" if found else "something else"
        raise MediaRejected(
            f"`{name}` is mislabelled: it is called .{ending}, but its content is {what}.",
            fix="Give it the ending that its content has, or give the file that was meant: a download may have failed.",
        )
    return found


def _packed(name: str, size: int, read_at: ReadAt) -> list[str] | None:
    """The names in an archive, of which only the list is read; None: it is damaged.

    Raises ``MediaRejected`` for one that unpacks to too much, and what ``read_at`` does.
    """
    import zipfile

    try:
        with zipfile.ZipFile(_Archive(size, read_at)) as archive:
            parts, unpacked = archive.namelist(), sum(each.file_size for each in archive.infolist())
    except KimiError:
        raise
    except _TooLong:
        parts, unpacked = [], MOST_UNPACKED + 1
    except Exception:  # noqa: BLE001 - the boundary: zipfile on broken input raises anything
        return None
    if unpacked > max(LEAST_UNPACKED, min(MOST_UNPACKED, MOST_RATIO * size)):
        raise MediaRejected(
            f"`{name}` unpacks to far more than the {size:,} bytes that it has, as a zip bomb does.",
            fix="Save its text as a text file, or as PDF, and give that.",
        )
    return parts


class _TooLong(Exception):
    """The list of what an archive holds is too long."""


class _Archive(io.RawIOBase):
    """A file for ``zipfile``, which reads the whole list at once."""

    def __init__(self, size: int, read_at: ReadAt) -> None:
        self._size, self._read_at, self._at = size, read_at, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        wanted = max(self._size - self._at, 0) if size < 0 else min(size, max(self._size - self._at, 0))
        if wanted > MOST_LISTED:
            raise _TooLong
        data = self._read_at(self._at, wanted)
        self._at += len(data)
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Content):
    """A document within the roots."""

    name: str
    """Relative to its root, for messages."""
    kind: DocumentKind
    pages: Pages | None = None
    """The pages of a PDF that are meant; None: all."""
