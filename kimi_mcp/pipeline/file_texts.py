"""The files of a call as one text: text files as they are, documents by the provider or by ``pdf``. Does I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import anyio.to_thread

from kimi_mcp.core.errors import MediaRejected, ModelNotServed, RequestRejected, UpstreamBroken
from kimi_mcp.core.profiles import Provider
from kimi_mcp.pipeline.uploads import Uploadable, Uploads
from kimi_mcp.provider import Endpoint, Upstream
from kimi_mcp.provider.endpoint import either
from kimi_mcp.provider.request_state import RequestState

if TYPE_CHECKING:  # imported by the first call that names files
    from kimi_mcp.media.documents import Document
    from kimi_mcp.media.documents.pdf import PdfReader
    from kimi_mcp.media.roots import Roots


class FileTexts:
    """Reads the files of all calls of one pipeline. ``providers``: all that the catalogue has."""

    def __init__(
        self, upstream: Upstream, uploads: Uploads, pdfs: Callable[[], PdfReader], providers: Iterable[Provider]
    ) -> None:
        self._upstream, self._uploads, self._pdfs = upstream, uploads, pdfs
        self._providers = tuple(providers)

    async def read(
        self,
        patterns: Sequence[str],
        roots: Callable[[], Roots],
        endpoint: Endpoint,
        request_state: RequestState,
        *,
        caller: str,
        most_tokens: int,
        allowed: Callable[[], object],
        uploads: bool = True,
    ) -> str:
        """The files of names and globs as one text, of ``most_tokens`` by estimate.

        ``roots`` may block. ``allowed`` is called before anything is uploaded, and raises where the call is refused.
        Without ``uploads`` each PDF is read here, and what can't be read here is empty.
        Raises as ``gather_files`` does; ``MediaRejected`` for a document that can't be read or has no text, or that the
        provider takes no text out of; the leaves of ``UpstreamFailed`` for an upload.
        """
        from kimi_mcp.media.text_files import as_context, gather_files

        collected = await anyio.to_thread.run_sync(
            lambda: gather_files(patterns, roots(), most_tokens=most_tokens), abandon_on_cancel=True
        )
        for document in collected.documents.values():
            self._check(document, endpoint)
        if collected.documents:
            allowed()
        for number, document in [*collected.documents.items()]:
            request_state.waits_for = f"the text of {document.name}"
            text = await self._text(document, endpoint, request_state, caller if uploads else None)
            collected.set_text(number, text)
            collected.check()  # before more is uploaded
        return await anyio.to_thread.run_sync(lambda: as_context(collected.files()))

    def _check(self, document: Document, endpoint: Endpoint) -> None:
        """Raise ``MediaRejected`` for a document that nobody reads: neither this provider nor this program."""
        from kimi_mcp.media.documents import PDF

        if document.kind is PDF or endpoint.provider.extracts_files:
            return
        others = either(each.id for each in self._providers if each.extracts_files and each.hosts)
        raise MediaRejected(
            f"{endpoint.provider.id} takes no text out of files, and `{document.name}` is no PDF, which is read here.",
            fix=f"Save it as PDF or as text, or name a `provider` that reads it: {others}.",
        )

    async def _text(
        self, document: Document, endpoint: Endpoint, request_state: RequestState, uploader: str | None
    ) -> str:
        """The text of a document. Of a PDF whose pages are named, only those are read, and so here.

        ``uploader``: the caller; None: nothing is uploaded.
        """
        from kimi_mcp.media.documents import PDF

        extracts = document.pages is None and endpoint.provider.extracts_files
        if extracts and uploader is not None:
            return await self._extracted(document, endpoint, request_state, uploader)
        if document.kind is not PDF:
            return ""
        try:
            return await self._pdfs().text(f"`{document.name}`", document, document.pages)
        except MediaRejected:
            if not extracts:
                raise
            return ""  # a scan, which the provider will read

    async def _extracted(self, document: Document, endpoint: Endpoint, request_state: RequestState, caller: str) -> str:
        """The text that the provider takes out of a document; one that has vanished there is uploaded again, once."""
        from kimi_mcp.media.documents.pdf import no_text

        kind, provider = document.kind, endpoint.provider.id
        file = Uploadable(
            content=document,
            name=f"`{document.name}`",
            mime=kind.mime,
            purpose="file-extract",
            caller=caller,
            ending=kind.ending,
        )
        try:
            identity = await self._uploads.find_or_upload(file, endpoint, request_state)
            text = await self._text_of(identity, endpoint)
            if text is None:
                identity = await self._uploads.replace(identity, file, endpoint, request_state)
                text = await self._text_of(identity, endpoint)
        except RequestRejected as refused:
            raise MediaRejected(
                f"{provider} could not take the text out of `{document.name}`. {refused.message}",
                fix="Look whether it opens at all, and without a password; of a PDF pages can be named, which are read "
                "here (`report.pdf#page=1-50`), or shown to kimi_vision.",
            ) from None
        if text is None:
            raise UpstreamBroken(
                f"{provider} has lost `{document.name}`, twice, though it took it.",
                fix="Call again; if it stays, name the pages of a PDF (`report.pdf#page=1-50`): those are read here.",
            )
        if not text.strip():
            raise no_text(f"`{document.name}`")
        return text

    async def _text_of(self, identity: str, endpoint: Endpoint) -> str | None:
        """The text of an upload; None: it is not there any more."""
        try:
            return await self._upstream.file_text(endpoint, identity)
        except ModelNotServed:  # 404
            return None
