"""``Uploads``: files at providers, each content uploaded once for an account and a caller, and used again.

Callers of one server share its account, not its uploads: how fast a large file is sent would tell one of them that
another has the same. I/O: the provider's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread

from kimi_mcp.core.callers import LOCAL
from kimi_mcp.core.errors import PathRefused, UpstreamFailed
from kimi_mcp.provider import Endpoint, Purpose, Upload, Upstream
from kimi_mcp.provider.request_state import RequestState

if TYPE_CHECKING:
    from kimi_mcp.media.content import Content


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploadable:
    """What may be uploaded."""

    content: Content
    name: str
    """In messages, at the beginning of a sentence."""
    mime: str
    purpose: Purpose
    caller: str
    """Who sends it."""
    ending: str | None = None
    """Of the upload's name; None: as its type says."""


class Uploads:
    """The uploads of all calls of one pipeline; remembers which account has which."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._ids: dict[tuple[str, str | None], dict[str, str]] = {}  # by account: the id of each tag
        self._locks: WeakValueDictionary[tuple[str, str | None, str], anyio.Lock] = WeakValueDictionary()

    async def find_or_upload(self, file: Uploadable, endpoint: Endpoint, request_state: RequestState) -> str:
        """The id of a file at the provider; uploads it where it is missing. Raises the leaves of ``UpstreamFailed``.

        ``PathRefused``, where the file changed meanwhile.
        """
        tag = await _tag_of(file)
        async with self._lock(endpoint, tag):
            if endpoint.account not in self._ids:
                listed: dict[str, str] = {}
                try:
                    listed = {file.sha256: file.id for file in await self._upstream.list_files(endpoint) if file.sha256}
                except UpstreamFailed:
                    pass  # without the list the file is uploaded again
                self._ids.setdefault(endpoint.account, {}).update(listed)
            found = self._ids[endpoint.account].get(tag)
            return found or await self._upload(file, tag, endpoint, request_state)

    async def replace(self, gone: str, file: Uploadable, endpoint: Endpoint, request_state: RequestState) -> str:
        """The id of a content whose upload ``gone`` is not there any more: it is uploaded again, once for all calls."""
        tag = await _tag_of(file)
        async with self._lock(endpoint, tag):
            ids = self._ids[endpoint.account]
            if ids.get(tag) == gone:  # else another call was faster
                del ids[tag]
            return ids.get(tag) or await self._upload(file, tag, endpoint, request_state)

    async def _upload(self, file: Uploadable, tag: str, endpoint: Endpoint, request_state: RequestState) -> str:
        content = file.content

        def on_sent(size: int) -> None:
            request_state.waits_for = f"the upload ({size / 1e6:.0f} of {content.size / 1e6:.0f} MB)"

        upload = Upload(
            sha256=tag,
            mime=file.mime,
            purpose=file.purpose,
            size=content.size,
            chunks=partial(_checked_chunks, file, tag),
            on_sent=on_sent,
            ending=file.ending,
        )
        identity = await self._upstream.upload(endpoint, upload)
        self._ids[endpoint.account][tag] = identity
        return identity

    def _lock(self, endpoint: Endpoint, tag: str) -> anyio.Lock:
        """Held while a content is searched or uploaded: calls that share it wait for one upload."""
        return self._locks.setdefault((*endpoint.account, tag), anyio.Lock())


async def sha256_of(content: Content) -> str:
    """The hash of a content, hex."""
    return await anyio.to_thread.run_sync(content.sha256, abandon_on_cancel=True)


async def _tag_of(file: Uploadable) -> str:
    return _tag(file.caller, await sha256_of(file.content))


def _tag(caller: str, sha256: str) -> str:
    """What identifies a content among the uploads of its caller, hex: on one's own machine the hash of the content."""
    return sha256 if caller == LOCAL else hashlib.sha256(f"{caller}\0{sha256}".encode()).hexdigest()


def _checked_chunks(file: Uploadable, tag: str) -> Iterator[bytes]:
    """The content; raises ``PathRefused`` where it has changed, so that it never becomes a file at the provider."""
    digest = hashlib.sha256()
    for piece in file.content.chunks():
        digest.update(piece)
        yield piece
    if _tag(file.caller, digest.hexdigest()) != tag:
        raise PathRefused(f"{file.name} was written to while it was sent.", fix="Call again once it is written.")
