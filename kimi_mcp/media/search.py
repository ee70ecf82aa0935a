"""Owns the search for files by glob within a root: what is hidden, git-ignored or a link is not found. I/O, bounded.

Folders are listed through ``walk``, so no link is followed; the ``.gitignore`` files and ``.git/info/exclude`` are read
the same way. Where the root lies within a repository the rules above it count too, as they do for git: they are all
that is ever read there. A search lists each folder once, whatever the number of patterns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final

from kimi_mcp.core.errors import InvalidArguments, KimiError, PathRefused
from kimi_mcp.media.files import open_place
from kimi_mcp.media.globs import Glob, IgnoreRule, ignore_rules, verdict
from kimi_mcp.media.open_path import DirectoryEntry, list_folder
from kimi_mcp.media.roots import ResolvedPath, Root
from kimi_mcp.media.secret_files import key_like

MOST_VISITED: Final = 20_000
"""Names that one call may look at."""

SEARCH_S: Final = 10.0
"""Seconds that one call may search."""

MOST_IGNORE_BYTES: Final = 256 * 1024
"""Of a .gitignore; more of it is not read."""

DEEPEST: Final = 64
"""Folders below each other."""


@dataclass(slots=True, kw_only=True)
class SearchLimits:
    """What one call may still look at; shared by its patterns."""

    visits: int = MOST_VISITED
    """Names left."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    until: float = 0.0
    """By ``clock``, when the search has to be over; set at the start."""

    def __post_init__(self) -> None:
        """Start the clock."""
        self.until = self.until or self.clock() + SEARCH_S

    def visit(self, names: int = 1) -> None:
        """Count names that were looked at. Raises ``InvalidArguments`` when they are too many, or it takes too long."""
        self.visits -= names
        if self.visits < 0:
            raise InvalidArguments(
                f"The globs in `files` lead through more than {MOST_VISITED:,} names.",
                fix="Begin the glob with the folder that is meant (`src/**/*.py`), or name the files.",
            )
        self.in_time()

    def in_time(self) -> None:
        """Raises ``InvalidArguments`` when the search takes too long."""
        if self.clock() > self.until:
            raise InvalidArguments(
                f"The globs in `files` could not be followed within {SEARCH_S:.0f} seconds.",
                fix="Begin the glob with the folder that is meant (`src/**/*.py`), or name the files.",
            )


@dataclass(slots=True, kw_only=True)
class Skipped:
    """How many files fitted a glob and were left out, by reason."""

    hidden: int = 0
    """Only counted where the last name alone is hidden."""
    ignored: int = 0
    """By a .gitignore: files, and folders whose inside was not looked at."""
    keys: int = 0
    """Key and password files."""
    links: int = 0
    """Links and special files."""
    refused: int = 0
    """Private keys by their content, and what can't be opened; counted by whoever reads them, as the next."""
    binary: int = 0
    """No text."""

    def as_words(self) -> str:
        """``2 git-ignored, 1 binary``; empty where nothing was left out."""
        counts = (
            (self.hidden, "hidden"),
            (self.ignored, "git-ignored"),
            (self.keys, "key-like"),
            (self.links, "links or special files"),
            (self.refused, "refused"),
            (self.binary, "not text"),
        )
        return ", ".join(f"{count} {reason}" for count, reason in counts if count)


@dataclass(slots=True, kw_only=True)
class RootSearch:
    """A root that is searched; remembers listings and ignore rules for as long as the call lasts."""

    root: Root
    """Where it begins."""
    bounds: SearchLimits
    """Shared with the call's other trees."""
    _listings: dict[tuple[str, ...], list[DirectoryEntry]] = field(
        default_factory=dict[tuple[str, ...], list[DirectoryEntry]]
    )
    _rules: dict[tuple[str, ...], tuple[IgnoreRule, ...]] = field(
        default_factory=dict[tuple[str, ...], tuple[IgnoreRule, ...]]
    )
    _above: list[tuple[tuple[str, ...], tuple[IgnoreRule, ...]]] | None = None
    """The rules of each folder above the root, the nearest first, with the names from there down to the root."""

    def find(self, glob: Glob, skipped: Skipped) -> Iterator[ResolvedPath]:
        """The files that fit, sorted folder by folder. Raises ``InvalidArguments`` at the bounds.

        A folder that can't be opened holds nothing; that of a link is never entered.
        """
        start = glob.start
        for depth in range(1, len(start) + 1):
            if self._ignored(start[:depth], folder=True):
                skipped.ignored += 1
                return
        yield from self._below(start, glob, glob.positions(start), skipped)

    def _below(
        self, parts: tuple[str, ...], glob: Glob, positions: frozenset[int], skipped: Skipped
    ) -> Iterator[ResolvedPath]:
        for entry in self._listing(parts):
            after = glob.step(positions, entry.name)
            met = (*parts, entry.name)
            if entry.kind == "folder":
                if after - {len(glob.segments)} and len(met) < DEEPEST:
                    if self._ignored(met, folder=True):
                        skipped.ignored += 1
                    else:
                        yield from self._below(met, glob, after, skipped)
            elif entry.hidden and not (glob.complete(after) and entry.name.startswith(".")):
                skipped.hidden += glob.complete(glob.step(positions, entry.name.lstrip(".")))
            elif not glob.complete(after):
                continue
            elif entry.kind == "other":
                skipped.links += 1
            elif key_like((*PurePath(self.root.path).parts, *met)):
                skipped.keys += 1
            elif self._ignored(met, folder=False):
                skipped.ignored += 1
            else:
                yield ResolvedPath(root=self.root, parts=met)

    def _listing(self, parts: tuple[str, ...]) -> list[DirectoryEntry]:
        self.bounds.in_time()
        if (known := self._listings.get(parts)) is not None:
            return known
        try:
            entries = list_folder(ResolvedPath(root=self.root, parts=parts), most=self.bounds.visits)
        except PathRefused:
            entries = []
        self.bounds.visit(len(entries))
        self._listings[parts] = entries
        return entries

    def _ignored(self, parts: tuple[str, ...], *, folder: bool) -> bool:
        """Whether git would ignore it: the innermost folder whose rules say anything decides."""
        self.bounds.in_time()
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
        """From the root's folder up to the top of the repository that it lies in; nothing where it lies in none."""
        root = PurePath(self.root.path)
        above = (root, *root.parents)
        top = next((at for at, folder in enumerate(above) if _has_git(folder)), 0)
        for folder in above[1 : top + 1]:
            there = Root(path=str(folder), names=(str(folder),))
            yield root.parts[len(folder.parts) :], self._read_both(there, ())

    def _rules_of(self, parts: tuple[str, ...]) -> tuple[IgnoreRule, ...]:
        if (known := self._rules.get(parts)) is not None:
            return known
        self._rules[parts] = self._read_both(self.root, parts)
        return self._rules[parts]

    def _read_both(self, root: Root, parts: tuple[str, ...]) -> tuple[IgnoreRule, ...]:
        # The weaker first: of two lines that match, the later one decides.
        exclude, ignore = (*parts, ".git", "info", "exclude"), (*parts, ".gitignore")
        return (*self._read_rules(root, exclude), *self._read_rules(root, ignore))

    def _read_rules(self, root: Root, parts: tuple[str, ...]) -> tuple[IgnoreRule, ...]:
        try:
            with open_place(ResolvedPath(root=root, parts=parts)) as file:
                text = file.read_at(0, MOST_IGNORE_BYTES).decode("utf-8-sig", "surrogateescape")
        except KimiError:
            return ()  # there is none, or it is a link: git reads none of those either
        return ignore_rules(text, between=self.bounds.in_time)


def _has_git(folder: PurePath) -> bool:
    """Whether a folder is the top of a repository; in a worktree ``.git`` is a file."""
    try:
        return Path(folder, ".git").exists()
    except OSError:
        return False
