"""Answers that must fit a ``response_schema``: is the schema one, and does the answer fit. Pure, no I/O.

``jsonschema`` is imported on first use: most calls ask for plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from kimi_mcp.errors import InvalidArguments

_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


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


def read_answer(answer: str, schema: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The value that an answer stands for, and what is wrong with it; exactly one of the two is meaningful.

    A code fence around the whole answer is looked through; nothing else is guessed.
    """
    fenced = _FENCED.match(answer)
    try:
        value = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return None, "it is not JSON"
    fault = _misfit(value, schema)
    return (value, None) if fault is None else (None, fault)


def _misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Where a value breaks its schema; None: it fits."""
    from jsonschema import Draft202012Validator, exceptions
    from referencing.exceptions import Unresolvable

    try:
        fault: Any = cast(Any, exceptions).best_match(cast(Any, Draft202012Validator(schema)).iter_errors(value))
    except (Unresolvable, RecursionError):
        return "the schema refers to what it does not hold"
    if fault is None:
        return None
    place = "/".join(str(step) for step in fault.absolute_path) or "the whole"
    return f"{place} breaks the rule `{fault.validator}`"
