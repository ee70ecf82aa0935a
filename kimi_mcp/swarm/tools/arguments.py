"""The arguments of a call, as a model wrote them: parsed, and checked against the tool's own schema. Pure, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from kimi_mcp.core.json_schema import Undecided, misfit
from kimi_mcp.core.redaction import scrub
from kimi_mcp.core.response_schema import can_be_written
from kimi_mcp.swarm.tools.output import sanitized
from kimi_mcp.swarm.tools.source import CallResult


def parse_arguments(text: str, schema: Mapping[str, Any], *, most_chars: int) -> dict[str, Any] | CallResult:
    """The arguments of a call, or why it is refused. Bounded in time, whatever the schema holds."""
    if len(text) > most_chars:
        return _unfit(f"The arguments are longer than {most_chars:,} characters.")
    try:
        value: Any = json.loads(text, parse_constant=_refuse_constant) if text.strip() else {}
    except (ValueError, RecursionError):
        return _unfit("The arguments are not JSON. Send them once more, as one JSON object.")
    if not isinstance(value, dict):
        return _unfit("The arguments are not a JSON object. Send them once more, as one.")
    arguments = cast(dict[str, Any], value)
    if not can_be_written(arguments):
        return _unfit("The arguments hold half a surrogate pair or a number beyond all bounds.")
    try:
        fault = misfit(arguments, schema)
    except Undecided as unsure:
        if unsure.reason == "pattern":
            return arguments  # all that is left to check, and the tool's own server checks that too
        return CallResult.refused(
            "The tool's own schema is too intricate to check the arguments against it, so it is not called."
        )
    if fault is None:
        return arguments
    place = f"`{_quotable(fault.place, 200)}`" if fault.place else "the whole"
    rule = f"{fault.rule}: {_quotable(json.dumps(fault.wanted, ensure_ascii=False), 300)}"
    return _unfit(f"The arguments don't fit the tool's schema: {place} breaks the rule `{rule}`. Fix and call again.")


def _unfit(why: str) -> CallResult:
    return CallResult.refused(why, repairable=True)


def _quotable(text: str, most: int) -> str:
    """A part of a schema or of arguments, as a sentence of ours can quote it."""
    plain = sanitized(scrub(text)).replace("`", "'").replace("\n", " ")
    return plain if len(plain) <= most else plain[:most] + "…"


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(word)  # NaN and the infinities are no JSON
