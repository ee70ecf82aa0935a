"""YAML, changed where it is meant to change and nowhere else. Pure, no I/O.

PyYAML says where each node stands; the lines of one entry are put in, put in the place of others, or cut out. The
rest of the text is not touched, so that comments, order and indentation stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from kimi_mcp.cli.install.jsonc import InvalidJson

_ALIAS = re.compile(r"\s*:\s*\*[^\s,\]}]+")
_YAML: Any = yaml  # what it says of its nodes' types is not enough for a type checker


def with_value(text: str, path: Sequence[str], value: Any) -> str:
    """The text with ``value`` at the end of ``path``; mappings that are missing on the way are made."""
    line_end = "\r\n" if "\r\n" in text else "\n"
    root: Any = _YAML.compose(text, Loader=_YAML.SafeLoader)
    if root is None or _is_null(root):
        if root is not None:  # a written null says nothing, and nothing may follow it
            text = text[: root.start_mark.index] + text[root.end_mark.index :].lstrip(" \t\r\n")
        return _ended(text, line_end) + _printed(_wrapped(path, value), 0, line_end)
    holder: Any = root
    for done, step in enumerate(path):
        if not _is_mapping(holder):
            raise InvalidJson(f"{'.'.join(path[:done]) or 'the whole'} is not of the kind that holds servers")
        entry = _entry(holder, step)
        if entry is None:
            return _put_in(text, holder, {step: _wrapped(path[done + 1 :], value)}, line_end)
        key, inner = entry
        if done + 1 == len(path) or _says_nothing(inner):
            value = _wrapped(path[done + 1 :], value)
            if done + 1 < len(path) and not holder.flow_style:
                return _filled(text, key, inner, value, line_end)
            return _replaced(text, holder, key, inner, {step: value}, line_end)
        holder = inner
    return text


def without(text: str, path: Sequence[str]) -> str:
    """The text without what stands at the end of ``path``; unchanged where nothing does."""
    holder, entry = _found(text, path)
    if entry is None:
        return text
    if holder.flow_style:
        return _without_braced(text, holder, entry)
    start, end = _lines(text, *entry)
    if len(holder.value) > 1:
        return text[:start] + text[end:]
    # Nothing would be left: an empty mapping says so, where no text at all would say null.
    line_end = "\r\n" if "\r\n" in text else "\n"
    return text[:start] + " " * entry[0].start_mark.column + "{}" + line_end + text[end:]


def is_bare(text: str, path: Sequence[str]) -> bool:
    """Whether a mapping that holds nothing stands at the end of ``path``, with no comment in it or beside it."""
    holder, entry = _found(text, path)
    if entry is None or holder.flow_style:
        return False
    start, end = _lines(text, *entry)
    above = text[text.rfind("\n", 0, max(start - 1, 0)) + 1 : start]
    return "".join(text[start:end].split()) == f"{path[-1]}:{{}}" and not above.lstrip().startswith("#")


def _without_braced(text: str, holder: Any, entry: tuple[Any, Any]) -> str:
    place = holder.value.index(entry)
    start, end = entry[0].start_mark.index, _last(text, *entry)
    if place + 1 < len(holder.value):
        end = holder.value[place + 1][0].start_mark.index
    elif place > 0:
        start = _last(text, *holder.value[place - 1])
    return text[:start] + text[end:]


def _found(text: str, path: Sequence[str]) -> tuple[Any, tuple[Any, Any] | None]:
    """What holds the end of a path, and the entry there; None where there is none."""
    holder: Any = _YAML.compose(text, Loader=_YAML.SafeLoader)
    for step in path[:-1]:
        entry = _entry(holder, step) if _is_mapping(holder) else None
        holder = entry[1] if entry else None
    return holder, _entry(holder, path[-1]) if _is_mapping(holder) else None


def _entry(holder: Any, name: str) -> tuple[Any, Any] | None:
    return next(((key, value) for key, value in reversed(holder.value) if key.value == name), None)


def _is_mapping(node: Any) -> bool:
    return isinstance(node, _YAML.MappingNode)


def _is_block(node: Any) -> bool:
    """Whether a node is a mapping or a list of lines, with at least one."""
    return isinstance(node, _YAML.CollectionNode) and not node.flow_style and bool(node.value)


def _is_alias(key: Any, value: Any) -> bool:
    """Whether a value stands elsewhere: then its marks are those of the anchor, before its own key."""
    return value.start_mark.index < key.start_mark.index


def _is_null(node: Any) -> bool:
    return isinstance(node, _YAML.ScalarNode) and node.tag.endswith(":null")


def _says_nothing(node: Any) -> bool:
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
    """With something where a key says nothing; the comment behind it stays."""
    colon = text.index(":", key.end_mark.index) + 1
    end = _lines(text, key, value)[1]
    line = text[:colon] + text[max(colon, _last(text, key, value)) : end]
    return _ended(line, line_end) + _printed(new, key.start_mark.column + 2, line_end) + text[end:]


def _lines(text: str, key: Any, value: Any) -> tuple[int, int]:
    """From where to where the lines of an entry go. Comments behind the last of them belong to what follows."""
    start = text.rfind("\n", 0, key.start_mark.index) + 1
    end = text.find("\n", _last(text, key, value))
    return start, len(text) if end == -1 else end + 1


def _last(text: str, key: Any, value: Any) -> int:
    """Behind the last sign of an entry: the end mark of a block stands behind the comments that follow it."""
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
