"""Owns scenarios: steps that change how the simulator answers. Reads a scenario file; otherwise pure.

A scenario is a list of steps, in Python `Step` values or mappings, in a file JSON (`[{…}]` or `{"steps": [{…}]}`) or
TOML (`[[steps]]`). Each chat request that the strict checks let pass plays the first step that is not used up and
whose `match` fits; where none fits it is answered normally. A refused request uses no step up. An unknown key, or a
value of the wrong type, is an error that names it. No key is required:

    match            {"model": id, "text": part of the last user message, "system": part of the system message,
                      "tool": part of the tool results since the last assistant turn ("" where there are any),
                      "turns": number of assistant turns so far, such as 0,
                      "path": "/v1/models"}: without `path` only chat requests are meant
    times            how many requests it serves (1), or "always"
    unchecked        true: played before the strict checks, key included

  instead of an answer
    status           HTTP status (200); from 400 on the body is an error
    error_type, error_message      of that error (default: the documented type of that status)
    body             text or JSON in place of everything
    html             true or text: an HTML page (status 200 by default)
    headers          {name: value} on top
    retry_after      number or text of the Retry-After header: 3600, "soon"
    retry_after_date seconds from now, sent as an HTTP date
    echo_key         true: the error's message repeats the caller's key

  cutting the connection
    truncate_at      bytes after which the response ends with a clean EOF
    reset_at         … with an RST          stall_at   … nothing more comes, until the client goes
    over             "body" (default; before chunk framing) or "raw": the whole response with its headers
    framing          "chunked" (default for streams), "length" (default otherwise), "close": ended by EOF alone

  time
    delay            seconds before the first byte
    tokens_per_second   pace of the answer's tokens (default: as fast as it goes)
    token_every      one token an event, every that many seconds
    event_tokens     tokens in an event (4)
    comments_every   nothing but `: keep-alive` lines, every that many seconds, until the client goes
    comments_before  that many comment lines before the first event
    gate             name: holds until `Simulator.open_gate(name)`
    gate_at          where: "start" (default, before the headers), "head" (before the first event), "reasoning",
                     "content" (after the first event of that kind), "finish" (before finish_reason), or N: after
                     N events

  what the stream carries
    at               where the next three go: as `gate_at` ("content")
    bad_json         true: a chunk that is no JSON         invalid_utf8     true: a chunk that is no UTF-8
    error_event      {"type", "message"}: an error object, after which the stream ends
    length_in_reasoning   true: finish_reason length before any content
    lose_reasoning   true: thinks, and sends none of it   reasoning_field  another name for the field
    answer_model     the model that the answer names       empty_choices    true: no choice in any chunk
    finish_reason    for example "content_filter"          no_finish        true: ends without a finish_reason
    no_done          true: no `data: [DONE]`
    usage            "choice", "top", "both", "every" (in each chunk) or "missing" (default: the dialect's way)
    tool_call_ids    "duplicate" or "missing"              half_arguments   true: the last call's arguments are cut
    together         true: reasoning and content in the same chunks      content_first   true: content, then reasoning
    split            N: pieces of N bytes, each sent alone; "utf8": cut inside every multi-byte character

  a scripted model
    reasoning, content             sent instead of the derived text
    reasoning_tokens, content_tokens    lengthens (or cuts) it to that many tokens
    ignore_limit     true: the request's token limit does not cut it
    tool_calls       [{"name", "arguments": object or text, "id"?}]
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
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
    """What a step's match compares, taken from a request before anything is checked."""

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
    text: str | None = None
    system: str | None = None
    tool: str | None = None
    turns: int | None = None
    path: str | None = None

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
    """One step of a scenario; the module's docstring describes each key."""

    match: Match = Match()
    times: Annotated[int, Field(ge=1)] | Literal["always"] = 1
    unchecked: bool = False

    status: Count | None = None
    error_type: str | None = None
    error_message: str | None = None
    body: str | JsonObject | list[object] | None = None
    html: bool | str = False
    headers: Mapping[str, str] = {}
    retry_after: float | int | str | None = None
    retry_after_date: Seconds | None = None
    echo_key: bool = False

    truncate_at: Count | None = None
    reset_at: Count | None = None
    stall_at: Count | None = None
    over: Literal["body", "raw"] = "body"
    framing: Literal["chunked", "length", "close"] | None = None

    delay: Seconds = 0
    tokens_per_second: Seconds | None = None
    token_every: Seconds | None = None
    event_tokens: Count = 4
    comments_every: Seconds | None = None
    comments_before: Count = 0
    gate: str | None = None
    gate_at: Place | Count = "start"

    at: Place | Count = "content"
    bad_json: bool = False
    invalid_utf8: bool = False
    error_event: Mapping[str, object] | None = None
    length_in_reasoning: bool = False
    lose_reasoning: bool = False
    reasoning_field: str | None = None
    answer_model: str | None = None
    empty_choices: bool = False
    finish_reason: str | None = None
    no_finish: bool = False
    no_done: bool = False
    usage: Literal["choice", "top", "both", "every", "missing"] | None = None
    tool_call_ids: Literal["duplicate", "missing"] | None = None
    half_arguments: bool = False
    together: bool = False
    content_first: bool = False
    split: Annotated[int, Field(ge=1)] | Literal["utf8"] | None = None

    reasoning: str | None = None
    content: str | None = None
    reasoning_tokens: Count | None = None
    content_tokens: Count | None = None
    ignore_limit: bool = False
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


class Scenario:
    """The steps that are still to be played."""

    def __init__(self, steps: Iterable[StepLike] = ()) -> None:
        self._steps: list[tuple[Step, float]] = []
        """Each with the number of requests it still serves."""
        self.add(*steps)

    def add(self, *steps: StepLike) -> None:
        """Append steps."""
        made = [read_step(step, number) for number, step in enumerate(steps, len(self._steps) + 1)]
        self._steps += [(step, math.inf if step.times == "always" else step.times) for step in made]

    def clear(self) -> None:
        """Forget every step."""
        self._steps.clear()

    def take(self, request: RequestSummary, *, unchecked: bool) -> Step | None:
        """The step for a request, used up by one; None where no step is for it."""
        for index, (step, times) in enumerate(self._steps):
            if step.unchecked == unchecked and step.match.fits(request):
                if times == 1:
                    del self._steps[index]
                else:
                    self._steps[index] = (step, times - 1)
                return step
        return None
