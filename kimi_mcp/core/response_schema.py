"""Answers that must fit a ``response_schema``: is the schema valid, and does the answer fit. Pure, no I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from kimi_mcp.core import json_schema
from kimi_mcp.core.errors import InvalidArguments

FENCE = "```"

_UNCHECKED: Mapping[json_schema.Reason, tuple[str, str]] = {
    "reference": ("it refers to what it does not hold", "Put what `$ref` names into `response_schema`."),
    "intricate": ("it is too intricate for an answer of this size", "Simplify `response_schema`."),
    "pattern": (
        "a `pattern` in it can't be matched in bounded time",
        "Leave that `pattern` out of `response_schema`, or write it without look-around and back-references.",
    ),
}
"""Why an answer can't be held against its schema though it is JSON, and what would help."""


class Unchecked(Exception):
    """It can't be decided whether an answer fits, and another answer would change nothing."""

    def __init__(self, reason: json_schema.Reason) -> None:
        super().__init__(reason)
        why, fix = _UNCHECKED[reason]
        self.error = InvalidArguments(
            f"The answer is JSON, but it could not be held against `response_schema`: {why}.",
            fix=f"{fix} `answer` has the text as it came.",
        )
        """The error for the caller."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise ``InvalidArguments`` where ``response_schema`` is no JSON schema, naming the place."""
    if fault := json_schema.schema_fault(schema):
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

    A code fence around the whole answer is looked through; nothing else is guessed. Raises ``Unchecked`` where it is
    undecided.
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
    """The content of a fence around the whole answer; the answer itself where there is none."""
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
    """Where a value breaks its schema; None: it fits. Raises ``Unchecked``."""
    try:
        fault = json_schema.misfit(value, schema)
    except json_schema.Undecided as unsure:
        if unsure.reason == "number":
            return "it holds a number beyond all bounds"
        raise Unchecked(unsure.reason) from None
    return None if fault is None else f"{fault.place or 'the whole'} breaks the rule `{fault.rule}`"
