"""Editing YAML text so that nothing else in it changes. Pure, no I/O.

PyYAML gives the position of each node; the lines of one entry are put in, replaced, or cut out. The rest of the text is
not touched, so that comments, order and indentation stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

_ALIAS = re.compile(r"\s*:\s*\*[^\s,\]}]+")
_YAML: Any = yaml  # the types of its nodes are not precise enough for a type checker


def with_value(text: str, path: Sequence[str], value: Any) -> str:
    """The text with ``value`` at the end of ``path``; mappings that are missing on the way are made."""
    line_end = "\r\n" if "\r\n" in text else "\n"
    root: Any = _YAML.compose(text, Loader=_YAML.SafeLoader)
    if root is None or _is_null(root):
        if root is not None:  # nothing may follow a written null
            text = text[: root.start_mark.index] + text[root.end_mark.index :].lstrip(" \t\r\n")
        return _ended(text, line_end) + _printed(_wrapped(path, value), 0, line_end)
    holder: Any = root
    for done, step in enumerate(path):
        entry = _entry(holder, step)
        if entry is None:
            return _put_in(text, holder, {step: _wrapped(path[done + 1 :], value)}, line_end)
        key, inner = entry
        if done + 1 == len(path) or _is_empty(inner):
            value = _wrapped(path[done + 1 :], value)
            if done + 1 < len(path) and not holder.flow_style:
                return _filled(text, key, inner, value, line_end)
            return _replaced(text, holder, key, inner, {step: value}, line_end)
        holder = inner
    return text


def without(text: str, path: Sequence[str]) -> str:
    """The text without the value at ``path``."""
    holder, (key, value) = _found(text, path)
    if holder.flow_style:
        place = holder.value.index((key, value))
        start, end = key.start_mark.index, _last(text, key, value)
        if place + 1 < len(holder.value):
            end = holder.value[place + 1][0].start_mark.index
        elif place > 0:
            start = _last(text, *holder.value[place - 1])
        return text[:start] + text[end:]
    start, end = _lines(text, key, value)
    if len(holder.value) > 1:
        return text[:start] + text[end:]
    # The mapping is left empty, which has to be written: no text at all would mean null.
    line_end = "\r\n" if "\r\n" in text else "\n"
    return text[:start] + " " * key.start_mark.column + "{}" + line_end + text[end:]


def is_bare(text: str, path: Sequence[str]) -> bool:
    """Whether there is an empty mapping at ``path``, with no comment in it or beside it."""
    holder, (key, value) = _found(text, path)
    if holder.flow_style:
        return False
    start, end = _lines(text, key, value)
    above = text[text.rfind("\n", 0, max(start - 1, 0)) + 1 : start]
    return "".join(text[start:end].split()) == f"{path[-1]}:{{}}" and not above.lstrip().startswith("#")


def _found(text: str, path: Sequence[str]) -> tuple[Any, tuple[Any, Any]]:
    """The mapping that holds the value at a path that exists, and the entry there."""
    holder: Any = _YAML.compose(text, Loader=_YAML.SafeLoader)
    for step in path[:-1]:
        holder = _existing(holder, step)[1]
    return holder, _existing(holder, path[-1])


def _existing(holder: Any, name: str) -> tuple[Any, Any]:
    entry = _entry(holder, name)
    assert entry is not None
    return entry


def _entry(holder: Any, name: str) -> tuple[Any, Any] | None:
    return next(((key, value) for key, value in reversed(holder.value) if key.value == name), None)


def _is_mapping(node: Any) -> bool:
    return isinstance(node, _YAML.MappingNode)


def _is_block(node: Any) -> bool:
    """Whether a node is a mapping or a list in block style, and not empty."""
    return isinstance(node, _YAML.CollectionNode) and not node.flow_style and bool(node.value)


def _is_alias(key: Any, value: Any) -> bool:
    """Whether a value is an alias: its marks are those of the anchor, before its own key."""
    return value.start_mark.index < key.start_mark.index


def _is_null(node: Any) -> bool:
    return isinstance(node, _YAML.ScalarNode) and node.tag.endswith(":null")


def _is_empty(node: Any) -> bool:
    return _is_null(node) or (_is_mapping(node) and not node.value)


def _put_in(text: str, holder: Any, new: dict[str, Any], line_end: str) -> str:
    if holder.flow_style:
        at = holder.start_mark.index + 1
        inside = json.dumps(new, ensure_ascii=False)[1:-1]
        return text[:at] + inside + (", " if holder.value else "") + text[at:]
    end = _lines(text, *holder.value[-1])[1]
    printed = _printed(new, holder.value[0][0].start_mark.column, line_end)
    return _ended(text[:end], line_end) + printed + text[end:]


def _replaced(text: str, holder: Any, key: Any, value: Any, new: dict[str, Any], line_end: str) -> str:
    if holder.flow_style:
        inside = json.dumps(new, ensure_ascii=False)[1:-1]
        return text[: key.start_mark.index] + inside + text[_last(text, key, value) :]
    start, end = _lines(text, key, value)
    return text[:start] + _printed(new, key.start_mark.column, line_end) + text[end:]


def _filled(text: str, key: Any, value: Any, new: dict[str, Any], line_end: str) -> str:
    """With a value where a key has none; the comment behind it stays."""
    colon = text.index(":", key.end_mark.index) + 1
    end = _lines(text, key, value)[1]
    line = text[:colon] + text[max(colon, _last(text, key, value)) : end]
    return _ended(line, line_end) + _printed(new, key.start_mark.column + 2, line_end) + text[end:]


def _lines(text: str, key: Any, value: Any) -> tuple[int, int]:
    """Start and end of the lines of an entry. Comments behind the last of them belong to what follows."""
    start = text.rfind("\n", 0, key.start_mark.index) + 1
    end = text.find("\n", _last(text, key, value))
    return start, len(text) if end == -1 else end + 1


def _last(text: str, key: Any, value: Any) -> int:
    """Behind the last character of an entry: the end mark of a block is behind the comments that follow it."""
    while _is_block(value) and not _is_alias(key, value):
        key, value = value.value[-1] if _is_mapping(value) else (value.value[-1],) * 2
    if _is_alias(key, value) and (alias := _ALIAS.match(text, key.end_mark.index)):
        return alias.end()
    if value.start_mark.index == value.end_mark.index:
        return key.end_mark.index  # nothing was written
    return len(text[: value.end_mark.index].rstrip())


def _wrapped(path: Sequence[str], value: Any) -> Any:
    for step in reversed(path):
        value = {step: value}
    return value


def _printed(value: Any, column: int, line_end: str) -> str:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1000)
    return "".join(" " * column + line + line_end for line in text.rstrip("\n").split("\n"))


def _ended(text: str, line_end: str) -> str:
    return text if not text or text.endswith("\n") else text + line_end
