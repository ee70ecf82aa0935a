"""A schema within Moonshot's dialect that accepts exactly what the given one accepts. Pure, no I/O.

Only what the dialect refuses is changed, and so that Moonshot's constrained decoding, which knows the dialect's
keywords alone, still allows every value that fits. Types, choices and branches stay in what it knows where that can
be expressed there. The rest moves into ``allOf``, which it reads over and the model reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from typing import Any, cast
from urllib.parse import unquote

from kimi_mcp.policy.schema_dialect import (
    ANNOTATIONS,
    MAX_ANY_OF,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_ENUM,
    RESERVED,
    TYPES,
    Schema,
    has_slash,
    is_of,
    mapping,
    parameters_fault,
    problems,
    size_of,
    type_fault,
)

_TYPE_OF_KEYWORD: Mapping[str, str] = {
    **dict.fromkeys(
        ("properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
         "maxProperties", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties"),
        "object",
    ),
    **dict.fromkeys(
        ("items", "prefixItems", "additionalItems", "contains", "minContains", "maxContains", "minItems", "maxItems",
         "uniqueItems", "unevaluatedItems"),
        "array",
    ),
    **dict.fromkeys(("pattern", "minLength", "maxLength", "format"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
}  # fmt: skip
"""Keywords that say something of values of one type alone."""

_OF_PROPERTIES = ("properties", "patternProperties", "additionalProperties", "required")
_OF_ITEMS = ("items", "prefixItems", "additionalItems")
"""Keywords that mean something together, and so move together."""

_BY_NAME = ("properties", "patternProperties", "dependentSchemas", "dependencies")
_SINGLE = ("items", "additionalProperties", "additionalItems", "not", "if", "then", "else", "contains",
           "propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema")  # fmt: skip
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_HOLD_SCHEMAS = {*_BY_NAME, *_SINGLE, *_LISTED}
_JUDGED = ("properties", "items", "additionalProperties", "anyOf")
_BESIDE_REF = {"$ref", "$schema", "$id"} | ANNOTATIONS
"""Keywords that hold schemas: by their names, one alone, in a list; all of these; those into which the dialect looks;
and those that say nothing beside ``$ref``."""


class _Inexpressible(Exception):
    """This schema has no equal within the dialect."""


def rewritten(schema: Schema) -> dict[str, Any] | None:
    """The same schema within the dialect, accepting exactly what it accepts; None where the dialect has none."""
    if next(problems(schema), None) is None:
        return dict(schema)
    return _made(schema)


def rewritten_parameters(parameters: Any) -> dict[str, Any] | None:
    """A tool's parameters within the dialect, accepting the same objects; None where the dialect has none."""
    if not isinstance(parameters, Mapping):
        return None
    parameters = cast(Schema, parameters)
    return dict(parameters) if parameters_fault(parameters) is None else _made(parameters, of_tool=True)


def _made(schema: Schema, *, of_tool: bool = False) -> dict[str, Any] | None:
    for showing_ends in (False, True):
        try:
            if size_of(schema) > MAX_BYTES:
                return None
            made = _Rewriter(schema, showing_ends).whole(of_tool)
        except (_Inexpressible, RecursionError, ValueError):
            return None
        if (parameters_fault(made) if of_tool else next(problems(made), None)) is None:
            return made
    return None


class _Rewriter:
    """One schema's rewriting, with what its references lead to."""

    def __init__(self, root: Schema, showing_ends: bool) -> None:
        self._root = root
        self._showing_ends = showing_ends
        """Whether what comes to an end says so in the dialect's words, at the cost of length."""
        self._reads_on = "unevaluatedProperties" in repr(root)
        self._reads_beside_ref = "/draft-0" not in str(root.get("$schema"))
        self._narrows_root = False
        """Whether the root accepts less than it did, so that references to it need it as it was."""
        self._names: dict[str, str] = {}
        self._loose: dict[str, bool] = {}
        self._kept: dict[str, dict[str, Any]] = {"$defs": {}, "definitions": {}}
        """What references lead to; in ``definitions`` what ``$defs`` can't hold."""

    def whole(self, of_tool: bool) -> dict[str, Any]:
        """The root, with what its references lead to."""
        root = {key: inner for key, inner in self._root.items() if key not in ("$defs", "definitions")}
        for _ in range(MAX_DEPTH if of_tool else 0):
            self._drop_unread(root)
            if root.get("$ref", "#") != "#" and not root.keys() - _BESIDE_REF:
                root = {**self._target(root.pop("$ref")), **root}
        if of_tool and "object" not in _types(root.get("type", "object")):
            raise _Inexpressible
        if of_tool:
            self._narrows_root = _types(root.get("type")) != ["object"]
            root["type"] = "object"
            for keyword in ("anyOf", "$ref", "enum"):
                _move(root, keyword)
        made = self._schema(root, judged=True, walked=True)
        return {**made, **{key: kept for key, kept in self._kept.items() if kept}}

    def _schema(self, schema: Any, *, judged: bool, walked: bool) -> dict[str, Any]:
        """A schema and those in it. ``judged``: the dialect looks into it; ``walked``: at its references at least."""
        if isinstance(schema, bool):
            return {} if schema else {"not": {}}
        if not isinstance(schema, Mapping) or "$dynamicRef" in schema or "$recursiveRef" in schema:
            raise _Inexpressible
        new = {key: inner for key, inner in cast(Schema, schema).items() if key not in ("$defs", "definitions")}
        if "$ref" in new:
            self._refer(new, judged=judged, walked=walked)
        if walked:
            _move(new, *[key for key, value in new.items() if key not in _HOLD_SCHEMAS and _looks_like_ref(value)])
        if judged:
            self._unite(new)
            self._complete(new)
        made = dict(new)
        for keyword, key, inner in _inner(new):
            below = self._schema(
                inner,
                judged=judged and keyword in _JUDGED,
                walked=walked and (keyword == "anyOf" or not isinstance(key, int)),
            )
            if key is None:
                made[keyword] = below
            else:
                if made[keyword] is new[keyword]:
                    made[keyword] = new[keyword].copy()
                made[keyword][key] = below
        if self._showing_ends and judged and made.get("type") == "array" and not made.get("minItems"):
            return {"anyOf": [{"type": "array", "maxItems": 0}, made]}
        return made

    # ── $ref ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _target(self, reference: Any) -> Schema:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise _Inexpressible
        found: Any = self._root
        for step in map(unquote, reference.split("/")[1:]):
            step = step.replace("~1", "/").replace("~0", "~")
            listed = dict(enumerate(cast(list[Any], found))) if isinstance(found, list) else {}
            found = mapping(found).get(step, listed.get(int(step) if step.isdecimal() else -1))
        if isinstance(found, bool):
            return {} if found else {"not": {}}
        if not isinstance(found, Mapping):
            raise _Inexpressible
        return cast(Schema, found)

    def _refer(self, new: dict[str, Any], *, judged: bool, walked: bool) -> None:
        """Let ``$ref`` lead to a name of ``$defs``, with nothing beside it that the dialect might object to."""
        reference, target = new["$ref"], self._target(new["$ref"])
        self._drop_unread(new)
        if "type" in new and self._is_implied(_types(new["type"]), target):
            del new["type"]
        if walked and (not judged or self._is_loose(reference, target) or new.keys() & {"type", "anyOf", "enum"}):
            _move(new, "$ref")
        elif walked and new.keys() - _BESIDE_REF:
            new["anyOf"] = [{"$ref": new.pop("$ref")}]
        else:
            new["$ref"] = self._named(reference, target)

    def _drop_unread(self, new: dict[str, Any]) -> None:
        """Up to draft 7, what is beside ``$ref`` means nothing."""
        if "$ref" in new and not self._reads_beside_ref:
            for key in new.keys() - _BESIDE_REF:
                del new[key]

    def _is_loose(self, reference: str, target: Schema) -> bool:
        """Whether ``$defs`` can't hold it."""
        if reference not in self._loose:
            self._loose[reference] = self._is_kept(reference) and has_slash({"": target})
        return self._loose[reference]

    def _is_kept(self, reference: str) -> bool:
        """Whether what it leads to is kept under a name; the root need not be."""
        return reference != "#" or self._narrows_root

    def _is_implied(self, kinds: list[str], target: Schema) -> bool:
        meant = _types(target.get("type"))
        return bool(meant) and all(_within(kind, kinds) for kind in meant)

    def _named(self, reference: str, target: Schema) -> str:
        """The reference by which what it leads to is kept."""
        if self._is_kept(reference) and reference not in self._names:
            loose = self._is_loose(reference, target)
            kept = self._kept["definitions" if loose else "$defs"]
            wanted = name = re.sub(r"~1|[~%/{}#]", "_", unquote(reference).rpartition("/")[2]) or "_"
            while name in kept:
                name = f"{wanted}_{len(self._names)}"
            self._names[reference] = f"#/{'definitions' if loose else '$defs'}/{name}"
            kept[name] = {}
            kept[name] = self._schema(target, judged=not loose, walked=True)
        return self._names.get(reference, reference)

    # ── anyOf, type and enum ──────────────────────────────────────────────────────────────────────────────────────

    def _unite(self, new: dict[str, Any]) -> None:
        """Say types, choices and branches by one ``anyOf`` at most, with nothing in it that is beside it too."""
        if isinstance(new.get("anyOf"), list):
            branches = cast(list[Any], new["anyOf"])
            if "type" in new and (narrowed := self._narrowed(branches, _types(new["type"]))) is not None:
                if not narrowed:
                    raise _Inexpressible
                if not _conflicts(new.keys() - {"type"}, narrowed):
                    del new["type"]
                    new["anyOf"] = branches = narrowed
            if new.keys() & {"type", "enum"} or _conflicts(new.keys(), branches):
                _move(new, "anyOf")
        is_untyped = bool(new) and not new.keys() & {"type", "enum", "anyOf", "$ref"}
        if type_fault(new) is not None or (self._showing_ends and is_untyped):
            self._split(new)
        if isinstance(new.get("anyOf"), list):
            new["anyOf"] = _nested(new["anyOf"])

    def _narrowed(self, branches: list[Any], kinds: list[str]) -> list[dict[str, Any]] | None:
        """The branches with their parent's type repeated in each, without those that contradict it; None: no way."""
        narrowed: list[dict[str, Any]] = []
        for branch in branches:
            if not isinstance(branch, Mapping) or "anyOf" in branch:
                return None
            branch = cast(Schema, branch)
            if "$ref" in branch:
                if not self._is_implied(kinds, self._target(branch["$ref"])):
                    return None
                narrowed.append(dict(branch))
                continue
            own = _types(branch.get("type", kinds))
            both = [kind for kind in own if _within(kind, kinds)]
            both += [kind for kind in kinds if kind not in both and _within(kind, own)]
            if both:
                narrowed.append({**branch, "type": both[0] if len(both) == 1 else both})
        return narrowed

    def _split(self, new: dict[str, Any]) -> None:
        """Give each type a branch with the keywords and the choices that are its own."""
        values = new.get("enum")
        if "enum" in new and not isinstance(values, list):
            raise _Inexpressible
        types = new.get("type", [kind for kind in TYPES if kind != "integer"])
        kinds = list(dict.fromkeys(_types(types)))
        if not set(kinds) <= set(TYPES) or (
            isinstance(types, list) and len(_types(types)) < len(cast(list[Any], types))
        ):
            raise _Inexpressible
        branches: list[dict[str, Any]] = []
        for kind in kinds:
            own = {key: new[key] for key in new if _concerns(key, kind)}
            if values is None:
                branches.append({"type": kind, **own})
                continue
            matching = [value for value in cast(list[Any], values) if is_of(value, kind)]
            groups = [matching[at : at + MAX_ENUM] for at in range(0, len(matching), MAX_ENUM)]
            branches += [{"type": kind, **own, "enum": group} for group in groups]
        if not branches:
            raise _Inexpressible
        for key in [key for key in new if key in ("type", "enum") or key in _TYPE_OF_KEYWORD]:
            del new[key]
        new |= branches[0] if len(branches) == 1 else {"anyOf": branches}

    # ── objects and arrays ────────────────────────────────────────────────────────────────────────────────────────

    def _complete(self, new: dict[str, Any]) -> None:
        """Describe every required property; move what the dialect can't say of properties and items."""
        properties, others = mapping(new.get("properties")), new.get("additionalProperties", True)
        missing = [name for name in _names(new.get("required")) if name not in properties]
        if any(name in RESERVED or ("{" in name and "}" in name) for name in [*properties, *missing]):
            _move(new, *_OF_PROPERTIES)
        elif missing and (new.get("patternProperties") or self._reads_on):
            _move(new, "required")
        elif missing:
            if others is False:
                raise _Inexpressible
            new["properties"] = {**properties, **dict.fromkeys(missing, others)}
        if isinstance(new.get("items"), list):
            _move(new, *_OF_ITEMS)


def _conflicts(outer: Set[str], branches: list[Any]) -> bool:
    """Whether what is beside an ``anyOf`` is in a branch too, or will be once both describe what they require."""
    outer = outer - {"anyOf"} - ANNOTATIONS
    outer |= set(_OF_PROPERTIES if outer & set(_OF_PROPERTIES) else ())
    return any(outer & mapping(branch).keys() for branch in branches)


def _move(new: dict[str, Any], *keywords: str) -> None:
    """Move keywords into ``allOf``."""
    if moved := {keyword: new.pop(keyword) for keyword in keywords if keyword in new}:
        new["allOf"] = [*new.get("allOf", ()), moved]


def _looks_like_ref(value: Any) -> bool:
    """Whether a value, of ``default`` or ``const``, has a name that is taken for a reference."""
    if isinstance(value, list):
        return any(map(_looks_like_ref, cast(list[Any], value)))
    return "$ref" in mapping(value) or any(map(_looks_like_ref, mapping(value).values()))


def _nested(branches: list[Any]) -> list[Any]:
    """The branches, in groups of as many as one ``anyOf`` may have."""
    while len(branches) > MAX_ANY_OF:
        branches = [{"anyOf": branches[at : at + MAX_ANY_OF]} for at in range(0, len(branches), MAX_ANY_OF)]
    return branches


def _concerns(keyword: str, kind: str) -> bool:
    return _TYPE_OF_KEYWORD.get(keyword) == ("number" if kind == "integer" else kind)


def _within(kind: str, kinds: list[str]) -> bool:
    """Whether every value of that type is of one of those; a whole number is a number too."""
    return kind in kinds or (kind == "integer" and "number" in kinds)


def _inner(schema: Schema) -> Iterator[tuple[str, str | int | None, Any]]:
    """Every schema right inside this one, with its keyword, and its name or index there."""
    for keyword, inner in schema.items():
        if keyword in _BY_NAME:
            found = mapping(inner).items()
            yield from ((keyword, name, each) for name, each in found if not isinstance(each, list))
        elif keyword in _LISTED and isinstance(inner, list):
            yield from ((keyword, index, each) for index, each in enumerate(cast(list[Any], inner)))
        elif keyword in _SINGLE and (isinstance(inner, Mapping) or keyword == "items"):
            yield keyword, None, inner


def _names(value: Any) -> list[str]:
    return [name for name in cast(list[Any], value) if isinstance(name, str)] if isinstance(value, list) else []


def _types(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else _names(value)
