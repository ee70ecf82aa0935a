"""Values to and from JSON by their types: outcomes, turns, steps, usage. Pure, no I/O.

What is recorded may come from another version: a field that is not known is left out, one that is missing or has a word
that is not known gets its default, and anything else that does not fit raises ``ValueError``, ``TypeError`` or
``KeyError``. An entry of a list that has such a word is left out where the caller allows that.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

UNREADABLE = (ValueError, TypeError, KeyError)
"""What ``from_json`` raises."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_json(value: Any, *, without_defaults: bool = False) -> dict[str, Any]:
    """A dataclass as a JSON object."""
    return _adapter(cast(Any, type(value))).dump_python(value, exclude_defaults=without_defaults)


def from_json(kind: type[T], value: object, *, lists: bool = False) -> T:
    """A dataclass from a JSON object; ``lists``: list entries that have a word that is not known are left out."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as fault:
        places = [each["loc"] for each in fault.errors() if each["type"] == "literal_error"]
        unknown = {place[0] for place in places if len(place) == 1}
        entries = {place[:2] for place in places if lists and len(place) > 2}
        if not (unknown or entries) or not isinstance(value, Mapping):
            raise
        known = cast(Mapping[Any, Any], value)
        kept = {name: known[name] for name in known if name not in unknown}
        for name in {name for name, _ in entries}:
            if isinstance(kept[name], list):
                kept[name] = [each for at, each in enumerate(cast(list[Any], kept[name])) if (name, at) not in entries]
        return _adapter(kind).validate_python(kept)
