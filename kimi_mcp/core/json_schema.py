"""Does a value fit a JSON schema: told in bounded time, whoever wrote the two. Pure, no I/O.

A schema may come from a caller or from a stranger's tool server. So nothing that it refers to is ever fetched, each
keyword that is looked at is counted and a count ends the search, and a pattern is matched only where its matching
takes few steps however unlucky the text is; where one is not, and nothing else is wrong, it can't be told.
``jsonschema`` is imported on first use: most calls need none of this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sized
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

MOST_STEPS = 20_000
"""Keywords looked at in one search, an item of a list counting as one: some fifty milliseconds."""

MOST_WAYS = 1_000_000
"""Ways in which a pattern may be tried on a text: some fifty milliseconds. What needs more is not matched."""

LONGEST_PATTERN = 2_000
"""Code points of a pattern that is matched at all."""

Reason = Literal["reference", "intricate", "number", "pattern"]
"""Why it can't be told: the schema refers to what it does not hold; the search takes too long; a number is beyond all
bounds; a pattern would take too long on this text, and is all that may be wrong."""

_VALUES = frozenset({"const", "enum", "default", "examples", "example"})
"""Keywords that hold values, in which nothing is a schema."""

_REVERSED = frozenset({"not", "oneOf", "if", "contains", "unevaluatedItems", "unevaluatedProperties"})
"""Keywords that a value may break because something inside them counts as fitting."""

_left: ContextVar[int] = ContextVar("_left")
_unmatched: ContextVar[list[str]] = ContextVar("_unmatched")


class Undecided(Exception):
    """Whether the value fits can't be told."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        """Why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """The first rule that a value breaks."""

    place: str
    """Where in the value: names and indexes with slashes between, empty for the whole; at most 200 code points."""
    rule: str
    """The schema's keyword."""
    wanted: Any
    """What the schema says under that keyword."""


def schema_fault(schema: Any) -> str | None:
    """What keeps it from being a JSON schema, as ``place breaks the rule …``; None: it is one.

    Its own ``$schema`` says of which draft; 2020-12 where it says nothing.
    """
    from jsonschema import SchemaError

    try:
        _draft(schema).check_schema(schema)
    except SchemaError as fault:
        place = "/".join(str(step) for step in fault.absolute_path)[:200] or "its root"
        return f"{place} breaks the rule `{fault.validator}`"
    except RecursionError:
        return "it is nested too deeply"
    return None


def misfit(value: Any, schema: Mapping[str, Any]) -> Misfit | None:
    """Where a value breaks a schema that is one; None: it fits. Raises ``Undecided``."""
    from jsonschema import exceptions
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    unmatched: list[str] = []
    before, outside = _left.set(MOST_STEPS), _unmatched.set(unmatched)
    try:
        tame = _tamed(schema, _longest(value))
        # An empty registry: without one, jsonschema fetches whatever URL a $ref names.
        checks: Any = _counting(_draft(schema))(tame, registry=cast(Any, Registry)())
        fault: Any = cast(Any, exceptions).best_match(checks.iter_errors(value))
    except (Unresolvable, RecursionError):
        raise Undecided("reference") from None
    except OverflowError:
        raise Undecided("number") from None
    except Undecided:
        raise
    except Exception:  # noqa: BLE001 - a schema may be odd in ways that its metaschema does not see
        raise Undecided("intricate") from None
    finally:
        _left.reset(before)
        _unmatched.reset(outside)
    if unmatched and (fault is None or _REVERSED & {fault.validator, *fault.absolute_schema_path}):
        raise Undecided("pattern")
    if fault is None:
        return None
    place = "/".join(str(step) for step in fault.absolute_path)[:200]
    return Misfit(place=place, rule=str(fault.validator), wanted=fault.validator_value)


def _draft(schema: Any) -> Any:
    from jsonschema import Draft202012Validator, validators

    named = cast(Mapping[str, Any], schema).get("$schema") if isinstance(schema, Mapping) else None
    if not isinstance(named, str):
        return Draft202012Validator
    return cast(Any, validators).validator_for({"$schema": named}, default=Draft202012Validator)


@cache
def _counting(draft: Any) -> Any:
    """A draft's validator, of which each keyword pays for what it looks at."""
    from jsonschema import validators

    own = {name: _counted(name, check) for name, check in draft.VALIDATORS.items()}
    return cast(Any, validators).extend(draft, own)


def _counted(name: str, check: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    def counted(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        _pay(1 + _size(wanted) + _size(value))
        if name == "uniqueItems":
            _pay(_size(value) ** 2 // 100)
        elif name == "pattern" and isinstance(value, str):
            if (tries := ways(wanted, len(value))) > MOST_WAYS:
                _unmatched.get().append(wanted)
                return
            _pay(tries // (MOST_WAYS // MOST_STEPS))
        yield from check(validator, wanted, value, schema) or ()

    return counted


def _size(value: Any) -> int:
    return len(cast(Sized, value)) if isinstance(value, list | dict) else 0


def _pay(steps: int) -> None:
    left = _left.get() - steps
    if left < 0:
        raise Undecided("intricate")
    _left.set(left)


# ── patterns ──────────────────────────────────────────────────────────────────────────────────────────────────────


def ways(pattern: str, length: int) -> int:
    """In how many ways, at most, a search may try the pattern on a text of that length: the bound of its time."""
    if len(pattern) > LONGEST_PATTERN:
        return MOST_WAYS + 1
    try:
        parsed: Any = cast(Any, re)._parser.parse(pattern)
        starts = 1 if _anchored(parsed) else length + 1
        return min(starts * _ways(parsed, length), MOST_WAYS + 1)
    except (re.error, RecursionError, OverflowError):
        return MOST_WAYS + 1


def _anchored(parsed: Any) -> bool:
    first = parsed[0] if len(parsed) else None
    return first is not None and str(first[0]) == "AT" and "BEGINNING" in str(first[1])


def _ways(parsed: Any, length: int) -> int:
    found = 1
    for operation, argument in parsed:
        found *= _ways_of(str(operation), argument, length)
        if found > MOST_WAYS:
            return MOST_WAYS + 1
    return found


def _ways_of(operation: str, argument: Any, length: int) -> int:
    match operation:
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, body = argument
            least, most = min(int(least), length), min(int(most), length)
            inner = _ways(body, length)
            if _is_parted(body):
                return min((most - least + 1) * inner, MOST_WAYS + 1)
            each = MOST_WAYS + 1 if inner > 1 and most > 20 else inner**most
            return min((most - least + 1) * each, MOST_WAYS + 1)
        case "BRANCH":
            return sum(_ways(branch, length) for branch in argument[1])
        case "SUBPATTERN":
            return _ways(argument[-1], length)
        case "ATOMIC_GROUP":
            return _ways(argument, length)
        case "ASSERT" | "ASSERT_NOT":
            return _ways(argument[1], length)
        case "GROUPREF" | "GROUPREF_EXISTS":
            return MOST_WAYS + 1  # rare, and not worth a bound
        case _:
            return 1


def _is_parted(body: Any) -> bool:
    """Whether a repeated body begins with a mark that nothing else in it takes, and has one repetition within.

    Then a text falls into such parts in one way only, however many there are: ``(-[a-z0-9]+)*``.
    """
    while len(body) == 1 and str(body[0][0]) == "SUBPATTERN" and not (body[0][1][1] or body[0][1][2]):
        body = body[0][1][-1]
    if len(body) != 2 or str(body[1][0]) != "MAX_REPEAT" or len(body[1][1][2]) != 1:
        return False
    first, (_, (_, _, ((operation, argument),))) = body
    marks = [first] if str(first[0]) == "LITERAL" else first[1] if str(first[0]) == "IN" else []
    if not marks or any(str(kind) != "LITERAL" for kind, _ in marks):
        return False
    characters = [chr(code) for _, code in marks]
    taken = argument if str(operation) == "IN" else [(operation, argument)]
    return all(not character.isalnum() and not _takes(taken, character) for character in characters)


def _takes(items: Any, character: str) -> bool:
    """Whether one of these items of a set may be that character; True where that is not plain."""
    for kind, argument in items:
        match str(kind):
            case "LITERAL" if argument != ord(character):
                continue
            case "RANGE" if not argument[0] <= ord(character) <= argument[1]:
                continue
            case "CATEGORY" if str(argument) == "CATEGORY_DIGIT" or (
                str(argument) == "CATEGORY_WORD" and character != "_"
            ):
                continue
            case _:
                return True
    return False


def _longest(value: Any) -> int:
    """Code points of the longest text in a value, names included."""
    longest, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            longest = max(longest, len(one))
        elif isinstance(one, dict):
            waiting += [*cast(dict[str, Any], one), *cast(dict[str, Any], one).values()]
        elif isinstance(one, list):
            waiting += cast(list[Any], one)
    return longest


def _tamed(schema: Any, length: int) -> Any:
    """The schema without the patterns that sort properties and would take too long on a text of that length.

    The rules about properties that no pattern takes are left out with them.
    """
    match schema:
        case dict():
            schema = cast(dict[str, Any], schema)
            new = {key: inner if key in _VALUES else _tamed(inner, length) for key, inner in schema.items()}
            sorting = new.get("patternProperties")
            if isinstance(sorting, dict):
                names = cast(dict[str, Any], sorting)
                wild = {name for name in names if ways(name, length) > MOST_WAYS}
                if wild or ways("|".join(names), length) > MOST_WAYS:  # jsonschema matches all of them at once
                    _unmatched.get().extend(wild or names)
                    new["patternProperties"] = {name: names[name] for name in names if name not in wild}
                    new.pop("additionalProperties", None)
                    new.pop("unevaluatedProperties", None)
            return new
        case list():
            return [_tamed(inner, length) for inner in cast(list[Any], schema)]
        case _:
            return schema
