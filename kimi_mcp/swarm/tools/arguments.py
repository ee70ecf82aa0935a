"""The arguments of a call, as a model wrote them: read, and held against the tool's own schema. Pure, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from kimi_mcp.core.json_schema import Undecided, misfit
from kimi_mcp.core.redaction import scrub
from kimi_mcp.core.response_schema import can_be_written
from kimi_mcp.swarm.tools.output import sanitized


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidToolArguments:
    """Why a call can't be made with these arguments."""

    why: str
    """A sentence for the model."""
    repairable: bool
    """Whether other arguments may do."""


def read_arguments(text: str, schema: Mapping[str, Any], *, most_chars: int) -> dict[str, Any] | InvalidToolArguments:
    """The arguments of a call; or why they are none. Bounded in time, whatever the schema holds."""
    if len(text) > most_chars:
        return InvalidToolArguments(why=f"The arguments are longer than {most_chars:,} characters.", repairable=True)
    try:
        value: Any = json.loads(text, parse_constant=_no_json) if text.strip() else {}
    except (ValueError, RecursionError):
        return InvalidToolArguments(
            why="The arguments are not JSON. Send them once more, as one JSON object.", repairable=True
        )
    if not isinstance(value, dict):
        return InvalidToolArguments(
            why="The arguments are not a JSON object. Send them once more, as one.", repairable=True
        )
    arguments = cast(dict[str, Any], value)
    if not can_be_written(arguments):
        return InvalidToolArguments(
            why="The arguments hold half a surrogate pair or a number beyond all bounds.", repairable=True
        )
    try:
        fault = misfit(arguments, schema)
    except Undecided as unsure:
        if unsure.reason == "pattern":
            return arguments  # all that is left to check, and the tool's own server does that too
        return InvalidToolArguments(
            why="The tool's own schema is too intricate to hold the arguments against it, so it is not called.",
            repairable=False,
        )
    if fault is None:
        return arguments
    place = f"`{_told(fault.place, 200)}`" if fault.place else "the whole"
    rule = f"{fault.rule}: {_told(json.dumps(fault.wanted, ensure_ascii=False), 300)}"
    return InvalidToolArguments(
        why=f"The arguments don't fit the tool's schema: {place} breaks the rule `{rule}`. Mend them and call again.",
        repairable=True,
    )


def _told(text: str, most: int) -> str:
    """What stands in a schema or in arguments, as a sentence of ours can hold it."""
    plain = sanitized(scrub(text)).replace("`", "'").replace("\n", " ")
    return plain if len(plain) <= most else plain[:most] + "…"


def _no_json(word: str) -> NoReturn:
    raise ValueError(word)
