"""Moonshot's dialect of JSON schema: what it refuses, and the same schema within it. Pure, no I/O.

Its four rules (MoonshotAI/kimi-help-center, tool use; 2026-11-23): every property has a type; no ``type`` is beside
``anyOf``; nothing is beside ``$ref``, which leads into the root's ``$defs``; whatever is ``required``
is among the ``properties``.
``problems`` names each breach with its path; ``rewritten`` gives the same schema within the dialect, or None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, cast

Schema = Mapping[str, Any]

_TYPES = ("string", "number", "boolean", "object", "array", "null")

_TYPE_OF_KEYWORD: Mapping[str, str] = {
    "properties": "object",
    "additionalProperties": "object",
    "items": "array",
    "minItems": "array",
    "maxItems": "array",
    "pattern": "string",
    "minLength": "string",
    "maxLength": "string",
    "format": "string",
    "minimum": "number",
    "maximum": "number",
    "multipleOf": "number",
}
"""Keywords that apply to one type alone, and so imply it."""

_BY_NAME = ("properties", "$defs", "definitions", "patternProperties")
_SINGLE = ("items", "additionalProperties")
_LISTED = ("anyOf", "prefixItems")
"""Keywords that hold schemas: by their names, one alone, in a list."""

MAX_DEPTH = 64
"""Schemas nested deeper than this are neither searched nor rewritten."""


def problems(schema: Schema) -> Iterator[str]:
    """Every breach of the dialect, as ``path: what is wrong``, the root's path being ``#``."""
    yield from _problems(schema, "#", schema, 0)


def _problems(schema: Any, path: str, root: Schema, depth: int) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        yield f"{path}: not an object"
        return
    schema = cast(Schema, schema)
    if depth > MAX_DEPTH:
        yield f"{path}: nested deeper than {MAX_DEPTH}"
        return
    if "$ref" in schema:
        if set(schema) - _allowed_beside_ref(depth):
            yield f"{path}: something is beside $ref"
        if not _leads_somewhere(schema["$ref"], root):
            yield f"{path}: $ref leads to nothing in $defs"
    elif isinstance(schema.get("anyOf"), list):
        if "type" in schema:
            yield f"{path}: type is beside anyOf"
    elif "type" not in schema:
        yield f"{path}: no type"
    properties = mapping(schema.get("properties"))
    missing = [name for name in _names(schema.get("required")) if name not in properties]
    if missing and "$ref" not in schema:
        yield f"{path}: required names what is not in properties ({', '.join(missing[:3])})"
    if "$ref" in properties:
        yield f"{path}: a property is called $ref"
    for keyword, key, inner in _inner(schema):
        step = keyword if key is None else f"{keyword}/{key}"
        yield from _problems(inner, f"{path}/{step}", root, depth + 1)


def _allowed_beside_ref(depth: int) -> set[str]:
    return {"$ref"} if depth else {"$ref", "$defs", "definitions"}


def _leads_somewhere(reference: Any, root: Schema) -> bool:
    if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
        return False
    seen: set[str] = set()
    while isinstance(reference, str) and reference not in seen:
        seen.add(reference)
        try:
            target = _target(reference, root)
        except _Inexpressible:
            return False
        if "$ref" not in target:
            return True
        reference = target["$ref"]
    return False  # round and round, and never to a schema


def rewritten(schema: Schema) -> dict[str, Any] | None:
    """The same schema within the dialect, accepting exactly what it accepts; None where the dialect has none."""
    try:
        renamed = _with_defs(schema)
        made = _rewritten(renamed, renamed, 0)
    except _Inexpressible:
        return None
    return None if next(problems(made), None) else made


def _with_defs(schema: Schema) -> Schema:
    """The root with its older ``definitions`` called ``$defs``; what refers to them follows."""
    older, newer = mapping(schema.get("definitions")), mapping(schema.get("$defs"))
    if not older or older.keys() & newer.keys():
        return schema
    return {**{key: schema[key] for key in schema if key != "definitions"}, "$defs": {**older, **newer}}


def _newer(reference: Any) -> Any:
    """A reference into ``definitions`` as one into ``$defs``."""
    return re.sub(r"^#/definitions/", "#/$defs/", reference) if isinstance(reference, str) else reference


def parameters_fault(parameters: Any) -> str | None:
    """What the dialect refuses in a tool's parameters, which are always those of an object; None: it takes them."""
    fault = next(problems(parameters), None)
    if fault is None and not parameters.keys() & {"$ref", "anyOf"} and parameters.get("type") != "object":
        return "#: the type of a tool's parameters is not object"
    return fault


def rewritten_parameters(parameters: Any) -> dict[str, Any] | None:
    """A tool's parameters within the dialect, accepting exactly what they accept; None where the dialect has none."""
    made = rewritten(cast(Schema, parameters)) if isinstance(parameters, Mapping) else None
    return None if made is None or parameters_fault(made) else made


class _Inexpressible(Exception):
    """This schema has no equal within the dialect."""


def _rewritten(schema: Any, root: Schema, depth: int) -> dict[str, Any]:
    if schema is True:
        return _anything()
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        raise _Inexpressible
    new = dict(cast(Schema, schema))
    if "$ref" in new and "definitions" not in root:
        new["$ref"] = _newer(new["$ref"])
    if not new.keys() & {"type", "anyOf", "$ref"}:
        _merge_combined(new)
    if "$ref" in new and set(new) - _allowed_beside_ref(depth):
        reference = new.pop("$ref")
        if "anyOf" in new or ("type" in new and new["type"] != _target(reference, root).get("type")):
            raise _Inexpressible
        new.pop("type", None)
        new["anyOf"] = [{"$ref": reference}]
    if "anyOf" in new and "type" in new:
        if not isinstance(new["anyOf"], list):
            raise _Inexpressible
        branches = _narrowed(cast(list[Any], new["anyOf"]), _types(new.pop("type")), root)
        if not branches:
            raise _Inexpressible
        new["anyOf"] = branches
    if not new.keys() & {"$ref", "anyOf", "type"}:
        new |= _typed(new)
    properties = mapping(new.get("properties"))
    missing = [name for name in _names(new.get("required")) if name not in properties]
    if missing:
        if new.get("additionalProperties", True) is not True:
            raise _Inexpressible
        new["properties"] = {**properties, **{name: _anything() for name in missing}}
    made = {**new}
    for keyword, key, inner in _inner(new):
        if key is None:
            made[keyword] = _rewritten(inner, root, depth + 1)
        else:
            if made[keyword] is new[keyword]:
                made[keyword] = copy(new[keyword])
            made[keyword][key] = _rewritten(inner, root, depth + 1)
    return made


def _merge_combined(new: dict[str, Any]) -> None:
    """Say an untyped ``oneOf`` or ``allOf`` as the ``anyOf`` that accepts the same, where there is one."""
    for keyword in ("oneOf", "allOf"):
        if keyword not in new:
            continue
        branches = new.pop(keyword)
        if "anyOf" in new or not isinstance(branches, list) or not branches:
            raise _Inexpressible
        branches = cast(list[Any], branches)
        if len(branches) > 1 and (keyword == "allOf" or not _exclude_each_other(branches)):
            raise _Inexpressible
        new["anyOf"] = branches


def _exclude_each_other(branches: list[Any]) -> bool:
    """Whether no value can be of two branches' types."""
    kinds = [
        "number" if kind == "integer" else kind
        for branch in branches
        for kind in set(_types(mapping(branch).get("type"))) or {"number", *_TYPES}
    ]
    return len(kinds) == len(set(kinds))


def _typed(schema: Schema) -> dict[str, Any]:
    """The type that an untyped schema means: by its values, by its keywords, else any."""
    if "enum" in schema or "const" in schema:
        values: Any = schema.get("enum", [schema.get("const")])
        if not isinstance(values, list) or not values:
            raise _Inexpressible
        kinds = sorted({_type_of(value) for value in cast(list[Any], values)})
        return {"type": kinds[0] if len(kinds) == 1 else kinds}
    meant = {kind for keyword, kind in _TYPE_OF_KEYWORD.items() if keyword in schema}
    if len(meant) == 1:
        return {"type": meant.pop()}
    if meant or "allOf" in schema or "not" in schema:
        raise _Inexpressible
    return _anything()


def _anything() -> dict[str, Any]:
    return {"anyOf": [{"type": kind} for kind in _TYPES]}


def _type_of(value: Any) -> str:
    kinds = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return kinds.get(cast(type[Any], type(value)), "object")


def _narrowed(branches: list[Any], kinds: tuple[str, ...], root: Schema) -> list[Any]:
    """The branches of an ``anyOf`` with its parent's type repeated in each; those that contradict it are dropped."""
    narrowed: list[Any] = []
    for branch in branches:
        if not isinstance(branch, Mapping):
            raise _Inexpressible
        branch = cast(Schema, branch)
        if "$ref" in branch:
            meant = _types(_target(branch["$ref"], root).get("type"))
            if not meant or not all(_within(kind, kinds) for kind in meant):
                raise _Inexpressible
            narrowed.append(branch)
            continue
        if "anyOf" in branch:
            raise _Inexpressible
        own = _types(branch.get("type", list(kinds)))
        both = [kind for kind in own if _within(kind, kinds)]
        both += [kind for kind in kinds if kind not in both and _within(kind, own)]
        if both:
            narrowed.append({**branch, "type": both[0] if len(both) == 1 else both})
    return narrowed


def _within(kind: str, kinds: tuple[str, ...]) -> bool:
    """Whether every value of that type is of one of those; a whole number is a number too."""
    return kind in kinds or (kind == "integer" and "number" in kinds)


def _target(reference: Any, root: Schema) -> Schema:
    """What a local reference points at."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise _Inexpressible
    found: Any = root
    reference = reference if "definitions" in root else cast(str, _newer(reference))
    for step in reference[1:].split("/")[1:]:
        found = mapping(found).get(step.replace("~1", "/").replace("~0", "~"))
    if not isinstance(found, Mapping):
        raise _Inexpressible
    return cast(Schema, found)


def _inner(schema: Schema) -> Iterator[tuple[str, str | int | None, Any]]:
    """Every schema right inside this one, with its keyword, and its name or index there."""
    for keyword, inner in schema.items():
        if keyword in _BY_NAME:
            yield from ((keyword, name, each) for name, each in mapping(inner).items())
        elif keyword in _LISTED and isinstance(inner, list):
            yield from ((keyword, index, each) for index, each in enumerate(cast(list[Any], inner)))
        elif keyword in _SINGLE and isinstance(inner, Mapping):
            yield keyword, None, inner


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one."""
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def _names(value: Any) -> list[str]:
    return [name for name in cast(list[Any], value) if isinstance(name, str)] if isinstance(value, list) else []


def _types(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(_names(value))
