"""TOML, changed where it is meant to change and nowhere else. Pure, no I/O.

A new table is put at the end, and one that goes is cut out by its lines: tomlkit counts the comments behind a table
as that table's, and would move or lose what belongs to the next. It changes single values, and whatever is written in
a way that lines don't tell.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.items import InlineTable

from kimi_mcp.cli.install.jsonc import InvalidJson

_HEADER = re.compile(r"[ \t]*\[\[?(.+?)\]\]?[ \t]*(#.*)?$")


def with_value(text: str, path: Sequence[str], value: Any) -> str:
    """The text with ``value`` at the end of ``path``; tables that are missing on the way are made."""
    old = tomllib.loads(text)
    if _is_table(value) and not _stands(old, path):
        new = _appended(text, path, value)
        if new is not None:
            return new
    document = tomlkit.parse(text)
    here: Any = document
    for step in path[:-1]:
        if step not in here:
            here[step] = tomlkit.table(is_super_table=True)
        here = here[step]
        if not _is_table(here):
            raise InvalidJson(f"{step} is not of the kind that holds servers")
    here[path[-1]] = _item(value, inline=isinstance(here, InlineTable))
    return _same_line_ends(text, tomlkit.dumps(document))


def without(text: str, path: Sequence[str]) -> str:
    """The text without what stands at the end of ``path``; unchanged where nothing does."""
    wanted = tomllib.loads(text)
    if not _stands(wanted, path):
        return text
    cut = _without_lines(text, path)
    _drop(wanted, path)
    if _read(cut) == wanted or _read(cut) == _pruned(wanted, path):
        return cut
    document = tomlkit.parse(text)
    here: Any = document
    for step in path[:-1]:
        here = here[step]
    del here[path[-1]]
    return _same_line_ends(text, tomlkit.dumps(document))


def _appended(text: str, path: Sequence[str], value: Any) -> str | None:
    """The text with a new table behind all others; None where TOML does not allow one there."""
    line_end = "\r\n" if "\r\n" in text else "\n"
    for step in reversed(path):
        value = {step: value}
    gap = "" if not text.strip() else line_end if text.endswith("\n") else line_end * 2
    new = text + gap + _dumped(value).replace("\n", line_end)
    read = _read(new)
    return new if read is not None and read == _merged(tomllib.loads(text), value) else None


def _dumped(value: Any) -> str:
    return tomlkit.dumps({name: _item(inner, inline=False, super_table=True) for name, inner in value.items()})


def _merged(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in new.items():
        if _is_table(value) and _is_table(old.get(name)):
            _merged(old[name], value)
        else:
            old[name] = value
    return old


def _item(value: Any, *, inline: bool, super_table: bool = False) -> Any:
    if not _is_table(value):
        return value
    table = tomlkit.inline_table() if inline else tomlkit.table(is_super_table=super_table)
    for name, inner in value.items():
        table[name] = _item(inner, inline=inline)
    return table


def _without_lines(text: str, path: Sequence[str]) -> str:
    """Without the lines of a table and of those below it. Comments and blank lines at their end stay."""
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
        kept.pop()  # the blank line that stood between the rest and what is gone
    return "".join([*kept, *pending])


def _steps(name: str) -> list[str]:
    """A dotted name, step by step; nothing where it is none."""
    node: Any = _read(f"{name} = 0") or {}
    steps: list[str] = []
    while _is_table(node) and node:
        steps.append(next(iter(node)))
        node = node[steps[-1]]
    return steps


def _read(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _stands(value: Any, path: Sequence[str]) -> bool:
    for step in path:
        if not _is_table(value) or step not in value:
            return False
        value = value[step]
    return True


def _drop(value: Any, path: Sequence[str]) -> None:
    for step in path[:-1]:
        value = value[step]
    del value[path[-1]]


def _pruned(value: Any, path: Sequence[str]) -> Any:
    """Without the tables on the way that nothing is left of: TOML has none without a header of their own."""
    for length in range(len(path) - 1, 0, -1):
        holder = value
        for step in path[: length - 1]:
            holder = holder[step]
        if not holder[path[length - 1]]:
            del holder[path[length - 1]]
    return value


def _same_line_ends(old: str, new: str) -> str:
    if "\r\n" not in old:
        return new
    return new.replace("\r\n", "\n").replace("\n", "\r\n")
