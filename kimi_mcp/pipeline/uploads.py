"""``Uploads``: files at providers, each content uploaded once for an account and used again. I/O: the provider's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread

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
    ending: str | None = None
    """Of the upload's name; None: as its type says."""


class Uploads:
    """The uploads of all calls of one pipeline; remembers which account has which."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._ids: dict[tuple[str, str | None], dict[str, str]] = {}  # by account: the id of each hash
        self._locks: WeakValueDictionary[tuple[str, str | None, str], anyio.Lock] = WeakValueDictionary()

    async def find_or_upload(self, file: Uploadable, endpoint: Endpoint, request_state: RequestState) -> str:
        """The id of a content at the provider, which gets it if it has it not. Raises the leaves of ``UpstreamFailed``.

        ``PathRefused``, where the file changed meanwhile.
        """
        sha256 = await sha256_of(file.content)
        async with self._lock(endpoint, sha256):
            if endpoint.account not in self._ids:
                listed: dict[str, str] = {}
                try:
                    listed = {file.sha256: file.id for file in await self._upstream.list_files(endpoint) if file.sha256}
                except UpstreamFailed:
                    pass  # without the list the file is uploaded again
                self._ids.setdefault(endpoint.account, {}).update(listed)
            found = self._ids[endpoint.account].get(sha256)
            return found or await self._upload(file, sha256, endpoint, request_state)

    async def replace(self, gone: str, file: Uploadable, endpoint: Endpoint, request_state: RequestState) -> str:
        """The id of a content whose upload ``gone`` is not there any more: it is uploaded again, once for all calls."""
        sha256 = await sha256_of(file.content)
        async with self._lock(endpoint, sha256):
            ids = self._ids[endpoint.account]
            if ids.get(sha256) == gone:  # else another call was faster
                del ids[sha256]
            return ids.get(sha256) or await self._upload(file, sha256, endpoint, request_state)

    async def _upload(self, file: Uploadable, sha256: str, endpoint: Endpoint, request_state: RequestState) -> str:
        content = file.content

        def on_sent(size: int) -> None:
            request_state.waits_for = f"the upload ({size / 1e6:.0f} of {content.size / 1e6:.0f} MB)"

        upload = Upload(
            sha256=sha256,
            mime=file.mime,
            purpose=file.purpose,
            size=content.size,
            chunks=partial(_checked_chunks, file, sha256),
            on_sent=on_sent,
            ending=file.ending,
        )
        identity = await self._upstream.upload(endpoint, upload)
        self._ids[endpoint.account][sha256] = identity
        return identity

    def _lock(self, endpoint: Endpoint, sha256: str) -> anyio.Lock:
        """Held while a content is searched or uploaded: calls that share it wait for one upload."""
        return self._locks.setdefault((*endpoint.account, sha256), anyio.Lock())


async def sha256_of(content: Content) -> str:
    """The hash of a content, hex."""
    return await anyio.to_thread.run_sync(content.sha256, abandon_on_cancel=True)


def _checked_chunks(file: Uploadable, sha256: str) -> Iterator[bytes]:
    """The content; raises ``PathRefused`` where it has changed, so that it never becomes a file at the provider."""
    digest = hashlib.sha256()
    for piece in file.content.chunks():
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise PathRefused(f"{file.name} was written to while it was sent.", fix="Call again once it is written.")
