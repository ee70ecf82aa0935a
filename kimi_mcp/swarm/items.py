"""Items that are files: found within the roots and read whole, before anything is paid for. I/O, blocking."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from kimi_mcp.core.errors import CallRefused, ContextTooLong, InvalidArguments
from kimi_mcp.core.tokens import text_tokens, with_margin
from kimi_mcp.media.documents import Document, Pages, split_pages
from kimi_mcp.media.files import is_file, shown
from kimi_mcp.media.globs import has_magic
from kimi_mcp.media.roots import LONGEST_PATH, ResolvedPath, Roots
from kimi_mcp.media.search import Search
from kimi_mcp.media.text_files import TextFile, as_context, endings_named, read_file
from kimi_mcp.swarm.call import MOST_ITEMS, SwarmCall

MOST_BYTES: Final = 4 * 1024 * 1024
"""Bytes of one file."""

MOST_CHARS: Final = 16_000_000
"""Characters of all files together: they are recorded with the swarm, so that a resumed one has the same."""

_LIKE_A_PATH: Final = re.compile(r"(?=\S+\Z)(?!.*://)(?:.*\.[A-Za-z0-9]{1,8}|.*[*\[].*)")
"""What looks like the name of a file, or like a glob; recognised in linear time, in items of any length."""


def with_files(call: SwarmCall, roots: Roots, pdfs: dict[str, Document]) -> SwarmCall:
    """The call with each file that its items name, or that a glob among them matches, as an item with its whole text.

    The text of a PDF is still to be set, by :func:`set_text`: ``pdfs`` gets it under the name of its item.

    An item that is no file stays as it is. Raises ``InvalidArguments`` for a single glob without a match, for what
    looks like a file among files and is none, for pages that no document has, and for more than there may be; as
    ``Roots.resolve`` does for a single glob, and as ``read_text`` for a file that is named and may not be read, or is
    no text.
    """
    only = len(call.items) == 1
    if only and has_magic(call.items[0]):
        roots.resolve(call.items[0])  # a glob, as it can be nothing else: the error says what keeps it from being one
    if not (roots.folders and call.items):
        return call
    search = Search(roots, argument="items")
    files: dict[str, str] = {}
    names: list[str] = []
    plain: list[tuple[int, str]] = []
    for index, item in enumerate(call.items):
        found = False
        for name, content in _files(item, roots, search, only=only):
            found = True
            names += [] if name in files else [name]
            if isinstance(content, Document):
                pdfs[name], files[name] = content, ""
            else:
                files[name] = as_context([TextFile(path=name, text=content)])
            _check_sum(len(names), sum(map(len, files.values())))
        if not found:
            names.append(item)
            plain.append((index, item))
    if not files:
        return call
    for index, item in plain:
        if _LIKE_A_PATH.fullmatch(split_pages(item)[0]):
            raise InvalidArguments(
                f"`items[{index}]` is no text file within the roots, as others of `items` are.",
                fix="Correct its name (names are case-sensitive), or leave it out.",
            )
    return replace(call, items=tuple(names), texts=tuple(files.get(name) for name in names))


def only_look_like_files(call: SwarmCall) -> bool:
    """Whether all items look like files of a folder, and none is one: each agent gets a name alone."""
    return (
        bool(call.items) and not call.texts and all("/" in each and _LIKE_A_PATH.fullmatch(each) for each in call.items)
    )


def set_text(call: SwarmCall, name: str, text: str) -> SwarmCall:
    """The call with the text of an item; raises ``InvalidArguments`` for more than there may be."""
    context = as_context([TextFile(path=name, text=text)])
    texts = [context if item == name else known for item, known in zip(call.items, call.texts, strict=True)]
    _check_sum(len(texts), sum(len(each or "") for each in texts))
    return replace(call, texts=tuple(texts))


def check_lengths(call: SwarmCall, most_tokens: int) -> None:
    """Raise ``ContextTooLong`` where a file is longer than what fits an agent's context, by estimate."""
    for name, text in zip(call.items, call.texts, strict=bool(call.texts)):
        tokens = with_margin(text_tokens(text or ""))
        if tokens > most_tokens:
            raise ContextTooLong(
                f"`{shown(name)}` has about {tokens:,} tokens; an agent can take {max(0, most_tokens):,}.",
                fix="Leave it out of `items`, or name a `model` with a longer context.",
            )


def _files(item: str, roots: Roots, search: Search, *, only: bool) -> Iterator[tuple[str, str | Document]]:
    """The name of each file that an item means, and its text or the PDF that it is."""
    whole, (item, pages) = item, _pages(item)
    path = _resolved(item, roots)
    if path is None:
        return
    named = whole[len(item) :]
    if is_file(path):
        yield roots.spelled(path) + named, read_file(path, pages, most_bytes=MOST_BYTES, endings=("pdf",))
        return
    if not has_magic(item) or not (only or item.split() == [item]):
        return
    found = False
    for match in search.find(item):
        try:
            kinds = {"pdf"}.intersection(endings_named(item))
            yield roots.spelled(match) + named, read_file(match, pages, most_bytes=MOST_BYTES, endings=kinds)
            found = True
        except CallRefused:
            search.skipped["not text, or refused"] += 1
    if only and not found:
        left_out = ", ".join(f"{count} {reason}" for reason, count in search.skipped.items())
        raise InvalidArguments(
            f"`{shown(item)}` in `items` fits no text file" + (f" (left out: {left_out})." if left_out else "."),
            fix="Correct the glob (`**` matches any folders), or give two items or more.",
        )


def _pages(item: str) -> tuple[str, Pages | None]:
    """An item without the pages of a PDF that it names; one that names none such is a text."""
    try:
        return split_pages(item)
    except CallRefused:
        return item, None


def _resolved(item: str, roots: Roots) -> ResolvedPath | None:
    if "\n" in item or len(item) > LONGEST_PATH:
        return None
    try:
        return roots.resolve(item)
    except CallRefused:
        return None


def _check_sum(files: int, chars: int) -> None:
    if files > MOST_ITEMS:
        raise InvalidArguments(
            f"The globs in `items` fit more than {MOST_ITEMS} text files; a swarm takes {MOST_ITEMS} items at most.",
            fix="Narrow the glob (`src/api/*.py`), or split the files among several calls.",
        )
    if chars > MOST_CHARS:
        raise InvalidArguments(
            f"The files in `items` have more than {MOST_CHARS:,} characters together.",
            fix="Split them among several calls.",
        )
