"""Reads text files by name and glob, finds documents, and renders all as context of a prompt. I/O, blocking.

A file that is named is read or refused with the reason; a file that a glob only happens to match is left out instead.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from kimi_mcp.core.errors import CallRefused, ContextTooLong, InvalidArguments, MediaRejected, PathRefused
from kimi_mcp.core.tokens import text_tokens, tokens_in
from kimi_mcp.media.documents import ENDINGS, PDF, Document, Pages, identify, split_pages
from kimi_mcp.media.files import OpenFile, open_file, reread, shown
from kimi_mcp.media.formats import foreign_type, sniff
from kimi_mcp.media.globs import has_magic
from kimi_mcp.media.roots import LONGEST_PATH, ResolvedPath, Roots
from kimi_mcp.media.search import Search
from kimi_mcp.media.secret_files import HEAD_BYTES

MOST_BYTES: Final = 100 * 1024 * 1024
"""Bytes of a document: what a provider's ``/v1/files`` takes of one file (platform.kimi.ai docs/api/files-upload)."""

LARGEST_NAMED: Final = 5
"""Files that an error about too much context names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A text that becomes context: a file's, or what was taken out of a document."""

    path: str
    """Relative to its root, with slashes; with the root's own name before it where two roots have the same path."""
    text: str
    """A text file's verbatim, without a byte order mark."""


class CollectedFiles:
    """The files of one call: texts that were read, and documents whose text is still to be had."""

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens, self._tokens = most_tokens, 0
        self._texts: list[tuple[ResolvedPath, str | None]] = []
        self._sizes: list[tuple[int, str]] = []
        self._seen: set[tuple[int, int, Pages | None]] = set()
        self.documents: dict[int, Document] = {}
        """Those without a text, by the number under which :meth:`set_text` takes it."""

    def add(self, path: ResolvedPath, pages: Pages | None = None, *, endings: Collection[str] = ENDINGS) -> None:
        """Read a file, unless it was read before; one that can't fit is only counted. A document is only recognised.

        ``pages``: what is meant of a PDF; ``endings``: the kinds of documents that are meant. Raises as ``_not_text``
        and ``identify`` say, ``InvalidArguments`` for pages of anything else, and ``PathRefused`` as :func:`open_file`.
        """
        with open_file(path) as file:
            if (*file.identity, pages) in self._seen:
                return
            if document := _document(path, file, pages, endings):
                self.documents[len(self._texts)] = document
                self._texts.append((path, None))
            else:
                encoding = _encoding(file)
                heading = text_tokens(_heading(path.name)) + 2
                estimated = tokens_in(file.size // 2 if encoding == "utf-16" else file.size)
                if self._tokens + heading + estimated <= self._most_tokens:
                    text = _decoded(file, encoding)
                    estimated = text_tokens(text)
                    self._texts.append((path, text))
                self._count(heading + estimated, path)
            self._seen.add((*file.identity, pages))

    def set_text(self, number: int, text: str) -> None:
        """Set the text of a document."""
        path, _ = self._texts[number]
        del self.documents[number]
        self._texts[number] = path, text
        self._count(text_tokens(_heading(path.name)) + 2 + text_tokens(text), path)

    def _count(self, tokens: int, path: ResolvedPath) -> None:
        self._tokens += tokens
        self._sizes.append((tokens, path.name))

    def check(self) -> None:
        """Raise ``ContextTooLong`` if what was read does not fit."""
        if self._tokens > self._most_tokens:
            largest = sorted(self._sizes, key=lambda one: (-one[0], one[1]))[:LARGEST_NAMED]
            named = ", ".join(f"`{shown(name)}` (about {tokens:,})" for tokens, name in largest)
            raise ContextTooLong(
                f"The files come to about {self._tokens:,} tokens, {self._tokens - self._most_tokens:,} more than the "
                f"{self._most_tokens:,} that fit beside prompt and answer. The largest: {named}.",
                fix="Leave some of them out of `files`, or pass the parts that matter (`report.pdf#page=1-50`).",
            )

    def files(self) -> tuple[TextFile, ...]:
        """All files whose text is known, under distinct paths. Raises ``ContextTooLong``."""
        self.check()
        texts = [(path, text) for path, text in self._texts if text is not None]
        times = Counter(path.name for path in dict.fromkeys(path for path, _ in texts))
        return tuple(
            TextFile(path=(f"{PurePath(path.root.path).name}/" if times[path.name] > 1 else "") + path.name, text=text)
            for path, text in texts
        )


def gather_files(
    patterns: Sequence[str], roots: Roots, *, most_tokens: int, search: Search | None = None
) -> CollectedFiles:
    """The files of names and globs (``src/**/*.py``), each once, in the order named.

    ``most_tokens`` is what fits, by estimate. Blocking: for a worker thread. Raises ``PathRefused`` as ``open_file``
    does for a file that is named, ``MediaRejected`` (a picture, a clip) or ``InvalidArguments`` (other content) where
    it is neither text nor a document, ``InvalidArguments`` for a glob without a match or beyond the limits, and
    ``ContextTooLong``.
    """
    search = search or Search(roots)
    collected = CollectedFiles(most_tokens)
    for named in patterns:
        search.visit()
        pattern, pages = split_pages(named)
        path = roots.resolve(pattern)
        try:
            collected.add(path, pages)
        except CallRefused:
            if not has_magic(pattern):
                raise
        else:
            continue  # a glob may be the very name of a file, such as `pages/[id].tsx`
        _add_matching(search, pattern, path.name, pages, collected)
    collected.check()
    return collected


def read_text(path: ResolvedPath, *, most_bytes: int) -> str:
    """The text of a file within the roots, verbatim. Blocking; raises as :func:`gather_files` does."""
    with open_file(path) as file:
        file.check_size(most_bytes)
        return _decoded(file, _encoding(file))


def read_file(
    path: ResolvedPath, pages: Pages | None = None, *, most_bytes: int, endings: Collection[str]
) -> str | Document:
    """The text of a file, or the document that it is, of the kinds with these endings. Raises as ``read_text``."""
    with open_file(path) as file:
        if document := _document(path, file, pages, endings):
            return document
    return read_text(path, most_bytes=most_bytes)


def endings_named(pattern: str) -> list[str]:
    """The kinds of documents that a glob means: ``docs/**`` means texts alone, ``docs/*.pdf`` the PDFs."""
    return [ending for ending in ENDINGS if ending in PurePath(pattern).name.lower()]


def _document(path: ResolvedPath, file: OpenFile, pages: Pages | None, endings: Collection[str]) -> Document | None:
    """The document that a file is, of the kinds with these endings; None: a text, or what is neither."""
    name = shown(path.name)
    kind = identify(name, file.head, file.size, file.read_at)
    if kind is None or kind.ending not in endings:
        if pages is not None:
            _encoding(file)  # raises what it is instead of a text
        kind = None
    if pages is not None and kind is not PDF:
        raise InvalidArguments(
            f"Pages can be named of a PDF alone, and `{name}` is none.", fix="Leave `#page=` out, or name a PDF."
        )
    if kind is None:
        return None
    file.check_size(MOST_BYTES)
    return Document(name=name, kind=kind, size=file.size, read_at=reread(path, file, f"`{name}`"), pages=pages)


def as_context(files: Iterable[TextFile]) -> str:
    """The files as one text, verbatim: each with its path as heading, in a fence that its content can't close."""
    blocks: list[str] = []
    for file in files:
        fence = "`" * (max(map(len, re.findall(r"`{3,}", file.text)), default=2) + 1)
        end = "" if file.text.endswith("\n") or not file.text else "\n"
        blocks.append(f"{_heading(file.path)}{fence}\n{file.text}{end}{fence}\n")
    return "\n".join(blocks)


def _heading(path: str) -> str:
    return f"## {shown(path, longest=LONGEST_PATH)}\n\n"


def _add_matching(search: Search, pattern: str, name: str, pages: Pages | None, collected: CollectedFiles) -> None:
    """Add what a glob, called ``name`` in messages, matches. Raises ``InvalidArguments`` if that is nothing.

    Documents only of the kinds that it names.
    """
    taken, endings = 0, endings_named(pattern)
    for path in search.find(pattern):
        try:
            collected.add(path, pages, endings=endings)
            taken += 1
        except PathRefused:
            search.skipped["refused"] += 1
        except CallRefused:
            search.skipped["not text"] += 1
    if not taken:
        left_out = ", ".join(f"{count} {reason}" for reason, count in search.skipped.items())
        raise InvalidArguments(
            f"`{shown(name)}` in `files` fits no text file" + (f" (left out: {left_out})." if left_out else "."),
            fix="Correct the glob (`**` matches any folders, `*.pdf` PDFs); a file that globs leave out can be named "
            "itself.",
        )


def _encoding(file: OpenFile) -> str:
    """The encoding of a text, by its beginning."""
    if file.head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        if b"\0" not in file.head and not file.head.startswith(b"%PDF-"):
            codecs.getincrementaldecoder("utf-8")().decode(file.head)  # the last character may be incomplete
            return "utf-8-sig"
    except UnicodeDecodeError:
        pass
    raise _not_text(file)


def _decoded(file: OpenFile, encoding: str) -> str:
    try:
        text = file.read_at(0, file.size).decode(encoding)
    except UnicodeDecodeError:
        raise _not_text(file) from None
    if "\0" in text[:HEAD_BYTES]:
        raise _not_text(file)
    return text


def _not_text(file: OpenFile) -> CallRefused:
    """The error for what is neither UTF-8 nor UTF-16 with a byte order mark, with the tool that takes it."""
    name = shown(file.name)
    if mime := sniff(file.head):
        is_picture = mime.startswith("image/")
        what, how = ("picture", "kimi_vision in `images`") if is_picture else ("video", "kimi_video as `video`")
        return MediaRejected(f"`{name}` is a {what}, not text.", fix=f"Pass it to {how}; `files` takes text.")
    if found := foreign_type(file.head):
        fix = "Pass its text as a text file; `files` of kimi_think also takes pdf, docx, pptx, xlsx and epub."
        return InvalidArguments(f"`{name}` is {found[0]}, not text.", fix=fix)
    return InvalidArguments(
        f"`{name}` is not text in UTF-8, nor in UTF-16 with a byte order mark.",
        fix="Save it as UTF-8; binary files are not taken.",
    )
