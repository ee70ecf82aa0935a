"""Validates a value, or an answer, against a JSON schema in bounded time, whoever wrote the two. Pure, no I/O.

Nothing that a schema refers to is ever fetched, a limit on the keywords that are checked ends the search, and patterns
are matched in linear time. ``jsonschema`` is imported on first use: most calls need none of this.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal, NoReturn, cast

from pydantic_core import SchemaError, SchemaValidator, core_schema

from kimi_mcp.core.errors import InvalidArguments

MOST_STEPS = 20_000
"""Keywords checked in one search, each item of a list counting as one: some fifty milliseconds."""

MOST_WORK = 10_000_000
"""Steps of matching a pattern: some fifty milliseconds at worst. What may need more is not matched."""

LONGEST_PATTERN = 2_000
"""Code points of a pattern that is matched at all."""

_COUNTS = re.compile(r"(?<=[{,])\d+")

_READ_OTHERWISE = re.compile(r"&&|--|~~|(?<!\\)\[(?:\\.|[^\]\\])*\[")
"""Sets within sets, which Rust's regular expressions have and those of JSON schema don't."""

Reason = Literal["reference", "intricate", "number", "pattern"]
"""Why it is undecided: the schema refers to what it does not hold; the search takes too long; a number is too large;
a pattern can't be matched in bounded time, and is all that may be wrong."""

_VALUES = frozenset({"const", "enum", "default", "examples", "example"})
"""Keywords that hold values, in which nothing is a schema."""

_REVERSED = frozenset({"not", "oneOf", "if", "contains", "unevaluatedItems", "unevaluatedProperties"})
"""Keywords that a value may break because something inside them counts as valid."""

_left: ContextVar[int] = ContextVar("_left")
_unmatched: ContextVar[list[str]] = ContextVar("_unmatched")


_UNCHECKED: Mapping[Reason, tuple[str, str]] = {
    "reference": ("it refers to what it does not hold", "Put what `$ref` names into `response_schema`."),
    "intricate": ("it is too intricate for an answer of this size", "Simplify `response_schema`."),
    "pattern": (
        "a `pattern` in it can't be matched in bounded time",
        "Leave that `pattern` out of `response_schema`, or write it without look-around and back-references.",
    ),
}
"""Why an answer can't be checked against its schema though it is JSON, and what would help."""


class Undecided(Exception):
    """It can't be decided whether the value fits, and another value would change nothing."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        """Why not."""

    def as_error(self) -> InvalidArguments:
        """The error for the caller whose answer could not be checked against its ``response_schema``."""
        why, fix = _UNCHECKED[self.reason]
        return InvalidArguments(
            f"The answer is JSON, but it could not be held against `response_schema`: {why}.",
            fix=f"{fix} `answer` has the text as it came.",
        )


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
    """What makes it no JSON schema of its draft (2020-12 if it names none), as ``place breaks …``; None: it is one."""
    from jsonschema import SchemaError

    try:
        _draft(schema).check_schema(schema)
    except SchemaError as fault:
        place = "/".join(str(step) for step in fault.absolute_path)[:200] or "its root"
        return f"{place} breaks the rule `{fault.validator}`"
    except BaseException as fault:
        if not _is_out_of_stack(fault):
            raise
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
        tame = _with_plain_names(schema, frozenset(_names_in(value)))
        # An empty registry: without one, jsonschema fetches whatever URL a $ref names.
        checks: Any = _counting(_draft(schema))(tame, registry=cast(Any, Registry)())
        fault: Any = cast(Any, exceptions).best_match(checks.iter_errors(value))
    except Unresolvable:
        raise Undecided("reference") from None
    except OverflowError:
        raise Undecided("number") from None
    except Undecided:
        raise
    except BaseException as trouble:
        if _is_out_of_stack(trouble):
            raise Undecided("reference") from None
        if not isinstance(trouble, Exception):
            raise
        raise Undecided("intricate") from None  # a schema may be odd in ways that its metaschema does not see
    finally:
        _left.reset(before)
        _unmatched.reset(outside)
    if unmatched and (fault is None or _REVERSED & {fault.validator, *fault.absolute_schema_path}):
        raise Undecided("pattern")
    if fault is None:
        return None
    place = "/".join(str(step) for step in fault.absolute_path)[:200]
    return Misfit(place=place, rule=str(fault.validator), wanted=fault.validator_value)


def _is_out_of_stack(fault: BaseException) -> bool:
    """Whether a search went too deep. Where that is noticed within rpds, jsonschema's tables in Rust, Rust panics."""
    return isinstance(fault, RecursionError) or type(fault).__name__ == "PanicException"


def _draft(schema: Any) -> Any:
    from jsonschema import Draft202012Validator, validators

    named = cast(Mapping[str, Any], schema).get("$schema") if isinstance(schema, Mapping) else None
    if not isinstance(named, str):
        return Draft202012Validator
    return cast(Any, validators).validator_for({"$schema": named}, default=Draft202012Validator)


@cache
def _counting(draft: Any) -> Any:
    """A draft's validator whose keywords are counted against the limit."""
    from jsonschema import validators

    own = {name: _counted(name, check) for name, check in draft.VALIDATORS.items()}
    return cast(Any, validators).extend(draft, own)


def _counted(name: str, check: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    from jsonschema import ValidationError

    def counted(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        _pay(1 + _size(wanted) + _size(value))
        if name == "uniqueItems":
            _pay(_size(value) ** 2 // 100)
        elif name == "pattern" and isinstance(value, str):
            if (matches := _matches(wanted, value)) is None:
                _unmatched.get().append(wanted)
            elif not matches:
                yield ValidationError(f"{value!r} does not match {wanted!r}")
            return
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


def _matches(pattern: str, text: str) -> bool | None:
    """Whether a pattern is found in a text; None: that can't be decided in bounded time."""
    if len(pattern) > LONGEST_PATTERN or _READ_OTHERWISE.search(pattern):
        return None
    work = len(text) * len(pattern) * math.prod(max(int(count), 1) for count in _COUNTS.findall(pattern))
    if work > MOST_WORK:
        return None
    _pay(work // (MOST_WORK // MOST_STEPS))
    try:
        return _matcher(pattern).isinstance_python(text)
    except SchemaError:
        return None


@lru_cache(maxsize=64)
def _matcher(pattern: str) -> SchemaValidator:
    """Pydantic's regular expressions are Rust's: they know neither look-around nor back-references, and are linear."""
    return SchemaValidator(core_schema.str_schema(pattern=pattern))


def line_matcher(pattern: str, *, longest: int) -> Callable[[str], bool]:
    """Tells whether a pattern is found in a line of at most so many code points, in bounded time.

    Raises ``ValueError`` for a pattern that is none, or that can't be matched so: its message says why.
    """
    work = longest * len(pattern) * math.prod(max(int(count), 1) for count in _COUNTS.findall(pattern))
    if len(pattern) > LONGEST_PATTERN or work > MOST_WORK:
        raise ValueError("it is too long, or repeats too much")
    if _READ_OTHERWISE.search(pattern):
        raise ValueError("it has a set within a set")
    try:
        return _matcher(pattern).isinstance_python
    except SchemaError:
        raise ValueError("it is no regular expression, or has look-around or back-references") from None


def _names_in(value: Any) -> Iterator[str]:
    """The names of all properties within a value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from cast(dict[str, Any], one)
            waiting += cast(dict[str, Any], one).values()
        elif isinstance(one, list):
            waiting += cast(list[Any], one)


def _with_plain_names(schema: Any, names: frozenset[str]) -> Any:
    """The schema with each pattern of ``patternProperties`` replaced by the names in the value that it takes.

    Without a pattern that can't be matched, and the rules about properties that no pattern takes, where there is one.
    """
    match schema:
        case dict():
            schema = cast(dict[str, Any], schema)
            new = {key: inner if key in _VALUES else _with_plain_names(inner, names) for key, inner in schema.items()}
            if isinstance(sorting := new.get("patternProperties"), dict):
                plain: dict[str, Any] = {}
                for number, (pattern, inner) in enumerate(cast(dict[str, Any], sorting).items()):
                    found = {name: _matches(pattern, name) for name in names}
                    if None in found.values():
                        _unmatched.get().append(pattern)
                        new.pop("additionalProperties", None)
                        new.pop("unevaluatedProperties", None)
                    else:
                        taken = [re.escape(name) for name, takes in found.items() if takes]
                        _pay(len(taken) * len(found) // 500)
                        plain[rf"(?#{number})\A(?:{'|'.join(taken)})\Z" if taken else f"(?#{number})(?!)"] = inner
                new["patternProperties"] = plain
            return new
        case list():
            return [_with_plain_names(inner, names) for inner in cast(list[Any], schema)]
        case _:
            return schema


# ── response_schema ───────────────────────────────────────────────────────────────────────────────────────────────

_FENCE = "```"


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise ``InvalidArguments`` where ``response_schema`` is no JSON schema, naming the place."""
    if fault := schema_fault(schema):
        raise InvalidArguments(
            f"`response_schema` is no valid JSON schema: {fault}.",
            fix='Make `response_schema` one such as {"type": "object", "properties": {"name": {"type": "string"}}, '
            '"required": ["name"]}.',
        )
    if not can_be_written(schema):
        raise InvalidArguments(
            "`response_schema` holds NaN, an infinite number or half a surrogate pair, which JSON can't say.",
            fix="Take them out of `response_schema`.",
        )


def read_answer(answer: str, schema: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The parsed value of an answer, and what is wrong with it; exactly one of the two is meaningful.

    A code fence around the whole answer is looked through; nothing else is guessed. Raises ``Undecided``.
    """
    try:
        value = json.loads(_inside(answer), parse_constant=refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return None, "it is not JSON"
    if not can_be_written(value):
        return None, "it holds half a surrogate pair"
    try:
        fault = misfit(value, schema)
    except Undecided as unsure:
        if unsure.reason == "number":
            return None, "it holds a number beyond all bounds"
        raise
    return (value, None) if fault is None else (None, f"{fault.place or 'the whole'} breaks the rule `{fault.rule}`")


def _inside(answer: str) -> str:
    """The content of a fence around the whole answer; the answer itself where there is none."""
    opening, line_end, rest = answer.strip().partition("\n")
    fenced = line_end and opening.rstrip() in (_FENCE, f"{_FENCE}json") and rest.endswith(_FENCE)
    return rest.removesuffix(_FENCE) if fenced else answer


def refuse_constant(word: str) -> NoReturn:
    """Raise ``ValueError`` for NaN and the infinities, which are no JSON."""
    raise ValueError(word)


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else refuse_constant(digits)


def can_be_written(value: Any) -> bool:
    """Whether a result or a body can hold it: everything in it is JSON, and is UTF-8."""
    if isinstance(value, list):
        return all(can_be_written(one) for one in cast(list[Any], value))
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        _ = text.isascii() or text.encode()  # a data URI of many megabytes is not copied
    except ValueError:
        return False
    return True
