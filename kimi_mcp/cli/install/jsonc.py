"""Editing JSON text, with or without comments, so that nothing else in it changes. Pure, no I/O.

Hosts' files are written by people: comments, order, odd indentation and line ends are theirs. So a text is never
printed anew: it is read into nodes that know their position, and one member is put in, replaced, or cut out. In plain
JSON a comment or a trailing comma is an error, in ``jsonc`` it is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

KeyPath = Sequence[str | int]
"""The path to a value: names, and positions in lists; a position beyond the end of a list appends."""

_BLANK = re.compile(r"[ \t\r\n]+|//[^\n]*|/\*.*?\*/", re.DOTALL)
_PLAIN = re.compile(r"true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_DEEPEST = 200
_DECODER = json.JSONDecoder()


class InvalidJson(Exception):
    """A text is not valid in its format; the message says what is wrong, and where."""


@dataclass(slots=True, kw_only=True)
class Node:
    """A value and its position in the text."""

    start: int
    """Of its first character; of a member of an object that of its name."""
    value_start: int
    end: int = 0
    """Behind its last character."""
    value: Any = None
    name: str | None = None
    comma: int | None = None
    """Position of the comma behind it; None: there is none."""
    inner: list[Node] = field(default_factory=list["Node"])
    """The values of a list or an object, in order."""


class _JsonReader:
    def __init__(self, text: str, *, comments: bool) -> None:
        self.text, self.comments, self.at = text, comments, 0

    def next_sign(self) -> str:
        """The sign behind blanks and comments; empty at the end."""
        while blank := _BLANK.match(self.text, self.at):
            if blank[0][0] == "/" and not self.comments:
                raise self.wrong("a comment, which this host does not allow")
            self.at = blank.end()
        return self.text[self.at : self.at + 1]

    def take(self, sign: str) -> bool:
        """Whether that sign is next; then it is passed."""
        found = self.next_sign() == sign
        self.at += found
        return found

    def wrong(self, what: str) -> InvalidJson:
        line, before = self.text.count("\n", 0, self.at) + 1, self.text.rfind("\n", 0, self.at)
        return InvalidJson(f"{what}, line {line}, column {self.at - before}")

    def node(self, depth: int = 0) -> Node:
        """The value that begins here."""
        if depth > _DEEPEST:
            raise self.wrong("values within values without end")
        node, sign = Node(start=self.at, value_start=self.at), self.next_sign()
        if sign == "{":
            self._members(node, "}", depth)
            node.value = {each.name: each.value for each in node.inner}
        elif sign == "[":
            self._members(node, "]", depth)
            node.value = [each.value for each in node.inner]
        elif sign == '"':
            node.value = self.string()
        elif plain := _PLAIN.match(self.text, self.at):
            self.at = plain.end()
            node.value = json.loads(plain[0])
        else:
            raise self.wrong("something that is no value" if sign else "an end that comes too soon")
        node.end = self.at
        return node

    def string(self) -> str:
        try:
            text, self.at = _DECODER.raw_decode(self.text, self.at)
        except json.JSONDecodeError as fault:
            self.at = fault.pos
            raise self.wrong("a text that is not closed or holds a sign that has to be escaped") from None
        return text

    def _members(self, node: Node, closing: str, depth: int) -> None:
        self.at += 1
        comma: int | None = self.at
        while not self.take(closing):
            if comma is None:
                raise self.wrong(f"no comma and no {closing} where one belongs")
            start, name = self.at, None
            if closing == "}":
                if self.next_sign() != '"':
                    raise self.wrong("something that is no name in quotation marks")
                name = self.string()
                if not self.take(":"):
                    raise self.wrong("no colon where one belongs")
                self.next_sign()
            inner = self.node(depth + 1)
            inner.start, inner.name = start, name
            comma = inner.comma = self.at - 1 if self.take(",") else None
            node.inner.append(inner)
        if node.inner and comma is not None and not self.comments:
            self.at -= 1
            raise self.wrong("a comma too many")


def read(text: str, *, comments: bool) -> Node | None:
    """The nodes of a text; None where there is nothing but blanks and comments. Raises ``InvalidJson``."""
    reader = _JsonReader(text, comments=comments)
    if not reader.next_sign():
        return None
    node = reader.node()
    if reader.next_sign():
        raise reader.wrong("more than one value")
    return node


def _child(node: Node, step: str | int) -> Node | None:
    """The node one step further. Of members of the same name the last one counts, as for every reader."""
    if isinstance(step, int):
        return node.inner[step] if step < len(node.inner) else None
    return next((each for each in reversed(node.inner) if each.name == step), None)


def _found(text: str, path: KeyPath) -> tuple[Node, Node, int]:
    """The node at a path that exists, what holds it, and its position there."""
    node = holder = read(text, comments=True)
    for step in path:
        assert node is not None
        holder, node = node, _child(node, step)
    assert holder is not None
    assert node is not None
    return holder, node, holder.inner.index(node)


def with_value(text: str, path: KeyPath, value: Any) -> str:
    """The text with ``value`` at ``path``; objects that are missing on the way, or null, are made."""
    root = read(text, comments=True)
    line_end = "\r\n" if "\r\n" in text else "\n"
    unit = (_indentation(text, root.inner[0].start) if root is not None and root.inner else "") or "  "
    if root is None:
        if text.strip() and not text.endswith("\n"):
            text += line_end
        return f"{text}{_printed(_wrapped(path, value), unit, '', line_end)}{line_end}"
    here, done = root, 0
    for done, step in enumerate(path):
        inner = _child(here, step)
        if inner is None:
            return _put_in(text, here, step, _wrapped(path[done + 1 :], value), unit, line_end)
        here = inner
        if here.value is None:  # null in place of an object counts as missing
            value = _wrapped(path[done + 1 :], value)
            break
    one_line = "\n" not in text[root.value_start : root.end]
    new = json.dumps(value, ensure_ascii=False)
    if not one_line:
        new = _printed(value, unit, _indentation(text, here.start), line_end)
    return text[: here.value_start] + new + text[here.end :]


def without(text: str, path: KeyPath) -> str:
    """The text without the value at ``path``, and without its comma."""
    holder, gone, place = _found(text, path)
    start, end = gone.start, gone.end
    if not (text[holder.value_start + 1 : start] + text[end : holder.end - 1]).strip(" \t\r\n,"):
        return text[: holder.value_start + 1] + text[holder.end - 1 :]
    if gone.comma is not None:
        end = gone.comma + 1
    elif place > 0 and (comma := holder.inner[place - 1].comma) is not None:
        text = text[:comma] + text[comma + 1 :]
        start, end = start - 1, end - 1
    return _cut(text, start, end)


def is_bare(text: str, path: KeyPath) -> bool:
    """Whether there is an empty object at ``path``, with no comment in it or beside it."""
    holder, node, place = _found(text, path)
    if "".join(text[node.start : node.end].split()) != f"{json.dumps(path[-1])}:{{}}":
        return False
    before = holder.value_start + 1
    if place:
        last = holder.inner[place - 1]
        before = last.end if last.comma is None else last.comma + 1
    comma, after = (node.end, node.end) if node.comma is None else (node.comma, node.comma + 1)
    following = holder.inner[place + 1].start if place + 1 < len(holder.inner) else holder.end - 1
    # What is on the line of the member before, behind it, is about that one.
    above, beside = text[before : node.start].partition("\n")[2], text[after:following].partition("\n")[0]
    return not (above + text[node.end : comma] + beside).strip()


def _cut(text: str, start: int, end: int) -> str:
    """Without a part, and without its line where nothing else is on it."""
    line = text.rfind("\n", 0, start) + 1
    rest = text.find("\n", end)
    rest = len(text) if rest == -1 else rest
    if text[line:start].strip() or text[end:rest].strip():
        return text[:start].rstrip(" \t") + text[end:]
    return text[:line] + text[rest + 1 :]


def _put_in(text: str, holder: Node, step: str | int, value: Any, unit: str, line_end: str) -> str:
    label = "" if isinstance(step, int) else f"{json.dumps(step, ensure_ascii=False)}: "
    close = holder.end - 1
    alone = text.strip() == text[holder.start : holder.end] and not holder.inner
    if "\n" not in text[holder.value_start : holder.end] and (holder.inner or "\n" not in text.strip()) and not alone:
        new = label + json.dumps(value, ensure_ascii=False)
        if not holder.inner:
            return text[:close].rstrip(" \t") + new + text[close:]
        last = holder.inner[-1]
        comma = "" if last.comma is not None else ","
        return text[: last.end] + comma + text[last.end : close].rstrip(" \t") + " " + new + text[close:]
    outer = _indentation(text, holder.start)
    indent = _indentation(text, holder.inner[-1].start) if holder.inner else outer + unit
    new = label + _printed(value, unit, indent, line_end)
    before = text[:close].rstrip()
    if holder.inner and holder.inner[-1].comma is not None:
        new += ","  # every line of this text ends so
    elif holder.inner:
        last = holder.inner[-1].end
        before = text[:last] + "," + text[last:close].rstrip()
    return f"{before}{line_end}{indent}{new}{line_end}{outer}{text[close:]}"


def _wrapped(path: KeyPath, value: Any) -> Any:
    for step in reversed(path):
        value = [value] if isinstance(step, int) else {step: value}
    return value


def _printed(value: Any, unit: str, indent: str, line_end: str) -> str:
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", line_end + indent)


def _indentation(text: str, at: int) -> str:
    """The blanks at the beginning of the line of a position."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]
