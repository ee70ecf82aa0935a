"""Owns the values that the simulator answers with where a schema is requested. Pure, no I/O."""

from __future__ import annotations

from kimi_mcp.simulator.patterns import matching_text
from kimi_mcp.simulator.schemas import resolve
from kimi_mcp.simulator.shapes import JsonObject, as_array, as_integer, as_number, as_object, as_text

_MAX_DEPTH = 12
_MAX_LENGTH = 1000
"""Items of an array, or characters of a string, that are made at most, whatever a schema requires."""


def instance(schema: JsonObject, words: str) -> object:
    """A value that satisfies the schema; its strings hold `words` where nothing else is wanted."""
    return _instance(schema, schema, words, "value", 0)


def _instance(schema: JsonObject, root: JsonObject, words: str, name: str, depth: int) -> object:
    if depth > 4 * _MAX_DEPTH:
        return words  # no value that ends fits it
    if "const" in schema:
        return schema["const"]
    choices = as_array(schema.get("enum"))
    if choices:
        return choices[0]
    ref = as_text(schema.get("$ref"))
    if ref is not None:
        return _instance(resolve(ref, root) or {}, root, words, name, depth + 1)
    for combined in ("anyOf", "oneOf"):
        branches = [found for one in as_array(schema.get(combined)) or [] if (found := as_object(one)) is not None]
        if branches:
            return _instance(_shallowest(branches, depth), root, words, name, depth + 1)
    parts = as_array(schema.get("allOf"))
    if parts:
        return _instance(_merged(schema, parts, root), root, words, name, depth + 1)
    kind = schema.get("type")
    kinds = as_array(kind)
    if kinds is not None:
        kind = next((one for one in kinds if one != "null"), "null")
    if kind == "object" or (kind is None and "properties" in schema):
        return _object(schema, root, words, depth)
    if kind == "array":
        least = as_integer(schema.get("minItems")) or 0
        most = as_integer(schema.get("maxItems"))
        wanted = min(max(least, 1 if depth < _MAX_DEPTH and most != 0 else 0), _MAX_LENGTH)
        inner = as_object(schema.get("items")) or {"type": "string"}
        return [_instance(inner, root, words, name, depth + 1) for _ in range(wanted)]
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _string(schema, words, name)


def _merged(schema: JsonObject, parts: list[object], root: JsonObject) -> JsonObject:
    """A schema with what its `allOf` says, of each union there the first branch."""
    merged = {name: inner for name, inner in schema.items() if name != "allOf"}
    left = [as_object(part) or {} for part in reversed(parts)]
    for _ in range(_MAX_LENGTH):
        if not left:
            break
        inner = dict(left.pop())
        if (ref := as_text(inner.pop("$ref", None))) is not None:
            left.append(resolve(ref, root) or {})
        left += [as_object(one) or {} for one in (as_array(inner.pop("anyOf", None)) or [])[:1]]
        properties = (as_object(merged.get("properties")) or {}) | (as_object(inner.get("properties")) or {})
        required = [*(as_array(merged.get("required")) or []), *(as_array(inner.get("required")) or [])]
        merged = {**merged, **inner, "properties": properties, "required": required}
    return merged


def _shallowest(branches: list[JsonObject], depth: int) -> JsonObject:
    if depth < _MAX_DEPTH:
        return branches[0]
    return next(
        (one for one in branches if one.get("type") not in ("object", "array") and "$ref" not in one),
        branches[0],
    )


def _object(schema: JsonObject, root: JsonObject, words: str, depth: int) -> JsonObject:
    properties = as_object(schema.get("properties")) or {}
    required = as_array(schema.get("required")) or []
    wanted = [name for name in properties if depth < _MAX_DEPTH // 2 or name in required]
    made: JsonObject = {
        name: _instance(as_object(properties[name]) or {}, root, words, name, depth + 1) for name in wanted
    }
    for name in required:
        if isinstance(name, str) and name not in made:
            made[name] = words
    return made


def _number(schema: JsonObject, *, whole: bool) -> float | int:
    low, high = as_number(schema.get("minimum")), as_number(schema.get("maximum"))
    above, beneath = as_number(schema.get("exclusiveMinimum")), as_number(schema.get("exclusiveMaximum"))
    step = as_number(schema.get("multipleOf"))
    value: float | int = 1
    if high is not None:
        value = min(value, high)
    if beneath is not None and value >= beneath:
        value = beneath - 1
    if low is not None:
        value = max(value, low)
    if above is not None and value <= above:
        value = above + 1 if beneath is None or above + 1 < beneath else (above + beneath) / 2
    if step:
        value = -(-value // step) * step
    return int(value) if whole else value


_FORMATTED = {
    "date": "2026-01-27",
    "date-time": "2026-01-27T00:00:00Z",
    "time": "00:00:00Z",
    "email": "simulator@example.com",
    "uri": "https://example.com/simulator",
    "url": "https://example.com/simulator",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


def _string(schema: JsonObject, words: str, name: str) -> str:
    formatted = _FORMATTED.get(as_text(schema.get("format")) or "")
    if formatted:
        return formatted
    least, most = as_integer(schema.get("minLength")) or 0, as_integer(schema.get("maxLength"))
    pattern = as_text(schema.get("pattern"))
    if pattern is not None and (fit := matching_text(pattern, min(least, _MAX_LENGTH))) is not None:
        return fit
    made = f"[simulator] {name}: {words}"
    made = made.ljust(min(least, _MAX_LENGTH), ".")
    return made if most is None else made[:most]
