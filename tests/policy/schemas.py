"""Schemas' building blocks, and values to hold against two schemas that should accept the same. Pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

STRING, NUMBER = {"type": "string"}, {"type": "number"}

VALUES: list[Any] = [None, True, False, 0, 1, 2, 3, 3.0, 4, 1.5, -7, "", "x", "xy", "y", [], [1], ["x"], [[None]], {},
                     {"x": 1}, {"x": "1"}, {"a": 1}, {"v": 1, "next": {"v": None, "next": {"next": 5}}}]  # fmt: skip


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def instances() -> list[Any]:
    """Values by themselves, under names, and as the members of arrays and objects."""
    made: list[Any] = [*VALUES, *([value] for value in VALUES), *([value, "x"] for value in VALUES)]
    for name in ("a", "b", "v", "next", "z"):
        made += [{name: value} for value in VALUES]
    made += [{"a": first, "b": second} for first, second in itertools.product(VALUES[::3], VALUES[::4])]
    return made


def values_for(schema: Any, count: int) -> Iterator[Any]:
    """Values built of a schema's own names and choices; always the same ones."""
    names, leaves = ["z"], [None, True, 0, 1, -2.5, "", "x" * 12]
    below = [schema]
    while below:
        match below.pop():
            case dict() as node:
                names += [*node.get("properties", ())] if isinstance(node.get("properties"), dict) else []
                leaves += node["enum"][:3] if isinstance(node.get("enum"), list) else []
                below += node.values()
            case list() as listed:
                below += listed
            case _:
                pass
    chance = random.Random(repr(schema))
    for _ in range(count):
        yield _value(chance, list(dict.fromkeys(names)), leaves, 4)


def _value(chance: random.Random, names: list[str], leaves: list[Any], depth: int) -> Any:
    kind = chance.random()
    if depth and kind < 0.6:
        chosen = [name for name in names if chance.random() < max(0.3, 1.5 / len(names))]
        return {name: _value(chance, names, leaves, depth - 1) for name in chosen}
    if depth and kind < 0.75:
        return [_value(chance, names, leaves, depth - 1) for _ in range(chance.randrange(3))]
    return chance.choice(leaves)
