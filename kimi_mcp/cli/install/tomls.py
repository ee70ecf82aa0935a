"""Editing TOML text so that nothing else in it changes. Pure, no I/O.

A new table is appended, and a table is cut out by its lines: tomlkit counts the comments behind a table as part of it,
and would move or lose what belongs to the next. tomlkit changes single values, and whatever lines don't show.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import tomlkit
from tomlkit.items import InlineTable

_HEADER = re.compile(r"[ \t]*\[\[?(.+?)\]\]?[ \t]*(#.*)?$")


def with_value(text: str, path: Sequence[str], value: Any) -> Iterator[str]:
    """Candidates for the text with ``value`` at ``path``; tables that are missing on the way are made."""
    if isinstance(value, Mapping):
        yield _appended(text, path, value)
    document = tomlkit.parse(text)
    holder: Any = document
    for step in path[:-1]:
        if step not in holder:
            holder[step] = tomlkit.table(is_super_table=True)
        holder = holder[step]
    holder[path[-1]] = _item(value, inline=isinstance(holder, InlineTable))
    yield _with_line_ends_of(text, tomlkit.dumps(document))


def without(text: str, path: Sequence[str]) -> Iterator[str]:
    """Candidates for the text without the value at ``path``."""
    yield _without_lines(text, path)
    document = tomlkit.parse(text)
    holder: Any = document
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    yield _with_line_ends_of(text, tomlkit.dumps(document))


def is_bare(text: str, path: Sequence[str]) -> bool:
    """False: a cut in TOML removes the tables that are left empty by it, too."""
    del text, path
    return False


def _appended(text: str, path: Sequence[str], value: Any) -> str:
    line_end = "\r\n" if "\r\n" in text else "\n"
    for step in reversed(path):
        value = {step: value}
    gap = "" if not text.strip() else line_end if text.endswith("\n") else line_end * 2
    new = tomlkit.dumps({name: _item(inner, inline=False, super_table=True) for name, inner in value.items()})
    return text + gap + new.replace("\n", line_end)


def _item(value: Any, *, inline: bool, super_table: bool = False) -> Any:
    if not isinstance(value, Mapping):
        return value
    table = tomlkit.inline_table() if inline else tomlkit.table(is_super_table=super_table)
    for name, inner in cast("Mapping[str, Any]", value).items():
        table[name] = _item(inner, inline=inline)
    return table


def _without_lines(text: str, path: Sequence[str]) -> str:
    """Without the lines of a table and of the tables in it. Comments and blank lines at its end stay."""
    kept: list[str] = []
    pending: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if header := _HEADER.match(line.rstrip("\r\n")):
            was_inside, inside = inside, _steps(header[1])[: len(path)] == list(path)
            kept += [each for each in pending if each.strip()] if was_inside and inside else pending
            pending = []
        if not inside:
            kept.append(line)
        elif not line.strip() or line.lstrip().startswith("#"):
            pending.append(line)
        else:
            pending = []
    if inside and not pending and kept and not kept[-1].strip():
        kept.pop()  # the blank line before what was cut
    return "".join([*kept, *pending])


def _steps(name: str) -> list[str]:
    """A dotted name, step by step; nothing where it is none."""
    try:
        node: Any = tomllib.loads(f"{name} = 0")
    except tomllib.TOMLDecodeError:
        return []
    steps: list[str] = []
    while node != 0:
        steps.append(next(iter(node)))
        node = node[steps[-1]]
    return steps


def _with_line_ends_of(old: str, new: str) -> str:
    return new.replace("\r\n", "\n").replace("\n", "\r\n") if "\r\n" in old else new
