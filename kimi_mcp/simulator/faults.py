"""Owns scenarios: steps that change how the simulator answers. Reads a scenario file; otherwise pure.

A scenario is a list of steps, in Python `Step` values or mappings, in a file JSON (`[{…}]` or `{"steps": [{…}]}`) or
TOML (`[[steps]]`). Each chat request that the strict checks let pass plays the first step that is not used up and
whose `match` fits; where none fits it is answered normally. A refused request uses no step up. An unknown key, or a
value of the wrong type, is an error that names it. No key is required; `Step`, `Match` and `ScriptedCall` list them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kimi_mcp.simulator.shapes import JsonObject, as_array, as_object

Place = Literal["start", "head", "reasoning", "content", "finish"]
"""Points of a response where it can be held or disturbed."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]

CHAT_PATH = "/v1/chat/completions"


class ScenarioError(ValueError):
    """A scenario that can't be understood; the message names the step and the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSummary:
    """A request's texts, which a step's match compares; taken from it before anything is checked."""

    path: str
    model: str = ""
    text: str = ""
    """Of the last user message."""
    system: str = ""
    """Of all system messages."""
    tool: str | None = None
    """Of the tool messages since the last assistant turn; None: there are none."""
    turns: int = 0
    """Assistant messages."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Match(_Record):
    """Which requests a step is for; what is None fits everything."""

    model: str | None = None
    text: str | None = None  # part of the last user message
    system: str | None = None  # part of the system message
    tool: str | None = None  # part of the tool results since the last assistant turn; "": there are any
    turns: int | None = None  # number of assistant turns so far
    path: str | None = None  # such as "/v1/models"; None: only chat requests are meant

    def fits(self, request: RequestSummary) -> bool:
        """Whether the step is for a request."""
        return (
            request.path == (self.path or CHAT_PATH)
            and (self.model is None or self.model == request.model)
            and (self.text is None or self.text in request.text)
            and (self.system is None or self.system in request.system)
            and (self.tool is None or (request.tool is not None and self.tool in request.tool))
            and (self.turns is None or self.turns == request.turns)
        )


def _as_text(arguments: object) -> object:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


class ScriptedCall(_Record):
    """A tool call that a scenario dictates; its arguments are JSON text, or a value that becomes that."""

    name: Annotated[str, Field(min_length=1)]
    arguments: Annotated[str, BeforeValidator(_as_text)] = "{}"
    id: str | None = None


class Step(_Record):
    """One step of a scenario."""

    match: Match = Match()
    times: Annotated[int, Field(ge=1)] | Literal["always"] = 1  # how many requests it serves
    unchecked: bool = False  # played before the strict checks, key included

    # Instead of an answer (routes.py)
    status: Count | None = None  # from 400 on the body is an error
    error_type: str | None = None  # of that error; None: the documented type of the status
    error_message: str | None = None
    body: str | JsonObject | list[object] | None = None  # in place of everything
    html: bool | str = False  # an HTML page, of status 200 by default
    headers: Mapping[str, str] = {}  # on top
    retry_after: float | int | str | None = None  # the Retry-After header: 3600, "soon"
    retry_after_date: Seconds | None = None  # from now, sent as an HTTP date
    echo_key: bool = False  # the error's message repeats the caller's key

    # Cutting the connection (http.py)
    truncate_at: Count | None = None  # bytes after which the response ends with a clean EOF
    reset_at: Count | None = None  # ... with an RST
    stall_at: Count | None = None  # ... nothing more comes, until the client goes
    over: Literal["body", "raw"] = "body"  # bytes before chunk framing, or of the whole response with its headers
    framing: Literal["chunked", "length", "close"] | None = None  # None: chunked for streams; close: ended by EOF

    # Time (playback.py)
    delay: Seconds = 0  # before the first byte
    tokens_per_second: Seconds | None = None  # None: as fast as it goes
    token_every: Seconds | None = None  # one token an event
    event_tokens: Count = 4  # tokens in an event
    comments_every: Seconds | None = None  # nothing but `: keep-alive` lines, until the client goes
    comments_before: Count = 0  # comment lines before the first event
    gate: str | None = None  # holds until `Simulator.open_gate` of that name
    gate_at: Place | Count = "start"  # before the headers; head: before the first event; N: after N events

    # What the stream carries (sse.py)
    at: Place | Count = "content"  # where the next three go: as `gate_at`; content: after its first event
    bad_json: bool = False  # a chunk that is no JSON
    invalid_utf8: bool = False  # a chunk that is no UTF-8
    error_event: Mapping[str, object] | None = None  # an error object, after which the stream ends
    length_in_reasoning: bool = False  # finish_reason length before any content
    lose_reasoning: bool = False  # thinks, and sends none of it
    reasoning_field: str | None = None  # another name for the field
    answer_model: str | None = None  # the model that the answer names
    empty_choices: bool = False  # no choice in any chunk
    finish_reason: str | None = None  # for example "content_filter"
    no_finish: bool = False  # ends without a finish_reason
    no_done: bool = False  # no `data: [DONE]`
    usage: Literal["choice", "top", "both", "every", "missing"] | None = None  # None: the dialect's way
    tool_call_ids: Literal["duplicate", "missing"] | None = None
    half_arguments: bool = False  # the last call's arguments are cut
    together: bool = False  # reasoning and content in the same chunks
    content_first: bool = False  # content, then reasoning
    split: Annotated[int, Field(ge=1)] | Literal["utf8"] | None = None  # pieces of N bytes, or cut inside characters

    # A scripted model (answers.py)
    reasoning: str | None = None  # sent instead of the derived text
    content: str | None = None
    reasoning_tokens: Count | None = None  # lengthens (or cuts) it to that many tokens
    content_tokens: Count | None = None
    ignore_limit: bool = False  # the request's token limit does not cut it
    tool_calls: Annotated[tuple[ScriptedCall, ...], Field(strict=False)] = ()

    @property
    def pace(self) -> float | None:
        """Tokens a second, or None: as fast as it goes."""
        return 1 / self.token_every if self.token_every else self.tokens_per_second

    @property
    def cut(self) -> tuple[int, Literal["truncate", "reset", "stall"]] | None:
        """After how many bytes the connection is cut, and how."""
        if self.truncate_at is not None:
            return self.truncate_at, "truncate"
        if self.reset_at is not None:
            return self.reset_at, "reset"
        return None if self.stall_at is None else (self.stall_at, "stall")


DEFAULT_STEP = Step(times="always")
"""The step of a request that no scenario is for."""

StepLike = Step | Mapping[str, object]
"""A step, or what a scenario file holds for one."""


def read_step(step: StepLike, number: int = 0) -> Step:
    """A step from its mapping; raises ScenarioError that names what is wrong."""
    if isinstance(step, Step):
        return step
    try:
        return Step.model_validate(step)
    except ValidationError as error:
        found = error.errors()
        key = found[0]["loc"][0] if found[0]["loc"] else ""
        if found[0]["type"] == "extra_forbidden":
            path = ".".join(map(str, found[0]["loc"]))
            raise ScenarioError(
                f"step {number}: unknown key {path}; known are {', '.join(sorted(Step.model_fields))}"
            ) from None
        # One error for each type that the key may have.
        wanted = " or ".join(one["msg"] for one in found if one["loc"][:1] == (key,))
        raise ScenarioError(f"step {number}: {key}: {wanted}, not {found[0]['input']!r}") from None


def load_scenario(path: Path) -> list[Step]:
    """The steps of a JSON or TOML file; raises ScenarioError."""
    try:
        text = path.read_text("utf-8")
        content: object = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from None
    table = as_object(content) or {}
    if unknown := sorted(set(table) - {"steps"}):
        raise ScenarioError(f"{path}: unknown key {', '.join(unknown)}; known is steps")
    steps = as_array(table.get("steps", content))
    if steps is None:
        raise ScenarioError(f"{path}: must hold a list of steps")
    try:
        return [read_step(cast(JsonObject, step), number) for number, step in enumerate(steps, 1)]
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None
