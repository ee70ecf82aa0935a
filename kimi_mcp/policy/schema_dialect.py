"""Moonshot's dialect of JSON schema: what its validator refuses, and why. Pure, no I/O.

The rules and bounds are those of MoonshotAI/walle at level strict (196bb0c, 2026-06-29), whose verdicts a test holds.
What it does not know (``oneOf``, ``allOf``, ``not``, ``const``, ``format`` and the like) it neither refuses nor looks
into. It refused a description beside ``$ref`` until 2026-06-09 (kimi-cli#2061, kimi-cli#1903) and has taken it since
(opencodex#2673, 2026-08-26). That every property needs a type, as the help center has it, is no rule of it: Moonshot
takes ``{}`` (oh-my-pi#5918, 2026-07-23). A tool's parameters are those of an object, whose type is at the root: both
``type`` beside ``anyOf`` and ``anyOf`` alone were refused there (Codewhale#4613, vercel/ai#18921).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

Schema = Mapping[str, Any]

MAX_BYTES: Final = 120_000
"""Of a whole schema as compact JSON, in which ``<``, ``>`` and ``&`` take six bytes each."""
MAX_DEPTH: Final = 30
"""Of objects within objects, by ``properties`` and by ``$ref``."""
MAX_PROPERTIES: Final = 3_000
"""Of all objects together."""
MAX_ENUM: Final = 1_000
MAX_ANY_OF: Final = 500

TYPES: Final = ("string", "number", "integer", "boolean", "object", "array", "null")
ANNOTATIONS: Final = frozenset({"title", "description"})
"""What may stand beside anything."""
RESERVED: Final = frozenset({"$defs", "$ref", "anyOf", "required", "additionalProperties"})
"""What no property may be called."""
_AT_ROOT: Final = frozenset({"$defs", "$id"})


def problems(schema: Any) -> Iterator[str]:
    """Every breach of the dialect, as ``path: what is wrong``, the root's path being ``#``."""
    if not isinstance(schema, Mapping):
        yield "#: not an object"
        return
    try:
        if (size := size_of(cast(Schema, schema))) > MAX_BYTES:
            yield f"#: {size:,} bytes, and the most is {MAX_BYTES:,}"
        else:
            yield from _Judge(cast(Schema, schema)).problems()
    except RecursionError:
        yield "#: nested too deeply to be read"
    except ValueError:
        yield "#: it holds a number that JSON can't say"


def parameters_fault(parameters: Any) -> str | None:
    """What the dialect refuses in a tool's parameters, which are always those of an object; None: it takes them."""
    fault = next(problems(parameters), None)
    if fault is None and parameters.get("type") != "object":
        return "#: the type of a tool's parameters is not object"
    return fault


def size_of(schema: Schema) -> int:
    """Its bytes, as Moonshot counts them."""
    written = json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    escaped = 5 * sum(map(written.count, "<>&")) + 3 * sum(map(written.count, "\u2028\u2029"))
    return len(written.encode("utf-8", "surrogatepass")) + escaped


class _Judge:
    """One schema, with what its references lead to."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._properties = 0
        self._references: list[tuple[str, str]] = []
        self._depths: dict[str, int] = {}
        self._ends: dict[str, bool] = {}

    def problems(self) -> Iterator[str]:
        is_sound = True
        for problem in self._within(self._root, "#", 0, lost=False):
            is_sound = False
            yield problem
        if self._properties > MAX_PROPERTIES:
            yield f"#: {self._properties:,} properties in all, and the most is {MAX_PROPERTIES:,}"
        elif is_sound:
            broken = [path for path, reference in self._references if self._target(reference) is None]
            yield from (f"{path}: $ref leads to nothing in $defs" for path in broken)
            if not broken:
                yield from self._placed(self._root, (), check_end=not self._comes_to_an_end(self._root, set()))

    def _within(self, schema: Schema, path: str, depth: int, *, lost: bool) -> Iterator[str]:
        """What is wrong in a schema and below it. ``lost``: a name on its path has braces, which loses walle's way."""
        if depth > MAX_DEPTH:
            yield f"{path}: more than {MAX_DEPTH} objects within each other"
            return
        for fault in faults(schema, self._root, is_root=path == "#", lost=lost):
            yield f"{path}: {fault}"
        reference = schema.get("$ref")
        if isinstance(reference, str):
            self._references.append((path, reference))
            if depth + self._depth_behind(reference) > MAX_DEPTH:
                yield f"{path}: more than {MAX_DEPTH} objects within each other behind $ref"
        for keyword, key, inner in inspected(schema):
            within_properties = keyword == "properties"
            self._properties += within_properties
            step = keyword if key is None else f"{keyword}/{key}"
            astray = isinstance(key, str) and "{" in key and "}" in key
            yield from self._within(inner, f"{path}/{step}", depth + within_properties, lost=lost or astray)

    # ── references ────────────────────────────────────────────────────────────────────────────────────────────────

    def _target(self, reference: str) -> Schema | None:
        """What a reference leads to, as walle finds it: by plain names, through objects alone."""
        found: Any = self._root
        for step in [] if reference == "#" else reference.removeprefix("#/").split("/"):
            found = mapping(found).get(step)
        return cast(Schema, found) if isinstance(found, Mapping) else None

    def _depth_behind(self, reference: str) -> int:
        """Objects within each other behind a reference; what it comes back to counts once."""
        if reference not in self._depths:
            self._depths[reference] = 0  # "#" stays so: the root has been counted
            if reference != "#":
                self._depths[reference] = self._depth(self._target(reference) or {})
        return self._depths[reference]

    def _depth(self, schema: Schema) -> int:
        reference = schema.get("$ref")
        deepest = self._depth_behind(reference) if isinstance(reference, str) else 0
        if isinstance(schema.get("properties"), Mapping):
            deepest = max(deepest, 1)
        for keyword, _, inner in inspected(schema):
            if keyword in ("properties", "anyOf", "additionalProperties"):
                deepest = max(deepest, self._depth(inner) + (keyword == "properties"))
        return deepest

    def _placed(self, node: Schema, path: tuple[str, ...], *, check_end: bool) -> Iterator[str]:
        """What is wrong with references by where they are; walle looks into every object but ``$defs``."""
        if "$ref" in node:
            yield from (f"{'/'.join(('#', *path))}: {fault}" for fault in self._reference_faults(node, path, check_end))
        for key, inner in node.items():
            if key == "anyOf" and isinstance(inner, list):
                for index, branch in enumerate(cast(list[Any], inner)):
                    if isinstance(branch, Mapping):
                        yield from self._placed(cast(Schema, branch), (*path, f"anyOf/{index}"), check_end=check_end)
            elif isinstance(inner, Mapping) and key != "$defs":
                may_be_absent = key == "additionalProperties" or (key == "properties" and node.get("required") == [])
                yield from self._placed(cast(Schema, inner), (*path, key), check_end=check_end and not may_be_absent)

    def _reference_faults(self, node: Schema, path: tuple[str, ...], check_end: bool) -> Iterator[str]:
        reference = node["$ref"]
        is_local = isinstance(reference, str) and (reference == "#" or reference.startswith("#/$defs/"))
        target = self._target(reference) if is_local else None
        if target is None:
            yield "$ref leads to nothing in $defs"
            return
        seen = {reference}
        while not target.keys() - {"$ref"} - ANNOTATIONS and isinstance(onward := target.get("$ref"), str):
            if onward in seen or (further := self._target(onward)) is None:
                break
            seen.add(onward)
            target = further
        beside = node.keys() - {"$ref"}
        if conflicts := (beside & target.keys()) - ANNOTATIONS:
            yield f"{_few(conflicts)} is beside $ref and in what it leads to"
        if ("type" in beside and "anyOf" in target) or ("type" in target and "anyOf" in beside):
            yield "type and anyOf meet by $ref"
        for branch in _list(target.get("anyOf")):
            if conflicts := (beside & mapping(branch).keys()) - ANNOTATIONS - {"anyOf"}:
                yield f"{_few(conflicts)} is beside $ref and in the anyOf that it leads to"
        where, last = path[-2:-1], "".join(path[-1:])
        if where not in ((), ("properties",)) and last not in ("additionalProperties", "items") and last[:5] != "anyOf":
            yield "$ref is where none is allowed"
        if check_end and not self._has_an_end(reference, set()):
            yield "what $ref leads to never comes to an end"

    def _comes_to_an_end(self, schema: Schema, seen: set[str]) -> bool:
        """Whether walle sees a finite value of it: one required property with an end is enough."""
        kinds = _types(schema.get("type"))
        if set(kinds) - {"object", "array"} or not schema:
            return True
        if kinds[-1:] == ["array"] and (not schema.get("items") or self._comes_to_an_end(schema["items"], seen)):
            return True
        if kinds[-1:] == ["object"]:
            properties, required = mapping(schema.get("properties")), _list(schema.get("required"))
            if not required or not properties:
                return True
            if any(self._comes_to_an_end(properties[name], seen) for name in properties if name in required):
                return True
        if any(self._comes_to_an_end(branch, seen) for branch in _list(schema.get("anyOf"))):
            return True
        reference = schema.get("$ref")
        return isinstance(reference, str) and self._has_an_end(reference, seen)

    def _has_an_end(self, reference: str, seen: set[str]) -> bool:
        if reference not in self._ends and reference not in seen:
            is_outermost = not seen
            seen.add(reference)
            if self._comes_to_an_end(self._target(reference) or {}, seen):
                self._ends[reference] = True
            elif is_outermost:
                self._ends |= dict.fromkeys(seen, False)
        return self._ends.get(reference, False)


# ── one schema by itself ──────────────────────────────────────────────────────────────────────────────────────────


def faults(schema: Schema, root: Schema, *, is_root: bool, lost: bool = False) -> Iterator[str]:
    """What is wrong with a schema by itself: not with those inside it, nor with what ``$ref`` leads to."""
    if "type" in schema and (fault := _type_fault(schema, is_root)):
        yield fault
        return
    for keyword, check in _CHECKS.items():
        if keyword in schema and (fault := check(schema[keyword], schema, root)):
            yield fault
            return
    needs_a_way = [keyword for keyword in ("enum", "anyOf", "required") if schema.get(keyword)]
    if lost and (needs_a_way or schema.get("$ref", "#") != "#"):
        yield f"{_few(needs_a_way or ['$ref'])} is below a name with braces"
    beside = schema.keys() - {"anyOf"} - ANNOTATIONS
    for branch in _list(schema.get("anyOf")):
        if conflicts := beside & branch.keys():
            yield f"{_few(conflicts)} is beside anyOf and in it"


def _type_fault(schema: Schema, is_root: bool) -> str | None:
    kinds = _types(schema["type"])
    if beside := schema.keys() & {"anyOf", "$ref"}:
        return f"type is beside {_few(beside)}"
    if not kinds or not set(kinds) <= set(TYPES):
        return "type is none of the dialect's"
    takes_all = len(kinds) == 2 and schema.get("enum") is not None and not {"object", "array"} & set(kinds)
    beside = schema.keys() - {"type"} - ANNOTATIONS - (_AT_ROOT if is_root else frozenset[str]())
    return f"{_few(beside)} is beside several types" if len(kinds) > 1 and beside and not takes_all else None


def _properties(value: Any, schema: Schema, root: Schema) -> str | None:
    if not isinstance(value, Mapping):
        return "properties is no object"
    if taken := RESERVED & cast(Schema, value).keys():
        return f"a property is called {_few(taken)}"
    odd = [name for name, inner in cast(Schema, value).items() if not isinstance(inner, Mapping)]
    return f"the schema of {_few(odd)} is no object" if odd else None


def _required(value: Any, schema: Schema, root: Schema) -> str | None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in cast(list[Any], value)):
        return "required is no list of names"
    missing = set(cast(list[str], value)) - mapping(schema.get("properties")).keys()
    return f"required names what is not in properties ({_few(missing)})" if missing else None


def _enum(value: Any, schema: Schema, root: Schema) -> str | None:
    if not isinstance(value, list) or not 0 < len(cast(list[Any], value)) <= MAX_ENUM:
        return f"enum is no list of 1 to {MAX_ENUM:,} values"
    kinds = _types(schema.get("type"))
    if not kinds:
        return "enum has no type beside it"
    if len(kinds) > 2 or (len(kinds) == 2 and ("null" not in kinds or set(kinds) <= {"null", "object", "array"})):
        return "enum is beside types other than one and null"
    if not all(_is_taken(each, kinds) for each in cast(list[Any], value)):
        return "a value of enum is of another type"
    return None


def _is_taken(value: Any, kinds: Sequence[str]) -> bool:
    """Whether a value of ``enum`` is of one of the types. A number that is asked first refuses all others."""
    first = next((kind for kind in kinds if kind in ("number", "integer") or is_of(value, kind)), None)
    return first is not None and is_of(value, first)


def is_of(value: Any, kind: str) -> bool:
    """Whether a value is of that type."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "integer":
        return is_number and value == value // 1
    python: Mapping[str, Any] = {"string": str, "boolean": bool, "array": list, "object": Mapping, "null": type(None)}
    return is_number if kind == "number" else isinstance(value, python[kind])


def _ref(value: Any, schema: Schema, root: Schema) -> str | None:
    if value == "#" or (isinstance(value, str) and value.startswith("#/$defs/") and value != "#/$defs/"):
        return None if value == "#" or "$defs" in root else "$ref leads to nothing in $defs"
    return "$ref does not begin with #/$defs/"


def _any_of(value: Any, schema: Schema, root: Schema) -> str | None:
    branches = _list(value)
    if not 0 < len(branches) <= MAX_ANY_OF or not all(isinstance(branch, Mapping) for branch in branches):
        return f"anyOf is no list of 1 to {MAX_ANY_OF} schemas"
    return None


def _defs(value: Any, schema: Schema, root: Schema) -> str | None:
    if not isinstance(value, Mapping) or not all(isinstance(each, Mapping) for each in cast(Schema, value).values()):
        return "$defs is no object of schemas"
    if "" in value or has_slash(value):
        return "a name in $defs is empty or has a slash"
    return None


def type_fault(schema: Schema) -> str | None:
    """What is wrong with the types and choices of a schema."""
    fault = _type_fault(schema, is_root=False) if "type" in schema else None
    return _enum(schema["enum"], schema, schema) if fault is None and "enum" in schema else fault


def has_slash(value: Any) -> bool:
    """Whether a key at any depth has a slash, which walle takes for a step of ``$ref``."""
    below = [inner for key, inner in cast(Schema, value).items() if "/" not in key]
    flat = [*below, *(one for inner in below if isinstance(inner, list) for one in cast(list[Any], inner))]
    return len(below) < len(value) or any(has_slash(inner) for inner in flat if isinstance(inner, Mapping))


def _is(*kinds: type) -> Callable[[Any, Schema, Schema], str | None]:
    names = {str: "text", bool: "true or false", Mapping: "a schema", type(None): "absent"}
    allowed = " or ".join(names[kind] for kind in kinds)
    return lambda value, schema, root: None if isinstance(value, kinds) else f"a keyword is not {allowed}"


_CHECKS: Mapping[str, Callable[[Any, Schema, Schema], str | None]] = {
    "$defs": _defs,
    "$id": _is(str, type(None)),
    "$ref": _ref,
    "additionalProperties": _is(bool, Mapping),
    "anyOf": _any_of,
    "description": _is(str),
    "enum": _enum,
    "items": _is(Mapping),
    "pattern": _is(str, type(None)),
    "properties": _properties,
    "required": _required,
}


def inspected(schema: Schema) -> Iterator[tuple[str, str | int | None, Schema]]:
    """Every schema right inside this one that walle judges, with its keyword, and its name or index there."""
    for keyword in ("$defs", "properties"):
        for name, inner in mapping(schema.get(keyword)).items():
            if isinstance(inner, Mapping):
                yield keyword, name, cast(Schema, inner)
    for keyword in ("items", "additionalProperties"):
        if isinstance(inner := schema.get(keyword), Mapping):
            yield keyword, None, cast(Schema, inner)
    for index, inner in enumerate(_list(schema.get("anyOf"))):
        if isinstance(inner, Mapping):
            yield "anyOf", index, cast(Schema, inner)


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one."""
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def _types(value: Any) -> list[str]:
    return [kind if isinstance(kind, str) else "" for kind in ([value] if isinstance(value, str) else _list(value))]


def _few(names: Any) -> str:
    return ", ".join(sorted(names)[:3])
