"""Reads text files by name and glob, and renders them as context of a prompt. I/O, blocking.

A file that is named is read or refused with the reason; a file that a glob only happens to match is left out instead.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from kimi_mcp.core.errors import CallRefused, ContextTooLong, InvalidArguments, MediaRejected, PathRefused
from kimi_mcp.core.tokens import text_tokens, tokens_in
from kimi_mcp.media.files import OpenFile, open_file
from kimi_mcp.media.formats.magic import foreign_type, sniff
from kimi_mcp.media.globs import has_magic
from kimi_mcp.media.open_path import shown
from kimi_mcp.media.roots import LONGEST_PATH, ResolvedPath, Roots
from kimi_mcp.media.search import Search, SearchLimits, Skipped
from kimi_mcp.media.secret_files import HEAD_BYTES

LARGEST_NAMED: Final = 5
"""Files that an error about too much context names."""

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A text file that becomes context."""

    path: str
    """Relative to its root, with slashes; with the root's own name before it where two roots have the same path."""
    text: str
    """Verbatim, without a byte order mark."""


@dataclass(slots=True)
class _Collected:
    """The files read so far."""

    most_tokens: int
    tokens: int = 0
    taken: list[tuple[ResolvedPath, str]] = field(default_factory=list[tuple[ResolvedPath, str]])
    sizes: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    seen: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])

    def add(self, place: ResolvedPath, file: OpenFile) -> None:
        """Read a file, unless it was read before; one that can't fit is only counted. Raises ``_NotText``."""
        if file.identity in self.seen:
            return
        encoding = _encoding(file.head)
        heading = text_tokens(_heading(place.name)) + 2
        estimated = tokens_in(file.size if encoding == "utf-8" else file.size // 2)
        if self.tokens + heading + estimated <= self.most_tokens:
            text = _decoded(file.read_all(file.size), encoding)
            estimated = text_tokens(text)
            self.taken.append((place, text))
        self.seen.add(file.identity)
        self.tokens += heading + estimated
        self.sizes.append((heading + estimated, place.name))

    def files(self) -> tuple[TextFile, ...]:
        """All files, under distinct paths. Raises ``ContextTooLong``."""
        if self.tokens > self.most_tokens:
            largest = sorted(self.sizes, key=lambda one: (-one[0], one[1]))[:LARGEST_NAMED]
            named = ", ".join(f"`{shown(name)}` (about {tokens:,})" for tokens, name in largest)
            raise ContextTooLong(
                f"The files come to about {self.tokens:,} tokens, {self.tokens - self.most_tokens:,} more than the "
                f"{self.most_tokens:,} that fit beside prompt and answer. The largest: {named}.",
                fix="Leave some of them out of `files`, or pass the parts that matter.",
            )
        names = Counter(place.name for place, _ in self.taken)
        return tuple(
            TextFile(
                path=place.name if names[place.name] == 1 else f"{PurePath(place.root.path).name}/{place.name}",
                text=text,
            )
            for place, text in self.taken
        )


class _NotText(Exception):
    """Not UTF-8, nor UTF-16 with a byte order mark."""


def gather_texts(
    patterns: Sequence[str], roots: Roots, *, most_tokens: int, limits: SearchLimits | None = None
) -> tuple[TextFile, ...]:
    """The text files of names and globs (``src/**/*.py``), each once, in the order named.

    ``most_tokens`` is what fits, by estimate. Blocking: for a worker thread. Raises ``PathRefused`` as ``open_file``
    does for a file that is named, ``MediaRejected`` (a picture, a clip) or ``InvalidArguments`` (other content) where
    it is no text, ``InvalidArguments`` for a glob without a match or beyond the limits, and ``ContextTooLong``.
    """
    search = Search(roots, limits or SearchLimits())
    collected = _Collected(most_tokens)
    for pattern in patterns:
        search.limits.visit()
        place = roots.resolve(pattern)
        if not has_magic(pattern):
            _add_named(place, collected)
        elif not _added_by_name(place, collected):
            _add_matching(pattern, roots, search, collected)
    return collected.files()


def as_context(files: Iterable[TextFile]) -> str:
    """The files as one text, verbatim: each with its path as heading, in a fence that its content can't close."""
    return "\n".join(_block(file) for file in files)


def _heading(path: str) -> str:
    return f"## {shown(path, longest=LONGEST_PATH)}\n\n"


def _block(file: TextFile) -> str:
    longest = max(map(len, re.findall(r"`{3,}", file.text)), default=2)
    fence = "`" * (longest + 1)
    end = "" if file.text.endswith("\n") or not file.text else "\n"
    return f"{_heading(file.path)}{fence}\n{file.text}{end}{fence}\n"


def _add_named(place: ResolvedPath, collected: _Collected) -> None:
    with open_file(place) as file:
        try:
            collected.add(place, file)
        except _NotText:
            raise _not_text(file) from None


def _added_by_name(place: ResolvedPath, collected: _Collected) -> bool:
    """Whether a glob is the very name of a file, such as ``pages/[id].tsx``."""
    try:
        _add_named(place, collected)
    except (PathRefused, InvalidArguments, MediaRejected):
        return False
    return True


def _add_matching(pattern: str, roots: Roots, search: Search, collected: _Collected) -> None:
    skipped, taken = Skipped(), 0
    for place in search.find(pattern, skipped):
        search.limits.check_time()
        try:
            with open_file(place) as file:
                collected.add(place, file)
                taken += 1
        except _NotText:
            skipped["not text"] += 1
        except PathRefused:
            skipped["refused"] += 1
    if not taken:
        left_out = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        name = shown(roots.resolve(pattern).name)
        raise InvalidArguments(
            f"`{name}` in `files` fits no text file" + (f" (left out: {left_out})." if left_out else "."),
            fix="Correct the glob (`**` matches any folders); a file that globs leave out can be named itself.",
        )


def _encoding(head: bytes) -> str:
    """The encoding of a text that begins with ``head``; raises ``_NotText``."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if b"\0" in head or head.startswith(b"%PDF-"):
        raise _NotText
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be incomplete
    except UnicodeDecodeError:
        raise _NotText from None
    return "utf-8"


def _decoded(content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise _NotText from None
    if "\0" in text[:HEAD_BYTES]:
        raise _NotText
    return text.removeprefix("\ufeff")


def _not_text(file: OpenFile) -> CallRefused:
    """The error for a named file that is no text, with the tool that accepts it."""
    name, mime = shown(file.name), sniff(file.head)
    if mime:
        is_picture = mime.startswith("image/")
        what, how = ("picture", "kimi_vision in `images`") if is_picture else ("video", "kimi_video as `video`")
        return MediaRejected(f"`{name}` is a {what}, not text.", fix=f"Pass it to {how}; `files` takes text.")
    if found := foreign_type(file.head):
        return InvalidArguments(
            f"`{name}` is {found[0]}, not text.", fix="Pass its text as a text file; no tool reads it."
        )
    return InvalidArguments(
        f"`{name}` is not text in UTF-8, nor in UTF-16 with a byte order mark.",
        fix="Save it as UTF-8; binary files are not taken.",
    )
