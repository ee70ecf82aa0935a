"""The formats of hosts' files behind one interface: JSON, JSON with comments, TOML, YAML. Pure, no I/O.

Only what is meant to change changes, and every changed text is read again and compared with what was wanted. tomlkit
and yaml are imported by the first host that needs them.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, cast

from kimi_mcp.cli.install import jsonc
from kimi_mcp.cli.install.jsonc import InvalidJson, KeyPath


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFormat:
    """One format."""

    name: str
    read: Callable[[str], Any]
    """The text's value; an empty mapping where it is empty. Raises ``InvalidJson``."""
    editor: str
    """The module of this package that edits it.

    Its ``with_value`` and ``without`` return the changed text, or yield candidates for it, the best first. Its
    ``is_bare`` says whether there is an empty mapping at a path that exists, with no comment in it or beside it.
    """

    def edit(self) -> Any:
        """The editor, imported when it is first needed."""
        return import_module(f"kimi_mcp.cli.install.{self.editor}")


def changed(
    document: DocumentFormat, text: str, *, put: Sequence[tuple[KeyPath, Any]] = (), cut: Sequence[KeyPath] = ()
) -> str:
    """The text after all changes. Raises ``InvalidJson`` where it can't be read, or not changed safely."""
    wanted = document.read(text)
    for path, value in put:
        if value_at(wanted, path) != value:
            _set(wanted, path, value)
            text = _first_reading(document, document.edit().with_value(text, path, value), [wanted])
    for path in cut:
        if value_at(wanted, path) is not MISSING:
            del value_at(wanted, path[:-1])[path[-1]]
            text = _first_reading(document, document.edit().without(text, path), [wanted, _without_empty(wanted, path)])
            wanted = document.read(text)
    return text


def mapping(value: object) -> Mapping[str, Any]:
    """A value that is a mapping; an empty one in place of anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def listed(value: object) -> list[Any]:
    """A value that is a list; an empty one in place of anything else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


MISSING = object()
"""What ``value_at`` returns where there is nothing."""


def value_at(value: Any, path: KeyPath) -> Any:
    """The value at a path, or ``MISSING``."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return MISSING
    return value


def _first_reading(document: DocumentFormat, texts: str | Iterator[str], wanted: Sequence[Any]) -> str:
    for text in [texts] if isinstance(texts, str) else texts:
        with suppress(InvalidJson):
            if document.read(text) in wanted:
                return text
    raise InvalidJson("it is written in a way that can't be changed safely")


def _set(value: Any, path: KeyPath, new: Any) -> None:
    """Set a value; mappings and lists that are missing on the way, or null, are made."""
    for done, step in enumerate(path):
        if not isinstance(value, list if isinstance(step, int) else dict):
            what = ".".join(map(str, path[:done])) or "the whole"
            raise InvalidJson(f"{what} is not of the kind that holds servers")
        holder, value = cast("Any", value), value_at(value, [step])
        if done + 1 == len(path):
            value = new
        elif value in (MISSING, None):
            value = [] if isinstance(path[done + 1], int) else {}
        if isinstance(step, int) and step >= len(holder):
            holder.append(value)
        else:
            holder[step] = value


def _without_empty(value: Any, path: KeyPath) -> Any:
    """Without the mappings that a cut left empty: TOML has no empty table without a header of its own."""
    value = copy.deepcopy(value)
    for length in range(len(path) - 1, 0, -1):
        if value_at(value, path[:length]) in ({}, []):
            del value_at(value, path[: length - 1])[path[length - 1]]
    return value


def _read_json(text: str, *, comments: bool) -> Any:
    node = jsonc.read(text, comments=comments)
    return {} if node is None else node.value


def _read_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise InvalidJson(str(fault) or "tables within tables without end") from None


def _read_yaml(text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as fault:
        mark = getattr(fault, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise InvalidJson(f"{getattr(fault, 'problem', None) or 'something that is no YAML'}{where}") from None
    return {} if value is None else value


FORMATS: Mapping[str, DocumentFormat] = {
    "json": DocumentFormat(name="JSON", read=partial(_read_json, comments=False), editor="jsonc"),
    "jsonc": DocumentFormat(name="JSON", read=partial(_read_json, comments=True), editor="jsonc"),
    "toml": DocumentFormat(name="TOML", read=_read_toml, editor="tomls"),
    "yaml": DocumentFormat(name="YAML", read=_read_yaml, editor="yamls"),
}
"""Every format, by its name in ``hosts.toml``."""
