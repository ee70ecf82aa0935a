"""Loads the media that a call names: opened, judged by content, and read when they are sent. Does I/O.

A source is a path within the roots, an https URL, a data URI, or the id of a file at the provider (``ms://…``), which
is passed on unchanged. Only what was judged is read, and nothing beyond the end that the medium's format gives it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

import anyio.to_thread

from kimi_mcp.core.errors import KimiError, MediaRejected
from kimi_mcp.core.types import MediaKind, MediaPart
from kimi_mcp.media.content import CHUNK, Content
from kimi_mcp.media.documents import is_pdf, single_pages, split_pages
from kimi_mcp.media.files import open_descriptor, open_file, reread, shown, stamp_of
from kimi_mcp.media.formats import MediaInfo, inspect, inspect_bytes, require_label
from kimi_mcp.media.formats.media_info import ReadAt
from kimi_mcp.media.globs import has_magic
from kimi_mcp.media.roots import Roots, path_of_uri
from kimi_mcp.media.search import Search

if TYPE_CHECKING:  # imported by the first that needs them
    from kimi_mcp.media.documents.pdf import PdfReader
    from kimi_mcp.media.fetch import FetchedBody

MOST_BYTES = 100 * 1024 * 1024
"""Bytes of one medium: what a provider's ``/v1/files`` takes of one file (MoonshotAI/kimi-help-center, files)."""

CONVERTED_MOST_BYTES = 64 * 1024 * 1024
"""Bytes of a still that is converted here."""

FETCH_WITHIN_S = 60.0
"""Seconds for a URL, redirects included."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")

_BARE_BASE64 = re.compile(r"[A-Za-z0-9+/\r\n]{1000}")
"""No path begins so."""

_NOUNS: dict[MediaKind, str] = {"image": "picture", "video": "clip"}
_DATA_URI_HEADS: dict[MediaKind, str] = {"image": "data:image/png;base64,", "video": "data:video/mp4;base64,"}
_TOOL_FOR: dict[MediaKind, str] = {"image": "kimi_vision", "video": "kimi_video"}


Fetch = Callable[..., Awaitable["FetchedBody"]]
"""``media.fetch.fetch``, or its replacement in tests."""

ContentCheck = Callable[[bytes, int, ReadAt], "MediaInfo | None"]
"""(beginning, size, reader) → what a medium is; None: a PDF of which a page is to be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium(Content):
    """A picture or a clip, ready to be sent."""

    info: MediaInfo
    """What its content is."""
    converted_from: str | None = None
    """Its type before it was converted here; None: it was not."""
    pages: int = 1
    """Its pages before it was converted; only the first is sent."""


def parts_of(kind: MediaKind, source: str) -> list[MediaPart]:
    """The parts of a turn for a source: one, or one for each page of a range. Raises as :func:`part_of`."""
    return [part_of(kind, each) for each in single_pages(source.strip())]


def part_of(kind: MediaKind, source: str) -> MediaPart:
    """The part of a turn for a source: its scheme in lower case, ``path:`` where it has none.

    Raises ``MediaRejected`` for base64 without the head of a data URI, ``InvalidArguments`` for pages that nothing has.
    """
    source = source.strip()
    if named := _SCHEME.match(source):
        scheme = named[1].lower()
        base, _ = split_pages(source)
        path = path_of_uri(base) if scheme == "file" else None
        if path is None:  # a data URI is not copied: it may have many megabytes
            return MediaPart(kind=kind, url=source if source.startswith(scheme) else scheme + source[len(scheme) :])
        return MediaPart(kind=kind, url=f"path:{path}{source[len(base) :]}")
    if _BARE_BASE64.match(source):
        raise MediaRejected(
            f"A {_NOUNS[kind]} can't be read: found base64 alone, expected a path, an https URL or a data URI.",
            fix=f"Put {_DATA_URI_HEADS[kind]} before it, with the type that it has.",
        )
    return MediaPart(kind=kind, url=f"path:{source}")


async def load(
    part: MediaPart,
    roots: Callable[[], Roots],
    held: AsyncExitStack,
    *,
    pdfs: Callable[[], PdfReader],
    fetch: Fetch | None = None,
) -> Medium:
    """Open a part and judge its content; ``held`` closes it. ``roots`` may block; ``pdfs`` draws a page of a PDF.

    Raises ``PathRefused``, ``UrlRefused``, ``MediaRejected`` or ``InvalidArguments``.
    """
    url, pages = split_pages(part.url)
    judge = inspect if pages is None else _as_pdf
    scheme = url[: url.index(":")]
    match scheme:
        case "https":
            judged = await _fetched(url, held, fetch, judge)
        case "data":
            judged = await anyio.to_thread.run_sync(_decoded, url, judge)
        case _:
            path = url[len(scheme) + 1 :]
            judged = await anyio.to_thread.run_sync(lambda: _opened(path, roots(), judge), abandon_on_cancel=True)
    content, info = judged.content, judged.info
    if pages is not None:
        picture = await pdfs().picture(judged.what, content, pages[0])
        info, content = inspect_bytes(picture), Content(size=len(picture), read_at=_slices(picture))
    assert info is not None
    if info.kind != part.kind:
        raise MediaRejected(
            f"The {info.name} is no {_NOUNS[part.kind]}: found {info.mime}, expected a {_NOUNS[part.kind]}.",
            fix=f"Give it to {_TOOL_FOR[info.kind]}.",
        )
    medium = Medium(info=info, size=info.length, read_at=content.read_at)
    return await anyio.to_thread.run_sync(_sendable, medium, abandon_on_cancel=True)


def _as_pdf(head: bytes, size: int, read_at: ReadAt) -> None:
    """ContentCheck a file of which a page is to be shown; raises ``MediaRejected`` where it is no PDF."""
    if not is_pdf(head or read_at(0, min(size, 64))):
        raise MediaRejected(
            "Pages can be named of a PDF alone: found something else.", fix="Leave `#page=` out, or give a PDF."
        )


class _Judged(NamedTuple):
    """What a source holds."""

    content: Content
    info: MediaInfo | None
    """None: a PDF of which a page is to be shown."""
    what: str = "The PDF"
    """It, in messages."""


def _opened(path: str, roots: Roots, judge: ContentCheck) -> _Judged:
    resolved = roots.resolve(path)
    with open_file(resolved) as opened:
        opened.check_size(MOST_BYTES)
        info = judge(opened.head, opened.size, opened.read_at)
        what = f"The {info.name}" if info else f"`{shown(opened.name)}`"
        return _Judged(Content(size=opened.size, read_at=reread(resolved, opened, what)), info, what)


async def _fetched(url: str, held: AsyncExitStack, fetch: Fetch | None, judge: ContentCheck) -> _Judged:
    if fetch is None:
        from kimi_mcp.media.fetch import fetch
    fetched = await fetch(url, cap_bytes=MOST_BYTES, deadline_s=FETCH_WITHIN_S)
    held.callback(fetched.close)
    info = await anyio.to_thread.run_sync(judge, b"", fetched.size, fetched.read_at)
    if info is not None:
        require_label(info, fetched.content_type, source=f"the server {fetched.host}")
    return _Judged(Content(size=fetched.size, read_at=fetched.read_at), info)


def _decoded(uri: str, judge: ContentCheck) -> _Judged:
    comma = uri.find(",")
    mime, *options = uri[len("data:") : max(comma, 0)].split(";")
    try:
        if comma < 0:
            raise ValueError
        if "base64" in [option.strip().lower() for option in options]:
            data = _from_base64(uri, comma + 1)
        else:
            data = unquote_to_bytes(uri[comma + 1 :])
    except ValueError:
        raise MediaRejected(
            "A data URI can't be read: found no base64 after its comma, expected data:image/png;base64,….",
            fix="Encode the file with base64, or give its path.",
        ) from None
    content = Content(size=len(data), read_at=_slices(data))
    info = judge(content.read_at(0, 4_096), content.size, content.read_at)
    if info is not None:
        require_label(info, mime, source="the data URI")
    return _Judged(content, info)


def _from_base64(text: str, start: int) -> bytearray:
    """Decode base64 as browsers do: percent-encoded, with blanks, and without padding. Raises ``ValueError``.

    Piece by piece: a copy of the whole text would be as large as the medium.
    """
    if "%" in text:
        text, start = unquote(text[start:]), 0
    end = len(text)
    while end > start and (text[end - 1] == "=" or text[end - 1].isspace()):
        end -= 1
    data, rest = bytearray(), ""
    for at in range(start, end, CHUNK):
        piece = rest + "".join(text[at : min(at + CHUNK, end)].split())
        if "=" in piece:
            raise ValueError
        whole = len(piece) & ~3
        data += base64.b64decode(piece[:whole], validate=True)
        rest = piece[whole:]
    data += base64.b64decode(rest + "=" * (text.count("=", end) or -len(rest) % 4), validate=True)
    return data


def _sendable(medium: Medium) -> Medium:
    """The medium, converted if no model takes its format."""
    from kimi_mcp.media.convert import DECODERS, convert

    found = medium.info
    if found.mime not in DECODERS:
        return medium
    if medium.size > CONVERTED_MOST_BYTES:
        raise MediaRejected(
            f"The {found.name} is too large to be converted here: {medium.size:,} bytes, "
            f"{CONVERTED_MOST_BYTES:,} at most.",
            fix="Export it as png or jpeg.",
        )
    made = convert(medium.read_at(0, medium.size), found)
    return Medium(
        info=made.info,
        size=made.info.length,
        read_at=_slices(made.data),
        converted_from=found.mime,
        pages=made.pages,
    )


def _slices(data: bytes | bytearray) -> Callable[[int, int], bytes]:
    return lambda at, length: bytes(data[at : at + length])


NOT_THERE = "-"
"""The stamp of what can't be opened: the call reports why."""


def stamps(texts: Sequence[str], media: Sequence[tuple[MediaKind, str]], roots: Roots) -> tuple[str, ...]:
    """The stamps of all files within the roots that a call names, by which a repeated call is recognised. Blocking.

    A stamp is a file's device, inode, size and times: it costs no reading of a clip of 100 MB. A change of the times
    alone makes another call, which is paid for; a change of the content is never missed. ``texts`` are names and globs,
    ``media`` sources, of which those that are no paths have no stamp. Never raises: what is wrong with a name is
    reported when the file is read.
    """
    search, found = Search(roots), list[str]()
    for named in texts:
        pattern = _without_pages(named)
        found.append(_stamp(roots, pattern))
        if has_magic(pattern):
            try:
                found += [f"{path.name}:{_stamp(roots, str(path.full))}" for path in search.find(pattern)]
            except KimiError:
                found.append(NOT_THERE)
    for kind, source in media:
        with suppress(KimiError):
            url = _without_pages(part_of(kind, source).url)
            if not url.startswith(("https:", "data:", "ms:")):
                found.append(_stamp(roots, url.partition(":")[2]))
    return tuple(found)


def _without_pages(source: str) -> str:
    with suppress(KimiError):
        return split_pages(source)[0]
    return source


def _stamp(roots: Roots, path: str) -> str:
    try:
        with FileIO(open_descriptor(roots.resolve(path))) as file:
            return ".".join(map(str, stamp_of(os.fstat(file.fileno()))))
    except KimiError:
        return NOT_THERE
