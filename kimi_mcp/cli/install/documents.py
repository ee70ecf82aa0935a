"""The kinds of files in which hosts keep their servers, one face for all. Pure, no I/O.

Whatever the kind: only what is meant to change changes, and what comes out is read again and held against what was
wanted before anybody writes it. tomlkit and yaml are imported by the first host that needs them.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from kimi_mcp.cli.install import jsonc
from kimi_mcp.cli.install.jsonc import InvalidJson

KeyPath = Sequence[str | int]
"""The way to a value: names, and places in lists; a place beyond the end of a list appends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFormat:
    """One kind of file."""

    name: str
    """What people call it."""
    read: Callable[[str], Any]
    """The text's value; an empty mapping where it says nothing. Raises ``InvalidJson``."""
    put: Callable[[str, KeyPath, Any], str]
    """The text with a value at the end of a path."""
    cut: Callable[[str, KeyPath], str]
    """The text without what stands at the end of a path."""
    is_bare: Callable[[str, KeyPath], bool]
    """Whether an empty mapping stands at the end of a path, with no comment in it or beside it."""


def changed(
    kind: DocumentFormat, text: str, *, put: Sequence[tuple[KeyPath, Any]] = (), cut: Sequence[KeyPath] = ()
) -> str:
    """The text after all changes. Raises ``InvalidJson`` where it can't be read, or not changed without harm."""
    wanted = copy.deepcopy(kind.read(text))
    new = text
    for path, value in put:
        if _at(kind.read(new), path) != value:
            new = kind.put(new, path, value)
            _set(wanted, path, value)
    for path in cut:
        new = kind.cut(new, path)
        _drop(wanted, path)
    if kind.read(new) not in (wanted, *_without_empty(wanted, cut)):
        raise InvalidJson("it is written in a way that can't be changed without harm")
    return new


def mapping(value: object) -> Mapping[str, Any]:
    """A value that is a mapping; an empty one in the place of anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def listed(value: object) -> list[Any]:
    """A value that is a list; an empty one in the place of anything else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


_MISSING = object()


def _at(value: Any, path: KeyPath) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return value


def _set(value: Any, path: KeyPath, new: Any) -> None:
    for step, following in itertools.pairwise(path):
        if _at(value, [step]) in (_MISSING, None):
            value[step] = [] if isinstance(following, int) else {}
        value = value[step]
    if isinstance(path[-1], int) and path[-1] >= len(value):
        value.append(new)
    else:
        value[path[-1]] = new


def _without_empty(value: Any, paths: Sequence[KeyPath]) -> list[Any]:
    """What is as good as ``value`` after a cut: without the holders that were left empty, for TOML has no such."""
    value = copy.deepcopy(value)
    for path in paths:
        for length in range(len(path) - 1, 0, -1):
            if _at(value, path[:length]) in ({}, []):
                _drop(value, path[:length])
    return [value] if paths else []


def _drop(value: Any, path: KeyPath) -> None:
    holder = _at(value, path[:-1])
    if _at(value, path) is not _MISSING:
        del holder[path[-1]]


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _json(name: str, *, comments: bool) -> DocumentFormat:
    def read(text: str) -> Any:
        node = jsonc.read(text, comments=comments)
        return {} if node is None else node.value

    return DocumentFormat(
        name=name,
        read=read,
        put=lambda text, path, value: jsonc.with_value(text, path, value, comments=comments),
        cut=lambda text, path: jsonc.without(text, path, comments=comments),
        is_bare=lambda text, path: jsonc.is_bare(text, path, comments=comments),
    )


# ── TOML ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise InvalidJson(str(fault) or "tables within tables without end") from None


def _put_toml(text: str, path: KeyPath, value: Any) -> str:
    from kimi_mcp.cli.install import tomls

    return tomls.with_value(text, [str(step) for step in path], value)


def _cut_toml(text: str, path: KeyPath) -> str:
    from kimi_mcp.cli.install import tomls

    return tomls.without(text, [str(step) for step in path])


# ── YAML ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_yaml(text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as fault:
        mark = getattr(fault, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise InvalidJson(f"{getattr(fault, 'problem', None) or 'something that is no YAML'}{where}") from None
    return {} if value is None else value


def _put_yaml(text: str, path: KeyPath, value: Any) -> str:
    from kimi_mcp.cli.install import yamls

    return yamls.with_value(text, [str(step) for step in path], value)


def _cut_yaml(text: str, path: KeyPath) -> str:
    from kimi_mcp.cli.install import yamls

    return yamls.without(text, [str(step) for step in path])


def _is_bare_yaml(text: str, path: KeyPath) -> bool:
    from kimi_mcp.cli.install import yamls

    return yamls.is_bare(text, [str(step) for step in path])


KINDS: Mapping[str, DocumentFormat] = {
    "json": _json("JSON", comments=False),
    "jsonc": _json("JSON", comments=True),
    # What is cut out of TOML takes the tables along that were there for it alone.
    "toml": DocumentFormat(
        name="TOML", read=_read_toml, put=_put_toml, cut=_cut_toml, is_bare=lambda text, path: False
    ),
    "yaml": DocumentFormat(name="YAML", read=_read_yaml, put=_put_yaml, cut=_cut_yaml, is_bare=_is_bare_yaml),
}
"""Every kind, by the word for it in ``hosts.toml``."""
