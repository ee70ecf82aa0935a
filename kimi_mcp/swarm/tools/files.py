"""``FileTools``: sub-agents list, search and read files within the roots, and change nothing. I/O, in threads.

What may be read is what ``files`` of a call may name: no links, no keys, nothing outside; lists and searches skip what
globs skip. Each call is bounded in time, in what it looks at and in what it returns.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, Final

import anyio.to_thread

from kimi_mcp.core.errors import CallRefused, InvalidArguments
from kimi_mcp.core.json_schema import line_matcher
from kimi_mcp.media.files import is_file, is_folder, shown
from kimi_mcp.media.roots import LONGEST_PATH, ResolvedPath, Roots
from kimi_mcp.media.search import Search
from kimi_mcp.media.text_files import read_text
from kimi_mcp.swarm.tools.source import CallResult, ListedTool, ToolLimits, ToolSource

NAME: Final = "files"
"""The source's name in patterns."""

PAGE_CHARS: Final = 24_000
"""Characters of a page of a file: with its frame it fits into a result."""

MOST_NAMES: Final = 1_000
"""Names in one list."""

MOST_MATCHES: Final = 200
"""Lines that one search returns."""

LINE_CHARS: Final = 2_000
"""Characters of a line that are searched; of a longer one each stretch of so many."""

SHOWN_CHARS: Final = 300
"""Characters of a matching line that are returned."""

SEARCH_S: Final = 10.0
"""Seconds of one search."""

MOST_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a file that is read or searched: more than any model's context holds."""


def _tool(name: str, description: str, required: tuple[str, ...], **properties: tuple[str, str]) -> ListedTool:
    rows = {key: {"type": kind, "description": text} for key, (kind, text) in properties.items()}
    schema = {"type": "object", "properties": rows, "required": list(required), "additionalProperties": False}
    return ListedTool(name=name, description=description, schema=schema, read_only=True)


TOOLS: Final = (
    _tool(
        "list",
        "List a folder, or the files that a glob matches. Hidden, git-ignored and key files are left out.",
        (),
        folder=("string", "Relative path; the first folder by default."),
        glob=("string", "Such as **/*.py, counted from `folder`."),
    ),
    _tool(
        "search",
        "Find the lines of text files that a regular expression matches, without look-around and back-references.",
        ("regex",),
        regex=("string", "Matched in each line; (?i) at its start ignores case."),
        glob=("string", "Which files, such as src/**/*.py; all by default."),
    ),
    _tool(
        "read",
        "Read a text file, a page at a time.",
        ("path",),
        path=("string", "As listed."),
        line=("integer", "The first line, from 1."),
        offset=("integer", "Characters of that line to skip, where a page says so."),
    ),
)
"""The tools of the source."""


class FileTools(ToolSource):
    """The files within the roots. ``roots`` may block."""

    def __init__(
        self,
        roots: Callable[[], Roots],
        limits: ToolLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(NAME, limits or ToolLimits(calls_at_once=4))
        self.tools = {tool.name: tool for tool in TOOLS}
        self._find_roots, self._clock = roots, clock
        self._roots: Roots | None = None

    async def serve(self) -> None:
        """Find the roots, once for the whole swarm."""
        roots = await anyio.to_thread.run_sync(self._find_roots, abandon_on_cancel=True)
        if roots.folders:
            self._roots = roots
        else:
            self.fault = f"no folder may be read ({roots.why_none}). The operator can set KIMI_ROOTS"
            self.tools = {}

    def stop(self) -> None:
        """Do nothing: ``serve`` has ended."""

    async def send(self, name: str, tool: ListedTool, arguments: Mapping[str, Any]) -> CallResult:
        """Run a call in a thread, which is left behind where its time is over."""
        work = {"list": self._list, "search": self._search, "read": self._read}[tool.name]
        try:
            text = await anyio.to_thread.run_sync(partial(work, **arguments), abandon_on_cancel=True)
        except CallRefused as refused:
            return CallResult.refused(f"{refused.message} {refused.fix}")
        return self.framed(name, text, is_error=False)

    # ── in a thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _list(self, folder: str = ".", glob: str | None = None) -> str:
        roots, search = self._resolved(), Search(self._resolved(), argument="glob", clock=self._clock)
        if not glob:
            entries = search.entries(roots.resolve(folder or "."))
            names = (self._name(path) + ("/" if is_folder else "") for path, is_folder in entries)
        else:
            names = map(self._name, search.find(glob, roots.resolve(folder or ".")))
        lines, cut = _some(names, MOST_NAMES)
        if not lines:
            lines = ["(nothing)"]
        if cut:
            lines.append(f"[cut after {MOST_NAMES:,} names: use a narrower `glob`]")
        lines += _left_out(search.skipped)
        others = [root.path for root in roots.folders[1:]] if folder in ("", ".") and not glob else []
        return "\n".join([*lines, *(f"[another folder: {other}]" for other in others)])

    def _search(self, regex: str, glob: str = "") -> str:
        try:
            matches = line_matcher(regex, longest=LINE_CHARS)
        except ValueError as why:
            raise InvalidArguments(f"`regex` can't be used: {why}.", fix="Write a simpler one.") from None
        search, looked_at = Search(self._resolved(), argument="glob", clock=self._clock), Counter[str]()
        paths, until = self._meant(glob, search), self._clock() + SEARCH_S
        lines, notes = list[str](), list[str]()
        try:
            for line in self._matching(paths, matches, looked_at):
                if line is not None:
                    lines.append(line)
                if len(lines) == MOST_MATCHES:
                    notes.append(f"[cut after {MOST_MATCHES} lines: use a narrower `regex` or `glob`]")
                    break
                if self._clock() > until:
                    notes.append(f"[stopped after {SEARCH_S:.0f} seconds: use a narrower `glob`]")
                    break
        except InvalidArguments as beyond:  # a limit of the search for files; what it had found counts
            if not looked_at:
                raise
            notes.append(f"[stopped: {beyond.message} {beyond.fix}]")
        notes.append(f"[{looked_at['text']:,} text files were searched]")
        return "\n".join([*(lines or ["(no line matches)"]), *notes, *_left_out(search.skipped)])

    def _meant(self, glob: str, search: Search) -> Iterable[ResolvedPath]:
        """The files that are to be searched: one that is named, all of a folder, those that a glob matches, or all."""
        roots = self._resolved()
        if not glob:
            return chain.from_iterable(search.find("**/*", ResolvedPath(root=root, parts=())) for root in roots.folders)
        path = roots.resolve(glob)
        if is_file(path):
            return [path]
        return search.find("**/*", path) if is_folder(path) else search.find(glob)

    def _matching(
        self, paths: Iterable[ResolvedPath], matches: Callable[[str], bool], looked_at: Counter[str]
    ) -> Iterator[str | None]:
        """The lines that match, as they are found; None now and then between them, for a look at the clock."""
        for path in paths:
            try:
                text = read_text(path, most_bytes=MOST_BYTES)
            except CallRefused:
                looked_at["other"] += 1
                continue
            looked_at["text"] += 1
            for number, line in enumerate(text.split("\n"), 1):
                for at in range(0, max(len(line), 1), LINE_CHARS):
                    if matches(line[at : at + LINE_CHARS]):
                        yield f"{self._name(path)}:{number}: {line.strip()[:SHOWN_CHARS]}"
                        break
                    if at or not number % 100:
                        yield None
            yield None

    def _read(self, path: str, line: float = 1, offset: float = 0) -> str:  # 1.0 is an integer in JSON schema
        found = self._resolved().resolve(path)
        lines = read_text(found, most_bytes=MOST_BYTES).split("\n")
        if lines[-1] == "":
            lines.pop()  # what ends with a line feed has no line behind it
        name = self._name(found)
        if not lines:
            return f"[{name} is empty]"
        first = last = max(int(line), 1) - 1
        if first >= len(lines):
            raise InvalidArguments(f"`{name}` has {len(lines):,} lines.", fix="Give a smaller `line`.")
        page = lines[first][max(int(offset), 0) :]
        while len(page) < PAGE_CHARS and last + 1 < len(lines):
            last += 1
            page += "\n" + lines[last]
        following = ""
        if len(page) > PAGE_CHARS:
            rest = len(page) - PAGE_CHARS  # of the last line, which begins in this page
            page, at = page[:PAGE_CHARS], len(lines[last]) - rest
            following = f"; read on with line={last + 1}" + (f", offset={at}" if at > 0 else "")
        elif last + 1 < len(lines):
            following = f"; read on with line={last + 2}"
        return f"[{name}: lines {first + 1:,} to {last + 1:,} of {len(lines):,}{following}]\n{page}"

    def _resolved(self) -> Roots:
        assert self._roots is not None, "without roots no tool is offered"
        return self._roots

    def _name(self, path: ResolvedPath) -> str:
        return shown(self._resolved().spelled(path), longest=LONGEST_PATH)


def _some(names: Iterable[str], most: int) -> tuple[list[str], bool]:
    found = list(islice(names, most + 1))
    return found[:most], len(found) > most


def _left_out(skipped: Counter[str]) -> list[str]:
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
    return [f"[left out: {reasons}]"] if reasons else []
