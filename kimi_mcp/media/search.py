"""Searches the roots for files by glob; finds nothing hidden, git-ignored or behind a link. I/O, bounded.

Folders are listed through ``files``, so no link is followed; the ``.gitignore`` files and ``.git/info/exclude`` are
read the same way. Where a root is inside a repository, the rules above it count too, as for git: nothing else is read
there. A search lists each folder once, whatever the number of patterns.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from kimi_mcp.core.errors import InvalidArguments, KimiError, PathRefused
from kimi_mcp.media.files import DirectoryEntry, list_folder, open_file
from kimi_mcp.media.globs import DEEPEST, Glob, IgnoreRule, braces_expanded, ignore_rules, verdict
from kimi_mcp.media.roots import ResolvedPath, Root, Roots
from kimi_mcp.media.secret_files import key_like

MOST_VISITED: Final = 20_000
"""Names that one call may visit."""

SEARCH_S: Final = 10.0
"""Seconds that one call may search."""

MOST_IGNORE_BYTES: Final = 256 * 1024
"""Bytes of a .gitignore that are read."""


class Search:
    """The search of one call through all roots, within its limits; caches listings and ignore rules."""

    def __init__(
        self,
        roots: Roots,
        *,
        argument: str = "files",
        visits: int = MOST_VISITED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``argument``: the caller's name for its globs."""
        self.skipped = Counter[str]()
        """How many files matched the latest glob and were left out, by reason."""
        self._roots, self._argument, self._visits = roots, argument, visits
        self._clock, self._until = clock, clock() + SEARCH_S
        self._listings: dict[ResolvedPath, list[DirectoryEntry]] = {}
        self._rules: dict[ResolvedPath, tuple[IgnoreRule, ...]] = {}
        self._above: dict[Root, list[Root]] = {}

    def visit(self, names: int = 1) -> None:
        """Count visited names. Raises ``InvalidArguments`` if they are too many, or the search takes too long."""
        self._visits -= names
        if self._visits < 0:
            raise self._beyond(f"lead through more than {MOST_VISITED:,} names")
        self._check_time()

    def _check_time(self) -> None:
        if self._clock() > self._until:
            raise self._beyond(f"could not be followed within {SEARCH_S:.0f} seconds")

    def _beyond(self, what: str) -> InvalidArguments:
        return InvalidArguments(
            f"The globs in `{self._argument}` {what}.",
            fix="Begin the glob with the folder that is meant (`src/**/*.py`), or name the files.",
        )

    def entries(self, folder: ResolvedPath) -> Iterator[tuple[ResolvedPath, bool]]:
        """What globs can find in a folder, and whether it is a folder itself. Raises as ``list_folder`` does."""
        self.skipped.clear()
        for entry in list_folder(folder, most=self._visits):
            self.visit()
            path, is_folder = replace(folder, parts=(*folder.parts, entry.name)), entry.kind == "folder"
            if entry.hidden:
                self.skipped["hidden"] += 1
            elif entry.kind == "other":
                self.skipped["links or special files"] += 1
            elif not is_folder and key_like(path.full.parts):
                self.skipped["key-like"] += 1
            elif self._ignored(path, is_folder=is_folder):
                self.skipped["git-ignored"] += 1
            else:
                yield path, is_folder

    def find(self, pattern: str, within: ResolvedPath | None = None) -> Iterator[ResolvedPath]:
        """The files that a glob matches, for each expansion of its braces, sorted folder by folder.

        ``within``: the folder that it counts from, whose own names have no wildcards, whatever they look like. Raises
        ``InvalidArguments`` at the limits, and as ``Roots.resolve`` does.
        """
        self.skipped.clear()
        for expanded in braces_expanded(pattern, self._argument):
            path = self._roots.resolve(expanded if within is None else str(within.full / expanded))
            above = () if within is None else within.parts
            plain = len(above) if path.parts[: len(above)] == above else 0
            glob = Glob.of(path.parts, plain=plain)
            start = [replace(path, parts=glob.start[:depth]) for depth in range(len(glob.start) + 1)]
            if any(self._ignored(folder, is_folder=True) for folder in start[1:]):
                self.skipped["git-ignored"] += 1
            else:
                yield from self._below(start[-1], glob)

    def _below(self, folder: ResolvedPath, glob: Glob) -> Iterator[ResolvedPath]:
        for entry in self._listing(folder):
            path = replace(folder, parts=(*folder.parts, entry.name))
            matches = glob.matches(path.name)
            if entry.kind == "folder":
                if glob.leads_to(path.name) and len(path.parts) < DEEPEST:
                    if self._ignored(path, is_folder=True):
                        self.skipped["git-ignored"] += 1
                    else:
                        yield from self._below(path, glob)
            elif entry.hidden and not (matches and entry.name.startswith(".")):
                if glob.matches("/".join((*folder.parts, entry.name.lstrip(".")))):
                    self.skipped["hidden"] += 1
            elif not matches:
                continue
            elif entry.kind == "other":
                self.skipped["links or special files"] += 1
            elif key_like(path.full.parts):
                self.skipped["key-like"] += 1
            elif self._ignored(path, is_folder=False):
                self.skipped["git-ignored"] += 1
            else:
                yield path

    def _listing(self, folder: ResolvedPath) -> list[DirectoryEntry]:
        self._check_time()
        if folder not in self._listings:
            try:
                entries = list_folder(folder, most=self._visits)
            except PathRefused:
                entries = []
            self.visit(len(entries))
            self._listings[folder] = entries
        return self._listings[folder]

    def _ignored(self, path: ResolvedPath, *, is_folder: bool) -> bool:
        """Whether git would ignore it: the innermost folder with a matching rule decides."""
        self._check_time()
        for folder, names in self._folders_of(path):
            if folder not in self._rules:
                # The weaker first: of two lines that match, the later one decides.
                exclude, ignore = (*folder.parts, ".git", "info", "exclude"), (*folder.parts, ".gitignore")
                self._rules[folder] = (*self._read_rules(folder, exclude), *self._read_rules(folder, ignore))
            ignored = verdict(self._rules[folder], names, folder=is_folder)
            if ignored is not None:
                return ignored
        return False

    def _folders_of(self, path: ResolvedPath) -> Iterator[tuple[ResolvedPath, tuple[str, ...]]]:
        """The folders above a path, innermost first, to the top of the root's repository; the names down to the path.

        Without a repository, they end at the root.
        """
        for depth in reversed(range(len(path.parts))):
            yield replace(path, parts=path.parts[:depth]), path.parts[depth:]
        if path.root not in self._above:
            at = PurePath(path.root.path)
            folders = (at, *at.parents)
            # In a worktree `.git` is a file. A folder that may not be looked into has none: pathlib would raise.
            has_git = [os.path.exists(folder / ".git") for folder in folders]  # noqa: PTH110
            top = has_git.index(True) if True in has_git else 0
            self._above[path.root] = [replace(path.root, path=str(folder)) for folder in folders[1 : top + 1]]
        for root in self._above[path.root]:
            yield ResolvedPath(root=root, parts=()), path.full.parts[len(PurePath(root.path).parts) :]

    def _read_rules(self, folder: ResolvedPath, parts: tuple[str, ...]) -> tuple[IgnoreRule, ...]:
        try:
            with open_file(replace(folder, parts=parts)) as file:
                text = file.read_at(0, MOST_IGNORE_BYTES).decode("utf-8-sig", "surrogateescape")
        except KimiError:
            return ()  # missing, or a link, which git does not follow either
        return ignore_rules(text, between=self._check_time)
