"""Owns the narrowing of untrusted JSON values to typed shapes. Pure, no I/O."""

from __future__ import annotations

from typing import cast

JsonObject = dict[str, object]
"""A JSON object as `json.loads` returns it."""


def as_object(value: object) -> JsonObject | None:
    """The value when it is a JSON object, else None."""
    return cast(JsonObject, value) if isinstance(value, dict) else None


def as_array(value: object) -> list[object] | None:
    """The value when it is a JSON array, else None."""
    return cast("list[object]", value) if isinstance(value, list) else None


def as_text(value: object) -> str | None:
    """The value when it is a string, else None."""
    return value if isinstance(value, str) else None


def as_number(value: object) -> float | int | None:
    """The value when it is a number (a boolean is none), else None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def as_integer(value: object) -> int | None:
    """The value when it is an integer (a boolean is none), else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def type_name(value: object) -> str:
    """JSON's name for the type of a value."""
    if value is None:
        return "null"
    names = {"dict": "object", "list": "array", "str": "string", "bool": "boolean", "int": "integer"}
    return names.get(type(value).__name__, "number")
