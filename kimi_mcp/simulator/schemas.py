"""Owns Moonshot's judgement of JSON schemas. Pure, no I/O.

It judges as MoonshotAI/walle does at level strict (196bb0c), in walle's words, which are those that users were refused
with: MoonshotAI/kimi-code#2661 (`type` beside `anyOf`), router-for-me/CLIProxyAPI#5316 (`type` beside `$ref`),
MoonshotAI/kimi-cli#2030 (untyped `enum`), CommandCodeAI/command-code#594 (`$ref` targets), MoonshotAI/kimi-code#1610
(`required`), can1357/oh-my-pi#5980 (a property that is `true`), MoonshotAI/kimi-cli#2475 (size). Where walle's verdict
hangs on the order of Go's maps, this one is the stricter of the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from kimi_mcp.simulator.shapes import JsonObject, as_array, as_number, as_object, as_text, type_name

TOOL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9-_]{2,63}")
"""Names of tools (Moonshot tool-use guide)."""

_MOST_BYTES, _MOST_DEPTH, _MOST_PROPERTIES, _MOST_CHOICES, _MOST_BRANCHES = 120_000, 30, 3_000, 1_000, 500
_TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
_COMMON = {"description", "title"}
_KEYWORDS = {"$defs", "$ref", "anyOf", "required", "additionalProperties"}

Path = tuple[str, ...]


class _Fault(Exception):
    def __init__(self, path: Path, words: str) -> None:
        shown = re.sub(r"anyOf\{\d+\}", "anyOf", ".".join(path)) or "root"
        super().__init__(f"At path '{shown}': {words}")


def schema_fault(schema: JsonObject) -> str | None:
    """What Moonshot's dialect refuses in a schema: "At path '…': …", or None when it is fine."""
    try:
        if schema:
            _Walle(schema).judge()
    except _Fault as fault:
        return str(fault)
    except ValueError:
        return "JSON schema parsing error: JSON syntax error"
    except RecursionError:
        return f"At path 'root': schema depth exceeds maximum limit of {_MOST_DEPTH}"
    return None


def resolve(ref: str, root: JsonObject) -> JsonObject | None:
    """The schema that a local `$ref` points to."""
    found: JsonObject | None = root
    for part in ref.removeprefix("#").strip("/").split("/") if ref != "#" else []:
        found = as_object((found or {}).get(part.replace("~1", "/").replace("~0", "~")))
    return found


class _Walle:
    def __init__(self, root: JsonObject) -> None:
        self.root = root
        self.names = 0
        self.refs: dict[str, Path] = {}
        self.ends: set[str] = set()
        self.depths = {"#": 0}

    def judge(self) -> None:
        """Raise the first fault."""
        text = json.dumps(self.root, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        as_go_writes_it = re.sub(r"[<>&\u2028\u2029]", r"\\u0000", text)
        if len(as_go_writes_it.encode("utf-8", "surrogatepass")) > _MOST_BYTES:
            raise _Fault((), "schema exceeds maximum allowed size")
        if self._walk(self.root, (), 0) > _MOST_DEPTH:
            self._too_deep(())
        for ref in self.refs:
            if self._follow(ref) is None:
                raise _Fault((), f"invalid $ref path: {ref}")
        found = True
        while found:
            left = [ref for ref in self.refs if ref not in self.ends]
            found = {ref for ref in left if self._ends(self._follow(ref) or {})}
            self.ends |= found
        self._visit(self.root, (), not self._ends(self.root))

    def _too_deep(self, path: Path) -> NoReturn:
        raise _Fault(path, f"schema depth exceeds maximum limit of {_MOST_DEPTH}")

    def _follow(self, ref: str) -> JsonObject | None:
        """Part by part, through objects alone; nothing is unescaped."""
        found: JsonObject | None = self.root
        for part in ref[2:].split("/") if ref != "#" else ():
            found = as_object((found or {}).get(part))
        return found

    # ── every schema by itself ────────────────────────────────────────────────────────────────────────────────────

    def _walk(self, schema: JsonObject, path: Path, depth: int) -> int:
        """Judge a schema and those within; return how deep it goes."""
        if depth > _MOST_DEPTH:
            self._too_deep(path)
        deepest = depth
        defs = as_object(schema.get("$defs")) or {}
        for name in sorted(defs):
            inner = as_object(defs[name])
            if inner is None:
                raise _Fault((*path, "$defs"), "$defs schema must be object")
            deepest = max(deepest, self._walk(inner, (*path, "$defs", name), depth))
        self._types(schema, path)
        for keyword in sorted(schema):
            if keyword in _CHECKS:
                _CHECKS[keyword](self, schema, path, schema[keyword])
        self._branches(schema, path)
        ref = as_text(schema.get("$ref"))
        deepest = max(deepest, depth + self._depth_behind(ref or "#"))
        properties = as_object(schema.get("properties")) or {}
        self.names += len(properties)
        if self.names > _MOST_PROPERTIES:
            words = f"total number of properties keys({self.names}) across all objects exceeds maximum limit of"
            raise _Fault(path, f"{words} {_MOST_PROPERTIES}")
        for step, inner in self._below(schema):
            deepest = max(deepest, self._walk(inner, (*path, *step), depth + (step[0] == "properties")))
        return deepest

    def _below(self, schema: JsonObject) -> Iterator[tuple[Path, JsonObject]]:
        found: list[tuple[Path, object]] = [
            (("properties", name), inner) for name, inner in (as_object(schema.get("properties")) or {}).items()
        ]
        found += [((name,), schema.get(name)) for name in ("items", "additionalProperties")]
        found += [((f"anyOf{{{at}}}",), one) for at, one in enumerate(as_array(schema.get("anyOf")) or [])]
        for step, inner in found:
            if (one := as_object(inner)) is not None:
                yield step, one

    def _types(self, schema: JsonObject, path: Path) -> None:
        if "type" not in schema:
            return
        value = schema["type"]
        if "anyOf" in schema:
            raise _Fault(path, "when using anyOf, type should be defined in anyOf items instead of the parent schema")
        if "$ref" in schema:
            words = "when using $ref, type should be defined in the referenced schema instead of the parent schema"
            raise _Fault(path, words)
        listed = as_array(value)
        if listed is None:
            if not isinstance(value, str):
                raise _Fault(path, "type must be string or array of strings")
            if value not in _TYPES:
                raise _Fault(path, "invalid type")
            return
        for kind in ("object", "array"):
            if len(listed) > 1 and "enum" in schema and kind in listed:
                raise _Fault(path, f"type {kind} is not allowed in combination with enum")
        if not all(kind in _TYPES for kind in listed):
            raise _Fault(path, "invalid type in type array")
        if not listed:
            raise _Fault(path, "type array cannot be empty")
        if len(listed) == 1 or (len(listed) == 2 and schema.get("enum") is not None):
            return
        for keyword in sorted(set(schema) - _COMMON - {"type"} - (set() if path else {"$defs", "$id"})):
            raise _Fault(path, f"keyword {keyword} is not allowed in combination with multiple types")

    def properties(self, schema: JsonObject, path: Path, value: object) -> None:
        here, properties = (*path, "properties"), as_object(value)
        if properties is None:
            raise _Fault(here, "properties must be an object")
        for name, inner in properties.items():
            if name in _KEYWORDS:
                raise _Fault(here, f"property name '{name}' is reserved for JSON Schema keywords")
            if as_object(inner) is None:
                raise _Fault(here, f"property schema for '{name}' must be an object")

    def required(self, schema: JsonObject, path: Path, value: object) -> None:
        here, names = (*path, "required"), as_array(value)
        if names is None:
            raise _Fault(here, "required must be an array")
        if not all(isinstance(name, str) for name in names):
            raise _Fault(here, "items in required array must be strings")
        if names:
            self._find(path, here)
        for name in names:
            if name not in (as_object(schema.get("properties")) or {}):
                raise _Fault(here, f"required property '{name}' is not defined in properties")

    def enum(self, schema: JsonObject, path: Path, value: object) -> None:
        here, choices = (*path, "enum"), as_array(value)
        if choices is None:
            raise _Fault(here, "enum must be an array")
        if not choices:
            raise _Fault(here, "enum array cannot be empty")
        if len(choices) > _MOST_CHOICES:
            raise _Fault(here, f"enum array cannot have more than {_MOST_CHOICES} items")
        self._find(path, here)
        if "type" not in schema:
            raise _Fault(path, "type is not defined")
        kinds = as_array(schema["type"]) or [schema["type"]]
        if len(kinds) > 2 or (len(kinds) == 2 and "null" not in kinds):
            words = "when type is array and enum is specified, currently only 2 types are supported, one must be null,"
            raise _Fault(path, f"{words} and the other can be string/integer/number/boolean")
        others = [kind for kind in kinds if kind != "null"]
        if len(kinds) == 2 and (not others or others[0] in ("object", "array")):
            raise _Fault(path, f"invalid type combination with enum: {''.join(map(str, others))} + null")
        for choice in choices:
            if not any(self._matches(choice, str(kind), here) for kind in kinds):
                shown = "[" + " ".join(map(str, kinds)) + "]"
                raise _Fault(here, f"enum value ({_as_go(choice)}) does not match any type in {shown}")

    def _matches(self, value: object, kind: str, here: Path) -> bool:
        """Whether a choice is of the type; what is no number is refused at once where a number is asked."""
        number = as_number(value)
        if kind in ("number", "integer"):
            if number is None or (kind == "integer" and number % 1 != 0):
                raise _Fault(here, f"not a valid {kind}")
            return True
        return number is None and type_name(value) == kind

    def items(self, schema: JsonObject, path: Path, value: object) -> None:
        if as_object(value) is None:
            raise _Fault((*path, "items"), "items must be an object")

    def additional_properties(self, schema: JsonObject, path: Path, value: object) -> None:
        if not isinstance(value, bool) and as_object(value) is None:
            raise _Fault((*path, "additionalProperties"), "additionalProperties must be a boolean or an object")

    def ref(self, schema: JsonObject, path: Path, value: object) -> None:
        here, target = (*path, "$ref"), as_text(value)
        if target is None:
            raise _Fault(here, "$ref must be a string")
        if target != "#":
            if not target.startswith("#/$defs/"):
                raise _Fault(here, "references must start with #/$defs/")
            if target == "#/$defs/":
                raise _Fault(here, "definition name cannot be empty")
            if "$defs" not in self.root:
                raise _Fault(here, f"$defs not found for reference: {target}")
            self._find(path, here)
        self.refs.setdefault(target, here)

    def description(self, schema: JsonObject, path: Path, value: object) -> None:
        self._text(schema, path, "description", value)

    def id(self, schema: JsonObject, path: Path, value: object) -> None:
        self._text(schema, path, "$id", "" if value is None else value)

    def pattern(self, schema: JsonObject, path: Path, value: object) -> None:
        self._text(schema, path, "pattern", "" if value is None else value)

    def _text(self, schema: JsonObject, path: Path, keyword: str, value: object) -> None:
        if not isinstance(value, str):
            raise _Fault((*path, keyword), f"{keyword} must be a string")

    def any_of(self, schema: JsonObject, path: Path, value: object) -> None:
        here, branches = (*path, "anyOf"), as_array(value)
        if branches is None:
            raise _Fault(here, "anyOf must be an array")
        if not 0 < len(branches) <= _MOST_BRANCHES:
            raise _Fault(here, f"anyOf must have 1-{_MOST_BRANCHES} items")
        if not all(as_object(branch) is not None for branch in branches):
            raise _Fault(here, "schema in anyOf must be an object")
        self._find(path, here)

    def _branches(self, schema: JsonObject, path: Path) -> None:
        for branch in as_array(schema.get("anyOf")) or []:
            both = sorted((set(as_object(branch) or {}) & (set(schema) - {"anyOf"})) - _COMMON)
            if both:
                words = f"conflicting keywords found in anyOf with parent: keywords ({', '.join(both)}) are defined on"
                rest = "the parent schema and inside anyOf; remove them from the parent or from anyOf branches"
                raise _Fault(path, f"{words} {rest}")

    def defs(self, schema: JsonObject, path: Path, value: object) -> None:
        here, defs = (*path, "$defs"), as_object(value)
        if defs is None:
            raise _Fault(here, "$defs must be an object")
        for name, inner in defs.items():
            if not name:
                raise _Fault(here, "$defs property name cannot be empty")
            if "/" in name:
                raise _Fault(here, f"$defs property name '{name}' cannot contain '/' character")
            self._slashes(inner, (*here, name))

    def _slashes(self, value: object, path: Path) -> None:
        for key, inner in (as_object(value) or {}).items():
            if "/" in key:
                raise _Fault(path[:-1], f"$defs property name '{key}' cannot contain '/' character")
            self._slashes(inner, (*path, key))
            for at, one in enumerate(as_array(inner) or []):
                self._slashes(one, (*path, f"{key}[{at}]"))

    def _find(self, path: Path, here: Path) -> None:
        """Walle looks its own path up again, and takes a name with braces for the branch of an anyOf."""
        steps = iter(path)
        for keyword in steps:
            name = next(steps) if keyword in ("properties", "$defs") else ""
            if "{" in name and "}" in name:
                raise _Fault(here, f"invalid path: {'.'.join(path)}")

    def _depth_behind(self, ref: str) -> int:
        """Objects within each other behind a reference; one that comes back to itself adds nothing."""
        if ref not in self.depths:
            self.depths[ref] = 0
            self.depths[ref] = self._depth(self._follow(ref) or {})
        return self.depths[ref]

    def _depth(self, schema: JsonObject) -> int:
        within = [self._depth_behind(as_text(schema.get("$ref")) or "#"), int("properties" in schema)]
        for step, inner in self._below(schema):
            if step[0] != "items":
                within.append(self._depth(inner) + (step[0] == "properties"))
        return max(within)

    # ── what references lead to ───────────────────────────────────────────────────────────────────────────────────

    def _ends(self, schema: JsonObject) -> bool:
        """Whether a value of it can be finite, as far as is known by now; one required property will do."""
        kinds = as_array(schema.get("type")) or [schema.get("type")]
        if not schema or any(kind in _TYPES and kind not in ("object", "array") for kind in kinds):
            return True
        last = kinds[-1]
        if last == "array" and (not schema.get("items") or self._ends(as_object(schema["items"]) or {})):
            return True
        if last == "object":
            properties = as_object(schema.get("properties")) or {}
            required = as_array(schema.get("required")) or []
            wanted = [as_object(properties[name]) or {} for name in properties if name in required]
            if not properties or not required or any(self._ends(one) for one in wanted):
                return True
        branches = [as_object(one) or {} for one in as_array(schema.get("anyOf")) or []]
        return any(self._ends(one) for one in branches) or schema.get("$ref") in self.ends

    def _visit(self, node: JsonObject, path: Path, must_end: bool) -> None:
        """Judge the references by where they are, outside of `$defs`."""
        if "$ref" in node:
            self._meet(node, path, must_end)
        for key, inner in node.items():
            one = as_object(inner)
            if one is not None and key != "$defs":
                optional = key == "additionalProperties" or (key == "properties" and node.get("required") == [])
                self._visit(one, (*path, key), must_end and not optional)
            elif key == "anyOf":
                for at, branch in enumerate(as_array(inner) or []):
                    self._visit(as_object(branch) or {}, (*path, f"anyOf{{{at}}}"), must_end)

    def _meet(self, node: JsonObject, path: Path, must_end: bool) -> None:
        ref = as_text(node["$ref"])
        if ref is None:
            raise _Fault((*path, "$ref"), "$ref must be a string")
        if ref != "#" and not ref.startswith("#/$defs/"):
            raise _Fault(("$ref",), "only local references are supported")
        target, seen = self._follow(ref), {ref}
        while target is not None and set(target) <= _COMMON | {"$ref"}:
            onward = as_text(target.get("$ref"))
            if onward is None or onward in seen:
                break
            seen.add(onward)
            target = self._follow(onward)
        if target is None:
            raise _Fault((), f"invalid $ref path: {ref}")
        beside = set(node) - {"$ref"}
        if both := sorted((beside & set(target)) - _COMMON):
            words = f'keywords ({", ".join(both)}) are defined both alongside "$ref" and in the referenced schema;'
            raise _Fault(path, f"conflicting keywords found after $ref expansion: {words} remove the duplicates")
        if ("type" in beside and "anyOf" in target) or ("type" in target and "anyOf" in beside):
            words = "(when using anyOf, type should be defined in anyOf items instead of the parent schema)"
            raise _Fault(path, f"invalid schema after $ref expansion: {words}")
        for branch in as_array(target.get("anyOf")) or []:
            if both := sorted((beside & set(as_object(branch) or {})) - _COMMON - {"anyOf"}):
                words = f'keywords ({", ".join(both)}) are defined alongside "$ref" and inside anyOf in the'
                rest = "referenced schema; define them in only one place"
                raise _Fault(path, f"conflicting keywords found in anyOf after ref expansion: {words} {rest}")
        last = path[-1] if path else ""
        if not (
            last in ("additionalProperties", "items")
            or last.startswith("anyOf")
            or len(path) < 2
            or path[-2] == "properties"
        ):
            raise _Fault(path, "$ref is not allowed in this schema.")
        if must_end and not self._ends(target):
            raise _Fault(path, "detected infinite recursion without termination condition")


_CHECKS: Mapping[str, Callable[[_Walle, JsonObject, Path, object], None]] = {
    "$defs": _Walle.defs,
    "$id": _Walle.id,
    "$ref": _Walle.ref,
    "additionalProperties": _Walle.additional_properties,
    "anyOf": _Walle.any_of,
    "description": _Walle.description,
    "enum": _Walle.enum,
    "items": _Walle.items,
    "pattern": _Walle.pattern,
    "properties": _Walle.properties,
    "required": _Walle.required,
}


def _as_go(value: object) -> str:
    """A value as walle's messages show it."""
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)
