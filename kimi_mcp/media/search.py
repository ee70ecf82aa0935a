"""Searches the roots for files by glob; finds nothing hidden, git-ignored or behind a link. I/O, bounded.

Folders are listed through ``open_path``, so no link is followed; the ``.gitignore`` files and ``.git/info/exclude`` are
read the same way. Where a root lies within a repository, the rules above it count too, as for git: nothing else is read
there. A search lists each folder once, whatever the number of patterns.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Final

from kimi_mcp.core.errors import InvalidArguments, KimiError, PathRefused
from kimi_mcp.media.files import open_file
from kimi_mcp.media.globs import DEEPEST, Glob, IgnoreRule, braces_expanded, ignore_rules, verdict
from kimi_mcp.media.open_path import DirectoryEntry, list_folder
from kimi_mcp.media.roots import ResolvedPath, Root, Roots
from kimi_mcp.media.secret_files import key_like

MOST_VISITED: Final = 20_000
"""Names that one call may visit."""

SEARCH_S: Final = 10.0
"""Seconds that one call may search."""

MOST_IGNORE_BYTES: Final = 256 * 1024
"""Bytes of a .gitignore that are read."""

Skipped = Counter[str]
"""How many files matched a glob and were left out, by reason."""


@dataclass(slots=True, kw_only=True)
class SearchLimits:
    """What one call may still visit; shared by its patterns."""

    visits: int = MOST_VISITED
    """Names left."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    until: float = 0.0
    """By ``clock``, when the search has to end; set at the start."""

    def __post_init__(self) -> None:
        """Start the clock."""
        self.until = self.until or self.clock() + SEARCH_S

    def visit(self, names: int = 1) -> None:
        """Count visited names. Raises ``InvalidArguments`` if they are too many, or it takes too long."""
        self.visits -= names
        if self.visits < 0:
            raise InvalidArguments(
                f"The globs in `files` lead through more than {MOST_VISITED:,} names.",
                fix="Begin the glob with the folder that is meant (`src/**/*.py`), or name the files.",
            )
        self.check_time()

    def check_time(self) -> None:
        """Raise ``InvalidArguments`` if the search takes too long."""
        if self.clock() > self.until:
            raise InvalidArguments(
                f"The globs in `files` could not be followed within {SEARCH_S:.0f} seconds.",
                fix="Begin the glob with the folder that is meant (`src/**/*.py`), or name the files.",
            )


class Search:
    """The search of one call through all roots."""

    def __init__(self, roots: Roots, limits: SearchLimits) -> None:
        self.limits = limits
        self._roots = roots
        self._searches = {root.path: _RootSearch(root, limits) for root in roots.folders}

    def find(self, pattern: str, skipped: Skipped) -> Iterator[ResolvedPath]:
        """The files that a glob matches, for each expansion of its braces, sorted folder by folder.

        Raises ``InvalidArguments`` at the limits, and as ``Roots.resolve`` does.
        """
        for expanded in braces_expanded(pattern):
            path = self._roots.resolve(expanded)
            yield from self._searches[path.root.path].find(Glob.of(path.parts), skipped)


class _RootSearch:
    """The search of one root; caches listings and ignore rules for one call."""

    def __init__(self, root: Root, limits: SearchLimits) -> None:
        self._root, self._limits = root, limits
        self._listings: dict[tuple[str, ...], list[DirectoryEntry]] = {}
        self._rules: dict[tuple[str, ...], tuple[IgnoreRule, ...]] = {}
        self._above: list[tuple[tuple[str, ...], tuple[IgnoreRule, ...]]] | None = None
        """The rules of each folder above the root, the nearest first, with the names from there down to the root."""

    def find(self, glob: Glob, skipped: Skipped) -> Iterator[ResolvedPath]:
        start = glob.start
        for depth in range(1, len(start) + 1):
            if self._ignored(start[:depth], folder=True):
                skipped["git-ignored"] += 1
                return
        yield from self._below(start, glob, skipped)

    def _below(self, parts: tuple[str, ...], glob: Glob, skipped: Skipped) -> Iterator[ResolvedPath]:
        for entry in self._listing(parts):
            path = (*parts, entry.name)
            matches = glob.matches("/".join(path))
            if entry.kind == "folder":
                if glob.leads_to("/".join(path)) and len(path) < DEEPEST:
                    if self._ignored(path, folder=True):
                        skipped["git-ignored"] += 1
                    else:
                        yield from self._below(path, glob, skipped)
            elif entry.hidden and not (matches and entry.name.startswith(".")):
                if glob.matches("/".join((*parts, entry.name.lstrip(".")))):
                    skipped["hidden"] += 1
            elif not matches:
                continue
            elif entry.kind == "other":
                skipped["links or special files"] += 1
            elif key_like((found := ResolvedPath(root=self._root, parts=path)).full.parts):
                skipped["key-like"] += 1
            elif self._ignored(path, folder=False):
                skipped["git-ignored"] += 1
            else:
                yield found

    def _listing(self, parts: tuple[str, ...]) -> list[DirectoryEntry]:
        self._limits.check_time()
        if (known := self._listings.get(parts)) is not None:
            return known
        try:
            entries = list_folder(ResolvedPath(root=self._root, parts=parts), most=self._limits.visits)
        except PathRefused:
            entries = []
        self._limits.visit(len(entries))
        self._listings[parts] = entries
        return entries

    def _ignored(self, parts: tuple[str, ...], *, folder: bool) -> bool:
        """Whether git would ignore it: the innermost folder with a matching rule decides."""
        self._limits.check_time()
        for depth in range(len(parts) - 1, -1, -1):
            ignored = verdict(self._rules_of(parts[:depth]), parts[depth:], folder=folder)
            if ignored is not None:
                return ignored
        if self._above is None:
            self._above = list(self._read_above())
        for way, rules in self._above:
            ignored = verdict(rules, (*way, *parts), folder=folder)
            if ignored is not None:
                return ignored
        return False

    def _read_above(self) -> Iterator[tuple[tuple[str, ...], tuple[IgnoreRule, ...]]]:
        """From the root's parent up to the top of its repository; nothing without a repository."""
        root = PurePath(self._root.path)
        above = (root, *root.parents)
        top = next((at for at, folder in enumerate(above) if _has_git(folder)), 0)
        for folder in above[1 : top + 1]:
            there = replace(self._root, path=str(folder), names=(str(folder),))
            yield root.parts[len(folder.parts) :], self._read_both(there, ())

    def _rules_of(self, parts: tuple[str, ...]) -> tuple[IgnoreRule, ...]:
        if (known := self._rules.get(parts)) is not None:
            return known
        self._rules[parts] = self._read_both(self._root, parts)
        return self._rules[parts]

    def _read_both(self, root: Root, parts: tuple[str, ...]) -> tuple[IgnoreRule, ...]:
        # The weaker first: of two lines that match, the later one decides.
        exclude, ignore = (*parts, ".git", "info", "exclude"), (*parts, ".gitignore")
        return (*self._read_rules(root, exclude), *self._read_rules(root, ignore))

    def _read_rules(self, root: Root, parts: tuple[str, ...]) -> tuple[IgnoreRule, ...]:
        try:
            with open_file(ResolvedPath(root=root, parts=parts)) as file:
                text = file.read_at(0, MOST_IGNORE_BYTES).decode("utf-8-sig", "surrogateescape")
        except KimiError:
            return ()  # missing, or a link, which git does not follow either
        return ignore_rules(text, between=self._limits.check_time)


def _has_git(folder: PurePath) -> bool:
    """Whether a folder is the top of a repository; in a worktree ``.git`` is a file."""
    try:
        return Path(folder, ".git").exists()
    except OSError:
        return False
