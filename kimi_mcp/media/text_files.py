"""Owns text files as context: which files names and globs mean, and how they stand in a prompt. I/O, blocking.

A file that is named is taken or refused with the reason; a file that a glob happens to meet is left out instead. Tokens
are estimated: the provider counts them exactly, and has the last word.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from kimi_mcp.core.errors import CallRefused, ContextTooLong, InvalidArguments, MediaRejected, PathRefused
from kimi_mcp.core.tokens import text_tokens, tokens_in
from kimi_mcp.media.files import OpenFile, open_place
from kimi_mcp.media.formats.magic import foreign_type, sniff
from kimi_mcp.media.globs import Glob, braces_expanded, has_magic
from kimi_mcp.media.open_path import shown
from kimi_mcp.media.roots import LONGEST_PATH, ResolvedPath, Roots
from kimi_mcp.media.search import RootSearch, SearchLimits, Skipped
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
class _Pile:
    """What was gathered so far."""

    most_tokens: int
    tokens: int = 0
    taken: list[tuple[ResolvedPath, str]] = field(default_factory=list[tuple[ResolvedPath, str]])
    sizes: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    seen: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])

    def add(self, place: ResolvedPath, file: OpenFile) -> None:
        """Take a file that was not taken before; raises ``_NotText``.

        One that can't fit any more is counted by its size and not read.
        """
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

    def whole(self) -> tuple[TextFile, ...]:
        """Everything taken, under distinct paths. Raises ``ContextTooLong``."""
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
    patterns: Sequence[str], roots: Roots, *, most_tokens: int, bounds: SearchLimits | None = None
) -> tuple[TextFile, ...]:
    """The text files that names and globs (``src/**/*.py``, ``*.{md,txt}``) mean, each once, in the order named.

    ``most_tokens`` is what fits, by estimate; ``bounds`` how much may be looked at. Blocking: for a worker thread.
    Raises ``PathRefused`` as ``open_within`` does for a file that is named, ``MediaRejected`` (a picture, a clip) or
    ``InvalidArguments`` (other content) where it is no text, ``InvalidArguments`` for a glob that nothing fits or that
    leads too far, and ``ContextTooLong``.
    """
    bounds = bounds or SearchLimits()
    trees = trees_of(roots, bounds)
    pile = _Pile(most_tokens)
    for pattern in patterns:
        bounds.visit()
        place = roots.place(pattern)
        if not has_magic(pattern):
            _take_named(place, pile)
        elif not _took_by_its_letters(place, pile):
            _take_matching(pattern, roots, trees, pile)
    return pile.whole()


def trees_of(roots: Roots, bounds: SearchLimits) -> Mapping[str, RootSearch]:
    """What is searched: each root by its path, all within the same bounds."""
    return {root.path: RootSearch(root=root, bounds=bounds) for root in roots.folders}


def as_context(files: Iterable[TextFile]) -> str:
    """The files as one text: each with its path as heading, fenced so that no content can end its own fence.

    The texts stay as they are; only a missing line end is added before the closing fence.
    """
    return "\n".join(_block(file) for file in files)


def _heading(path: str) -> str:
    return f"## {shown(path, longest=LONGEST_PATH)}\n\n"


def _block(file: TextFile) -> str:
    longest = max(map(len, re.findall(r"`{3,}", file.text)), default=2)
    fence = "`" * (longest + 1)
    end = "" if file.text.endswith("\n") or not file.text else "\n"
    return f"{_heading(file.path)}{fence}\n{file.text}{end}{fence}\n"


def _take_named(place: ResolvedPath, pile: _Pile) -> None:
    with open_place(place) as file:
        try:
            pile.add(place, file)
        except _NotText:
            raise _not_text(file) from None


def _took_by_its_letters(place: ResolvedPath, pile: _Pile) -> bool:
    """Whether a glob is the very name of a file, such as ``pages/[id].tsx``."""
    try:
        _take_named(place, pile)
    except (PathRefused, InvalidArguments, MediaRejected):
        return False
    return True


def _take_matching(pattern: str, roots: Roots, trees: Mapping[str, RootSearch], pile: _Pile) -> None:
    skipped, taken = Skipped(), 0
    for place in matching(pattern, roots, trees, skipped):
        trees[place.root.path].bounds.in_time()
        try:
            with open_place(place) as file:
                pile.add(place, file)
                taken += 1
        except _NotText:
            skipped.binary += 1
        except PathRefused:
            skipped.refused += 1
    if not taken:
        left_out = skipped.as_words()
        name = shown(roots.place(pattern).name)
        raise InvalidArguments(
            f"`{name}` in `files` fits no text file" + (f" (left out: {left_out})." if left_out else "."),
            fix="Mend the glob (`**` stands for any folders); a file that globs leave out can be named itself.",
        )


def matching(pattern: str, roots: Roots, trees: Mapping[str, RootSearch], skipped: Skipped) -> Iterator[ResolvedPath]:
    """The files that a glob meets, in each of its spellings. Raises as ``RootSearch.find`` and ``Roots.place`` do."""
    for expanded in braces_expanded(pattern):
        place = roots.place(expanded)
        yield from trees[place.root.path].find(Glob.of(place.parts), skipped)


def _encoding(head: bytes) -> str:
    """How a text that begins with ``head`` is encoded; raises ``_NotText``."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if b"\0" in head or head.startswith(b"%PDF-"):
        raise _NotText
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
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
    """The error for a named file that is no text, with the tool that takes it."""
    name, mime = shown(file.name), sniff(file.head)
    if mime and mime.startswith("image/"):
        return MediaRejected(
            f"`{name}` is a picture, not text.", fix="Pass it to kimi_vision in `images`; `files` takes text."
        )
    if mime:
        return MediaRejected(
            f"`{name}` is a video, not text.", fix="Pass it to kimi_video as `video`; `files` takes text."
        )
    if found := foreign_type(file.head):
        return InvalidArguments(
            f"`{name}` is {found[0]}, not text.", fix="Pass its text as a text file; no tool reads it."
        )
    return InvalidArguments(
        f"`{name}` is not text in UTF-8, nor in UTF-16 with a byte order mark.",
        fix="Save it as UTF-8; binary files are not taken.",
    )
