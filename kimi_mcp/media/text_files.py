"""Reads text files by name and glob, and renders them as context of a prompt. I/O, blocking.

A file that is named is read or refused with the reason; a file that a glob only happens to match is left out instead.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from kimi_mcp.core.errors import CallRefused, ContextTooLong, InvalidArguments, MediaRejected, PathRefused
from kimi_mcp.core.tokens import text_tokens, tokens_in
from kimi_mcp.media.files import OpenFile, open_file, shown
from kimi_mcp.media.formats import foreign_type, sniff
from kimi_mcp.media.globs import has_magic
from kimi_mcp.media.roots import LONGEST_PATH, ResolvedPath, Roots
from kimi_mcp.media.search import Search
from kimi_mcp.media.secret_files import HEAD_BYTES

LARGEST_NAMED: Final = 5
"""Files that an error about too much context names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A text file that becomes context."""

    path: str
    """Relative to its root, with slashes; with the root's own name before it where two roots have the same path."""
    text: str
    """Verbatim, without a byte order mark."""


class _Collected:
    """The files read so far."""

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens, self._tokens = most_tokens, 0
        self._texts: list[tuple[ResolvedPath, str]] = []
        self._sizes: list[tuple[int, str]] = []
        self._seen: set[tuple[int, int]] = set()

    def add(self, path: ResolvedPath) -> None:
        """Read a file, unless it was read before; one that can't fit is only counted.

        Raises as ``_not_text`` says where it is no text, and ``PathRefused`` as :func:`open_file` does.
        """
        with open_file(path) as file:
            if file.identity in self._seen:
                return
            encoding = _encoding(file)
            heading = text_tokens(_heading(path.name)) + 2
            estimated = tokens_in(file.size // 2 if encoding == "utf-16" else file.size)
            if self._tokens + heading + estimated <= self._most_tokens:
                text = _decoded(file, encoding)
                estimated = text_tokens(text)
                self._texts.append((path, text))
            self._seen.add(file.identity)
        self._tokens += heading + estimated
        self._sizes.append((heading + estimated, path.name))

    def files(self) -> tuple[TextFile, ...]:
        """All files, under distinct paths. Raises ``ContextTooLong``."""
        if self._tokens > self._most_tokens:
            largest = sorted(self._sizes, key=lambda one: (-one[0], one[1]))[:LARGEST_NAMED]
            named = ", ".join(f"`{shown(name)}` (about {tokens:,})" for tokens, name in largest)
            raise ContextTooLong(
                f"The files come to about {self._tokens:,} tokens, {self._tokens - self._most_tokens:,} more than the "
                f"{self._most_tokens:,} that fit beside prompt and answer. The largest: {named}.",
                fix="Leave some of them out of `files`, or pass the parts that matter.",
            )
        times = Counter(path.name for path, _ in self._texts)
        return tuple(
            TextFile(path=(f"{PurePath(path.root.path).name}/" if times[path.name] > 1 else "") + path.name, text=text)
            for path, text in self._texts
        )


def gather_texts(
    patterns: Sequence[str], roots: Roots, *, most_tokens: int, search: Search | None = None
) -> tuple[TextFile, ...]:
    """The text files of names and globs (``src/**/*.py``), each once, in the order named.

    ``most_tokens`` is what fits, by estimate. Blocking: for a worker thread. Raises ``PathRefused`` as ``open_file``
    does for a file that is named, ``MediaRejected`` (a picture, a clip) or ``InvalidArguments`` (other content) where
    it is no text, ``InvalidArguments`` for a glob without a match or beyond the limits, and ``ContextTooLong``.
    """
    search = search or Search(roots)
    collected = _Collected(most_tokens)
    for pattern in patterns:
        search.visit()
        path = roots.resolve(pattern)
        try:
            collected.add(path)
        except CallRefused:
            if not has_magic(pattern):
                raise
        else:
            continue  # a glob may be the very name of a file, such as `pages/[id].tsx`
        _add_matching(search, pattern, path.name, collected)
    return collected.files()


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


def _add_matching(search: Search, pattern: str, name: str, collected: _Collected) -> None:
    """Add what a glob, called ``name`` in messages, matches. Raises ``InvalidArguments`` if that is nothing."""
    taken = 0
    for path in search.find(pattern):
        try:
            collected.add(path)
            taken += 1
        except PathRefused:
            search.skipped["refused"] += 1
        except CallRefused:
            search.skipped["not text"] += 1
    if not taken:
        left_out = ", ".join(f"{count} {reason}" for reason, count in search.skipped.items())
        raise InvalidArguments(
            f"`{shown(name)}` in `files` fits no text file" + (f" (left out: {left_out})." if left_out else "."),
            fix="Correct the glob (`**` matches any folders); a file that globs leave out can be named itself.",
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
        fix = "Pass its text as a text file; no tool reads it."
        return InvalidArguments(f"`{name}` is {found[0]}, not text.", fix=fix)
    return InvalidArguments(
        f"`{name}` is not text in UTF-8, nor in UTF-16 with a byte order mark.",
        fix="Save it as UTF-8; binary files are not taken.",
    )
