"""Loads the media that a call names: opened, judged by content, and read when they are sent. Does I/O.

A source is a path within the roots, an https URL, a data URI, or the id of a file at the provider (``ms://…``), which
is passed on unchanged. Only what was judged is read, and nothing beyond the end that the medium's format gives it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes

import anyio.to_thread

from kimi_mcp.core.errors import KimiError, MediaRejected, PathRefused
from kimi_mcp.core.types import MediaKind, MediaPart
from kimi_mcp.media.files import open_descriptor, open_file, stamp_of
from kimi_mcp.media.formats import MediaInfo, inspect, inspect_bytes, require_label
from kimi_mcp.media.globs import has_magic
from kimi_mcp.media.roots import Roots, path_of_uri
from kimi_mcp.media.search import Search

if TYPE_CHECKING:
    from kimi_mcp.media.fetch import FetchedBody

MOST_BYTES = 100 * 1024 * 1024
"""Bytes of one medium: what a provider's ``/v1/files`` takes of one file (MoonshotAI/kimi-help-center, files)."""

CONVERTED_MOST_BYTES = 64 * 1024 * 1024
"""Bytes of a still that is converted here."""

FETCH_WITHIN_S = 60.0
"""Seconds for a URL, redirects included."""

CHUNK = 256 * 1024
"""Bytes that are read at once."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")

_BARE_BASE64 = re.compile(r"[A-Za-z0-9+/\r\n]{1000}")
"""No path begins so."""

_NOUNS: dict[MediaKind, str] = {"image": "picture", "video": "clip"}
_DATA_URI_HEADS: dict[MediaKind, str] = {"image": "data:image/png;base64,", "video": "data:video/mp4;base64,"}
_TOOL_FOR: dict[MediaKind, str] = {"image": "kimi_vision", "video": "kimi_video"}


Fetch = Callable[..., Awaitable["FetchedBody"]]
"""``media.fetch.fetch``, or its replacement in tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A picture or a clip, ready to be sent."""

    info: MediaInfo
    """What its content is."""
    read_at: Callable[[int, int], bytes]
    """(offset, length) → the bytes there."""
    converted_from: str | None = None
    """Its type before it was converted here; None: it was not."""
    pages: int = 1
    """Its pages before it was converted; only the first is sent."""

    @property
    def size(self) -> int:
        """Bytes that are sent."""
        return self.info.length

    def chunks(self) -> Iterator[bytes]:
        """The content in pieces."""
        for offset in range(0, self.size, CHUNK):
            yield self.read_at(offset, min(CHUNK, self.size - offset))

    def sha256(self) -> str:
        """The hash of what is sent, hex. Blocking: for a worker thread."""
        digest = hashlib.sha256()
        for piece in self.chunks():
            digest.update(piece)
        return digest.hexdigest()


def part_of(kind: MediaKind, source: str) -> MediaPart:
    """The part of a turn for a source: its scheme in lower case, ``path:`` where it has none.

    Raises ``MediaRejected`` for base64 without the head of a data URI.
    """
    source = source.strip()
    if named := _SCHEME.match(source):
        scheme = named[1].lower()
        path = path_of_uri(source) if scheme == "file" else None
        if path is None:  # a data URI is not copied: it may have many megabytes
            return MediaPart(kind=kind, url=source if source.startswith(scheme) else scheme + source[len(scheme) :])
        return MediaPart(kind=kind, url=f"path:{path}")
    if _BARE_BASE64.match(source):
        raise MediaRejected(
            f"A {_NOUNS[kind]} can't be read: found base64 alone, expected a path, an https URL or a data URI.",
            fix=f"Put {_DATA_URI_HEADS[kind]} before it, with the type that it has.",
        )
    return MediaPart(kind=kind, url=f"path:{source}")


async def load(part: MediaPart, roots: Callable[[], Roots], held: AsyncExitStack, fetch: Fetch | None = None) -> Medium:
    """Open a part and judge its content; ``held`` closes it. ``roots`` may block.

    Raises ``PathRefused``, ``UrlRefused`` or ``MediaRejected``.
    """
    scheme = part.url[: part.url.index(":")]
    match scheme:
        case "https":
            medium = await _fetched(part.url, held, fetch)
        case "data":
            medium = await anyio.to_thread.run_sync(_decoded, part.url)
        case _:
            path = part.url[len(scheme) + 1 :]
            medium = await anyio.to_thread.run_sync(lambda: _opened(path, roots()), abandon_on_cancel=True)
    if medium.info.kind != part.kind:
        raise MediaRejected(
            f"The {medium.info.name} is no {_NOUNS[part.kind]}: found {medium.info.mime}, expected a "
            f"{_NOUNS[part.kind]}.",
            fix=f"Give it to {_TOOL_FOR[medium.info.kind]}.",
        )
    return await anyio.to_thread.run_sync(_sendable, medium, abandon_on_cancel=True)


def _opened(path: str, roots: Roots) -> Medium:
    """A file, closed again once it was judged: many calls may wait, and descriptors are few.

    Each read opens and checks it again, and is refused if the file changed; if it only grew, no more is read than was
    judged.
    """
    with open_file(roots.resolve(path)) as opened:
        opened.check_size(MOST_BYTES)
        info, judged, size = inspect(opened.head, opened.size, opened.read_at), opened.stamp, opened.size

    def read_at(offset: int, length: int) -> bytes:
        with open_file(roots.resolve(path)) as again:
            grown = again.identity == judged[:2] and again.size > size
            if again.stamp != judged and not grown:
                raise PathRefused(
                    f"The {info.name} was written to while it was sent.", fix="Call again once it is written."
                )
            return again.read_at(offset, min(length, size - offset))

    return Medium(info=info, read_at=read_at)


async def _fetched(url: str, held: AsyncExitStack, fetch: Fetch | None) -> Medium:
    if fetch is None:
        from kimi_mcp.media.fetch import fetch
    fetched = await fetch(url, cap_bytes=MOST_BYTES, deadline_s=FETCH_WITHIN_S)
    held.callback(fetched.close)
    info = await anyio.to_thread.run_sync(inspect, b"", fetched.size, fetched.read_at)
    require_label(info, fetched.content_type, source=f"the server {fetched.host}")
    return Medium(info=info, read_at=fetched.read_at)


def _decoded(uri: str) -> Medium:
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

    info = inspect_bytes(data)
    require_label(info, mime, source="the data URI")
    return Medium(info=info, read_at=_slices(data))


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
    return Medium(info=made.info, read_at=_slices(made.data), converted_from=found.mime, pages=made.pages)


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
    for pattern in texts:
        found.append(_stamp(roots, pattern))
        if has_magic(pattern):
            try:
                found += [f"{path.name}:{_stamp(roots, str(path.full))}" for path in search.find(pattern)]
            except KimiError:
                found.append(NOT_THERE)
    for kind, source in media:
        with suppress(KimiError):
            url = part_of(kind, source).url
            if not url.startswith(("https:", "data:", "ms:")):
                found.append(_stamp(roots, url.partition(":")[2]))
    return tuple(found)


def _stamp(roots: Roots, path: str) -> str:
    try:
        with FileIO(open_descriptor(roots.resolve(path))) as file:
            return ".".join(map(str, stamp_of(os.fstat(file.fileno()))))
    except KimiError:
        return NOT_THERE
