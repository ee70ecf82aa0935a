"""Answers that must fit a ``response_schema``: is the schema one, and does the answer fit. Pure, no I/O.

``jsonschema`` is imported on first use: most calls ask for plain text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn, cast

from kimi_mcp.errors import InvalidArguments

FENCE = "```"

MATCHED_CHARS = 10_000
"""Longer texts are not held against a pattern, in code points."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise ``InvalidArguments`` where ``response_schema`` is no JSON schema, naming the place."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as fault:
        place = "/".join(str(step) for step in fault.absolute_path) or "its root"
        raise InvalidArguments(
            f"`response_schema` is no valid JSON schema: {place} breaks the rule `{fault.validator}`.",
            fix='Make `response_schema` one such as {"type": "object", "properties": {"name": {"type": "string"}}, '
            '"required": ["name"]}.',
        ) from None
    except RecursionError:
        raise InvalidArguments("`response_schema` is nested too deeply.", fix="Flatten `response_schema`.") from None
    if not can_be_written(schema):
        raise InvalidArguments(
            "`response_schema` holds NaN, an infinite number or half a surrogate pair, which JSON can't say.",
            fix="Take them out of `response_schema`.",
        )


def read_answer(answer: str, schema: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The value that an answer stands for, and what is wrong with it; exactly one of the two is meaningful.

    A code fence around the whole answer is looked through; nothing else is guessed.
    """
    try:
        value = json.loads(_inside(answer), parse_constant=_no_json, parse_float=_finite)
    except (ValueError, RecursionError):
        return None, "it is not JSON"
    if not can_be_written(value):
        return None, "it holds half a surrogate pair"
    fault = _misfit(value, schema)
    return (value, None) if fault is None else (None, fault)


def _inside(answer: str) -> str:
    """What stands within a fence around the whole answer; the answer itself where there is none."""
    stripped = answer.strip()
    opening, line_end, rest = stripped.partition("\n")
    if not line_end or opening.rstrip() not in (FENCE, FENCE + "json") or not rest.endswith(FENCE):
        return answer
    return rest.removesuffix(FENCE)


def _no_json(word: str) -> NoReturn:
    raise ValueError(word)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value


def can_be_written(value: Any) -> bool:
    """Whether a result or a body can hold it: everything in it is JSON, and is UTF-8."""
    if isinstance(value, str):
        return value.isascii() or _is_utf8(value)  # a data URI is ASCII, and may be large: not copied
    if isinstance(value, list):
        return all(can_be_written(one) for one in cast(list[Any], value))
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Where a value breaks its schema; None: it fits."""
    from jsonschema import exceptions
    from referencing.exceptions import Unresolvable

    try:
        fault: Any = cast(Any, exceptions).best_match(_validator()(schema).iter_errors(value))
    except (Unresolvable, RecursionError):
        return "the schema refers to what it does not hold"
    except OverflowError:
        return "it holds a number beyond all bounds"
    if fault is None:
        return None
    place = "/".join(str(step) for step in fault.absolute_path)[:200] or "the whole"
    return f"{place} breaks the rule `{fault.validator}`"


@cache
def _validator() -> Any:
    """JSON schema's own validator, but for patterns that might take for ever: those are left to the provider."""
    from jsonschema import Draft202012Validator, validators

    checks: Any = cast(Any, Draft202012Validator).VALIDATORS

    def pattern(validator: Any, wanted: Any, value: Any, schema: Any) -> Any:
        if isinstance(value, str) and len(value) <= MATCHED_CHARS and is_tame(wanted):
            yield from checks["pattern"](validator, wanted, value, schema)

    def pattern_properties(validator: Any, wanted: Any, value: Any, schema: Any) -> Any:
        tame = {one: inner for one, inner in wanted.items() if is_tame(one)}
        yield from checks["patternProperties"](validator, tame, value, schema)

    own = {"pattern": pattern, "patternProperties": pattern_properties}
    return cast(Any, validators).extend(Draft202012Validator, own)


def is_tame(pattern: str) -> bool:
    """Whether matching takes no more than polynomial time: no repeat or alternative inside a repeat, no reference."""
    try:
        return _tame(cast(Any, re)._parser.parse(pattern), within_repeat=False)
    except (re.error, RecursionError, OverflowError):
        return False


def _tame(parsed: Any, *, within_repeat: bool) -> bool:
    for operation, argument in parsed:
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, body = argument
            if (most > 1 and within_repeat) or not _tame(body, within_repeat=within_repeat or most > least + 1):
                return False
        elif name == "BRANCH":
            if within_repeat or not all(_tame(branch, within_repeat=within_repeat) for branch in argument[1]):
                return False
        elif name == "SUBPATTERN":
            if not _tame(argument[-1], within_repeat=within_repeat):
                return False
        elif name in ("ASSERT", "ASSERT_NOT"):
            if not _tame(argument[1], within_repeat=within_repeat):
                return False
        elif name in ("GROUPREF", "GROUPREF_EXISTS"):
            return False
    return True
